"""Unknown is never shown as healthy: prices that never came, and prices that went stale."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.cursors import read_rows
from monitor.margin.levels import Level
from monitor.margin.prices import PriceKind
from monitor.service.http import AccountQuery
from monitor.service.local_rig import LocalRig, local_rig
from monitor.service.sample_book import sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.waiting import until

PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0}


def document(account: str, instrument: str, quantity: str, wallet: str | None) -> dict[str, Any]:
    """One long position entered at today's price."""
    body: dict[str, Any] = {
        "id": account,
        "venue": "binance_usdm",
        "positions": [{"instrument": instrument, "quantity": quantity, "entry_price": str(PRICES[instrument])}],
    }
    if wallet is not None:
        body["balances"] = [{"asset": "USDT", "wallet": wallet}]
    return {"sequence": 1, "account": body}


def quotes(at_s: float, **marks: str) -> Moment:
    """Marks of some names at one moment."""
    return (at_s, Quotes(time_ms=1_700_000_000_000 + round(at_s * 1000), numbers={PriceKind.MARK: marks}))


async def rows_of(rig: LocalRig) -> list[dict[str, Any]]:
    """Every committed event."""
    for committer in rig.daemon.committers.values():
        await committer.flush()
    wire = await Link(Endpoint.parse(rig.server.url)).open()
    try:
        return [orjson.loads(row.body) for row in await read_rows(wire, 0, "0-0", count=1000)]
    finally:
        wire.close()


def shown(rig: LocalRig, account: str) -> tuple[object, object]:
    """(level, reason) as the API shows them."""
    page = rig.daemon.readings.accounts(AccountQuery({}))
    assert page is not None
    (row,) = [row for row in page["accounts"] if row["id"] == account]
    return row["level"], row["unknown"]


async def test_a_price_that_never_comes_makes_its_account_unknown(tmp_path: Path) -> None:
    """Not told while the first prices are still on their way; then one event with the reason; never healthy in the API or the metrics."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    documents = [
        document("has-price", "BTCUSDT", "0.1", "1000"),
        document("no-price", "ETHUSDT", "1", "1000"),
        document("no-balances", "BTCUSDT", "1", None),
    ]
    tape = [quotes(index * 0.1, BTCUSDT="30000.0") for index in range(600)]
    overrides = {"evaluator.unknown_after_s": 1.0}
    async with (
        asyncio.timeout(60),
        local_rig(tmp_path, Simulator(binance_usdm(), tape), documents, tables=[tables], overrides=overrides) as rig,
    ):
        evaluator = rig.daemon.evaluator
        assert evaluator is not None
        await until(lambda: evaluator.statistics.ticks >= 3)
        assert shown(rig, "has-price") == ("healthy", None)
        assert shown(rig, "no-price") == (None, "no mark of ETHUSDT")
        assert shown(rig, "no-balances")[0] is None
        await until(lambda: evaluator.observer.events.get(("healthy", "unknown"), 0) >= 2)
        rows = await rows_of(rig)

        assert {(row["account"], row["unknown"]) for row in rows} == {
            ("no-price", "no mark of ETHUSDT"),
            ("no-balances", "balances are not stated"),
        }
        text = rig.daemon.exposition.text("")[0].decode()
        assert 'margin_monitor_pools{level="healthy"} 1.0' in text
        assert 'margin_monitor_pools_unknown{reason="price"} 1.0' in text


async def test_a_stale_price_makes_its_accounts_unknown_until_a_new_one(tmp_path: Path) -> None:
    """Silence of one symbol among others: unknown with the cause, then known again, at the level of the new price."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    documents = [document("btc", "BTCUSDT", "0.1", "1000"), document("eth", "ETHUSDT", "1", "300")]
    silent = [quotes(index * 0.1, BTCUSDT="30000.0") for index in range(1, 40)]
    after = [quotes(4.0 + index * 0.1, BTCUSDT="30000.0", ETHUSDT="1505.0") for index in range(600)]
    tape = [quotes(0.0, BTCUSDT="30000.0", ETHUSDT="1800.0"), *silent, *after]
    overrides = {"feeds.binance_usdm.stale_after_s": 1.0}
    async with (
        asyncio.timeout(60),
        local_rig(tmp_path, Simulator(binance_usdm(), tape), documents, tables=[tables], overrides=overrides) as rig,
    ):
        evaluator = rig.daemon.evaluator
        assert evaluator is not None
        await until(lambda: shown(rig, "eth")[1] is not None)
        assert shown(rig, "eth")[0] is None
        assert shown(rig, "btc") == ("healthy", None)
        await until(lambda: shown(rig, "eth")[1] is None and shown(rig, "eth")[0] is not None)
        await until(lambda: evaluator.engine.verdict("eth", "cross:USDT")[0] is Level.LIQUIDATION)
        rows = [row for row in await rows_of(rig) if row["account"] == "eth"]

    assert [(row["level"], row["unknown"] is not None, row["cause"]["kind"]) for row in rows] == [
        ("healthy", True, "stale"),
        ("liquidation", False, "mark"),
    ]


async def test_prices_of_a_venue_that_nobody_reads_any_more_are_unknown(tmp_path: Path) -> None:
    """The stage that reads the venue is gone without a word: its accounts become unknown, and known again when it is back."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    tape = [quotes(n / 5, BTCUSDT="30000", ETHUSDT="1800") for n in range(400)]
    simulator = Simulator(binance_usdm(), tape, stamp="now")
    overrides = {"evaluator.silent_after_s": 1.5}
    documents = [document("a", "BTCUSDT", "0.1", "100000")]
    async with asyncio.timeout(60), local_rig(tmp_path, simulator, documents, tables=[tables], overrides=overrides) as rig:
        await until(lambda: shown(rig, "a") == ("healthy", None))
        evaluator, feeds = rig.daemon.evaluator, rig.daemon.feeds
        assert evaluator is not None and feeds is not None
        await _keeps(rig, "a", seconds=2.5)

        async def nothing(*_arguments: Any) -> None:
            return None

        feeds._writer.write = nothing  # type: ignore[assignment,method-assign]  # as if killed: no word on the stream
        await until(lambda: shown(rig, "a")[1] is not None, within_s=5)
        assert shown(rig, "a")[0] is None
        del feeds._writer.write
        await until(lambda: shown(rig, "a") == ("healthy", None), within_s=5)
        rows = await rows_of(rig)

    assert [(row["level"], row["unknown"] is None) for row in rows] == [("healthy", False), ("healthy", True)]
    assert rows[0]["cause"]["kind"] == "stale"


async def _keeps(rig: LocalRig, account: str, *, seconds: float) -> None:
    """The account stays healthy and known for a while."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        assert shown(rig, account) == ("healthy", None)
        await asyncio.sleep(0.05)
