"""Sink workers: in order, at least once, and no sink waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from monitor.errors import LedgerBroken
from monitor.ledger.changes import Anchor, Observation
from monitor.ledger.connection import Link
from monitor.ledger.cursors import SinkWorker, read_cursors, register_sink
from monitor.ledger.partition import Partition
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable
from tests.support.proxy import FaultProxy
from tests.support.redis import Redis
from tests.support.waiting import until

Lead = Callable[..., Awaitable[Partition]]


class Receiver:
    """A sink that keeps what it gets and answers what the test wants."""

    def __init__(self, answer: Callable[[Row], Delivery] = lambda _row: Delivered()) -> None:
        self.answer = answer
        self.rows: list[int] = []
        self.attempts = 0

    async def deliver(self, row: Row) -> Delivery:
        """Keeps the row when the answer is delivered."""
        self.attempts += 1
        result = self.answer(row)
        if isinstance(result, Delivered):
            self.rows.append(row.seq)
        return result


async def _commit(partition: Partition, first: int, count: int) -> None:
    await partition.commit(
        [Observation(f"a{n}", "cross", Level.WATCH, None, TickPosition(1, n, 0), b"{}") for n in range(first, first + count)]
    )


async def _cursor(redis: Redis, name: str = "sink") -> int:
    wire = await redis.link().open()
    cursors = await read_cursors(wire, 0)
    wire.close()
    return int(cursors[name].partition("-")[0]) if name in cursors else -1


@asynccontextmanager
async def working(redis: Redis, receiver: Receiver, name: str = "sink", **options: Any) -> AsyncIterator[SinkWorker]:
    """A worker at work; it stores its place at the end."""
    await register_sink(redis.link(), 0, name)
    worker = SinkWorker(redis.link(), 0, name, receiver, first_pause_s=0.01, **options)
    task = asyncio.ensure_future(worker.run())
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if redis.server.pid is not None:
            await worker.finish()


async def test_rows_come_in_order_and_once(lead: Lead, redis: Redis) -> None:
    """Those that are there, and those that are committed later, each time woken."""
    partition, receiver = await lead(), Receiver()
    await register_sink(redis.link(), 0, "sink")
    await _commit(partition, 0, 250)
    async with working(redis, receiver) as worker:
        await until(lambda: len(receiver.rows) == 250)
        await _commit(partition, 250, 5)
        worker.wake.set()
        await until(lambda: len(receiver.rows) == 255, within_s=0.4)

    assert receiver.rows == list(range(1, 256))
    assert await _cursor(redis) == 255


class Batches(Receiver):
    """A sink that takes several rows at once, and of a batch as many as it says."""

    def __init__(self, take: Callable[[int], int], answer: Callable[[Row], Delivery] = lambda _row: Delivered()) -> None:
        super().__init__(answer)
        self.batch_rows = 16
        self.sizes: list[int] = []
        self._take = take

    async def deliver_batch(self, rows: Sequence[Row]) -> int:
        """Keeps the first ones."""
        self.sizes.append(len(rows))
        taken = self._take(len(rows))
        self.rows += [row.seq for row in rows[:taken]]
        return taken


async def test_a_sink_that_takes_batches_gets_them_in_order_and_once(lead: Lead, redis: Redis) -> None:
    """At most so many at once; the cursor is behind the last one."""
    partition, receiver = await lead(), Batches(lambda size: size)
    await register_sink(redis.link(), 0, "sink")
    await _commit(partition, 0, 250)
    async with working(redis, receiver) as worker:
        await until(lambda: len(receiver.rows) == 250)

    assert receiver.rows == list(range(1, 251))
    assert max(receiver.sizes) == 16
    assert worker.statistics.delivered == 250
    assert await _cursor(redis) == 250


async def test_what_a_batch_does_not_take_is_offered_alone(lead: Lead, redis: Redis) -> None:
    """Of every batch only the first three are taken: the fourth goes alone, and can be refused; all have their turn, in order."""
    receiver = Batches(lambda _size: 3, lambda row: Refused("rude") if row.seq == 4 else Delivered())
    partition = await lead()
    await register_sink(redis.link(), 0, "sink")
    await _commit(partition, 0, 40)
    async with working(redis, receiver) as worker:
        await until(lambda: worker.statistics.seq == 40)
    refusing = Batches(lambda _size: 0)
    await register_sink(redis.link(), 0, "other")
    await _commit(partition, 40, 5)
    async with working(redis, refusing, "other"):
        await until(lambda: len(refusing.rows) == 5)

    assert receiver.rows == [seq for seq in range(1, 41) if seq != 4]
    assert refusing.rows == list(range(41, 46))
    assert await redis.call("XLEN", "{0}:dead") == 1


async def test_a_worker_goes_on_where_the_last_one_was(lead: Lead, redis: Redis) -> None:
    """The stored cursor counts, not what the process remembers."""
    partition = await lead()
    await register_sink(redis.link(), 0, "sink")
    await _commit(partition, 0, 10)
    first, second = Receiver(), Receiver()
    async with working(redis, first):
        await until(lambda: len(first.rows) == 10)
    await _commit(partition, 10, 10)
    async with working(redis, second):
        await until(lambda: len(second.rows) == 10)

    assert second.rows == list(range(11, 21))


async def test_a_new_sink_begins_with_what_comes(lead: Lead, redis: Redis) -> None:
    """Yesterday's margin calls are not sent to a receiver that was set up today; also when all of them are trimmed."""
    partition = await lead()
    await _commit(partition, 0, 10)
    assert (await register_sink(redis.link(), 0, "sink")).startswith("10-")

    await partition.commit([Anchor(10, partition.head.hash)])
    await redis.call("XTRIM", "{0}:events", "MAXLEN", "=", 0)
    assert await register_sink(redis.link(), 0, "other") == "10-0"
    await _commit(partition, 10, 1)
    receiver = Receiver()
    async with working(redis, receiver, "other"):
        await until(lambda: receiver.rows == [11])


