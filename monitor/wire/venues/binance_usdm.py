"""Binance USD-M: which streams carry what is wanted.

All marks come on one stream, `!markPrice@arr@1s`, and all asset indices of multi-assets mode on `!assetIndex@arr`. Since 2026-04-23
both are served under `/market` only; the addresses without a category fell silent.
"""

from __future__ import annotations

from monitor.margin.prices import PriceKind
from monitor.wire.frames import Topic, Wanted
from monitor.wire.venues.binance import BinanceCodec

__all__ = ["ALL_ASSETS", "ALL_MARKS", "VENUE", "codec", "topics"]

VENUE = "binance_usdm"
ALL_MARKS = "!markPrice@arr@1s"
ALL_ASSETS = "!assetIndex@arr"


def codec() -> BinanceCodec:
    """A codec for one connection."""
    return BinanceCodec(VENUE, symbol_type=1)


def topics(wanted: Wanted) -> tuple[Topic, ...]:
    """The mark stream of all instruments, and that of all assets when an asset's index is wanted. Nominal interval 1 s each."""
    plan = []
    if wanted.instruments or wanted.everything:
        plan.append(
            Topic(
                key=ALL_MARKS,
                endpoint="market",
                supplies=((PriceKind.MARK, tuple(sorted(wanted.instruments))),),
                open_kind=PriceKind.MARK if wanted.everything else None,
            )
        )
    if wanted.assets:
        plan.append(Topic(key=ALL_ASSETS, endpoint="market", supplies=((PriceKind.INDEX, tuple(sorted(wanted.assets))),)))
    return tuple(plan)
