"""Faults of the shared shell, on one venue."""

from __future__ import annotations

import asyncio
from random import Random

from monitor.feeds.faults import Faults, Line
from monitor.feeds.freshness import StaleReason
from monitor.feeds.market import SAMPLES, venue_market
from monitor.feeds.simulator import Simulator
from monitor.feeds.supervisor import VenueFeed
from monitor.feeds.venues import PROFILES, dialect_of
from monitor.margin.prices import PriceKind
from monitor.wire.frames import Wanted
from monitor.wire.quotes import Quotes
from tests.support.fake_clock import FakeClock

VENUE = "binance_usdm"
WANTED = Wanted(instruments=frozenset(SAMPLES[VENUE].instruments))


async def turns(clock: FakeClock, seconds: float, *, step_s: float = 0.25) -> None:
    """Lets time pass."""
    for _ in range(round(seconds / step_s)):
        await clock.advance(step_s)
        for _ in range(10):
            await asyncio.sleep(0)


async def test_a_private_close_code_is_followed_by_a_new_connection() -> None:
    """Codes from 4000 on are the venue's own: the feed waits a little, comes back, and counts them as others."""
    clock = FakeClock()
    simulator = Simulator(dialect_of(VENUE), venue_market(SAMPLES[VENUE], seed=1), clock=clock)
    async with simulator.running():
        feed = VenueFeed(PROFILES[VENUE].at(simulator.url), WANTED, lambda _batches: None, clock=clock, rng=Random(1))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(feed.run())
            async with asyncio.timeout(20):
                while not feed.is_ready():
                    await turns(clock, 0.5)
                await simulator.close_all(4000, "because")
                while feed.statistics.sessions < 2 or not feed.is_ready():
                    await turns(clock, 0.5)
            running.cancel()

    assert feed.statistics.reconnects == {"closed_other": 1}


async def test_a_frame_that_trickles_is_no_price_until_it_is_whole() -> None:
    """At ten bytes a second no frame ever completes: the names go stale, the connection is dropped, nothing is read half."""
    clock = FakeClock()
    simulator = Simulator(dialect_of(VENUE), venue_market(SAMPLES[VENUE], seed=1), clock=clock)
    simulator.faults.bytes_per_s = 10.0
    async with simulator.running():
        feed = VenueFeed(PROFILES[VENUE].at(simulator.url), WANTED, lambda _batches: None, clock=clock, rng=Random(1))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(feed.run())
            async with asyncio.timeout(20):
                await simulator.subscribed()
                while "silent" not in feed.statistics.reconnects:
                    await turns(clock, 1.0)
            running.cancel()

    assert feed.statistics.marks == 0
    assert set(feed.stale.values()) <= {StaleReason.NEVER_SEEN, StaleReason.DISCONNECTED}
    assert len(feed.stale) == len(WANTED.instruments)
    assert feed.statistics.rejected == {}


async def test_a_frozen_event_time_is_stale_while_frames_go_on() -> None:
    """Frames with moving prices and a standing event time: every name is told as frozen, and from then on none is handed on."""
    clock = FakeClock()
    simulator = Simulator(dialect_of(VENUE), venue_market(SAMPLES[VENUE], seed=1), clock=clock)
    async with simulator.running():
        feed = VenueFeed(PROFILES[VENUE].at(simulator.url), WANTED, lambda _batches: None, clock=clock, rng=Random(1))
        async with asyncio.TaskGroup() as group:
            running = group.create_task(feed.run())
            async with asyncio.timeout(20):
                while not feed.is_ready():
                    await turns(clock, 0.5)
                simulator.faults.freeze_time = True
                await turns(clock, 6.0)
                marks, stale = feed.statistics.marks, dict(feed.stale)
                await turns(clock, 2.0)
                assert feed.statistics.marks == marks
                simulator.faults.freeze_time = False
                while not feed.is_ready():
                    await turns(clock, 0.5)
            running.cancel()

    assert stale == {(PriceKind.MARK, name): StaleReason.FROZEN for name in WANTED.instruments}
    assert feed.statistics.reconnects == {}


def test_distortions_of_a_moment() -> None:
    """Silent names are left out, times are moved back or frozen, everything else stays."""
    quotes = Quotes(time_ms=10_000, numbers={PriceKind.MARK: {"A": "1", "B": "2"}})
    faults = Faults(silent_names={"A"}, late_s=2.0)

    assert faults.distort(quotes) == Quotes(time_ms=8_000, numbers={PriceKind.MARK: {"B": "2"}})
    assert Faults().distort(quotes) == quotes


def test_what_is_sent_of_frames() -> None:
    """Lost, doubled and exchanged frames, by count."""
    frames = [b"1", b"2", b"3", b"4"]

    assert Faults().frames(frames, Line()) == frames
    assert Faults(lose_every=2).frames(frames, Line()) == [b"1", b"3"]
    assert Faults(duplicate=True).frames([b"1"], Line()) == [b"1", b"1"]
    assert Faults(reorder=True).frames(frames, Line()) == [b"2", b"1", b"4", b"3"]
