"""How far each sink has got, and the loop that brings it rows in order.

A cursor per sink in `{p}:sinks` and XRANGE behind it; no consumer groups: nothing is pending anywhere but in the stream itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, assert_never, runtime_checkable

from monitor.errors import LedgerBroken, LedgerUnavailable
from monitor.ledger.connection import Command, Link, Wire, raise_faults
from monitor.ledger.crashpoints import crash_at
from monitor.ledger.head import FIELDS, Head
from monitor.ledger.keys import PartitionKeys
from monitor.measures import Durations
from monitor.wire.events import parse_event_id
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable

__all__ = ["BatchSink", "Sink", "SinkStatistics", "SinkWorker", "read_cursors", "read_rows", "register_sink", "row_of"]


ROWS_AT_ONCE = 100
"""Rows read at once, where the sink does not take more in a batch."""

AGAIN_S = 1.0
"""How often a worker looks for rows that a person wants delivered once more."""


class Sink(Protocol):
    """Where rows go. It owns its connection and its time-outs; the worker owns cursor, order, retries and pauses."""

    async def deliver(self, row: Row) -> Delivery:
        """Brings one row to the receiver. Called for one row at a time. May be cancelled."""
        ...


@runtime_checkable
class BatchSink(Protocol):
    """A sink that takes several rows at once: where each row alone would cost a round trip, and a burst would take too long.

    `batch_rows` bounds a batch, and so how many copies a process that was paused in the middle of one can send.
    """

    batch_rows: int

    async def deliver_batch(self, rows: Sequence[Row]) -> int:
        """How many of the rows, from the first on, are delivered. The next one is offered by `deliver`, which says why. Never raises."""
        ...


@dataclass(slots=True)
class SinkStatistics:
    """Counters of one sink in one partition.

    Attributes:
        delivered, refused: Rows with that result. unavailable: attempts that failed, by reason.
        raised: Attempts that ended in an exception of the sink's own code.
        seq: The last row delivered or refused.
        failing_since: Monotonic time of the first failure since the last success; None when all is well.
        detail: What the sink said at its last failure.
        deliver_seconds: How long a successful attempt took.
    """

    delivered: int = 0
    refused: int = 0
    unavailable: dict[str, int] = field(default_factory=dict)
    raised: int = 0
    seq: int = 0
    failing_since: float | None = None
    detail: str = ""
    deliver_seconds: Durations = field(default_factory=Durations)


def row_of(partition: int, entry_id: bytes, pairs: Sequence[Any]) -> Row:
    """A row from an entry of the events stream. Raises LedgerBroken for an entry that is none."""
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    seq, _, token = entry_id.partition(b"-")
    try:
        return Row(partition, int(seq), int(token), fields[b"e"], fields[b"h"].decode(errors="backslashreplace"))
    except KeyError:
        raise LedgerBroken(f"partition {partition}: {entry_id.decode()} is no row: another program wrote to the events") from None


async def read_rows(wire: Wire, partition: int, after: str, *, count: int = ROWS_AT_ONCE, timeout_s: float = 5.0) -> list[Row]:
    """Rows behind a stream id ("0-0" for all), oldest first. Raises LedgerUnavailable, LedgerBroken."""
    entries = await wire.call("XRANGE", PartitionKeys.of(partition).events, f"({after}", "+", "COUNT", count, timeout_s=timeout_s)
    return [row_of(partition, entry_id, pairs) for entry_id, pairs in entries]


async def read_cursors(wire: Wire, partition: int, *, timeout_s: float = 5.0) -> dict[str, str]:
    """The stream id of the last row that each sink has, by name. Raises LedgerUnavailable."""
    pairs = await wire.call("HGETALL", PartitionKeys.of(partition).sinks, timeout_s=timeout_s)
    return {name.decode(): place.decode() for name, place in zip(pairs[::2], pairs[1::2], strict=True)}


async def register_sink(link: Link, partition: int, name: str) -> str:
    """The cursor of a sink. A sink that is new here starts behind the last row there is: it gets what happens from now on, not the past.

    A cursor beyond the ledger's end is of rows that the ledger has lost (a fail-over, a restored backup): it is put back to that end.
    Await it before the evaluator's first commit, else the rows between are not for it. Raises LedgerUnavailable (call again).
    """
    return await link.run(lambda wire: _register(wire, partition, name, link.timeout_s))


async def _register(wire: Wire, partition: int, name: str, timeout_s: float) -> str:
    keys = PartitionKeys.of(partition)
    replies = await wire.exchange(
        [("HGET", keys.sinks, name), ("XREVRANGE", keys.events, "+", "-", "COUNT", 1), ("HMGET", keys.head, *FIELDS)], timeout_s=timeout_s
    )
    raise_faults(replies)
    known, newest, values = replies
    if known is None:
        head = Head.read(values, partition)
        behind_trimmed = f"{0 if head is None else head.trim}-0"
        start = newest[0][0].decode() if newest else behind_trimmed
        replies = await wire.exchange([("HSETNX", keys.sinks, name, start), ("HGET", keys.sinks, name)], timeout_s=timeout_s)
        raise_faults(replies)
        known = replies[1]
    place, head = str(known.decode()), Head.read(values, partition)
    if head is not None and _order(place)[0] > head.seq:
        place = _end_of(head.seq)
        raise_faults(await wire.exchange([("HSET", keys.sinks, name, place)], timeout_s=timeout_s))
    return place


class SinkWorker:
    """Brings the rows of one partition to one sink: in order, each at least once, for ever.

    Delivered: the cursor moves. Refused: the row goes to the dead letters in the transaction that moves the cursor. Unavailable: the same
    row again after a growing pause, for ever; nothing is parked and no other sink waits. A sink that raises is treated as unavailable, and
    after `most_raises` times in a row for one row as having refused it.

    The cursor is written beside the deliveries, always the newest, and no row is sent while it is `most_copies` rows behind: so many may
    be sent again, with the same ids, after a crash (a batch counts whole). A sink slower than the ledger's disk has at most one.

    Attributes:
        wake: Set it when rows were committed (`Committer.listen`); without it the worker looks twice a second.
    """

    def __init__(
        self,
        link: Link,
        partition: int,
        name: str,
        sink: Sink,
        *,
        may_send: Callable[[], bool] = lambda: True,
        first_pause_s: float = 0.1,
        longest_pause_s: float = 30.0,
        most_raises: int = 5,
        most_copies: int = 10,
        doze: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepares a worker. `may_send` is asked before each row: an old leader that was paused keeps quiet (`Committer.may_send`)."""
        self.name = name
        self.partition = partition
        self.statistics = SinkStatistics()
        self.wake = asyncio.Event()
        self._link, self._sink, self._may_send, self._doze = link, sink, may_send, doze
        self._first_pause_s, self._longest_pause_s, self._most_raises = first_pause_s, longest_pause_s, most_raises
        self._keys = PartitionKeys.of(partition)
        self._again, self._again_at = self._keys.again(name), 0.0
        self._place: str | None = None  # the last row delivered or refused
        self._stored: str | None = None  # what is known to stand in the ledger
        self._most_copies = most_copies
        self._ahead = 0  # rows that the sink has and the stored cursor does not tell
        self._moved = asyncio.Event()
        self._caught_up = asyncio.Event()
        self._skip = asyncio.Event()
        self._writing = asyncio.Lock()
        self._writer: Wire | None = None
        self._reader: Wire | None = None

    @property
    def place(self) -> str | None:
        """The stream id of the last row that the sink has; None before `run` has read it."""
        return self._place

    async def run(self) -> NoReturn:
        """Delivers for ever. Cancelling is safe; `finish` then stores the last place. Raises LedgerBroken."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._store_places(), name=f"cursor of {self.name} in {self.partition}")
                await self._deliver_all()
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None  # of two, the first says enough
        finally:
            self._close()
        raise AssertionError("delivers for ever")

    async def finish(self) -> None:
        """After `run` was cancelled: stores the last place. One attempt; raises LedgerUnavailable."""
        try:
            await self._store()
        finally:
            self._close()

    def skip_to(self, stream_id: str) -> None:
        """Goes on behind this row, whatever lies before it (the backlog was written to a file and the stored cursor moved)."""
        self._place = self._stored = stream_id
        self._skip.set()

    async def begin_term(self) -> None:
        """Goes on from the stored cursor, whatever this process did or read before: another one has served the sink since.

        Await it when the partition was taken, before the first commit with rows, while `may_send` says no. Raises LedgerUnavailable.
        """
        place = await register_sink(self._link, self.partition, self.name)
        self._place = self._stored = place
        self.statistics.seq = _order(place)[0]
        self._skip.set()  # what is being delivered is of the time before
        self._moved.set()

    async def _deliver_all(self) -> NoReturn:
        pause = self._first_pause_s
        while True:
            try:
                if self._place is None:
                    await self.begin_term()
                    continue
                self.wake.clear()  # before the read: a commit between the two wakes us again
                self._skip.clear()
                rows = await self._read(self._place)
                has_rows = bool(rows)
                crash_at("sink.read")
                while rows and not self._skip.is_set():
                    while self._ahead >= self._most_copies:
                        self._caught_up.clear()
                        await self._caught_up.wait()
                    offered, taken = await self._deliver_batch(rows)
                    if taken == offered and taken:
                        rows = rows[taken:]
                    else:
                        await self._deliver(rows[taken])
                        rows = rows[taken + 1 :]
                pause = self._first_pause_s
                await self._deliver_again()
                if not has_rows:
                    await _wait(self.wake, 0.5)
            except LedgerUnavailable as error:
                self._link.follow(error)
                self._close_reader()
                await self._doze(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, 1.0)

    async def _deliver_again(self) -> None:
        """Rows that a person asked for once more, at most one look a second, each tried once a look: they hold nothing up."""
        now = asyncio.get_running_loop().time()
        if now < self._again_at:
            return
        self._again_at = now + AGAIN_S
        wire = await self._readable()
        for entry_id, pairs in await wire.call("XRANGE", self._again, "-", "+", "COUNT", 10, timeout_s=self._link.timeout_s):
            fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
            event = parse_event_id(fields[b"id"].decode())
            row = Row(event.partition, event.seq, event.token, fields[b"raw"], fields[b"hash"].decode())
            left, _, right = entry_id.partition(b"-")
            done: Command = ("XTRIM", self._again, "MINID", f"{left.decode()}-{int(right) + 1}")
            if not self._may_send():
                return
            try:
                result = await self._sink.deliver(row)
            except Exception as error:  # noqa: BLE001  as for every row
                self.statistics.raised += 1
                result = Unavailable("raised", detail=f"{type(error).__name__}: {error}")
            if isinstance(result, Unavailable):
                self.statistics.detail = result.detail
                return
            if isinstance(result, Refused):
                await self._transact(self._letter(row, result), done)
                self.statistics.refused += 1
            else:
                await self._transact(done)
                self.statistics.delivered += 1

    async def _transact(self, *commands: Command) -> None:
        async with self._writing:
            replies = await (await self._writable()).exchange([("MULTI",), *commands, ("EXEC",)], timeout_s=self._link.timeout_s)
            raise_faults([*replies, *(replies[-1] if isinstance(replies[-1], list) else ())])

    async def _read(self, after: str) -> list[Row]:
        count = max(ROWS_AT_ONCE, self._sink.batch_rows if isinstance(self._sink, BatchSink) else 0)
        return await read_rows(await self._readable(), self.partition, after, count=count, timeout_s=max(self._link.timeout_s, 5.0))

    async def _readable(self) -> Wire:
        if self._reader is None or self._reader.closed:
            self._reader = await self._link.open()
        return self._reader

    async def _deliver_batch(self, rows: Sequence[Row]) -> tuple[int, int]:
        """Offers several rows at once where the sink can take them: how many, and how many of them it has now."""
        if not isinstance(self._sink, BatchSink) or len(rows) < 2 or not self._may_send():
            return 0, 0
        crash_at("sink.sending")
        began = asyncio.get_running_loop().time()
        offered = rows[: self._sink.batch_rows]
        taken = await self._sink.deliver_batch(offered)
        if taken:
            crash_at("sink.delivered")
            self.statistics.delivered += taken
            self.statistics.deliver_seconds.observe((asyncio.get_running_loop().time() - began) / taken)
            self.statistics.failing_since = None
            self._advance(offered[taken - 1], taken)
        return len(offered), taken

    async def _deliver(self, row: Row) -> None:
        """Returns when the row is delivered, refused and stored as such, or skipped."""
        pause, raises = self._first_pause_s, 0
        loop = asyncio.get_running_loop()
        while True:
            while not self._may_send():
                await self._doze(0.05)
            if self._skip.is_set():
                return
            crash_at("sink.sending")
            began = loop.time()
            try:
                result = await self._sink.deliver(row)
            except Exception as error:  # noqa: BLE001  one sink's fault must not end the others
                self.statistics.raised += 1
                raises += 1
                reason = f"{type(error).__name__}: {error}"
                result = Unavailable("raised", detail=reason) if raises < self._most_raises else Refused("raised", reason)
            match result:
                case Delivered():
                    crash_at("sink.delivered")
                    self.statistics.delivered += 1
                    self.statistics.deliver_seconds.observe(loop.time() - began)
                    self.statistics.failing_since = None
                    self._advance(row)
                    return
                case Refused():
                    await self._bury(row, result)
                    self.statistics.refused += 1
                    self.statistics.failing_since = None
                    self._advance(row)
                    return
                case Unavailable() as failure:
                    counts = self.statistics.unavailable
                    counts[failure.reason] = counts.get(failure.reason, 0) + 1
                    self.statistics.detail = failure.detail
                    if self.statistics.failing_since is None:
                        self.statistics.failing_since = began
                    await _wait(self._skip, max(pause * random.uniform(0.5, 1.0), failure.retry_after_s or 0.0))
                    pause = min(pause * 2, self._longest_pause_s)
                case _:
                    assert_never(result)

    def _advance(self, row: Row, count: int = 1) -> None:
        if not self._skip.is_set():
            self._place = row.stream_id
            self.statistics.seq = row.seq
            self._ahead += count
            self._moved.set()

    def _letter(self, row: Row, refused: Refused) -> Command:
        """A row as a dead letter (`monitor.ledger.dead_letters`)."""
        cause = f"{refused.reason}: {refused.detail}" if refused.detail else refused.reason
        head = ("XADD", self._keys.dead, "*", "source", f"sink:{self.name}", "cause", cause)
        return (*head, "raw", row.body, "id", row.id, "hash", row.hash)

    async def _bury(self, row: Row, refused: Refused) -> None:
        """Dead letter and cursor in one transaction, repeated until it is known to be done."""
        pause = self._first_pause_s
        commands: list[Command] = [
            ("MULTI",),
            self._letter(row, refused),
            ("HSET", self._keys.sinks, self.name, row.stream_id),
            ("EXEC",),
        ]
        while True:
            try:
                async with self._writing:
                    wire = await self._writable()
                    if await self._is_stored(wire, row.stream_id):  # a lost answer to an earlier attempt
                        return
                    replies = await wire.exchange(commands, timeout_s=self._link.timeout_s)
                    raise_faults([*replies, *(replies[-1] if isinstance(replies[-1], list) else ())])
                    self._stored = row.stream_id
                return
            except LedgerUnavailable as error:
                self._link.follow(error)
                self._close_writer()
                await self._doze(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, 1.0)

    async def _is_stored(self, wire: Wire, stream_id: str) -> bool:
        stored = await wire.call("HGET", self._keys.sinks, self.name, timeout_s=self._link.timeout_s)
        return stored is not None and _order(stored.decode()) >= _order(stream_id)

    async def _store_places(self) -> NoReturn:
        """Writes the newest place whenever it moved."""
        pause = self._first_pause_s
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                await self._store()
                pause = self._first_pause_s
            except LedgerUnavailable as error:
                self._link.follow(error)
                self._close_writer()
                self._moved.set()
                await self._doze(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, 1.0)

    async def _store(self) -> None:
        async with self._writing:
            place, ahead = self._place, self._ahead
            if place is not None and place != self._stored:
                wire = await self._writable()
                await wire.call("HSET", self._keys.sinks, self.name, place, timeout_s=self._link.timeout_s)
                self._stored = place
                crash_at("sink.moved")
            self._ahead -= ahead
            self._caught_up.set()

    async def _writable(self) -> Wire:
        if self._writer is None or self._writer.closed:
            self._writer = await self._link.open()
        return self._writer

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _close(self) -> None:
        self._close_reader()
        self._close_writer()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, or for so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def _end_of(seq: int) -> str:
    """The place behind this row, whatever its token, and before the next."""
    return f"{seq}-{2**64 - 1}"


def _order(stream_id: str) -> tuple[int, int]:
    left, _, right = stream_id.partition("-")
    return int(left), int(right or 0)
