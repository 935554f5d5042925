"""Housekeeping: bounds that lose nothing unseen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson

from monitor.ledger.changes import DeadLetter, Observation, UpdatesRead
from monitor.ledger.committer import Committer
from monitor.ledger.cursors import SinkWorker, register_sink
from monitor.ledger.housekeeping import Housekeeper
from monitor.ledger.partition import Partition
from monitor.ledger.verify import verify_partition
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from monitor.wire.rows import Delivered, Delivery, Row, Unavailable
from tests.support.redis import Redis
from tests.support.waiting import until

Lead = Callable[..., Awaitable[Partition]]


class _Receiver:
    def __init__(self, answer: Delivery) -> None:
        self.answer = answer
        self.rows: list[int] = []

    async def deliver(self, row: Row) -> Delivery:
        self.rows.append(row.seq)
        return self.answer


@asynccontextmanager
async def _running(partition: Partition) -> AsyncIterator[Committer]:
    committer = Committer(partition, lease_s=60.0)
    task = asyncio.ensure_future(committer.run())
    try:
        yield committer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _fill(committer: Committer, count: int) -> None:
    for n in range(count):
        facts = b'{"x":"' + b"y" * 200 + b'"}'
        committer.put_nowait([Observation(f"a{n}", "cross", Level.WATCH, None, TickPosition(1, n, 0), facts)])
    await committer.flush()


def _worker(redis: Redis, name: str, answer: Delivery = Delivered()) -> SinkWorker:  # noqa: B008
    return SinkWorker(redis.link(), 0, name, _Receiver(answer), first_pause_s=0.01, longest_pause_s=60.0)


async def test_what_everybody_has_is_trimmed_and_the_chain_still_holds(lead: Lead, redis: Redis) -> None:
    """Up to the slowest sink, and not the rows kept for readers."""
    async with _running(await lead()) as committer:
        fast, slow = _worker(redis, "fast"), _worker(redis, "slow")
        await _fill(committer, 100)
        ids = [entry.decode() for entry, _ in await redis.call("XRANGE", "{0}:events", "-", "+")]
        await redis.call("HSET", "{0}:sinks", "fast", ids[99], "slow", ids[59], "gone", ids[3])
        keeper = Housekeeper(redis.link(), committer, [fast, slow], retain_events=20)
        await keeper.round()
        assert (await redis.call("XLEN", "{0}:events"), committer.partition.head.trim) == (40, 60)

        await redis.call("HSET", "{0}:sinks", "slow", ids[99])
        await keeper.round()
        assert (await redis.call("XLEN", "{0}:events"), committer.partition.head.trim) == (20, 80)
        report = await verify_partition(redis.link(), 0)

    assert (report.faults, report.rows, report.trimmed) == ([], 20, 80)
    assert keeper.statistics.trimmed == 80


async def test_a_sink_without_a_cursor_holds_everything(lead: Lead, redis: Redis) -> None:
    """It is configured, so it is waited for."""
    async with _running(await lead()) as committer:
        await _fill(committer, 50)
        await Housekeeper(redis.link(), committer, [_worker(redis, "new")], retain_events=0).round()

        assert await redis.call("XLEN", "{0}:events") == 50


async def test_updates_that_were_taken_in_are_trimmed(lead: Lead, redis: Redis) -> None:
    """Those before the cursor."""
    async with _running(await lead()) as committer:
        ids = [(await redis.call("XADD", "{0}:updates", "*", "u", "{}")).decode() for _ in range(10)]
        await committer.put([UpdatesRead(ids[6])])
        await committer.flush()
        await Housekeeper(redis.link(), committer, []).round()

        assert [entry.decode() for entry, _ in await redis.call("XRANGE", "{0}:updates", "-", "+")] == ids[6:]


async def test_dead_letters_are_bounded_and_counted(lead: Lead, redis: Redis) -> None:
    """Never silently: what was dropped is a number in the metrics."""
    async with _running(await lead()) as committer:
        await committer.put([DeadLetter("updates", "not JSON", b"{", f"{n}-0") for n in range(30)])
        await committer.flush()
        keeper = Housekeeper(redis.link(), committer, [], retain_dead=10)
        await keeper.round()

        assert (await redis.call("XLEN", "{0}:dead"), keeper.statistics.dead_letters_dropped, keeper.statistics.dead_letters) == (
            10,
            20,
            30,
        )


async def test_the_backlog_of_a_dead_sink_goes_to_a_file_before_memory_is_full(lead: Lead, redis: Redis, tmp_path: Path) -> None:
    """One dead letter says where; the others go on; the sink goes on behind it when it comes back."""
    async with _running(await lead()) as committer:
        for name in ("dead", "alive"):
            await register_sink(redis.link(), 0, name)
        dead, alive = _worker(redis, "dead", Unavailable("down")), _worker(redis, "alive")
        tasks = [asyncio.ensure_future(worker.run()) for worker in (dead, alive)]
        await _fill(committer, 3000)
        await until(lambda: alive.statistics.seq == 3000)
        keeper = Housekeeper(redis.link(), committer, [dead, alive], retain_events=100, spill_folder=tmp_path / "spill")
        await keeper.round()
        assert (keeper.statistics.spilled, await redis.call("XLEN", "{0}:events")) == (0, 3000)

        info = (await redis.call("INFO", "memory")).decode()
        used = int(info.split("used_memory:")[1].split()[0])
        await redis.call("CONFIG", "SET", "maxmemory", int(used / 0.75))
        await keeper.round()
        await redis.call("CONFIG", "SET", "maxmemory", 0)

        assert keeper.statistics.spilled == 3000
        (path,) = (tmp_path / "spill").iterdir()
        bodies = [orjson.loads(line) for line in path.read_bytes().splitlines()]
        assert [body["account"] for body in bodies] == [f"a{n}" for n in range(3000)]
        ((_, fields),) = await redis.call("XRANGE", "{0}:dead", "-", "+")
        assert str(path).encode() in fields[3]
        assert await redis.call("XLEN", "{0}:events") == 100
        assert dead.place is not None
        assert dead.place.startswith("3000-")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_round_that_fails_is_counted_and_the_next_one_works(lead: Lead, redis: Redis) -> None:
    """Redis away for a while."""
    async with _running(await lead()) as committer:
        await _fill(committer, 10)
        steps = 0

        async def doze(_seconds: float) -> None:
            nonlocal steps
            steps += 1
            if steps == 1:
                await redis.server.start()
            if steps == 2:
                raise EOFError

        keeper = Housekeeper(redis.link(), committer, [], retain_events=4, doze=doze)
        await redis.server.kill()
        with contextlib.suppress(EOFError):
            await keeper.run()

    assert (keeper.statistics.failures, keeper.statistics.trimmed) == (1, 6)