async def test_a_registered_sink_keeps_its_place(lead: Lead, redis: Redis) -> None:
    """Registering again changes nothing."""
    partition = await lead()
    first = await register_sink(redis.link(), 0, "sink")
    await _commit(partition, 0, 10)

    assert await register_sink(redis.link(), 0, "sink") == first == "0-0"


async def test_an_unavailable_receiver_is_tried_for_ever_and_delays_nobody(lead: Lead, redis: Redis) -> None:
    """Nothing is parked: when it comes back it gets everything in order; the other sink has long had it."""
    partition = await lead()
    answers: list[Delivery] = [Unavailable("refused connection", detail="port 1883")]
    dead, alive = Receiver(lambda _row: answers[0]), Receiver()
    async with working(redis, dead, "dead", longest_pause_s=0.02) as worker, working(redis, alive, "alive"):
        await _commit(partition, 0, 20)
        await until(lambda: len(alive.rows) == 20 and dead.attempts > 20)
        assert (dead.rows, worker.statistics.unavailable["refused connection"] > 20) == ([], True)
        assert worker.statistics.failing_since is not None
        assert worker.statistics.detail == "port 1883"
        assert await _cursor(redis, "dead") == 0

        answers[0] = Delivered()
        await until(lambda: len(dead.rows) == 20)
        assert worker.statistics.failing_since is None

    assert dead.rows == list(range(1, 21))
    assert await redis.call("XLEN", "{0}:dead") == 0


async def test_the_pause_the_receiver_asks_for_is_kept(lead: Lead, redis: Redis) -> None:
    """Retry-After is the least."""
    partition = await lead()
    loop = asyncio.get_running_loop()
    times: list[float] = []

    def answer(_row: Row) -> Delivery:
        times.append(loop.time())
        return Unavailable("busy", retry_after_s=0.15) if len(times) == 1 else Delivered()

    receiver = Receiver(answer)
    async with working(redis, receiver):
        await _commit(partition, 0, 1)
        await until(lambda: receiver.rows == [1])

    assert times[1] - times[0] >= 0.15


