"""Keeping the ledger small: trimming what everybody has, watching the dead letters and the memory, and a sink that stays behind.

Redis refuses everything when its memory is full (noeviction), account updates included, so one dead sink must not be able to fill it: from
a share of the memory on, its backlog is written to a file and its cursor moves past it, with one dead letter that says where the rows are.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import LedgerUnavailable
from monitor.ledger.changes import Anchor
from monitor.ledger.committer import Committer, QueueDropped
from monitor.ledger.connection import Link, Wire, raise_faults
from monitor.ledger.cursors import SinkWorker, read_cursors, read_rows
from monitor.ledger.keys import PartitionKeys

__all__ = ["Housekeeper", "HousekeepingStatistics"]


@dataclass(slots=True)
class HousekeepingStatistics:
    """What the last round saw, and what was done since the process started.

    Attributes:
        events, updates, dead_letters: Entries on the streams now.
        memory_share: Used memory over maxmemory of the server; 0 where there is no limit.
        trimmed: Events and updates removed. dead_letters_dropped: the oldest ones, beyond the number kept: never silently.
        spilled: Rows of sinks that stayed behind, written to files.
        failures: Rounds that Redis did not let us finish.
    """

    events: int = 0
    updates: int = 0
    dead_letters: int = 0
    memory_share: float = 0.0
    trimmed: int = 0
    dead_letters_dropped: int = 0
    spilled: int = 0
    failures: int = 0


class Housekeeper:
    """Keeps one held partition in bounds."""

    def __init__(
        self,
        link: Link,
        committer: Committer,
        workers: Sequence[SinkWorker],
        *,
        retain_events: int = 100_000,
        retain_dead: int = 10_000,
        spill_folder: Path | None = None,
        spill_at: float = 0.7,
        interval_s: float = 10.0,
        doze: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepares it.

        Args:
            workers: Of all sinks configured: what one of them has not yet got is not trimmed. Cursors of sinks that are configured no more
                count not. May be replaced.
            retain_events: Rows kept for readers after every sink has them.
            spill_folder: Where the backlog of a sink goes when the memory is `spill_at` full; None: nowhere, and it fills up.
        """
        self.statistics = HousekeepingStatistics()
        self._link, self._committer, self.workers = link, committer, workers
        self._retain_events, self._retain_dead = retain_events, retain_dead
        self._spill_folder, self._spill_at = spill_folder, spill_at
        self._interval_s, self._doze = interval_s, doze
        self._partition = committer.partition
        self._keys = PartitionKeys.of(self._partition.number)

    @property
    def partition(self) -> int:
        """Number of the partition."""
        return self._partition.number

    async def run(self) -> None:
        """A round every `interval_s`, until cancelled. Raises what ended the committer, and LedgerBroken."""
        while True:
            try:
                await self.round()
            except (LedgerUnavailable, QueueDropped) as error:
                self._link.follow(error)
                self.statistics.failures += 1
            await self._doze(self._interval_s)

    async def round(self) -> None:
        """Looks, and trims what may go. Raises LedgerUnavailable."""
        wire = await self._link.open()
        try:
            await self._look(wire)
            if self._spill_folder is not None and self.statistics.memory_share >= self._spill_at:
                await self._spill(wire, self._spill_folder)
            await self._anchor(wire)
            self.statistics.trimmed += await self._partition.trim(wire)
            await self._trim_dead(wire)
        finally:
            wire.close()

    async def _look(self, wire: Wire) -> None:
        keys = self._keys
        replies = await wire.exchange(
            [("XLEN", keys.events), ("XLEN", keys.updates), ("XLEN", keys.dead), ("INFO", "memory")], timeout_s=self._link.timeout_s
        )
        raise_faults(replies)
        statistics = self.statistics
        statistics.events, statistics.updates, statistics.dead_letters = replies[:3]
        facts = dict(line.split(":", 1) for line in replies[3].decode().splitlines() if ":" in line)
        limit = int(facts.get("maxmemory", "0"))
        statistics.memory_share = int(facts.get("used_memory", "0")) / limit if limit else 0.0

    async def _anchor(self, wire: Wire) -> None:
        """Commits how far may be trimmed, before anything is: the chain can then be checked from there on."""
        head = self._partition.head
        cursors = await read_cursors(wire, self._partition.number, timeout_s=self._link.timeout_s)
        behind = [int(cursors.get(worker.name, "0-0").partition("-")[0]) for worker in self.workers]
        bound = min([head.seq - self._retain_events, *behind])
        if bound <= head.trim:
            return
        rows = await wire.call("XRANGE", self._keys.events, bound, bound, timeout_s=self._link.timeout_s)
        if rows:
            fields = dict(zip(rows[0][1][::2], rows[0][1][1::2], strict=True))
            await self._committer.put([Anchor(bound, fields[b"h"].decode(errors="backslashreplace"))])
            await self._committer.flush()

    async def _trim_dead(self, wire: Wire) -> None:
        if self.statistics.dead_letters > self._retain_dead:
            dropped = await wire.call("XTRIM", self._keys.dead, "MAXLEN", "=", self._retain_dead, timeout_s=self._link.timeout_s)
            self.statistics.dead_letters_dropped += dropped

    async def _spill(self, wire: Wire, folder: Path) -> None:
        """Writes the backlog of the sink that is furthest behind to a file, then moves its cursor with one dead letter."""
        head, number = self._partition.head, self._partition.number
        cursors = await read_cursors(wire, number, timeout_s=self._link.timeout_s)
        worker = min(self.workers, key=lambda one: int(cursors.get(one.name, "0-0").partition("-")[0]), default=None)
        if worker is None:
            return
        after = cursors.get(worker.name, "0-0")
        if head.seq - int(after.partition("-")[0]) <= self._retain_events // 2:
            return  # not this sink is what fills the memory
        path = folder / f"{worker.name}-{number}-{after}.jsonl"
        count, first, last = 0, "", after
        while rows := await read_rows(wire, number, last, count=1000, timeout_s=max(self._link.timeout_s, 5.0)):
            await asyncio.to_thread(_append, path, [row.body for row in rows], anew=not count)
            first = first or rows[0].id
            last = rows[-1].stream_id
            count += len(rows)
        if not count:
            return
        worker.skip_to(last)
        replies = await wire.exchange(
            [
                ("MULTI",),
                (
                    *("XADD", self._keys.dead, "*", "source", f"sink:{worker.name}", "cause", f"backlog of {count} rows written to {path}"),
                    *("raw", "", "id", f"{first} to {number}/{last}"),
                ),
                ("HSET", self._keys.sinks, worker.name, last),
                ("EXEC",),
            ],
            timeout_s=self._link.timeout_s,
        )
        raise_faults(replies)
        self.statistics.spilled += count


def _append(path: Path, bodies: Sequence[bytes], *, anew: bool) -> None:
    """Adds lines to a file and makes them durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb" if anew else "ab") as file:
        file.writelines(body + b"\n" for body in bodies)
        file.flush()
        os.fsync(file.fileno())
