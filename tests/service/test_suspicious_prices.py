"""A price that only one venue has is acted upon at once, marked, and valued a second time at what the others say."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import orjson

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.feeds.venues import dialect_of
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.cursors import read_rows
from monitor.margin.levels import DEFAULT_THRESHOLDS
from monitor.margin.prices import PriceKind
from monitor.service.local_rig import local_rig
from monitor.service.sample_book import sample_tables
from monitor.service.tables import VenueTables
from monitor.service.verify import recomputed
from monitor.wire.quotes import Quotes
from tests.support.waiting import until

T = 1_700_000_000_000


def tape(name: str, *prices: str) -> list[Moment]:
    """A mark every 0.1 s; the last one for a minute."""
    lasting = [*prices, *[prices[-1]] * 600]
    return [(0.1 * at, Quotes(time_ms=T + 100 * at, numbers={PriceKind.MARK: {name: price}})) for at, price in enumerate(lasting)]


async def test_a_bad_print_of_one_venue(tmp_path: Path) -> None:
    """The venue's price makes the level, at once; the event doubts it, says the level at the other venues' median, and verifies."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables({"BTCUSDT": 30_000.0})))
    account = {
        "id": "desk",
        "venue": "binance_usdm",
        "balances": [{"asset": "USDT", "wallet": "5000"}],
        "positions": [{"instrument": "BTCUSDT", "quantity": "1", "entry_price": "30000"}],
    }
    document = {"sequence": 1, "account": account}
    others = {"okx": "BTC-USDT-SWAP", "bybit": "BTCUSDT"}
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        overrides: dict[str, object] = {"feeds.venues": ["binance_usdm", *others]}
        for venue, name in others.items():
            other = await stack.enter_async_context(Simulator(dialect_of(venue), tape(name, "30000")).running())
            overrides |= {f"feeds.{venue}.url": other.url, f"feeds.{venue}.symbols": [name]}
        binance = Simulator(dialect_of("binance_usdm"), tape("BTCUSDT", *["30000"] * 20, "25000"))
        rig = await stack.enter_async_context(local_rig(tmp_path, binance, [document], tables=[tables], overrides=overrides))
        evaluator = rig.daemon.evaluator
        assert evaluator is not None
        await until(lambda: ("bankrupt", "level") in evaluator.observer.events)
        for committer in rig.daemon.committers.values():
            await committer.flush()
        wire = await Link(Endpoint.parse(rig.server.url)).open()
        try:
            event = orjson.loads((await read_rows(wire, 0, "0-0", count=1000))[-1].body)
        finally:
            wire.close()
        shown = rig.daemon.readings.feeds()["binance_usdm"]["suspicious"]
        asked = await rig.daemon.readings.account("desk")
        metrics = rig.daemon.exposition.text("")[0].decode()

    assert event["level"] == "bankrupt"
    assert event["level_at_median"] == "healthy"
    assert {doubt["reason"]: doubt["reference"] for doubt in event["cause"]["suspicious"]} == {"jump": "30000", "venue_deviation": "30000"}
    assert event["inputs"]["medians"] == {"mark": {"BTCUSDT": "30000"}}
    assert recomputed(event, orjson.dumps(document), VenueTables([tables]), DEFAULT_THRESHOLDS) == "recomputed"
    forged = {**event, "level_at_median": "watch"}
    assert "level_at_median" in recomputed(forged, orjson.dumps(document), VenueTables([tables]), DEFAULT_THRESHOLDS)
    assert shown == ["mark:BTCUSDT jump, venue_deviation"]
    assert asked is not None and asked["pools"][0]["level_at_median"] == "healthy"
    assert 'margin_monitor_suspicious_prices{reason="venue_deviation",venue="binance_usdm"} 1.0' in metrics
