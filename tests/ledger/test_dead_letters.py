"""Dead letters: read, tried again by whoever uses them, dropped; each in one place only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from monitor.errors import RefusedError
from monitor.ledger.changes import DeadLetter as Buried
from monitor.ledger.changes import Observation
from monitor.ledger.cursors import SinkWorker, register_sink
from monitor.ledger.dead_letters import drop, letters, try_again
from monitor.ledger.partition import Partition
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable
from tests.support.redis import Redis
from tests.support.waiting import until

Lead = Callable[..., Awaitable[Partition]]


class Moody:
    """A sink that answers what its mood is, and keeps what it delivered."""

    def __init__(self, mood: Delivery) -> None:
        self.mood = mood
        self.rows: list[Row] = []
        self.attempts = 0

    async def deliver(self, row: Row) -> Delivery:
        """Keeps the row when the mood is good."""
        self.attempts += 1
        if isinstance(self.mood, Delivered):
            self.rows.append(row)
        return self.mood


async def _refuse_three(lead: Lead, redis: Redis, sink: Moody) -> tuple[Partition, asyncio.Task[None]]:
    """Three rows that the sink refused."""
    partition = await lead()
    await register_sink(redis.link(), 0, "desk")
    await partition.commit([Observation(f"a{n}", "cross", Level.WATCH, None, TickPosition(1, n, 0), b"{}") for n in range(3)])
    worker = SinkWorker(redis.link(), 0, "desk", sink, first_pause_s=0.01)
    task: asyncio.Task[None] = asyncio.ensure_future(worker.run())
    await until(lambda: worker.statistics.refused == 3)
    return partition, task


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_an_event_is_delivered_again_with_the_same_bytes_and_id(lead: Lead, redis: Redis) -> None:
    """A refused row goes to its sink once more when a person asks: it is no letter any more, and the rows after it went on meanwhile."""
    sink = Moody(Refused("rude", "go away"))
    partition, task = await _refuse_three(lead, redis, sink)
    wire = await redis.link().open()
    found = await letters(wire, 0)
    rows = await redis.call("XRANGE", "{0}:events", "-", "+")

    assert [(letter.source, letter.sink, letter.cause) for letter in found] == [("sink:desk", "desk", "rude: go away")] * 3
    sink.mood = Delivered()
    await try_again(wire, found[1])
    await until(lambda: len(sink.rows) == 1, within_s=5)
    await partition.commit([Observation("b", "cross", Level.WATCH, None, TickPosition(1, 9, 0), b"{}")])
    await until(lambda: len(sink.rows) == 2, within_s=5)
    while await redis.call("XLEN", "{0}:again:desk"):
        await asyncio.sleep(0)
    await _end(task)

    again = sink.rows[0]
    fields = dict(zip(rows[1][1][::2], rows[1][1][1::2], strict=True))
    assert again.id == found[1].id == f"0/{rows[1][0].decode()}"
    assert (again.body, again.hash.encode()) == (fields[b"e"], fields[b"h"])
    assert [letter.name for letter in await letters(wire, 0)] == [found[0].name, found[2].name]
    assert await redis.call("XLEN", "{0}:again:desk") == 0
    wire.close()


async def test_refused_again_is_a_letter_again(lead: Lead, redis: Redis) -> None:
    """What the sink still does not take comes back, under a new name, and nothing is lost between the two places."""
    sink = Moody(Refused("rude"))
    _, task = await _refuse_three(lead, redis, sink)
    wire = await redis.link().open()
    (first, *_) = await letters(wire, 0)
    await try_again(wire, first)
    await until(lambda: sink.attempts == 4, within_s=5)
    while await redis.call("XLEN", "{0}:again:desk"):
        await asyncio.sleep(0)
    await _end(task)
    after = await letters(wire, 0)
    wire.close()

    assert first.id in [letter.id for letter in after]
    assert len(after) == 3
    assert first.name not in [letter.name for letter in after]


async def test_an_unreachable_sink_keeps_it_waiting(lead: Lead, redis: Redis) -> None:
    """An event tried again waits for a sink that is away, as the rows do, and is delivered when it is back."""
    sink = Moody(Refused("rude"))
    _, task = await _refuse_three(lead, redis, sink)
    wire = await redis.link().open()
    sink.mood = Unavailable("away")
    (first, *_) = await letters(wire, 0)
    await try_again(wire, first)
    await until(lambda: sink.attempts == 4, within_s=5)
    assert await redis.call("XLEN", "{0}:again:desk") == 1
    sink.mood = Delivered()
    await until(lambda: [row.id for row in sink.rows] == [first.id], within_s=5)
    await _end(task)
    wire.close()


async def test_an_update_goes_back_to_the_update_stream(lead: Lead, redis: Redis) -> None:
    """With its bytes as they came; the letter is gone."""
    partition = await lead()
    await partition.commit([Buried("updates", "no such key", b'{"x":1}', "5-0")])
    wire = await redis.link().open()
    (letter,) = await letters(wire, 0)
    await try_again(wire, letter)

    assert await letters(wire, 0) == []
    assert [fields for _, fields in await redis.call("XRANGE", "{0}:updates", "-", "+")] == [[b"u", b'{"x":1}']]
    wire.close()


async def test_what_has_nothing_to_try_again_is_refused(lead: Lead, redis: Redis) -> None:
    """A notice, and a letter that only tells of a file, stay where they are; dropping is for them."""
    partition = await lead()
    await partition.commit([Buried("notice", "too old", b"{}", "n"), Buried("sink:desk", "backlog of 5 rows written to /x", b"", "0/1-1")])
    wire = await redis.link().open()
    found = await letters(wire, 0)
    for letter in found:
        with pytest.raises(RefusedError, match=letter.entry):
            await try_again(wire, letter)

    assert await letters(wire, 0) == found
    assert [await drop(wire, letter) for letter in (*found, found[0])] == [True, True, False]
    assert await letters(wire, 0) == []
    wire.close()
