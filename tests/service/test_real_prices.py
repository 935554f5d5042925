"""The whole daemon on real prices: every level change in its outbox against an independent exact evaluator.

The tape is the BTC and ETH 1-minute series of June and November 2022. It goes over a real WebSocket in the venue's protocol, through a real
Redis, the engine and the ledger. What is compared is what stands in the event stream afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import candle_tape
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.cursors import read_rows
from monitor.margin.prices import PriceKind
from monitor.service.local_rig import local_rig
from monitor.service.sample_book import sample_documents
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.oracle import Oracle
from tests.support.shared import SHARED, needs_shared

LEVELS = {"healthy": 0, "watch": 1, "margin_call": 2, "liquidation": 3, "bankrupt": 4}

TIERS = {
    "BTCUSDT": [("0", "0.004"), ("50000", "0.005"), ("500000", "0.01"), ("8000000", "0.025"), ("50000000", "0.05")],
    "ETHUSDT": [("0", "0.005"), ("50000", "0.0065"), ("500000", "0.01"), ("4000000", "0.02"), ("20000000", "0.05")],
}
"""Schedules of the shape that the venue had in 2022; what is tested does not depend on the figures."""


def tables() -> dict[str, Any]:
    """A table file for the daemon."""
    return {
        "venue": "binance_usdm",
        "instruments": {
            name: {
                "kind": "linear_perpetual",
                "settle": "USDT",
                "tick_size": "0.1",
                "tiers": [{"floor": floor, "maintenance_rate": rate} for floor, rate in rows],
            }
            for name, rows in TIERS.items()
        },
    }


def book(accounts: int) -> list[dict[str, Any]]:
    """Half of the accounts entered at the prices of June, half at those of November."""
    june = sample_documents(accounts // 2, {"BTCUSDT": 30_000.0, "ETHUSDT": 1_790.0}, seed=2022, most_leverage=2)
    november = list(sample_documents(accounts - accounts // 2, {"BTCUSDT": 21_000.0, "ETHUSDT": 1_600.0}, seed=2023, most_leverage=2))
    for document in november:
        document["account"]["id"] = document["account"]["id"].replace("acct", "november")
    return [*june, *november]


def expected(documents: list[dict[str, Any]], files: list[Path], *, close_only: bool) -> dict[str, list[tuple[int, int]]]:
    """(level before, level after) of every pool, in order, as the independent evaluator sees the tape."""
    rows = {name: [{"floor": floor, "maintenance_rate": rate} for floor, rate in tiers] for name, tiers in TIERS.items()}
    oracle = Oracle(documents, rows)
    changes: dict[str, list[tuple[int, int]]] = {}
    for name, price in ticks(files, close_only=close_only):
        for account, pool, before, after in oracle.tick(name, price):
            if before >= 0 or after > 0:  # a first verdict of healthy is no change
                changes.setdefault(f"{account}/{pool}", []).append((max(before, 0), after))
    return changes


def ticks(files: list[Path], *, close_only: bool) -> Iterator[tuple[str, Fraction]]:
    """Single prices in the order in which the venue sends them."""
    for _, quotes in candle_tape(files, close_only=close_only):
        assert isinstance(quotes, Quotes)
        for name, text in quotes.numbers[PriceKind.MARK].items():
            yield name, Fraction(text)


async def written(url: str) -> tuple[dict[str, list[tuple[int, int]]], int]:
    """The same from the event stream, and how many changes stand there."""
    changes: dict[str, list[tuple[int, int]]] = {}
    wire = await Link(Endpoint.parse(url)).open()
    after, seq, count = "0-0", 0, 0
    try:
        while rows := await read_rows(wire, 0, after, count=1000):
            after = rows[-1].stream_id
            for row in rows:
                seq += 1
                assert row.seq == seq
                body = orjson.loads(row.body)
                assert body["unknown"] is None
                if body["kind"] == "numbers":  # of a change told before
                    continue
                count += 1
                changes.setdefault(f"{body['account']}/{body['pool']}", []).append((LEVELS[body["previous"]], LEVELS[body["level"]]))
    finally:
        wire.close()
    return changes, count


async def run(tmp_path: Path, accounts: int, files: list[Path], *, close_only: bool) -> int:
    """Plays the tape through the daemon and compares. Returns the number of level changes."""
    documents = book(accounts)
    table_file = tmp_path / "tables.json"
    table_file.write_bytes(orjson.dumps(tables()))
    simulator = Simulator(binance_usdm(), candle_tape(files, close_only=close_only), speed="max")
    overrides = {"cache.retain_ticks": 4_000, "ledger.retain_events": 10_000_000}
    async with asyncio.timeout(400):
        async with local_rig(tmp_path, simulator, documents, tables=[table_file], lossless=True, overrides=overrides) as rig:
            await rig.caught_up()
            found, count = await written(rig.server.url)
    wanted = expected(documents, files, close_only=close_only)

    assert found.keys() == wanted.keys()
    for pool, changes in wanted.items():
        assert found[pool] == changes, pool
    assert count == sum(len(changes) for changes in wanted.values())
    return count


@needs_shared
@pytest.mark.timeout(420)
async def test_every_level_change_of_june_and_november_2022_is_the_independent_evaluators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """10,000 accounts, 57,600 prices: the outbox holds exactly the changes that the oracle computes, in order per pool."""
    files = sorted((SHARED / "data" / "series" / "binance_usdm_1m_2022_crashes").glob("*.csv.gz"))
    assert len(files) == 40
    count = await run(tmp_path, 10_000, files, close_only=True)

    assert count > 10_000
    with capsys.disabled():
        print(f"\nreal prices: {count} level changes, each equal to the independent evaluator's")


async def test_a_made_up_tape_agrees_too(tmp_path: Path) -> None:
    """The same comparison on candles written here, four prices each, so that a clone without the real series has it too."""
    files = []
    for name, start in (("BTCUSDT", 30_000.0), ("ETHUSDT", 1_800.0)):
        lines = ["open_time,open,high,low,close,volume"]
        price = start
        for minute in range(240):
            step = price * 0.004 * ((minute * 7919 + len(name)) % 21 - 11) / 10
            after = price + step
            high, low = max(price, after) * 1.001, min(price, after) * 0.998
            lines.append(f"{1_654_819_200_000 + minute * 60_000},{price:.1f},{high:.1f},{low:.1f},{after:.1f},1")
            price = after
        path = tmp_path / f"{name}-1m-2022-06-10.csv"
        path.write_text("\n".join(lines) + "\n")
        files.append(path)

    assert await run(tmp_path, 400, files, close_only=False) > 100
