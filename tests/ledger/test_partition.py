"""One partition: taking it, writing it, and finding out what became of a write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.errors import Fenced, LedgerBroken, LedgerUnavailable
from monitor.ledger.changes import Anchor, DeadLetter, DocumentChange, Hold, Observation, TicksRead, UpdatesRead
from monitor.ledger.connection import Link
from monitor.ledger.head import FIELDS, Head
from monitor.ledger.holder import holder_name
from monitor.ledger.identity import identify
from monitor.ledger.partition import Partition, TailLost
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from tests.support.proxy import FaultProxy
from tests.support.redis import Redis

Lead = Callable[..., Awaitable[Partition]]


def see(level: Level, *, n: int = 1, account: str = "a") -> Observation:
    """An observation of one pool."""
    return Observation(account, "cross", level, None, TickPosition(1, n, 0), b'{"equity":"5"}')


async def _head(redis: Redis) -> Head:
    head = Head.read(await redis.call("HMGET", "{0}:head", *FIELDS), 0)
    assert head is not None
    return head


async def _events(redis: Redis) -> list[dict[str, Any]]:
    return [orjson.loads(fields[1]) for _, fields in await redis.call("XRANGE", "{0}:events", "-", "+")]


# Holding


async def test_an_empty_partition_is_taken_at_once(lead: Lead, redis: Redis) -> None:
    """No lease is waited for when nobody holds it."""
    began = time.monotonic()
    partition = await lead(lease_s=60.0)

    assert time.monotonic() - began < 5.0
    head = await _head(redis)
    assert (head.holder, head.batch, head.n) == (partition.holder, 0, 1)


async def test_the_token_rises_with_each_term_and_follows_the_clock(lead: Lead) -> None:
    """It is at least the wall clock in ms, so it is not given out again when the ledger lost its tail; a clock set back does no harm."""
    first = await lead(wall_ms=lambda: 5_000)
    await first.release()
    second = await lead(wall_ms=lambda: 4_000)

    assert first.state is None
    assert second.head.token == 5_002  # 5,000 at take-over, 5,001 at release


async def test_a_second_one_waits_for_a_whole_lease_without_a_write(lead: Lead) -> None:
    """As long as the holder writes, however rarely, the other waits; when it stops, the lease runs from the last write."""
    holder = await lead()
    clock = [0.0]
    steps: list[float] = []

    async def doze(seconds: float) -> None:
        steps.append(seconds)
        clock[0] += seconds
        if len(steps) == 10:  # half a lease is over
            await holder.commit()

    standby = await lead(held=False, clock=lambda: clock[0], doze=doze)
    await standby.lead(1.0)

    assert 1.5 <= clock[0] < 1.7
    with pytest.raises(Fenced):
        await holder.commit([see(Level.WATCH)])


async def test_a_paused_standby_deposes_nobody_by_mistake(lead: Lead) -> None:
    """It saw the head an hour ago by its own clock; before it takes over it reads again and finds that the holder is alive."""
    holder = await lead()
    clock = [0.0]
    dozes = 0

    async def doze(seconds: float) -> None:
        nonlocal dozes
        dozes += 1
        clock[0] += 3600.0 if dozes == 1 else seconds
        if dozes == 1:
            await holder.commit()
        await asyncio.sleep(0)
        if dozes == 5:
            raise EOFError

    standby = await lead(held=False, clock=lambda: clock[0], doze=doze)
    with pytest.raises(EOFError):
        await standby.lead(2.0)

    await holder.commit([see(Level.WATCH)])
    assert holder.statistics.fenced == 0


async def test_a_holder_that_wrote_at_the_last_moment_stays(lead: Lead, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look that found the lease over and the acquire, the holder wrote: it is not deposed."""
    holder = await lead()
    standby = await lead(held=False)
    look = standby._look
    looks = 0

    async def late(wire: Any) -> Any:
        nonlocal looks
        looks += 1
        found = await look(wire)
        if looks <= 3:
            await holder.commit()
        return found

    monkeypatch.setattr(standby, "_look", late)
    await standby.lead(0.0)

    assert looks == 4


