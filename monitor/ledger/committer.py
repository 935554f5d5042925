"""The one task that writes to a partition: first in, first out.

Whatever is queued while a commit is under way goes into the next one, so the number of rows per EXEC follows the load by itself. Order is
never changed: an event does not precede the document it was computed from, and a cursor does not lead.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from monitor.errors import LedgerError
from monitor.ledger.changes import Change, DocumentChange, Hold, Numbers, Observation, TicksRead, UpdatesRead, size_of
from monitor.ledger.keys import level_name
from monitor.ledger.partition import Partition
from monitor.ledger.records import NEVER, NO_DOCUMENT, AccountVersion
from monitor.ledger.statistics import LedgerStatistics
from monitor.margin.levels import Level

__all__ = ["Committer", "QueueDropped"]

_MOST_CHANGES = 1000
_MOST_BYTES = 1 << 20


class QueueDropped(LedgerError):
    """The queue grew past its limit while the ledger was away and was dropped.

    Nothing is lost: the cursors did not move. Wait for `Committer.settled`, go back to `head.ticks` and `head.updates`, and call `resume`.
    """


class Committer:
    """The writer of one partition, fed by the evaluator.

    While the ledger answers, `put` waits when more than `high_bytes` are queued. While it does not, `put` does not wait: evaluation goes on
    and the queue grows, up to `limit_bytes`.

    Attributes:
        queued_bytes: Size of the queue, roughly. `most_queued_bytes`: the most it ever was.
        fatal: Why the task ended (Fenced, LedgerBroken, TailLost), else None.
    """

    def __init__(
        self,
        partition: Partition,
        *,
        lease_s: float,
        high_bytes: int = 8 << 20,
        limit_bytes: int = 64 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.partition = partition
        self.lease_s = lease_s
        self.queued_bytes = 0
        self.most_queued_bytes = 0
        self.fatal: LedgerError | None = None
        self._high, self._limit = high_bytes, limit_bytes
        self._clock = clock
        self._queue: deque[Change] = deque()
        self._urgent = 0  # queued changes that are not mere cursors
        self._flying = 0  # changes at the front that are in the commit under way
        self._put = 0
        self._done = 0
        self._flush_to = 0
        self._dropped = False
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()  # replaced each time it is set: wakes all who wait now
        self._listeners: list[asyncio.Event] = []
        self._latest: dict[str, tuple[Level, str | None, int]] = {}  # by pool: the last queued verdict, and how many are queued
        self._versions: dict[str, tuple[AccountVersion, int]] = {}  # by account, likewise

    @property
    def statistics(self) -> LedgerStatistics:
        """The partition's counters."""
        return self.partition.statistics

    @property
    def depth(self) -> int:
        """Queued changes."""
        return len(self._queue)

    @property
    def accepted(self) -> int:
        """How many changes were ever queued; with `done` it tells when one of them is proven."""
        return self._put

    @property
    def done(self) -> int:
        """How many of them are proven to be committed."""
        return self._done

    def proven_age_s(self) -> float:
        """Seconds since the sending of the last commit that is proven: how long ago this process certainly held the partition."""
        return self._clock() - self.partition.proven_at

    def may_send(self) -> bool:
        """Whether sinks may send: the last proven commit is younger than half a lease. A resumed old leader so keeps quiet."""
        return self.fatal is None and self.proven_age_s() < self.lease_s / 2

    def verdict(self, account: str, pool: str) -> tuple[Level, str | None]:
        """The verdict of a pool as it will stand when all that is queued is written: an observation equal to it gives no event."""
        name = level_name(account, pool)
        queued = self._latest.get(name)
        if queued is not None:
            return queued[0], queued[1]
        state = self.partition.state
        record = NEVER if state is None else state.levels.get(name, NEVER)
        return record.level, record.unknown

    def version(self, account: str) -> AccountVersion | None:
        """The version of an account's document as it will stand when all that is queued is written; None: never heard of."""
        queued = self._versions.get(account)
        if queued is not None:
            return queued[0]
        state = self.partition.state
        return None if state is None else state.accounts.get(account)

    def listen(self, event: asyncio.Event) -> None:
        """Sets this event after each commit that wrote rows: the wake-up of a sink worker of this process."""
        self._listeners.append(event)

    def unlisten(self, event: asyncio.Event) -> None:
        """Ends `listen`."""
        self._listeners.remove(event)

    async def put(self, changes: Sequence[Change]) -> None:
        """Queues changes in this order. All or nothing. Cancelling while it waits is safe: then nothing was queued.

        Raises QueueDropped until `resume` is called, and the reason when the task has ended.
        """
        while self.queued_bytes > self._high and self.partition.fault is None and self.fatal is None and not self._dropped:
            await _wait(self._moved, 0.1)  # a fault of Redis sets no event
        self.put_nowait(changes)

    def put_nowait(self, changes: Sequence[Change]) -> None:
        """`put` without waiting."""
        if self.fatal is not None:
            raise self.fatal
        if self._dropped:
            raise QueueDropped(f"partition {self.partition.number}: dropped, not yet resumed")
        for change in changes:
            self._append(change)
        if self.queued_bytes > self._limit:
            self._drop()
            raise QueueDropped(f"partition {self.partition.number}: more than {self._limit >> 20} MiB were queued")
        self.most_queued_bytes = max(self.most_queued_bytes, self.queued_bytes)
        if self._urgent > self._flying:
            self._wake.set()

    async def flush(self) -> None:
        """Returns when everything queued before is proven to be committed. Raises what ended the task, and QueueDropped."""
        target = self._flush_to = self._put
        self._wake.set()
        while self._done < target and self.fatal is None and not self._dropped:
            await self._moved.wait()
        if self.fatal is not None:
            raise self.fatal
        if self._dropped:
            raise QueueDropped(f"partition {self.partition.number}: dropped while it was flushed")

    async def settled(self) -> None:
        """After a drop: returns when the commit that was under way is done or known not to be. Raises what ended the task."""
        while self._flying and self.fatal is None:
            await self._moved.wait()
        if self.fatal is not None:
            raise self.fatal

    def resume(self) -> None:
        """Accepts changes again, after a drop and a return to the committed cursors."""
        self._dropped = False

    async def run(self) -> None:
        """Commits what is queued, and a heartbeat when there is nothing for a quarter of a lease. Ends only by an error or when cancelled.

        Raises Fenced, LedgerBroken, TailLost. After a cancellation the partition may have a commit in doubt; `Partition.release` settles
        it.
        """
        try:
            while True:
                await self._wait()
                self._wake.clear()
                batch = self._take()
                self._flying = len(batch)
                rows_before = self.statistics.rows
                await self.partition.commit(batch)
                self._finish(len(batch), wrote=self.statistics.rows > rows_before)
        except LedgerError as error:
            self.fatal = error
            raise
        finally:
            self._tell()

    async def _wait(self) -> None:
        if self._urgent or self._flush_to > self._done:
            return
        due = self.partition.proven_at + self.lease_s / 4 - self._clock()
        if due > 0:
            await _wait(self._wake, due)

    def _take(self) -> list[Change]:
        """The front of the queue, up to 1,000 changes or 1 MiB. It stays queued until it is proven."""
        batch: list[Change] = []
        size = 0
        for change in islice(self._queue, _MOST_CHANGES):
            size += size_of(change)
            if batch and size > _MOST_BYTES:
                break
            batch.append(change)
        return batch

    def _finish(self, count: int, *, wrote: bool) -> None:
        self._flying = 0
        for _ in range(count):
            self._pop()
        self._done += count
        if wrote:
            for event in self._listeners:
                event.set()
        if count:
            self._tell()

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()

    def _append(self, change: Change) -> None:
        queue = self._queue
        cursor = isinstance(change, TicksRead | UpdatesRead)
        if cursor and len(queue) > self._flying and type(queue[-1]) is type(change):
            queue[-1] = change  # nothing stands between them: the later one says it all
            return
        if self.partition.fault is not None and isinstance(change, Observation | Numbers):
            change = replace(change, facts=bytes(memoryview(change.facts)))  # orjson's own bytes keep up to thrice their length allocated
        queue.append(change)
        self._put += 1
        self._urgent += not cursor
        self.queued_bytes += size_of(change)
        if isinstance(change, Observation):
            name = level_name(change.account, change.pool)
            known = self._latest.get(name)
            self._latest[name] = (change.level, change.unknown, 1 if known is None else known[2] + 1)
        elif isinstance(change, DocumentChange | Hold):
            account = change.account
            if isinstance(change, Hold):
                version = (self.version(account) or NO_DOCUMENT)._replace(hold=change.reason)
            else:
                version = AccountVersion.of(change.epoch, change.sequence, change.document, None)
            count = self._versions[account][1] if account in self._versions else 0
            self._versions[account] = (version, count + 1)

    def _pop(self) -> None:
        self._gone(self._queue.popleft())

    def _gone(self, change: Change) -> None:
        """Takes a change that left the queue out of the counts."""
        self._urgent -= not isinstance(change, TicksRead | UpdatesRead)
        self.queued_bytes -= size_of(change)
        if isinstance(change, Observation):
            name = level_name(change.account, change.pool)
            level, unknown, count = self._latest.pop(name)
            if count > 1:
                self._latest[name] = (level, unknown, count - 1)
        elif isinstance(change, DocumentChange | Hold):
            version, count = self._versions.pop(change.account)
            if count > 1:
                self._versions[change.account] = (version, count - 1)

    def _drop(self) -> None:
        """Empties the queue behind the commit under way. What that one holds is told by the partition when it is done."""
        self._dropped = True
        self.statistics.queue_drops += 1
        while len(self._queue) > self._flying:
            self._gone(self._queue.pop())
            self.statistics.dropped_changes += 1
            self._put -= 1
        self._tell()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, or for so long."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
