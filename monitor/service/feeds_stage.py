"""Stage 1: the venues' sockets on one side, the `ticks` stream on the other.

What is wanted follows the accounts: the evaluator keeps `wanted:<venue>` in the cache, and this stage subscribes what stands there beside
what the settings name. A name that has gone stale is told on the stream itself, so that every evaluator hears it in the order of the ticks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace

import orjson

from monitor.errors import LedgerUnavailable
from monitor.feeds.freshness import StaleChange
from monitor.feeds.publisher import Publisher
from monitor.feeds.supervisor import VenueFeed
from monitor.feeds.venues import profile_of
from monitor.ledger.cache import TicksWriter
from monitor.ledger.connection import Link
from monitor.margin.prices import PriceKind
from monitor.service.logs import log
from monitor.service.metrics import Sample, by_reason
from monitor.service.settings import FeedsSettings
from monitor.wire.frames import Fault, Wanted
from monitor.wire.prices import PriceBatch

__all__ = ["FeedsStage", "Room", "read_wanted", "wanted_key", "wanted_of"]

WANTED_POLL_S = 1.0

KINDS = frozenset({PriceKind.FUNDING_RATE, PriceKind.VOLATILITY, PriceKind.FORWARD})
"""Taken beside marks and indices wherever the venue has them: portfolio margin prices options by their volatility and forward."""

Room = Callable[[int], Awaitable[None]]
"""Waits until the evaluator is near message n of the stream: holds a lossless replay back, so that nothing is trimmed unread."""


def wanted_key(venue: str) -> str:
    """The cache key under which evaluators say which names of a venue they need: JSON {"mark": [...], "index": [...]}."""
    return f"wanted:{venue}"


async def read_wanted(link: Link, venue: str) -> bytes | None:
    """What stands under `wanted_key`, None for nothing. Raises LedgerUnavailable."""
    data = await link.run(lambda wire: wire.call("GET", wanted_key(venue), timeout_s=link.timeout_s))
    assert data is None or isinstance(data, bytes)
    return data


def wanted_of(symbols: Sequence[str], told: bytes | None) -> Wanted:
    """What to subscribe: the settings' symbols and what the evaluators need. Where neither names anything, everything there is."""
    needed: dict[str, list[str]] = orjson.loads(told or b"{}")
    return Wanted(
        instruments=frozenset(symbols) | frozenset(needed.get("mark", ())),
        assets=frozenset(needed.get("index", ())),
        everything=not symbols,
        kinds=KINDS,
    )


class FeedsStage:
    """Reads the configured venues into the cache. `run` until cancelled."""

    def __init__(self, settings: FeedsSettings, link: Link, *, retain_ticks: int, room: Room | None = None) -> None:
        self._settings, self._link = settings, link
        self._writer = TicksWriter(link, retain=retain_ticks)
        self._room = room
        self._told: dict[str, bytes] = {}
        self._last: Sequence[PriceBatch] | None = None
        self._written = 0
        self._stale: asyncio.Queue[PriceBatch] = asyncio.Queue()  # at most one change a name and sweep
        self.publisher = Publisher(self._write, on_slow=settings.on_slow)
        self.feeds: dict[str, VenueFeed] = {}
        for venue in settings.venues:
            own = settings.of(venue)
            profile = profile_of(venue)
            if settings.on_slow == "wait":  # a tape's time is not ours: what we hold back is neither silent nor dead
                profile = replace(profile, keepalive_s=None, silence_s=86_400.0)
            self.feeds[venue] = VenueFeed(
                profile.at(own.url) if own.url else profile,
                wanted_of(own.symbols, None),
                self.publisher.put,
                on_stale=self._on_stale,
                stale_after_s=own.stale_after_s,
                connections=own.connections,
            )

    async def run(self) -> None:
        """Reads, writes, and follows what is wanted."""
        async with asyncio.TaskGroup() as group:
            if self._settings.on_slow == "conflate":
                group.create_task(self.publisher.run(), name="publisher")
            for venue, feed in self.feeds.items():
                group.create_task(feed.run(), name=f"feed:{venue}")
            group.create_task(self._tell_stale(), name="stale")
            group.create_task(self._follow_wanted(), name="wanted")

    def follow(self, settings: FeedsSettings) -> None:
        """Subscribes the symbols of new settings, and gives up what neither they nor an account names. The rest must be as before."""
        before, self._settings = self._settings, settings
        for venue, feed in self.feeds.items():
            if settings.of(venue).symbols != before.of(venue).symbols:
                self._want(venue, feed)

    def samples(self) -> Iterable[Sample]:
        """Counters for /metrics."""
        for venue, feed in self.feeds.items():
            statistics = feed.statistics
            label = (venue,)
            yield Sample("feed_connected", float(feed.is_ready()), label)
            yield Sample("feed_messages_total", statistics.messages, label)
            yield Sample("feed_prices_total", sum(statistics.prices.values()), label)
            yield Sample("feed_symbols", statistics.symbols, label)
            yield Sample("feed_stale_symbols", statistics.stale, label)
            yield Sample("feed_conflated_total", self.publisher.statistics.conflated.get(venue, 0), label)
            yield Sample("feed_delay_seconds", statistics.delay, label)
            skew_s = statistics.skew.seconds
            yield Sample("feed_clock_skew_seconds", float("nan") if skew_s is None else skew_s, label)  # nothing measured is not 0
            yield from by_reason("feed_rejected_total", statistics.rejected, (Fault.NOT_JSON, Fault.NOT_POSITIVE), venue)
            yield from by_reason("feed_reconnects_total", statistics.reconnects, ("connect_failed", "rotated", "silent"), venue)

    async def _write(self, batches: Sequence[PriceBatch]) -> None:
        """The publisher's writer. What a failure left unanswered goes first, under its own numbers; a repeat of it is then done."""
        if self._writer.has_unanswered:
            repeated = batches is self._last
            await self._writer.retry()
            if repeated:
                return
        self._last = batches
        await self._writer.write(batches)
        self._written += len(batches)
        if self._room is not None:
            await self._room(self._written)

    def _on_stale(self, changes: Sequence[StaleChange]) -> None:
        """Tells the evaluators, in the stream's own order."""
        now_ns = time.time_ns()
        by_venue: dict[str, list[StaleChange]] = {}
        for change in changes:
            by_venue.setdefault(change.venue, []).append(change)
        for venue, group in by_venue.items():
            self._stale.put_nowait(
                PriceBatch(
                    venue=venue,
                    kind=PriceKind.STALE,
                    names=[f"{change.kind.value}:{change.name}" for change in group],
                    prices=[0.0 if change.reason is None else 1.0 for change in group],
                    venue_times_ms=[0] * len(group),
                    received_at_ns=now_ns,
                )
            )

    async def _tell_stale(self) -> None:
        while True:
            held = self.publisher.put([await self._stale.get()])
            if held is not None:
                await held

    async def _follow_wanted(self) -> None:
        while True:
            for venue, feed in self.feeds.items():
                try:
                    data = await read_wanted(self._link, venue)
                except LedgerUnavailable:
                    break
                if data is not None and data != self._told.get(venue):
                    self._told[venue] = data
                    self._want(venue, feed)
            await asyncio.sleep(WANTED_POLL_S)

    def _want(self, venue: str, feed: VenueFeed) -> None:
        wanted = wanted_of(self._settings.of(venue).symbols, self._told.get(venue))
        log.info("feed_wanted", venue=venue, instruments=len(wanted.instruments), everything=wanted.everything)
        feed.want(wanted)