async def test_a_refused_row_goes_to_the_dead_letters_with_its_cursor(lead: Lead, redis: Redis) -> None:
    """Once, with the reason; its neighbours are delivered."""
    partition = await lead()
    receiver = Receiver(lambda row: Refused("too large", "413") if row.seq == 3 else Delivered())
    async with working(redis, receiver):
        await _commit(partition, 0, 5)
        await until(lambda: len(receiver.rows) == 4)

    assert receiver.rows == [1, 2, 4, 5]
    ((_, fields),) = await redis.call("XRANGE", "{0}:dead", "-", "+")
    letter = dict(zip(fields[::2], fields[1::2], strict=True))
    assert (letter[b"source"], letter[b"cause"], letter[b"id"][:4]) == (b"sink:sink", b"too large: 413", b"0/3-")
    assert await _cursor(redis) == 5


async def test_a_refused_row_is_buried_once_though_the_answer_is_lost(lead: Lead, redis: Redis, tmp_path: Path) -> None:
    """The transaction of dead letter and cursor is looked up before it is sent again."""
    partition = await lead()
    await register_sink(redis.link(), 0, "sink")
    await _commit(partition, 0, 2)
    receiver = Receiver(lambda row: Refused("too large") if row.seq == 1 else Delivered())
    async with FaultProxy(tmp_path / "proxy.sock", str(redis.server.socket)).running() as proxy:
        proxy.arm("cut_reply")
        worker = SinkWorker(Link(proxy.endpoint, timeout_s=0.5), 0, "sink", receiver, first_pause_s=0.01)
        task = asyncio.ensure_future(worker.run())
        await until(lambda: receiver.rows == [2])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert proxy.struck == 1
    assert await redis.call("XLEN", "{0}:dead") == 1


async def test_a_sink_that_raises_does_not_stop_the_others(lead: Lead, redis: Redis) -> None:
    """After five attempts at one row that row is put aside: a fault of our own code must not block the rest for ever."""
    partition = await lead()

    def answer(row: Row) -> Delivery:
        if row.seq == 2:
            raise ValueError("no such topic")
        return Delivered()

    receiver = Receiver(answer)
    async with working(redis, receiver) as worker:
        await _commit(partition, 0, 3)
        await until(lambda: receiver.rows == [1, 3])

    assert (worker.statistics.raised, worker.statistics.refused) == (5, 1)
    ((_, fields),) = await redis.call("XRANGE", "{0}:dead", "-", "+")
    assert b"raised: ValueError: no such topic" in fields


async def test_nothing_is_sent_while_it_is_not_sure_that_we_lead(lead: Lead, redis: Redis) -> None:
    """The gate is asked before each row."""
    partition = await lead()
    may = [True]

    def answer(row: Row) -> Delivery:
        may[0] = row.seq < 3
        return Delivered()

    receiver = Receiver(answer)
    async with working(redis, receiver, may_send=lambda: may[0]):
        await _commit(partition, 0, 10)
        await until(lambda: len(receiver.rows) == 3)
        await asyncio.sleep(0.1)
        assert receiver.rows == [1, 2, 3]


async def test_an_outage_of_redis_loses_nothing(lead: Lead, redis: Redis) -> None:
    """Rows delivered while the cursor cannot be written are not delivered again by the same process."""
    partition, receiver = await lead(), Receiver()
    async with working(redis, receiver):
        await _commit(partition, 0, 5)
        await until(lambda: len(receiver.rows) == 5)
        await redis.server.kill()
        await redis.server.start()
        await _commit(partition, 5, 5)
        await until(lambda: len(receiver.rows) == 10)

    assert receiver.rows == list(range(1, 11))
    assert await _cursor(redis) == 10


