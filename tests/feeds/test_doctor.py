"""What the doctor finds about a feed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from monitor.feeds.clock import Clock
from monitor.feeds.doctor import Finding, examine
from monitor.feeds.market import SAMPLES, venue_market
from monitor.feeds.recorder import record
from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import read_recording
from monitor.feeds.venues import PROFILES, dialect_of
from monitor.wire.frames import Wanted
from tests.support.fake_clock import FakeClock

T_NS = 1_700_000_000_000_000_000
BINANCE = SAMPLES["binance_usdm"]
WANTED = Wanted(instruments=frozenset(BINANCE.instruments))


async def examined(simulator: Simulator, clock: FakeClock, wanted: Wanted = WANTED) -> dict[str, Finding]:
    """The findings by check, while the clock runs."""
    async with simulator.running():
        task = asyncio.create_task(examine(PROFILES["binance_usdm"].at(simulator.url), wanted, clock=clock))
        while not task.done():
            await clock.advance(0.25)
            await asyncio.sleep(0.001)
        return {finding.check: finding for finding in await task}


def venue(clock: Clock) -> Simulator:
    """A Binance with six symbols."""
    return Simulator(dialect_of("binance_usdm"), venue_market(BINANCE, seed=1), clock=clock)


async def test_a_healthy_feed_passes_every_check() -> None:
    """Connection, subscriptions, prices, frames, delay and clock, each with its figures."""
    clock = FakeClock(wall_ns=T_NS)
    findings = await examined(venue(clock), clock)

    assert {check: finding.passed for check, finding in findings.items()} == dict.fromkeys(
        ("connection", "subscriptions", "prices", "frames", "delay", "clock"), True
    )
    assert "6 marks" in findings["prices"].detail


async def test_a_missing_symbol_is_named() -> None:
    """A name the venue does not send is in the line about prices; the rest passes."""
    clock = FakeClock(wall_ns=T_NS)
    findings = await examined(venue(clock), clock, Wanted(instruments=frozenset({"BTCUSDT", "NOPEUSDT"})))

    assert not findings["prices"].passed
    assert "mark NOPEUSDT" in findings["prices"].detail
    assert findings["connection"].passed


async def test_a_refusal_names_the_status() -> None:
    """A venue that answers 403 is one finding with the likely cause."""
    clock = FakeClock(wall_ns=T_NS)
    simulator = venue(clock)
    simulator.faults.handshake = (403, {})
    findings = await examined(simulator, clock)

    assert list(findings) == ["connection"]
    assert "status_403 1 times" in findings["connection"].detail
    assert "region" in findings["connection"].detail


async def test_a_silent_venue_and_a_wrong_clock_are_told() -> None:
    """Subscribed and silent points to moved streams; frames from the future point to a clock."""
    clock = FakeClock(wall_ns=T_NS)
    simulator = venue(clock)
    simulator.faults.silent = True
    findings = await examined(simulator, clock)

    assert "moved its streams" in findings["connection"].detail
    assert not findings["prices"].passed

    clock = FakeClock(wall_ns=T_NS)
    clock.shift_wall(-3.0)
    findings = await examined(venue(clock), clock)

    assert not findings["clock"].passed
    assert "NTP" in findings["clock"].detail
    assert findings["clock"].detail.startswith("smallest delay -")


async def test_rubbish_and_refused_names_are_told() -> None:
    """Frames that cannot be used and refused subscriptions are counted in their lines."""
    clock = FakeClock(wall_ns=T_NS)
    simulator = venue(clock)
    simulator.faults.refuse_topics.add("!markPrice@arr@1s")
    findings = await examined(simulator, clock)

    assert not findings["subscriptions"].passed
    assert findings["subscriptions"].detail.startswith("1 refused")


async def test_recording_for_a_while_leaves_readable_frames(tmp_path: Path) -> None:
    """`record` writes what came in the time given and ends."""
    clock = FakeClock(wall_ns=T_NS)
    simulator = venue(clock)
    async with simulator.running():
        task = asyncio.create_task(record(PROFILES["binance_usdm"].at(simulator.url), WANTED, tmp_path, seconds=10.0, clock=clock))
        while not task.done():
            await clock.advance(0.5)
            await asyncio.sleep(0.002)
        statistics = await task

    [file] = list(tmp_path.iterdir())  # noqa: ASYNC240 - a test's folder
    frames = list(read_recording(file))
    assert len(frames) == statistics.frames >= 8
    assert frames[-1].data.startswith(b'[{"e":"markPriceUpdate"')
