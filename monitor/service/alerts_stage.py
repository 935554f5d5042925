"""Stage 3: rows of the ledger to every sink, each at its own pace.

A sink is opened once and served by one worker a partition; a dead one delays nobody. Rows are sent only while their partition is certainly
held: by this process's committer, or, when the evaluator runs elsewhere, while its head is seen to move.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from monitor.errors import LedgerUnavailable
from monitor.ledger.committer import Committer
from monitor.ledger.connection import Link
from monitor.ledger.cursors import SinkWorker, register_sink
from monitor.ledger.keys import PartitionKeys
from monitor.service.logs import log
from monitor.service.metrics import Sample, by_reason
from monitor.service.receivers import adopt_standing
from monitor.sinks.base import Reason, Sink

__all__ = ["AlertsStage", "HeadWatch"]

FINISH_S = 2.0
"""How long sinks may go on with what is written when the daemon stops."""


class HeadWatch:
    """Whether a partition's holder is alive, seen from another process: its head moves at least once in half a lease."""

    def __init__(self, link: Link, partitions: Sequence[int], lease_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._link, self._lease_s, self._clock = link, lease_s, clock
        self._moved_at = dict.fromkeys(partitions, float("-inf"))
        self._seen: dict[int, object] = {}

    async def run(self) -> None:
        """Looks eight times a lease, until cancelled."""
        while True:
            try:
                wire = await self._link.open()
                try:
                    while True:
                        for partition in self._moved_at:
                            place = await wire.call("HMGET", PartitionKeys.of(partition).head, "token", "n", timeout_s=self._link.timeout_s)
                            if partition in self._seen and place != self._seen[partition]:
                                self._moved_at[partition] = self._clock()
                            self._seen[partition] = place
                        await asyncio.sleep(self._lease_s / 8)
                finally:
                    wire.close()
            except LedgerUnavailable:
                await asyncio.sleep(self._lease_s / 8)

    def may_send(self, partition: int) -> bool:
        """Whether the head moved less than half a lease ago."""
        return self._clock() - self._moved_at[partition] < self._lease_s / 2


class AlertsStage:
    """Delivers the rows of some partitions to all sinks."""

    def __init__(
        self, sinks: Sequence[Sink], partitions: Sequence[int], link: Callable[[], Link], *, may_send: Callable[[int], bool]
    ) -> None:
        self.sinks = list(sinks)
        self.workers: list[tuple[Sink, SinkWorker]] = []
        self._link = link
        self._partitions = partitions
        for sink in sinks:
            for number in partitions:
                worker = SinkWorker(link(), number, sink.name, sink, may_send=lambda number=number: may_send(number))  # type: ignore[misc]
                self.workers.append((sink, worker))
        self.written: dict[int, int] = {}

    async def register(self) -> None:
        """Places the cursor of every sink. Await it before the evaluator's first commit: rows from then on are for it."""
        for sink in self.sinks:
            for number in self._partitions:
                await register_sink(self._link(), number, sink.name)

    def wake_by(self, committers: Mapping[int, Committer]) -> None:
        """Workers are woken by the commits of this process, instead of looking twice a second."""
        for _, worker in self.workers:
            if worker.partition in committers:
                committers[worker.partition].listen(worker.wake)

    def leave(self, committers: Mapping[int, Committer]) -> None:
        """Ends `wake_by`."""
        for _, worker in self.workers:
            if worker.partition in committers:
                committers[worker.partition].unlisten(worker.wake)

    async def begin_term(self) -> None:
        """Every sink goes on from where the ledger says, with what stands there. Raises LedgerUnavailable."""
        await adopt_standing(self._link, self._partitions, self.sinks)
        for _, worker in self.workers:
            await worker.begin_term()

    def workers_of(self, partition: int) -> list[SinkWorker]:
        """The workers of one partition."""
        return [worker for _, worker in self.workers if worker.partition == partition]

    async def run(self) -> None:
        """Delivers until cancelled; then stores how far each sink has got."""
        async with asyncio.TaskGroup() as group:
            for sink in self.sinks:
                group.create_task(self._serve(sink), name=f"sink:{sink.name}")

    async def finish(self, rows: Mapping[int, int]) -> bool:
        """Waits, at most `FINISH_S`, until every sink has got to these rows (partition -> seq). False when one has not."""
        try:
            async with asyncio.timeout(FINISH_S):
                while any(worker.statistics.seq < rows.get(worker.partition, 0) for _, worker in self.workers):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            return False
        return True

    def samples(self) -> Iterable[Sample]:
        """Counters for /metrics."""
        for sink in self.sinks:
            mine = [worker for owner, worker in self.workers if owner is sink]
            label = (sink.name,)
            lag = sum(max(0, self.written.get(worker.partition, worker.statistics.seq) - worker.statistics.seq) for worker in mine)
            yield Sample("outbox_lag_events", lag, label)
            yield Sample("sink_delivered_total", sum(worker.statistics.delivered for worker in mine), label)
            yield from by_reason("sink_unavailable_total", sink.statistics.unavailable, (Reason.TIMEOUT, Reason.UNREACHABLE), sink.name)
            yield from by_reason("sink_refused_total", sink.statistics.refused, (Reason.REJECTED,), sink.name)

    async def _serve(self, sink: Sink) -> None:
        """One sink: opened and closed by this task, with its workers between."""
        await sink.open()
        mine = [worker for owner, worker in self.workers if owner is sink]
        try:
            async with asyncio.TaskGroup() as group:
                for worker in mine:
                    group.create_task(worker.run(), name=f"sink:{sink.name}:{worker.partition}")
        finally:
            for worker in mine:
                with contextlib.suppress(LedgerUnavailable):
                    await worker.finish()
            log.info("sink_closed", sink=sink.name, delivered=sum(worker.statistics.delivered for worker in mine))
            await sink.close()