async def test_proof_is_as_old_as_the_sending(lead: Lead, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that took long proves that the partition was held at some moment after the sending, not when it came."""
    now = [100.0]
    partition = await lead(clock=lambda: now[0])
    transact = partition._transact

    async def slow(*arguments: Any) -> bool:
        now[0] += 7.0
        return await transact(*arguments)

    monkeypatch.setattr(partition, "_transact", slow)
    await partition.commit()

    assert (partition.proven_at, now[0]) == (100.0, 107.0)


async def test_a_holder_that_died_on_this_machine_is_followed_at_once(redis: Redis, lead: Lead) -> None:
    """Its process is provably gone: there is no lease to wait for."""
    child = await asyncio.create_subprocess_exec(
        "python3", "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from monitor.ledger.holder import holder_name; print(holder_name())",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    name = (await child.communicate())[0].decode().strip()
    dead = Partition(redis.link(), 0, holder=name, ledger=await identify(redis.link(), 1), partitions=1)
    await dead.lead(60.0)

    async with asyncio.timeout(5.0):
        await lead(lease_s=60.0)
    with pytest.raises(Fenced):
        await dead.commit()
    dead.close()


async def test_a_living_holder_of_this_machine_is_waited_for(redis: Redis, lead: Lead) -> None:
    """Its process is there: the lease counts."""
    alive = Partition(redis.link(), 0, holder=holder_name(), ledger=await identify(redis.link(), 1), partitions=1)
    await alive.lead(60.0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await lead(lease_s=60.0)
    await alive.commit()
    alive.close()


async def test_a_released_partition_is_taken_at_once(lead: Lead) -> None:
    """Shutdown leaves no lease to wait for."""
    first = await lead()
    await first.commit([see(Level.WATCH)])
    await first.release()

    async with asyncio.timeout(5.0):
        second = await lead(lease_s=60.0)
    assert second.head.seq == 1
    assert second.state is not None
    assert second.state.levels["a/cross"].level is Level.WATCH


async def test_a_deposed_holder_writes_nothing(lead: Lead, redis: Redis) -> None:
    """Not by a commit, not by a release; it learns that it is fenced."""
    old = await lead()
    await lead(lease_s=0.0)

    with pytest.raises(Fenced):
        await old.commit([see(Level.LIQUIDATION)])
    with pytest.raises(Fenced):
        await old.release()
    assert await _events(redis) == []


async def test_of_two_at_once_one_holds_it(lead: Lead, redis: Redis) -> None:
    """Twenty rounds of two that take an unheld partition at the same moment: one wins, the other waits and sees it held."""
    for _ in range(20):
        one, other = await lead(held=False), await lead(held=False)
        tasks = [asyncio.ensure_future(partition.lead(60.0)) for partition in (one, other)]
        done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=5.0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert len(done) == 1
        winner = one if tasks[0] in done else other
        assert (await _head(redis)).holder == winner.holder
        await winner.commit()
        await winner.release()


async def test_another_ledger_is_not_written_to(lead: Lead, redis: Redis) -> None:
    """A partition of another name or number of partitions is refused."""
    await (await lead()).release()

    for ledger, partitions in (("another", 1), ((await _head(redis)).ledger, 64)):
        stranger = Partition(redis.link(), 0, holder="x", ledger=ledger, partitions=partitions)
        with pytest.raises(LedgerBroken, match="belongs to ledger"):
            await stranger.lead(60.0)


# Writing


async def test_a_commit_is_all_of_it(lead: Lead, redis: Redis) -> None:
    """Rows, records, dead letters and cursors stand there together."""
    partition = await lead()

    plan = await partition.commit(
        [
            DocumentChange("a", 1, 1, b'{"account":1}'),
            see(Level.WATCH),
            DeadLetter("updates", "not JSON", b"{", "6-0"),
            UpdatesRead("7-0"),
            TicksRead("5-0", 1000, 3),
        ]
    )

    head = await _head(redis)
    assert head == plan.head == partition.head
    assert (head.seq, head.accounts, head.levels, head.updates, head.ticks, head.tick_n) == (1, 1, 1, "7-0", "5-0", 3)
    (event,) = await _events(redis)
    assert (event["account"], event["level"], event["equity"]) == ("a", "watch", "5")
    assert (await redis.exchange(("HLEN", "{0}:accounts"), ("HLEN", "{0}:levels"), ("XLEN", "{0}:dead"))) == [1, 1, 1]


async def test_an_empty_commit_is_a_heartbeat(lead: Lead) -> None:
    """It moves n and batch, and proves that the partition is still held."""
    partition = await lead()
    before, proven = partition.head, partition.proven_at

    await partition.commit()

    assert (partition.head.n, partition.head.batch, partition.head.seq) == (before.n + 1, before.batch + 1, before.seq)
    assert partition.proven_at > proven


async def test_a_hold_keeps_the_stored_document(lead: Lead) -> None:
    """The record is rewritten with the document that stood there, also after a restart of the holder."""
    first = await lead()
    await first.commit([DocumentChange("a", 1, 1, b'{"account":1}')])
    await first.commit([Hold("a", "not JSON")])
    await first.release()

    second = await lead(held=False)
    await second.lead(60.0)
    found: list[tuple[str, bytes | None, str | None]] = []
    loaded = await second.load(lambda *record: found.append(record))

    assert found == [("a", b'{"account":1}', "not JSON")]
    assert loaded.complaint is None


@pytest.mark.parametrize("action", ["cut_reply", "drop_request", "hold"])
async def test_a_commit_of_unknown_outcome_is_written_once(lead: Lead, redis: Redis, tmp_path: Path, action: str) -> None:
    """The answer is lost, the request is lost, or the request arrives after the time-out, in the middle of settling: one row."""
    async with FaultProxy(tmp_path / "proxy.sock", str(redis.server.socket)).running() as proxy:
        partition = await lead(link=Link(proxy.endpoint, timeout_s=0.3))
        proxy.arm(action)
        await partition.commit([see(Level.WATCH)])
        await partition.commit([see(Level.LIQUIDATION, n=2)])

    assert proxy.struck == 1
    assert [event["level"] for event in await _events(redis)] == ["watch", "liquidation"]
    statistics = partition.statistics
    found = (statistics.settled_applied, statistics.settled_again)
    assert found in {"cut_reply": [(1, 0)], "drop_request": [(0, 1)], "hold": [(0, 1), (1, 0)]}[action]
    assert (statistics.rows, statistics.commits) == (2, 2)


async def test_bytes_that_arrive_after_everything_was_settled_do_nothing(lead: Lead, redis: Redis, tmp_path: Path) -> None:
    """The level has moved back meanwhile: the late margin call must not be written. A plain read would have let it through."""
    late = asyncio.Event()
    async with FaultProxy(tmp_path / "proxy.sock", str(redis.server.socket)).running() as proxy:
        partition = await lead(link=Link(proxy.endpoint, timeout_s=0.2))
        proxy.arm("hold", hold_until=late)
        commit = asyncio.ensure_future(partition.commit([see(Level.MARGIN_CALL)]))
        await proxy.closed_by_client.wait()
        await commit
        await partition.commit([see(Level.HEALTHY, n=2)])
        before = await _head(redis)
        late.set()
        await asyncio.sleep(0.05)

    assert await _head(redis) == before
    assert [event["level"] for event in await _events(redis)] == ["margin_call", "healthy"]


async def test_an_unknown_outcome_of_settling_is_settled_too(lead: Lead, redis: Redis, tmp_path: Path) -> None:
    """The answer to the commit is lost, and then those to two acquires."""
    async with FaultProxy(tmp_path / "proxy.sock", str(redis.server.socket)).running() as proxy:
        partition = await lead(link=Link(proxy.endpoint, timeout_s=0.3))

        async def strike_again() -> None:
            for action in ("drop_request", "cut_reply"):
                struck = proxy.struck
                while proxy.struck == struck:
                    await asyncio.sleep(0)
                proxy.arm(action)

        proxy.arm("cut_reply")
        again = asyncio.ensure_future(strike_again())
        await partition.commit([see(Level.WATCH)])
        again.cancel()

    assert proxy.struck >= 2
    assert [event["level"] for event in await _events(redis)] == ["watch"]


async def test_a_cancelled_commit_is_in_doubt_until_it_is_settled(lead: Lead, redis: Redis, tmp_path: Path) -> None:
    """Cancelling does not wait; settling says what became of it."""
    async with FaultProxy(tmp_path / "proxy.sock", str(redis.server.socket)).running() as proxy:
        partition = await lead(link=Link(proxy.endpoint, timeout_s=5.0))
        proxy.arm("hold", hold_until=asyncio.Event())
        commit = asyncio.ensure_future(partition.commit([see(Level.WATCH)]))
        while not proxy.struck:
            await asyncio.sleep(0)
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
        assert partition.in_doubt is not None

        assert await partition.settle() is None
        await partition.commit([see(Level.WATCH)])

    assert len(await _events(redis)) == 1


async def test_a_cancelled_commit_that_was_applied_is_found(lead: Lead, redis: Redis, tmp_path: Path) -> None:
    """Release settles it first: nothing is in doubt afterwards, and the next holder goes on behind it."""
    async with FaultProxy(tmp_path / "proxy.sock", str(redis.server.socket)).running() as proxy:
        partition = await lead(link=Link(proxy.endpoint, timeout_s=5.0))
        proxy.arm("cut_reply")
        commit = asyncio.ensure_future(partition.commit([see(Level.WATCH)]))
        while not proxy.struck:
            await asyncio.sleep(0)
        commit.cancel()
        await asyncio.gather(commit, return_exceptions=True)
        await partition.release()

    assert partition.statistics.settled_applied + partition.statistics.settled_again == 1
    successor = await lead()
    await successor.commit([see(Level.WATCH)])
    assert len(await _events(redis)) == 1


async def test_it_goes_on_through_an_outage(lead: Lead, redis: Redis, tmp_path: Path) -> None:
    """A commit begun while Redis is away is written once it is back; the fault is there to be seen meanwhile."""
    partition = await lead()
    await redis.server.kill()
    commit = asyncio.ensure_future(partition.commit([see(Level.WATCH)]))
    while partition.fault is None:
        await asyncio.sleep(0)
    await redis.server.start()
    await commit

    assert partition.fault is None
    assert [event["level"] for event in await _events(redis)] == ["watch"]


async def test_full_memory_is_no_false_success(lead: Lead, redis: Redis) -> None:
    """Nothing of the commit is written until there is room again."""
    partition = await lead()
    await redis.call("CONFIG", "SET", "maxmemory", "1")
    commit = asyncio.ensure_future(partition.commit([see(Level.WATCH)]))
    while partition.statistics.failures.get("OOM", 0) < 2:
        await asyncio.sleep(0.01)
    assert not commit.done()
    assert await redis.call("XLEN", "{0}:events") == 0

    await redis.call("CONFIG", "SET", "maxmemory", "0")
    await commit
    assert len(await _events(redis)) == 1


async def test_full_memory_is_relieved_by_trimming_what_may_go(lead: Lead, redis: Redis) -> None:
    """XTRIM passes where nothing else does: rows before the committed anchor go."""
    partition = await lead()
    for level in (Level.WATCH, Level.MARGIN_CALL, Level.LIQUIDATION):
        await partition.commit([see(level, n=level)])
    second = await redis.call("XRANGE", "{0}:events", "2", "2")
    await partition.commit([Anchor(2, second[0][1][3].decode())])
    await redis.call("CONFIG", "SET", "maxmemory", "1")
    commit = asyncio.ensure_future(partition.commit([see(Level.HEALTHY, n=9)]))
    while await redis.call("XLEN", "{0}:events") != 1:
        await asyncio.sleep(0.01)
    await redis.call("CONFIG", "SET", "maxmemory", "0")
    await commit

    assert [event["level"] for event in await _events(redis)] == ["liquidation", "healthy"]


async def test_a_failure_inside_a_transaction_stops_everything(lead: Lead, redis: Redis) -> None:
    """Redis does not roll back: the ledger is not what the protocol allows, and a person has to look."""
    partition = await lead()
    await redis.call("SET", "{0}:levels", "a string")

    with pytest.raises(LedgerBroken, match="the rest was written"):
        await partition.commit([see(Level.WATCH)])


async def test_a_lost_tail_is_noticed(lead: Lead, redis: Redis, tmp_path: Path) -> None:
    """The ledger stands behind what it had acknowledged: what is in memory is worth nothing."""
    partition = await lead()
    old = await redis.call("HGETALL", "{0}:head")
    await partition.commit([see(Level.WATCH)])
    await redis.exchange(("HSET", "{0}:head", *old), ("DEL", "{0}:events"), ("DEL", "{0}:levels"))

    with pytest.raises(TailLost, match="batch 1 was committed, but the ledger stands at 0"):
        await partition.commit([see(Level.LIQUIDATION)])


async def test_a_row_that_is_not_the_heads_is_noticed(lead: Lead, redis: Redis) -> None:
    """After each doubt the end of the events is compared with the head: a half transaction that came back stops everything."""
    partition = await lead()
    await partition.commit([see(Level.WATCH)])
    await redis.exchange(("XADD", "{0}:events", "2-1", "e", "{}", "h", "x"), ("HSET", "{0}:head", "x", "y"))

    with pytest.raises(LedgerBroken, match="ends at row 2, the head at 1"):
        await partition.commit([see(Level.LIQUIDATION)])


async def test_an_emptied_ledger_is_noticed(lead: Lead, redis: Redis) -> None:
    """FLUSHALL under a running daemon: nothing is written into the void."""
    partition = await lead()
    await partition.commit([see(Level.WATCH)])
    await redis.call("FLUSHALL")

    with pytest.raises(TailLost, match="empty"):
        await partition.commit([see(Level.LIQUIDATION)])
    assert await redis.call("DBSIZE") == 0


async def test_trimming_removes_only_what_the_anchor_allows(lead: Lead, redis: Redis) -> None:
    """Events up to the anchor and updates before the cursor; repeating it does nothing."""
    partition = await lead()
    for n in range(1, 6):
        await partition.commit([see(Level(n % 5), n=n)])
    for _ in range(4):
        await redis.call("XADD", "{0}:updates", "*", "u", "{}")
    ids = [entry.decode() for entry, _ in await redis.call("XRANGE", "{0}:updates", "-", "+")]
    third = await redis.call("XRANGE", "{0}:events", "3", "3")
    await partition.commit([Anchor(3, third[0][1][3].decode()), UpdatesRead(ids[2])])
    wire = await redis.link().open()

    assert await partition.trim(wire) == 3 + 2
    assert await partition.trim(wire) == 0
    wire.close()
    assert [event["id"].partition("-")[0] for event in await _events(redis)] == ["0/4", "0/5"]
    assert await redis.call("XLEN", "{0}:updates") == 2


async def test_release_while_redis_is_away_gives_up(lead: Lead, redis: Redis) -> None:
    """One attempt: shutdown does not hang; the lease runs out by itself."""
    partition = await lead()
    await redis.server.kill()

    with pytest.raises(LedgerUnavailable):
        await partition.release()
