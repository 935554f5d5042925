"""Between the sockets and Redis: a buffer that never queues. What is not written in time is overtaken by newer prices, or holds the socket.

`conflate` (live): the latest number of each name wins. While the writer is busy, batches wait as they came; when it is free they go out
merged, one batch a venue and kind. What waits is bounded by the number of names. `wait` (replay): every batch is written by itself, in
order, and the socket is held back meanwhile: nothing is lost and nothing is merged.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import structlog

from monitor.errors import LedgerUnavailable
from monitor.feeds.clock import SYSTEM_CLOCK, Clock
from monitor.margin.prices import PriceKind
from monitor.wire.prices import PriceBatch

__all__ = ["MOST_BACKLOG", "MOST_PENDING", "OnSlow", "Publisher", "PublisherStatistics", "WriteBatches", "merge"]

log = structlog.get_logger()

OnSlow = Literal["conflate", "wait"]

WriteBatches = Callable[[Sequence[PriceBatch]], Awaitable[object]]
"""Writes batches to the ticks stream, in order, all or none. Raises LedgerUnavailable when it cannot; the call is then repeated."""

MOST_PENDING = 256
"""Batches that wait unmerged; then they are merged in place."""

MOST_BACKLOG = 400_000
"""What is kept unmerged while Redis is away, in numbers of at most 108 bytes: 43 MB, 16 minutes of 400 names a second. Then: merged."""

BATCH_COST = 3
"""What a batch costs beside its numbers, in numbers: one of a single number takes 430 bytes."""

CHUNK = 256
"""Batches of a backlog that are written at once, at most..."""

CHUNK_NUMBERS = 25_000
"""... and about how many numbers."""

RETRY_S = 0.25
"""Between two attempts to write while Redis is away. No longer: prices are to be fresh within a second of its return."""


@dataclass(slots=True)
class PublisherStatistics:
    """What the publisher did.

    Attributes:
        written, written_batches: Numbers and batches written. conflated: numbers overtaken before they were written, by venue.
        failures: Writes that Redis did not take; each is repeated.
        pending_high: Most batches that ever waited.
    """

    written: int = 0
    written_batches: int = 0
    conflated: dict[str, int] = field(default_factory=dict)
    failures: int = 0
    pending_high: int = 0


class Publisher:
    """One for all venues. `put` from any feed's task; `run` in a task of its own (conflate)."""

    def __init__(self, write: WriteBatches, *, on_slow: OnSlow = "conflate", clock: Clock = SYSTEM_CLOCK) -> None:
        self.statistics = PublisherStatistics()
        self.on_slow = on_slow
        self._write, self._clock = write, clock
        self._pending: list[PriceBatch] = []
        self._away = False  # Redis did not take the last write: what comes is a backlog
        self._backlog = 0  # its cost, what is being written of it included
        self._leaving = 0  # the part of it that is being written
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._turn = asyncio.Lock()

    def put(self, batches: list[PriceBatch]) -> Awaitable[None] | None:
        """Takes batches. `conflate`: at once, returns None. `wait`: an awaitable that is done when they are written."""
        if self.on_slow == "wait":
            return self._written(batches)
        pending = self._pending
        pending.extend(batches)
        self.statistics.pending_high = max(self.statistics.pending_high, len(pending))
        if self._away:
            self._backlog += _cost(batches)
        if self._backlog > MOST_BACKLOG if self._away else len(pending) > MOST_PENDING:
            self._pending = self._merge(pending)
            self._backlog = self._leaving + _cost(self._pending)
        self._idle.clear()
        self._arrived.set()
        return None

    async def _written(self, batches: list[PriceBatch]) -> None:
        """One batch a write, in the order of the calls. Cancelling may leave the batch being written twice if it is put again."""
        async with self._turn:
            for batch in batches:
                await self._write_until_taken([batch])

    async def run(self) -> None:
        """Writes what waits, until cancelled. What waits then is lost: prices are not a record."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batches, self._pending = self._pending, []
            if batches:
                await self._write_until_taken(self._merge(batches) if len(batches) > 1 else batches)
            while self._away:  # what came while Redis was away, as it came
                waiting, self._pending = deque(self._pending), []
                self._away = bool(waiting)
                self._backlog = self._leaving = _cost(waiting)
                while waiting:
                    chunk = _chunk(waiting)
                    await self._write_until_taken(chunk)
                    self._leaving -= _cost(chunk)
                    self._backlog -= _cost(chunk)
            if not self._pending:
                self._idle.set()

    @property
    def backlog(self) -> int:
        """What is kept because Redis is or was away: numbers, and `BATCH_COST` for each batch. Beyond `MOST_BACKLOG` it is merged."""
        return self._backlog if self._away else 0

    @property
    def is_writing(self) -> bool:
        """Whether prices are on their way to Redis."""
        return not self._idle.is_set()

    async def drained(self) -> None:
        """Returns when nothing waits to be written."""
        await self._idle.wait()
        async with self._turn:
            pass

    def _merge(self, batches: list[PriceBatch]) -> list[PriceBatch]:
        merged = merge(batches)
        for venue in {batch.venue for batch in batches}:
            before = sum(len(batch.names) for batch in batches if batch.venue == venue)
            after = sum(len(batch.names) for batch in merged if batch.venue == venue)
            if before > after:
                self.statistics.conflated[venue] = self.statistics.conflated.get(venue, 0) + before - after
        return merged

    async def _write_until_taken(self, batches: list[PriceBatch]) -> None:
        """Repeats a write that Redis did not take, until it does."""
        is_told = False
        while True:
            try:
                await self._write(batches)
            except LedgerUnavailable as error:
                self.statistics.failures += 1
                if not is_told:
                    log.warning("prices_not_written", error=str(error))
                    is_told = True
                self._away = self.on_slow == "conflate"
                await self._clock.sleep(RETRY_S)
                continue
            break
        self.statistics.written_batches += len(batches)
        self.statistics.written += sum(len(batch.names) for batch in batches)


def _cost(batches: Iterable[PriceBatch]) -> int:
    """What batches hold in memory, in numbers."""
    return sum(len(batch.names) + BATCH_COST for batch in batches)


def _chunk(waiting: deque[PriceBatch]) -> list[PriceBatch]:
    """Takes the next batches to be written: they are not kept any longer than that."""
    chunk: list[PriceBatch] = []
    numbers = 0
    while waiting and len(chunk) < CHUNK and numbers < CHUNK_NUMBERS:
        chunk.append(waiting.popleft())
        numbers += len(chunk[-1].names)
    return chunk


def merge(batches: Sequence[PriceBatch]) -> list[PriceBatch]:
    """One batch a venue and kind: of each name the last number, in the order of the last numbers; received when the oldest of them was."""
    groups: dict[tuple[str, PriceKind], list[PriceBatch]] = {}
    for batch in batches:
        groups.setdefault((batch.venue, batch.kind), []).append(batch)
    merged = []
    for (venue, kind), group in groups.items():
        if len(group) == 1:
            merged.append(group[0])
            continue
        latest: dict[str, tuple[float, int, int]] = {}
        for batch in reversed(group):  # backwards: the first sight of a name is its last number
            received = batch.received_at_ns
            for index in range(len(batch.names) - 1, -1, -1):
                name = batch.names[index]
                if name not in latest:
                    latest[name] = (batch.prices[index], batch.venue_times_ms[index], received)
        names = list(latest)
        names.reverse()
        rows = [latest[name] for name in names]
        merged.append(
            PriceBatch(
                venue=venue,
                kind=kind,
                names=names,
                prices=[row[0] for row in rows],
                venue_times_ms=[row[1] for row in rows],
                received_at_ns=min(row[2] for row in rows),
            )
        )
    return merged