@pytest.mark.parametrize("most", [1, 10])
async def test_the_stored_cursor_never_falls_far_behind(lead: Lead, redis: Redis, most: int) -> None:
    """Writes of Redis stand still: no more rows are sent than may be sent again after a crash."""
    partition, receiver = await lead(), Receiver()
    async with working(redis, receiver, most_copies=most):
        await _commit(partition, 0, 1)
        await until(lambda: receiver.rows == [1])
        await _commit(partition, 1, 50)
        await redis.call("CLIENT", "PAUSE", 60_000, "WRITE")
        await until(lambda: len(receiver.rows) >= most + 1)
        await asyncio.sleep(0.1)
        sent = len(receiver.rows) - await _cursor(redis)
        await redis.call("CLIENT", "UNPAUSE")
        await until(lambda: len(receiver.rows) == 51)

    assert 1 <= sent <= most
    assert receiver.rows == list(range(1, 52))


async def test_a_backlog_can_be_skipped_while_the_receiver_is_down(lead: Lead, redis: Redis) -> None:
    """It was written to a file: the worker leaves the row it is stuck at and goes on behind."""
    partition = await lead()
    receiver = Receiver(lambda row: Unavailable("down") if row.seq <= 5 else Delivered())
    async with working(redis, receiver, longest_pause_s=60.0) as worker:
        await _commit(partition, 0, 8)
        await until(lambda: receiver.attempts >= 1)
        worker.skip_to(f"5-{partition.head.token}")
        await until(lambda: receiver.rows == [6, 7, 8])


async def test_a_foreign_entry_stops_the_worker(lead: Lead, redis: Redis) -> None:
    """What is no row of ours is not sent to anybody."""
    await lead()
    await register_sink(redis.link(), 0, "sink")
    await redis.call("XADD", "{0}:events", "5-5", "hello", "world")
    worker = SinkWorker(redis.link(), 0, "sink", Receiver())

    with pytest.raises(LedgerBroken, match="is no row"):
        await worker.run()


async def test_rows_that_replace_a_lost_tail_are_delivered(lead: Lead, redis: Redis) -> None:
    """The ledger goes back behind what the sink has: rows with the same numbers again are other rows. Also for the next process."""
    partition, receiver = await lead(), Receiver()
    async with working(redis, receiver) as worker:
        await _commit(partition, 0, 6)
        keys = (partition.keys.head, partition.keys.events, partition.keys.levels)
        for key in keys:
            await redis.call("COPY", key, f"{key}:kept")
        await _commit(partition, 6, 4)
        worker.wake.set()
        await until(lambda: receiver.rows == list(range(1, 11)))
        for key in keys:
            await redis.call("COPY", f"{key}:kept", key, "REPLACE")
        successor = await lead(lease_s=0.01)
        await worker.begin_term()
        await _commit(successor, 6, 3)
        worker.wake.set()
        await until(lambda: receiver.rows == [*range(1, 11), 7, 8, 9])
    assert await _cursor(redis) == 9

    await redis.call("HSET", partition.keys.sinks, "sink", f"10-{partition.head.token}")
    async with working(redis, receiver):
        await _commit(successor, 9, 1)
        await until(lambda: receiver.rows[-1] == 10 and len(receiver.rows) == 14)


async def test_a_term_begins_where_the_last_process_left_the_sink(lead: Lead, redis: Redis) -> None:
    """One that has waited for long, its first rows already read, says nothing of what another has delivered meanwhile."""
    partition, waiting, leading = await lead(), Receiver(), Receiver()
    leads = False
    async with working(redis, waiting, may_send=lambda: leads) as standby:
        async with working(redis, leading) as worker:
            await _commit(partition, 0, 30)
            worker.wake.set()
            standby.wake.set()
            await until(lambda: len(leading.rows) == 30)
        await standby.begin_term()
        leads = True
        await _commit(partition, 30, 2)
        standby.wake.set()
        await until(lambda: len(waiting.rows) == 2)

    assert waiting.rows == [31, 32]
