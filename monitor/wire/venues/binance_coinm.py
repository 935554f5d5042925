"""Binance COIN-M: one stream a pair carries the marks of its perpetual and its quarterly contracts, another the pair's index price.

`<pair>@markPrice@1s` is an array of all contracts of the pair. `<pair>@indexPrice` comes every second; its `@1s` form went silent in June
2026. The index of pair BTCUSD is the price of asset BTC in USD.
"""

from __future__ import annotations

from monitor.margin.prices import PriceKind
from monitor.wire.frames import Topic, Wanted
from monitor.wire.venues.binance import BinanceCodec

__all__ = ["ALL_MARKS", "VENUE", "codec", "topics"]

VENUE = "binance_coinm"
ALL_MARKS = "!markPrice@arr@1s"


def codec() -> BinanceCodec:
    """A codec for one connection."""
    return BinanceCodec(VENUE, symbol_type=2)


def topics(wanted: Wanted) -> tuple[Topic, ...]:
    """A mark stream for each pair (or the one of all pairs when everything is wanted) and an index stream for each asset."""
    plan = []
    if wanted.everything:
        supplies = ((PriceKind.MARK, tuple(sorted(wanted.instruments))),)
        plan.append(Topic(key=ALL_MARKS, endpoint="ws", supplies=supplies, open_kind=PriceKind.MARK))
    else:
        by_pair: dict[str, list[str]] = {}
        for name in sorted(wanted.instruments):
            by_pair.setdefault(name.split("_", 1)[0], []).append(name)
        plan += [
            Topic(key=f"{pair.lower()}@markPrice@1s", endpoint="ws", supplies=((PriceKind.MARK, tuple(names)),))
            for pair, names in by_pair.items()
        ]
    plan += [
        Topic(key=f"{asset.lower()}usd@indexPrice", endpoint="ws", supplies=((PriceKind.INDEX, (asset,)),))
        for asset in sorted(wanted.assets)
    ]
    return tuple(plan)
