"""Eight kinds of silence through the whole daemon, in real time: when the account is told as unknown; it is never shown as healthy."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.margin.prices import PriceKind
from monitor.service.http import AccountQuery
from monitor.service.local_rig import LocalRig, local_rig
from monitor.service.sample_book import sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.waiting import until

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


KINDS: tuple[Callable[[Simulator], Awaitable[None] | None], ...] = (silence, one_name, half_open, closed, reset, frozen, trickle, past)


async def runs_of(inject: Callable[[Simulator], Awaitable[None] | None], folder: Path, count: int, rng: random.Random) -> list[float]:
    """Seconds from the last number to the event in the ledger, of each run; asserts that no sample was healthy when it must not be."""
    prices = {NAME: 30_000.0, OTHER: 1_800.0}
    tables = folder / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(prices)))
    account = {
        "id": "desk",
        "venue": "binance_usdm",
        "balances": [{"asset": "USDT", "wallet": "50000"}],
        "positions": [{"instrument": NAME, "quantity": "1", "entry_price": "30000"}],
    }
    texts = {PriceKind.MARK: {name: str(price) for name, price in prices.items()}}
    tape: list[Moment] = [(0.5 * at, Quotes(time_ms=1_700_000_000_000 + 500 * at, numbers=texts)) for at in range(20_000)]
    simulator = Simulator(binance_usdm(), tape)
    async with local_rig(folder, simulator, [{"sequence": 1, "account": account}], tables=[tables]) as rig:
        return [await _run(rig, inject, rng) for _ in range(count)]


async def _run(rig: LocalRig, inject: Callable[[Simulator], Awaitable[None] | None], rng: random.Random) -> float:
    evaluator, feeds, (committer,) = rig.daemon.evaluator, rig.daemon.feeds, rig.daemon.committers.values()
    assert evaluator is not None and feeds is not None
    seen = feeds.feeds["binance_usdm"].memory.seen[PriceKind.MARK]
    await until(lambda: _shown(rig) == ("healthy", None), within_s=60)
    await asyncio.sleep(rng.random())  # any phase of the second
    doing = inject(rig.simulator)
    if doing is not None:
        await doing
    told_s: float | None = None
    ends = time.monotonic() + LIMIT_S + 1.5
    while (now := time.monotonic()) < ends:
        level, unknown = _shown(rig)
        assert level is None or now <= seen[NAME] + LIMIT_S, f"{inject.__name__}: healthy {now - seen[NAME]:.2f} s after the last number"
        if told_s is None and unknown is not None and committer.verdict("desk", "cross:USDT")[1] is not None:
            told_s = now - seen[NAME]
        await asyncio.sleep(0.02 if told_s is None else 0.1)
    assert told_s is not None, f"{inject.__name__}: never told"
    cured(rig.simulator)
    await until(lambda: _shown(rig) == ("healthy", None), within_s=60)
    return told_s


def _shown(rig: LocalRig) -> tuple[object, object]:
    page = rig.daemon.readings.accounts(AccountQuery({}))
    assert page is not None
    (row,) = page["accounts"]
    return row["level"], row["unknown"]


async def campaign(folders: pytest.TempPathFactory, count: int) -> dict[str, list[float]]:
    """All kinds at once, each in a daemon of its own."""
    async with asyncio.timeout(60 + 60 * count), asyncio.TaskGroup() as group:
        tasks = {
            kind.__name__: group.create_task(runs_of(kind, folders.mktemp(kind.__name__), count, random.Random(number)))
            for number, kind in enumerate(KINDS)
        }
    return {name: task.result() for name, task in tasks.items()}


async def test_every_silence_is_told_in_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One run of each kind: an event within the limit and half a second of the last number, and no healthy sample after it."""
    told = await campaign(tmp_path_factory, 1)

    assert set(told) == {kind.__name__ for kind in KINDS}
    assert max(max(runs) for runs in told.values()) < LIMIT_S, told


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_every_silence_is_told_in_time_twenty_times(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twenty runs of each kind at random phases; prints the slowest of each."""
    told = await campaign(tmp_path_factory, 20)
    with capsys.disabled():
        for name, runs in told.items():
            print(f"{name:<10} {len(runs)} runs, median {sorted(runs)[len(runs) // 2]:.2f} s, slowest {max(runs):.2f} s")

    assert max(max(runs) for runs in told.values()) < LIMIT_S, told
