"""The committer: first in, first out, in bounds, through everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.errors import Fenced, LedgerUnavailable
from monitor.ledger.changes import Change, DocumentChange, Hold, Observation, TicksRead, UpdatesRead
from monitor.ledger.committer import Committer, QueueDropped
from monitor.ledger.connection import Link
from monitor.ledger.partition import Partition
from monitor.ledger.records import AccountVersion
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from tests.support.proxy import FaultProxy
from tests.support.redis import Redis
from tests.support.waiting import until

Lead = Callable[..., Awaitable[Partition]]


def see(level: Level, *, n: int = 1, tick: int = 0, account: str = "a", facts: bytes = b"{}") -> Observation:
    """An observation of one pool."""
    return Observation(account, "cross", level, None, TickPosition(1, n, tick), facts)


@asynccontextmanager
async def running(partition: Partition, **options: Any) -> AsyncIterator[Committer]:
    """A committer at work."""
    committer = Committer(partition, lease_s=options.pop("lease_s", 60.0), **options)
    task = asyncio.ensure_future(committer.run())
    try:
        yield committer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _rows(redis: Redis) -> list[tuple[str, str]]:
    events = [orjson.loads(fields[1]) for _, fields in await redis.call("XRANGE", "{0}:events", "-", "+")]
    return [(event["account"], event["level"]) for event in events]


async def test_what_is_put_is_written_in_order(lead: Lead, redis: Redis) -> None:
    """Whatever gathers during a commit goes into the next one."""
    async with running(await lead()) as committer:
        for n in range(1, 200):
            await committer.put([see(Level(n % 5), n=n, account=f"a{n % 7}")])
        await committer.flush()

    rows = await _rows(redis)
    expected, level = [], dict.fromkeys([f"a{index}" for index in range(7)], "healthy")
    for n in range(1, 200):
        account, word = f"a{n % 7}", Level(n % 5).word
        if level[account] != word:
            expected.append((account, word))
            level[account] = word
    assert rows == expected
    assert committer.statistics.commits < 100


async def test_a_burst_is_split_and_its_cursor_moves_with_its_end(lead: Lead) -> None:
    """2,500 changes of one message are three commits; before the last, the cursor stands at the message before."""
    partition = await lead()
    seen: list[tuple[int, int]] = []
    committer = Committer(partition, lease_s=60.0)
    commit = partition.commit

    async def watched(changes: Any = ()) -> Any:
        plan = await commit(changes)
        seen.append((plan.rows, plan.head.tick_n))
        return plan

    partition.commit = watched  # type: ignore[method-assign]
    await committer.put([*(see(Level.WATCH, n=7, tick=index, account=f"a{index}") for index in range(2500)), TicksRead("7-0", 1, 7)])
    task = asyncio.ensure_future(committer.run())
    await committer.flush()
    task.cancel()

    assert seen == [(1000, 0), (1000, 0), (500, 7)]


async def test_a_commit_is_split_by_size_too(lead: Lead) -> None:
    """About 1 MiB each, however few rows; one larger change goes alone."""
    facts = b'{"x":"' + b"y" * 300_000 + b'"}'
    async with running(await lead()) as committer:
        committer.put_nowait([see(Level.WATCH, account=f"a{index}", facts=facts) for index in range(10)])
        committer.put_nowait([DocumentChange("big", 1, 1, b'{"x":"' + b"y" * 3_000_000 + b'"}')])
        await committer.flush()

    assert committer.statistics.commits == 5
    assert committer.statistics.documents == 1


async def test_cursors_alone_wait_for_the_heartbeat(lead: Lead) -> None:
    """Thousands of messages without a change of level are no thousands of commits; the last cursor is written with the next one."""
    async with running(await lead()) as committer:
        for n in range(1, 5000):
            committer.put_nowait([TicksRead(f"{n}-0", 1, n)])
        await asyncio.sleep(0)
        assert (committer.statistics.commits, committer.depth) == (0, 1)

        committer.put_nowait([see(Level.WATCH, n=5000)])
        await committer.flush()
        assert (committer.statistics.commits, committer.partition.head.tick_n) == (1, 4999)


async def test_a_heartbeat_is_written_each_quarter_of_a_lease(lead: Lead) -> None:
    """Nothing to write is written too: it shows that the partition is held, and checks it."""
    async with running(await lead(), lease_s=0.2) as committer:
        await until(lambda: committer.statistics.commits >= 3)
        assert committer.may_send()
        assert committer.proven_age_s() < 0.2


async def test_sinks_keep_quiet_when_nothing_was_proven_for_half_a_lease(lead: Lead) -> None:
    """The clock of the last proof is that of its sending."""
    partition = await lead()
    now = [partition.proven_at]
    committer = Committer(partition, lease_s=4.0, clock=lambda: now[0])

    assert committer.may_send()
    now[0] += 2.01
    assert not committer.may_send()


async def test_a_deposed_committer_ends_and_says_so_to_everybody(lead: Lead) -> None:
    """Whoever puts, flushes or waits gets the reason."""
    committer = Committer(await lead(), lease_s=60.0)
    await lead(lease_s=0.0)
    committer.put_nowait([see(Level.WATCH)])
    flush = asyncio.ensure_future(committer.flush())

    with pytest.raises(Fenced):
        await committer.run()
    with pytest.raises(Fenced):
        await flush
    with pytest.raises(Fenced):
        await committer.put([see(Level.WATCH)])
    assert not committer.may_send()


async def test_verdicts_count_what_is_queued(lead: Lead) -> None:
    """The evaluator need not prepare the facts of an observation that will give no event."""
    committer = Committer(await lead(), lease_s=60.0)
    assert committer.verdict("a", "cross") == (Level.HEALTHY, None)

    committer.put_nowait([see(Level.WATCH), see(Level.LIQUIDATION, tick=1)])
    assert committer.verdict("a", "cross") == (Level.LIQUIDATION, None)

    task = asyncio.ensure_future(committer.run())
    await committer.flush()
    task.cancel()
    assert committer.verdict("a", "cross") == (Level.LIQUIDATION, None)
    assert committer._latest == {}


async def test_versions_count_what_is_queued(lead: Lead) -> None:
    """A copy of a document that is still queued is known as one."""
    committer = Committer(await lead(), lease_s=60.0)
    assert committer.version("a") is None

    committer.put_nowait([DocumentChange("a", 1, 1, b"{}"), DocumentChange("a", 1, 2, b"[]"), Hold("a", "poisoned")])
    expected = AccountVersion.of(1, 2, b"[]", "poisoned")
    assert committer.version("a") == expected

    task = asyncio.ensure_future(committer.run())
    await committer.flush()
    task.cancel()
    assert committer.version("a") == expected
    assert committer._versions == {}


async def test_a_full_queue_waits_while_the_ledger_answers(lead: Lead) -> None:
    """Back-pressure: a reconcile of many pools does not fill the memory."""
    async with running(await lead(), high_bytes=50_000) as committer:
        most = 0
        for n in range(1, 100):
            await committer.put([see(Level(1 + n % 4), n=n, tick=index, account=f"a{index}") for index in range(100)])
            most = max(most, committer.queued_bytes)
        await committer.flush()

    assert most < 50_000 + 100 * 500


async def test_a_queue_past_its_limit_is_dropped_and_made_again(lead: Lead, redis: Redis, tmp_path: Path) -> None:
    """While the ledger is away evaluation goes on, until the limit; then the tick log is the memory. No row is lost, none comes twice."""
    tape: list[list[Change]] = [[see(Level(1 + n % 4), n=n, account=f"a{n % 3}"), TicksRead(f"{n}-0", 1, n)] for n in range(1, 400)]
    async with FaultProxy(tmp_path / "proxy.sock", str(redis.server.socket)).running() as proxy:
        partition = await lead(link=Link(proxy.endpoint, timeout_s=0.2))
        async with running(partition, high_bytes=20_000, limit_bytes=50_000) as committer:
            for message in tape[:50]:
                await committer.put(message)
            await committer.flush()
            await redis.server.kill()
            with pytest.raises(QueueDropped):  # noqa: PT012
                for message in tape[50:]:
                    await committer.put(message)
                    await asyncio.sleep(0)
            assert committer.queued_bytes < 60_000
            with pytest.raises(QueueDropped):
                await committer.put(tape[-1])

            await redis.server.start()
            await committer.settled()
            committer.resume()
            for message in tape[partition.head.tick_n :]:
                await committer.put(message)
            await committer.flush()

    assert committer.statistics.queue_drops == 1
    assert committer.statistics.dropped_changes > 0
    assert await _rows(redis) == [(f"a{n % 3}", Level(1 + n % 4).word) for n in range(1, 400)]


async def test_those_who_listen_are_woken_by_rows_only(lead: Lead) -> None:
    """A heartbeat wakes no sink."""
    event = asyncio.Event()
    async with running(await lead()) as committer:
        committer.listen(event)
        committer.put_nowait([UpdatesRead("1-0")])
        await committer.flush()
        assert not event.is_set()

        committer.put_nowait([see(Level.WATCH)])
        await committer.flush()
        assert event.is_set()

        event.clear()
        committer.unlisten(event)
        committer.put_nowait([see(Level.HEALTHY, n=2)])
        await committer.flush()
        assert not event.is_set()


async def test_what_waits_takes_no_more_memory_than_is_counted(lead: Lead) -> None:
    """The limit of the queue is a promise about memory: bytes as orjson makes them would take twice as much and more."""
    partition = await lead()
    committer = Committer(partition, lease_s=60.0)
    partition.fault = LedgerUnavailable("away")
    facts = {"positions": ["x" * 200] * 9}

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    for n in range(15_000):
        committer.put_nowait([see(Level(n % 2 + 1), n=n, facts=orjson.dumps(facts))])

    assert committer.queued_bytes > 30 << 20
    assert resident() - before < 1.25 * committer.queued_bytes
