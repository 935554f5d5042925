"""The cache: the stream of price batches, the last prices, and snapshots of health. All of it may be lost; that it was, is noticed.

A writer numbers its batches 1, 2, 3 ... inside an epoch, the start of the writer in ms. A reader finds every hole by these numbers alone:
stream ids are no clock, and a stream that was wiped would be silent for ever to one who waits behind its old end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from monitor.errors import LedgerUnavailable
from monitor.ledger.connection import Argument, Command, Link, ReplyError, Wire, fault_of, raise_faults
from monitor.ledger.keys import TICKS, health_key, marks_key
from monitor.wire.prices import PriceBatch, encode_batch

__all__ = [
    "CacheStatistics",
    "HealthWriter",
    "StoredPrice",
    "TickCursor",
    "TickGap",
    "TickMessage",
    "TicksReader",
    "TicksWriter",
    "read_marks",
]


@dataclass(slots=True)
class CacheStatistics:
    """Counters of one writer or reader.

    `repeated`: batches sent again because no answer came. `duplicates`: such copies dropped by the reader. `foreign`: messages of an
    older epoch (a second writer, which there must not be) or of no known form. `gaps`: holes found.
    """

    messages: int = 0
    repeated: int = 0
    duplicates: int = 0
    foreign: int = 0
    gaps: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class TickCursor:
    """Where a reader stands: the last message it has, by stream id, epoch and number. Epoch 0: nothing was ever read."""

    id: str
    epoch: int
    n: int


@dataclass(frozen=True, slots=True)
class TickMessage:
    """One message of the stream. `data` is what `wire.prices.decode_batch` reads."""

    id: str
    epoch: int
    n: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TickGap:
    """Messages between these two places are gone, how many is not always known. Given out before the message that follows it.

    `reason`: new_epoch (the writer started anew), hole (trimmed, or lost by the writer), wiped (the stream went back behind the cursor).
    `end` is None when nothing follows yet.
    """

    reason: str
    start: TickCursor
    end: TickCursor | None


class TicksWriter:
    """The one writer of the ticks stream.

    Conflating is the caller's: while a batch is being retried it merges newer prices into the next one.
    """

    def __init__(
        self, link: Link, *, retain: int = 50_000, stream: str = TICKS, wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    ) -> None:
        """Prepares a writer that keeps about `retain` messages on the stream."""
        self.statistics = CacheStatistics()
        self.epoch = 0
        self._link, self._retain, self._stream, self._wall_ms = link, retain, stream, wall_ms
        self._wire: Wire | None = None
        self._n = 0
        self._unanswered: list[tuple[int, PriceBatch, bytes]] = []

    @property
    def has_unanswered(self) -> bool:
        """True while the batches of the last `write` may not be on the stream: call `retry` until it returns."""
        return bool(self._unanswered)

    async def write(self, batches: Sequence[PriceBatch]) -> None:
        """Numbers batches, appends them to the stream and keeps their prices in `marks:<venue>`, in one write.

        Raises LedgerUnavailable. The batches are taken all the same: call `retry` until it returns, and merge newer prices meanwhile. Also
        after a cancellation.
        """
        assert not self._unanswered, "retry first"
        for batch in batches:
            self._n += 1
            self._unanswered.append((self._n, batch, encode_batch(batch)))
        await self._send()

    async def retry(self) -> None:
        """Sends again what `write` did not get an answer for, under the same numbers, so that a reader knows a copy.

        Raises LedgerUnavailable.
        """
        self.statistics.repeated += len(self._unanswered)
        await self._send()

    async def _send(self) -> None:
        if not self._unanswered:
            return
        try:
            wire = await self._connected()
            commands: list[Command] = [
                ("XADD", self._stream, "MAXLEN", "~", self._retain, "*", "e", self.epoch, "n", n, "b", data)
                for n, _, data in self._unanswered
            ]
            raise_faults(await wire.exchange(commands, timeout_s=self._link.timeout_s))
        except BaseException as error:
            self.statistics.failures += isinstance(error, LedgerUnavailable)
            self._link.follow(error)
            self.close()
            raise
        written = [batch for _, batch, _ in self._unanswered if batch.names]
        self.statistics.messages += len(self._unanswered)
        self._unanswered.clear()
        await self._keep_marks(wire, written)

    async def _keep_marks(self, wire: Wire, batches: Sequence[PriceBatch]) -> None:
        """The last prices, in a request of their own, so that readers of the stream do not wait. What fails comes with the next ones."""
        commands: list[Command] = [("HSET", marks_key(venue), *parts) for venue, parts in _last_marks(batches)]
        try:
            raise_faults(await wire.exchange(commands, timeout_s=self._link.timeout_s))
        except LedgerUnavailable as error:
            self.statistics.failures += 1
            self._link.follow(error)
            self.close()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drops the connection; the next call makes a new one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _connected(self) -> Wire:
        if self._wire is not None and not self._wire.closed:
            return self._wire
        wire = await self._link.open()
        try:
            if not self.epoch:  # above the last writer's, whatever the clock says
                entries = await wire.call("XREVRANGE", self._stream, "+", "-", "COUNT", 1, timeout_s=self._link.timeout_s)
                last = _message(*entries[0]) if entries else None
                self.epoch = max(self._wall_ms(), 0 if last is None else last.epoch + 1)
        except BaseException:
            wire.close()
            raise
        self._wire = wire
        return wire


class TicksReader:
    """Reads the ticks stream from a cursor on, and tells of every hole."""

    def __init__(self, link: Link, cursor: TickCursor, *, stream: str = TICKS) -> None:
        """Prepares a reader behind `cursor`. Epoch 0 and id "0-0" read from the oldest message kept, without calling it a hole."""
        self.statistics = CacheStatistics()
        self.cursor = cursor
        self._link, self._stream = link, stream
        self._wire: Wire | None = None

    async def read(self, *, block_ms: int = 500, count: int = 64) -> list[TickMessage | TickGap]:
        """The next messages, with holes marked between them; [] when none came in `block_ms` (0: does not wait).

        Raises LedgerUnavailable; call again. Cancelling is safe: the cursor moves only when messages are returned.
        """
        try:
            if self._wire is None or self._wire.closed:
                self._wire = await self._link.open()
            wire, timeout_s = self._wire, self._link.timeout_s
            block: tuple[str | int, ...] = ("BLOCK", block_ms) if block_ms else ()
            command = ("XREAD", "COUNT", count, *block, "STREAMS", self._stream, self.cursor.id)
            reply = await wire.call(*command, timeout_s=timeout_s + block_ms / 1000)
            if not reply:
                return await self._look_back(wire, timeout_s)
        except LedgerUnavailable as error:
            self.statistics.failures += 1
            self._link.follow(error)
            self.close()
            raise
        found: list[TickMessage | TickGap] = []
        for entry_id, pairs in reply[0][1]:
            self._take(_message(entry_id, pairs), entry_id.decode(), found)
        return found

    def close(self) -> None:
        """Drops the connection; the next `read` makes a new one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def newest(self) -> TickCursor:
        """Where the stream ends now: to start from there without reading what is kept. Raises LedgerUnavailable."""
        timeout_s = self._link.timeout_s
        entries = await self._link.run(lambda wire: wire.call("XREVRANGE", self._stream, "+", "-", "COUNT", 1, timeout_s=timeout_s))
        last = _message(*entries[0]) if entries else None
        return TickCursor("0-0", 0, 0) if last is None else TickCursor(last.id, last.epoch, last.n)

    def _take(self, message: TickMessage | None, entry_id: str, found: list[TickMessage | TickGap]) -> None:
        cursor, statistics = self.cursor, self.statistics
        if message is None or message.epoch < cursor.epoch:
            statistics.foreign += 1
            self.cursor = TickCursor(entry_id, cursor.epoch, cursor.n)
            return
        if message.epoch == cursor.epoch and message.n <= cursor.n:
            statistics.duplicates += 1
            self.cursor = TickCursor(entry_id, cursor.epoch, cursor.n)
            return
        place = TickCursor(message.id, message.epoch, message.n)
        if cursor.epoch and message.epoch != cursor.epoch:
            statistics.gaps += 1
            found.append(TickGap("new_epoch", cursor, place))
        elif cursor.epoch and message.n != cursor.n + 1:
            statistics.gaps += 1
            found.append(TickGap("hole", cursor, place))
        statistics.messages += 1
        found.append(message)
        self.cursor = place

    async def _look_back(self, wire: Wire, timeout_s: float) -> list[TickMessage | TickGap]:
        """Nothing new: does the stream still reach as far as the cursor? If not it was wiped, and its ids begin anew."""
        cursor = self.cursor
        if not cursor.epoch:
            return []
        (info,) = await wire.exchange([("XINFO", "STREAM", self._stream)], timeout_s=timeout_s)
        if isinstance(info, ReplyError):
            if "no such key" not in str(info):
                raise fault_of(info)
            top = (0, 0)
        else:
            top = _order(dict(zip(info[::2], info[1::2], strict=True))[b"last-generated-id"].decode())
        if top >= _order(cursor.id):
            return []
        self.statistics.gaps += 1
        self.cursor = TickCursor("0-0", 0, 0)
        return [TickGap("wiped", cursor, None)]


