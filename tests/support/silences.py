"""Kinds of silence of a venue, and a whole daemon on which they are tried in real time; and a whole daemon to which nothing happens."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from monitor.feeds.market import SAMPLES, venue_market
from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.feeds.venues import DIALECTS, PROFILES
from monitor.ledger.cache import TickCursor, TickMessage, TicksReader
from monitor.ledger.connection import Endpoint, Link
from monitor.margin.prices import PriceKind
from monitor.service.http import AccountQuery
from monitor.service.local_rig import LocalRig, local_rig
from monitor.service.sample_book import sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.prices import decode_batch
from monitor.wire.quotes import Quotes
from tests.support.waiting import until

__all__ = ["KINDS", "LIMIT_S", "Calm", "Inject", "Silences", "calm", "silences"]

Inject = Callable[[Simulator], Awaitable[None] | None]

LIMIT_S = 3.0 + 0.5
"""Three intervals of a second, and half a second to notice, decide and write."""

NAME, OTHER = "BTCUSDT", "ETHUSDT"


def silence(simulator: Simulator) -> None:
    """Pings are answered, nothing else comes."""
    simulator.faults.silent = True


def one_name(simulator: Simulator) -> None:
    """The other name goes on."""
    simulator.faults.silent_names = {NAME}


def half_open(simulator: Simulator) -> None:
    """The peer is gone without a word."""
    simulator.half_open_all()
    simulator.faults.handshake = (503, {})


async def closed(simulator: Simulator) -> None:
    """A clean close, and no way back."""
    simulator.faults.handshake = (503, {})
    await simulator.close_all(1001, "maintenance")


def reset(simulator: Simulator) -> None:
    """RST, and no way back."""
    simulator.faults.handshake = (503, {})
    simulator.reset_all()


def frozen(simulator: Simulator) -> None:
    """Frames go on with the same event time."""
    simulator.faults.freeze_time = True


def trickle(simulator: Simulator) -> None:
    """A frame takes ten seconds."""
    simulator.faults.bytes_per_s = 20.0


async def past(simulator: Simulator) -> None:
    """After a new connection the venue sends what was long ago."""
    simulator.faults.late_s = 600.0
    await simulator.close_all(1012, "restart")


def cured(simulator: Simulator) -> None:
    """All is well again."""
    faults = simulator.faults
    faults.silent, faults.silent_names, faults.handshake = False, set(), None
    faults.freeze_time, faults.bytes_per_s, faults.late_s = False, 0.0, 0.0


KINDS: tuple[Inject, ...] = (silence, one_name, half_open, closed, reset, frozen, trickle, past)


@dataclass(slots=True)
class Silences:
    """What was seen of one kind.

    Attributes:
        told_s: Seconds from the last number to the event in the ledger, of each run. Infinite when it never came.
        samples: Looks at the account after a silence had begun, ten a second at least; false_healthy: those that showed a level, beyond
            the limit.
    """

    told_s: list[float] = field(default_factory=list)
    samples: int = 0
    false_healthy: int = 0


async def silences(inject: Inject, folder: Path, count: int, rng: random.Random) -> Silences:
    """Silences one venue so many times, at any phase of its second."""
    prices = {NAME: 30_000.0, OTHER: 1_800.0}
    texts = {PriceKind.MARK: {name: str(price) for name, price in prices.items()}}
    tape: list[Moment] = [(0.5 * at, Quotes(time_ms=1_700_000_000_000 + 500 * at, numbers=texts)) for at in range(20_000)]
    seen = Silences()
    async with local_rig(folder, Simulator(binance_usdm(), tape), [_document()], tables=[_tables(folder)]) as rig:
        for _ in range(count):
            await _run(rig, inject, rng, seen)
    return seen


def _document() -> dict[str, object]:
    account = {
        "id": "desk",
        "venue": "binance_usdm",
        "balances": [{"asset": "USDT", "wallet": "50000"}],
        "positions": [{"instrument": NAME, "quantity": "1", "entry_price": "30000"}],
    }
    return {"sequence": 1, "account": account}


def _tables(folder: Path) -> Path:
    path = folder / "tables.json"
    path.write_bytes(orjson.dumps(sample_tables({NAME: 30_000.0, OTHER: 1_800.0})))
    return path


async def _run(rig: LocalRig, inject: Inject, rng: random.Random, seen: Silences) -> None:
    evaluator, feeds, (committer,) = rig.daemon.evaluator, rig.daemon.feeds, rig.daemon.committers.values()
    assert evaluator is not None and feeds is not None
    last = feeds.feeds["binance_usdm"].memory.seen[PriceKind.MARK]
    await until(lambda: _shown(rig) == ("healthy", None), within_s=60)
    await asyncio.sleep(rng.random())  # any phase of the second
    doing = inject(rig.simulator)
    if doing is not None:
        await doing
    told_s = float("inf")
    ends = time.monotonic() + LIMIT_S + 1.5
    while (now := time.monotonic()) < ends:
        level, unknown = _shown(rig)
        seen.samples += 1
        seen.false_healthy += level is not None and now > last[NAME] + LIMIT_S
        if told_s == float("inf") and unknown is not None and committer.verdict("desk", "cross:USDT")[1] is not None:
            told_s = now - last[NAME]
        await asyncio.sleep(0.02 if told_s == float("inf") else 0.1)
    seen.told_s.append(told_s)
    cured(rig.simulator)
    await until(lambda: _shown(rig) == ("healthy", None), within_s=150)  # a venue that fails so often is asked once a minute


def _shown(rig: LocalRig) -> tuple[object, object]:
    page = rig.daemon.readings.accounts(AccountQuery({}))
    assert page is not None
    (row,) = page["accounts"]
    return row["level"], row["unknown"]


@dataclass(slots=True)
class Calm:
    """What was seen of nine venues to which nothing happened: all but the first three must be 0.

    Attributes:
        seconds: How long. prices: numbers read. samples: looks at the account, ten a second; unknown: those that showed no level.
        stale: Names told as stale on the ticks stream. events: rows of the ledger that say unknown. reconnects: connections lost.
    """

    seconds: float = 0.0
    prices: int = 0
    samples: int = 0
    unknown: int = 0
    stale: int = 0
    events: int = 0
    reconnects: int = 0


async def calm(folder: Path, seconds: float) -> Calm:
    """A daemon with an account and all nine simulated venues at their own pace, in real time."""
    seen = Calm(seconds=seconds)
    async with AsyncExitStack() as stack:
        urls = {}
        for venue in sorted(PROFILES.keys() - {"binance_usdm"}):
            other = Simulator(DIALECTS[venue](), venue_market(SAMPLES[venue], seed=3))
            await stack.enter_async_context(other.running())
            urls[venue] = other.url
        overrides: dict[str, object] = {"feeds.venues": ["binance_usdm", *urls]}
        for venue, url in urls.items():
            overrides |= {f"feeds.{venue}.url": url, f"feeds.{venue}.symbols": [*SAMPLES[venue].instruments, *SAMPLES[venue].options]}
        rig = await stack.enter_async_context(
            local_rig(
                folder,
                Simulator(binance_usdm(), venue_market(SAMPLES["binance_usdm"], seed=3)),
                [_document()],
                tables=[_tables(folder)],
                overrides=overrides,
            )
        )
        feeds, evaluator = rig.daemon.feeds, rig.daemon.evaluator
        assert feeds is not None and evaluator is not None
        await until(lambda: _shown(rig)[1] is None and all(feed.is_ready() for feed in feeds.feeds.values()), within_s=60)
        reader = TicksReader(Link(Endpoint.parse(rig.server.url)), TickCursor("0-0", 0, 0))
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            seen.samples += 1
            seen.unknown += _shown(rig)[1] is not None
            for message in await reader.read(block_ms=0, count=1_000):
                assert isinstance(message, TickMessage), "the reader keeps up"
                batch = decode_batch(message.data)
                seen.stale += sum(map(bool, batch.prices)) if batch.kind is PriceKind.STALE else 0
            await asyncio.sleep(0.1)
        reader.close()
        statistics = [feed.statistics for feed in feeds.feeds.values()]
        seen.prices = sum(sum(one.prices.values()) for one in statistics)
        seen.reconnects = sum(sum(one.reconnects.values()) for one in statistics)
        seen.events = sum(count for (_level, kind), count in evaluator.decider.observer.events.items() if kind == "unknown")
    return seen
