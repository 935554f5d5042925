"""A venue's simulator and its feed on one clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from monitor.feeds.freshness import StaleChange
from monitor.feeds.market import SAMPLES, venue_market
from monitor.feeds.simulator import Simulator
from monitor.feeds.supervisor import VenueFeed
from monitor.feeds.tape import Moment
from monitor.feeds.venues import DIALECTS, PROFILES
from monitor.margin.prices import PriceKind
from monitor.wire.frames import Topic, Wanted
from monitor.wire.prices import PriceBatch
from tests.support.fake_clock import FakeClock

__all__ = ["Rig", "rig_of", "supplied", "wanted_of"]

KINDS = frozenset({PriceKind.FUNDING_RATE, PriceKind.VOLATILITY, PriceKind.FORWARD, PriceKind.OPEN_INTEREST})


def supplied(topic: Topic) -> set[tuple[PriceKind, str]]:
    """What must come on a topic."""
    return {(kind, name) for kind, names in topic.supplies for name in names}


def wanted_of(venue: str) -> Wanted:
    """Everything of the venue's sample market."""
    sample = SAMPLES[venue]
    return Wanted(instruments=frozenset({*sample.instruments, *sample.options}), assets=frozenset(sample.assets), kinds=KINDS)


@dataclass
class Rig:
    """A simulator and a feed on one clock."""

    venue: str
    simulator: Simulator
    feed: VenueFeed
    clock: FakeClock
    batches: list[PriceBatch] = field(default_factory=list)
    changes: list[StaleChange] = field(default_factory=list)

    def latest(self) -> dict[tuple[PriceKind, str], float]:
        """The last number of each kind and name that the feed handed on."""
        return {(batch.kind, name): price for batch in self.batches for name, price in zip(batch.names, batch.prices, strict=True)}

    async def seconds(self, count: float, *, step_s: float = 0.5) -> None:
        """Lets time pass, waiting at each step until what was sent has been read."""
        for _ in range(round(count / step_s)):
            await self.clock.advance(step_s)
            for _ in range(10):  # turns of the loop: loopback needs no time, only turns
                await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool], *, within_s: float) -> float:
        """Lets time pass until the condition holds; the seconds it took."""
        passed = 0.0
        while not condition():
            assert passed < within_s, f"{self.venue}: not within {within_s} s; {self.feed.statistics}; missing {self.feed.missing()}"
            await self.seconds(0.25, step_s=0.25)
            passed += 0.25
        return passed


@asynccontextmanager
async def rig_of(
    venue: str, *, tape: Iterator[Moment] | None = None, wanted: Wanted | None = None, simulate: Callable[..., Simulator] = Simulator
) -> AsyncIterator[Rig]:
    """A running rig; at the end everything is cancelled."""
    clock = FakeClock(wall_ns=1_700_000_000_000_000_000)
    simulator = simulate(DIALECTS[venue](), tape or venue_market(SAMPLES[venue], seed=3), clock=clock)
    async with simulator.running():
        batches: list[PriceBatch] = []
        changes: list[StaleChange] = []
        feed = VenueFeed(
            PROFILES[venue].at(simulator.url),
            wanted or wanted_of(venue),
            batches.extend,
            on_stale=changes.extend,
            clock=clock,
            rng=Random(1),
        )
        async with asyncio.TaskGroup() as group:
            running = group.create_task(feed.run())
            try:
                yield Rig(venue, simulator, feed, clock, batches, changes)
            finally:
                running.cancel()