class HealthWriter:
    """Writes `health:<account>` snapshots in pipelines. The newest wins; a failed write is not repeated."""

    def __init__(self, link: Link, *, expire_s: int = 3600, chunk: int = 1000) -> None:
        """Prepares a writer. A snapshot that is not refreshed for `expire_s` goes away."""
        self._link, self._expire_s, self._chunk = link, expire_s, chunk
        self._wire: Wire | None = None

    async def write(self, snapshots: Iterable[tuple[str, bytes]]) -> int:
        """Writes (account, snapshot) pairs and returns how many. Raises LedgerUnavailable."""
        count = 0
        commands: list[Command] = []
        for account, snapshot in snapshots:
            commands.append(("SET", health_key(account), snapshot, "EX", self._expire_s))
            count += 1
            if len(commands) == self._chunk:
                await self._send(commands)
                commands = []
        await self._send(commands)
        return count

    async def remove(self, accounts: Sequence[str]) -> None:
        """Takes away the snapshots of removed accounts. Raises LedgerUnavailable."""
        await self._send([("SET", health_key(account), b"", "PX", 1) for account in accounts])  # DEL is not among our commands

    def close(self) -> None:
        """Drops the connection; the next write makes a new one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _send(self, commands: list[Command]) -> None:
        if not commands:
            return
        if self._wire is None or self._wire.closed:
            self._wire = await self._link.open()
        try:
            raise_faults(await self._wire.exchange(commands, timeout_s=self._link.timeout_s))
        except BaseException:
            self.close()
            raise


@dataclass(frozen=True, slots=True)
class StoredPrice:
    """A price as kept in `marks:<venue>`."""

    price: float
    venue_time_ms: int
    received_at_ns: int


async def read_marks(link: Link, venue: str) -> dict[str, StoredPrice]:
    """The last prices of a venue by `kind:name`, for a start without enough ticks to read back. What cannot be read is left out."""
    pairs = await link.run(lambda wire: wire.call("HGETALL", marks_key(venue), timeout_s=max(link.timeout_s, 10.0)))
    found: dict[str, StoredPrice] = {}
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        try:
            price, venue_time, received = value.split(b"|")
            found[name.decode()] = StoredPrice(float(price), int(venue_time), int(received))
        except ValueError:
            continue
    return found


def _last_marks(batches: Sequence[PriceBatch]) -> list[tuple[str, list[Argument]]]:
    """By venue, field and value in turn, each field once: a backlog of an outage repeats every name hundreds of times."""
    if len(batches) == 1:
        return [(batches[0].venue, _marks_of(batches[0]))]
    last: dict[str, dict[Argument, Argument]] = {}
    for batch in batches:
        parts = _marks_of(batch)
        last.setdefault(batch.venue, {}).update(zip(parts[::2], parts[1::2], strict=True))
    return [(venue, [part for pair in fields.items() for part in pair]) for venue, fields in last.items()]


def _marks_of(batch: PriceBatch) -> list[Argument]:
    """Field and value in turn. The numbers are written by the JSON encoder, all at once: a third of the time of a text each."""
    word, times = batch.kind.value + ":", batch.venue_times_ms
    prices = orjson.dumps(batch.prices)[1:-1].split(b",")
    parts: list[Argument] = [b""] * (2 * len(prices))
    parts[::2] = [word + name for name in batch.names]
    if times.count(times[0]) == len(times):
        end = b"|%d|%d" % (times[0], batch.received_at_ns)
        parts[1::2] = [price + end for price in prices]
    else:
        parts[1::2] = [b"%b|%d|%d" % (price, at, batch.received_at_ns) for price, at in zip(prices, times, strict=True)]
    return parts


def _message(entry_id: bytes, pairs: Sequence[Any]) -> TickMessage | None:
    fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
    try:
        return TickMessage(entry_id.decode(), int(fields[b"e"]), int(fields[b"n"]), fields[b"b"])
    except (KeyError, ValueError):
        return None


def _order(stream_id: str) -> tuple[int, int]:
    left, _, right = stream_id.partition("-")
    return int(left), int(right or 0)
