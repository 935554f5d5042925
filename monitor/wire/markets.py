"""The same market under the names of different venues: BTCUSDT, BTC-USDT-SWAP, XBTUSD and BTC are perpetuals on bitcoin in dollars.

For comparison only, never for margin: a dollar, USDT and USDC are taken as one, and a contract on a thousand coins is scaled back.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Market", "asset_of", "perpetual_of"]


class Market(NamedTuple):
    """A coin against the dollar. Price of one coin = price of the contract / `coins`."""

    base: str
    coins: int


_PERPETUALS: dict[str, re.Pattern[str]] = {
    "binance_usdm": re.compile(r"([A-Z0-9]+?)(?:USDT|USDC|FDUSD|BUSD)", re.ASCII),
    "binance_coinm": re.compile(r"([A-Z0-9]+?)USD_PERP", re.ASCII),
    "bybit": re.compile(r"([A-Z0-9]+?)(?:USDT|PERP|USD)", re.ASCII),
    "okx": re.compile(r"([A-Z0-9]+)-(?:USDT|USDC|USD)-SWAP", re.ASCII),
    "deribit": re.compile(r"([A-Z0-9]+)(?:_USDC|_USDT)?-PERPETUAL", re.ASCII),
    "hyperliquid": re.compile(r"(k?[A-Z0-9]+)", re.ASCII),
    "dydx_v4": re.compile(r"([A-Z0-9]+)-USD", re.ASCII),
    "bitmex": re.compile(r"([A-Z0-9]+?)(?:USDT|USD)", re.ASCII),
    "kraken_futures": re.compile(r"P[FI]_([A-Z0-9]+?)USD", re.ASCII),
}
_ALIASES = {"XBT": "BTC", "XDG": "DOGE"}
_SCALED = (
    (re.compile(r"(1000000|100000|10000|1000)([A-Z]+)", re.ASCII), None),
    (re.compile(r"(1M)([A-Z]{3,})", re.ASCII), 1_000_000),
    (re.compile(r"(k)([A-Z]{2,})", re.ASCII), 1_000),
)
_SCALED_AT_END = re.compile(r"([A-Z]+)(1000000|10000|1000)", re.ASCII)


def perpetual_of(venue: str, name: str) -> Market | None:
    """The market of a perpetual against the dollar, or None for anything else (futures, options, other quotes, unknown spellings)."""
    pattern = _PERPETUALS.get(venue)
    match = pattern.fullmatch(name) if pattern is not None else None
    if match is None:
        return None
    base = match[1]
    for scaled, coins in _SCALED:
        parts = scaled.fullmatch(base)
        if parts is not None:
            return Market(asset_of(parts[2]), coins if coins is not None else int(parts[1]))
    ended = _SCALED_AT_END.fullmatch(base)
    if ended is not None:
        return Market(asset_of(ended[1]), int(ended[2]))
    return Market(asset_of(base), 1)


def asset_of(asset: str) -> str:
    """The common name of an asset: XBT is BTC."""
    return _ALIASES.get(asset, asset)
