"""Stage 2: price batches and account documents in, level changes into the ledger.

One task decides (`deciding`), in the order in which things came; reading and writing are other tasks. This module is their frame; `loading`
is how it starts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import orjson

from monitor.errors import LedgerUnavailable
from monitor.ledger.cache import TickGap, TickMessage
from monitor.ledger.committer import Committer
from monitor.ledger.connection import Link
from monitor.ledger.head import Head
from monitor.ledger.updates import Update
from monitor.margin.levels import Thresholds
from monitor.service.account_book import AccountBook
from monitor.service.deciding import Decider, EvaluatorStatistics
from monitor.service.facts import Facts
from monitor.service.loading import Loader, Loading
from monitor.service.logs import log

__all__ = ["EvaluatorStage", "EvaluatorStatistics", "Loading"]

SWEEP_S = 0.25
UPDATES_POLL_S = 0.01
PASS_S = 1.0
SLICE_S = 0.001
"""How long a slice of the background pass takes at most; its size follows."""


class EvaluatorStage:
    """The accounts of some partitions, held in memory and kept up to date. `load`, then `run` until cancelled."""

    def __init__(
        self,
        committers: dict[int, Committer],
        *,
        partitions: int,
        ledger_link: Callable[[], Link],
        cache_link: Callable[[], Link],
        book: AccountBook,
        facts: Facts,
        thresholds: Thresholds,
        unknown_after_s: float,
        silent_after_s: Callable[[str], float] = lambda _venue: float("inf"),
        on_loading: Loading = lambda _what, _done, _total: None,
        prices_under_way: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        doze: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.committers = committers
        self.decider = decider = Decider(
            committers,
            partitions=partitions,
            book=book,
            facts=facts,
            thresholds=thresholds,
            unknown_after_s=unknown_after_s,
            silent_after_s=silent_after_s,
            clock=clock,
            wall_ns=wall_ns,
        )
        self.book, self.store, self.engine = book, decider.store, decider.engine
        self.observer, self.statistics = decider.observer, decider.statistics
        self.stale, self.holds = decider.stale, decider.holds
        self.ready = asyncio.Event()
        self._loader = Loader(decider, ledger_link=ledger_link, cache_link=cache_link, on_loading=on_loading)
        self._cache_link = cache_link
        self._clock, self._doze = clock, doze
        self._inbox: asyncio.Queue[TickMessage | TickGap | Update] = asyncio.Queue(maxsize=64)
        self._turn = asyncio.Lock()  # one thing is decided at a time, its observations queued before the next
        self._wanted_told = 0
        self._reading_since = float("inf")
        self._prices_under_way = prices_under_way
        self.observer.yields_to = self._has_message

    async def load(self, heads: dict[int, Head]) -> None:
        """Takes in the accounts, levels and prices of the partitions as they stand in Redis, then what was missed since.

        The engine's kernels are compiled by then (`Evaluator.warm_up`). `heads`: by partition, the head as it was before this process
        took it (`Partition.lead`). Sets `ready` at the end.
        """
        self._ticks, self._updates = await self._loader.load(heads)
        await self._tell_wanted()
        self.statistics.progress_at = self._clock()
        self.ready.set()

    async def run(self) -> None:
        """Decides until cancelled. After `load`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_ticks(), name="ticks")
            group.create_task(self._read_updates(), name="updates")
            group.create_task(self._decide(), name="decide")
            group.create_task(self._sweep(), name="sweep")
            group.create_task(self._go_round(), name="pass")
            group.create_task(self.observer.follow(), name="numbers")
            for number in self.committers:
                group.create_task(self.observer.measure(number), name=f"latency:{number}")

    async def drain(self) -> None:
        """After `run` was cancelled: decides what was read already and returns when all of it is committed."""
        while not self._inbox.empty():
            await self.decider.take(self._inbox.get_nowait())
        await self.observer.follow_all()
        for committer in self.committers.values():
            await committer.flush()

    # ------------------------------------------------------------------ reading

    async def _read_ticks(self) -> None:
        while True:
            try:
                items = await self._ticks.read()
                self._reading_since = min(self._reading_since, self._clock())
                for item in items:
                    await self._inbox.put(item)
            except LedgerUnavailable as error:
                self._reading_since = float("inf")
                log.warning("cache_unavailable", error=str(error))
                await self._doze(0.5)
            self.statistics.progress_at = self._clock()

    async def _read_updates(self) -> None:
        while True:
            try:
                updates = await self._updates.read()
            except LedgerUnavailable:
                await self._doze(0.5)
                continue
            for update in updates:
                await self._inbox.put(update)
            if not updates:
                await self._doze(UPDATES_POLL_S)

    # ------------------------------------------------------------------ deciding

    async def _decide(self) -> None:
        while True:
            item = await self._inbox.get()
            async with self._turn:
                taking = asyncio.ensure_future(self.decider.take(item))
                try:
                    await asyncio.shield(taking)
                except asyncio.CancelledError:
                    await taking  # else the rest of its levels would never be told: the next message moves the cursor past it
                    raise

    def _has_message(self) -> bool:
        return self._turn.locked() or not self._inbox.empty() or self._prices_under_way()

    async def _sweep(self) -> None:
        """Tells what has been unknown for too long, and what the feeds should read."""
        while True:
            async with self._turn:
                await self.observer.tell_unknown(self.decider.now_place())
                if self._inbox.empty():  # else what was heard is not decided yet
                    await self.decider.tell_silent(self._reading_since)
            await self._tell_wanted()
            await self._doze(SWEEP_S)

    async def _go_round(self) -> None:
        """The engine's background pass: slices between messages, the whole book in about a second."""
        pass_started, passes, size = self._clock(), 0, 500
        while True:
            async with self._turn:
                started = self._clock()
                found = self.engine.pass_slice(size)
                took = self._clock() - started
                await self.observer.observe(found, self.decider.now_place(), {"kind": "pass"})
            counted = self.engine.statistics()
            if counted.passes != passes:
                self.statistics.pass_s, pass_started, passes = self._clock() - pass_started, self._clock(), counted.passes
            slices = max(1, -(-counted.pools // size))
            size = min(max(int(size * min(SLICE_S / 2 / max(took, 1e-6), 1.25)), 100), 10_000)
            await self._doze(max(PASS_S / slices - (self._clock() - started), 0.0))

    async def _tell_wanted(self) -> None:
        """Keeps `wanted:<venue>` in step with the accounts."""
        if len(self.decider.wanted) == self._wanted_told:
            return
        told = len(self.decider.wanted)
        by_venue: dict[str, dict[str, list[str]]] = {}
        for venue, kind, name in sorted(self.decider.wanted):
            by_venue.setdefault(venue, {}).setdefault(kind.value, []).append(name)
        try:
            wire = await self._cache_link().open()
            try:
                for venue, kinds in by_venue.items():
                    await wire.call("SET", f"wanted:{venue}", orjson.dumps(kinds, option=orjson.OPT_SORT_KEYS), timeout_s=5.0)
            finally:
                wire.close()
        except LedgerUnavailable:
            return
        self._wanted_told = told

    def now(self) -> datetime:
        """Wall time, for what depends on the date."""
        return self.decider.now()
