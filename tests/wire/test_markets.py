"""One market under many names."""

from __future__ import annotations

import pytest

from monitor.wire.markets import Market, asset_of, perpetual_of


@pytest.mark.parametrize(
    ("venue", "name", "market"),
    [
        ("binance_usdm", "BTCUSDT", Market("BTC", 1)),
        ("binance_usdm", "1000PEPEUSDT", Market("PEPE", 1000)),
        ("binance_usdm", "1MBABYDOGEUSDT", Market("BABYDOGE", 1_000_000)),
        ("binance_usdm", "BTCUSDT_261225", None),
        ("binance_coinm", "BTCUSD_PERP", Market("BTC", 1)),
        ("binance_coinm", "BTCUSD_261225", None),
        ("bybit", "BTCPERP", Market("BTC", 1)),
        ("bybit", "SHIB1000USDT", Market("SHIB", 1000)),
        ("bybit", "BTC-25DEC26-90000-C", None),
        ("okx", "BTC-USDT-SWAP", Market("BTC", 1)),
        ("okx", "BTC-USDT-261225", None),
        ("deribit", "SOL_USDC-PERPETUAL", Market("SOL", 1)),
        ("hyperliquid", "kPEPE", Market("PEPE", 1000)),
        ("hyperliquid", "BTC", Market("BTC", 1)),
        ("hyperliquid", "xyz:GOLD", None),
        ("dydx_v4", "ETH-USD", Market("ETH", 1)),
        ("bitmex", "XBTUSD", Market("BTC", 1)),
        ("kraken_futures", "PF_XBTUSD", Market("BTC", 1)),
        ("kraken_futures", "FI_XBTUSD_261225", None),
        ("elsewhere", "BTCUSDT", None),
    ],
)
def test_perpetuals(venue: str, name: str, market: Market | None) -> None:
    """Perpetuals against the dollar are told by venue and spelling; futures, options and foreign names are none."""
    assert perpetual_of(venue, name) == market


def test_assets_have_one_name() -> None:
    """XBT is BTC."""
    assert (asset_of("XBT"), asset_of("BTC"), asset_of("XDG")) == ("BTC", "BTC", "DOGE")
