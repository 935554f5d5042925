"""A seeded market: correlated geometric walks with one crash and its recovery. Same seed, same prices."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from monitor.margin.prices import PriceKind
from monitor.wire.quotes import Quotes

__all__ = ["MarketShape", "market", "price_text", "sample_symbols"]

_KNOWN = {
    "BTCUSDT": 62_000.0,
    "ETHUSDT": 3_100.0,
    "SOLUSDT": 150.0,
    "BNBUSDT": 580.0,
    "XRPUSDT": 0.52,
    "DOGEUSDT": 0.12,
    "ADAUSDT": 0.45,
    "AVAXUSDT": 34.0,
    "LINKUSDT": 14.5,
    "DOTUSDT": 6.8,
    "LTCUSDT": 81.0,
    "BCHUSDT": 450.0,
    "TRXUSDT": 0.12,
    "UNIUSDT": 7.4,
    "ATOMUSDT": 8.2,
    "NEARUSDT": 6.7,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketShape:
    """How the market moves.

    Attributes:
        step_s: Seconds between two moments. steps: number of moments; None for ever.
        volatility: Standard deviation of one name's log price per step (1.5e-4: 1.5 basis points).
        correlation: Part of the variance that all names share, 0 to 1.
        crash_at, crash_steps: Steps at which the fall starts and for which it lasts; crash_at None for none.
        crash_depth: Fall of a name with beta 1, as a part of its price; betas lie between 0.8 and 1.8.
        recovery_steps, recovery: Steps after the fall in which this part of it is won back.
    """

    step_s: float = 1.0
    steps: int | None = None
    volatility: float = 1.5e-4
    correlation: float = 0.6
    crash_at: int | None = None
    crash_steps: int = 300
    crash_depth: float = 0.18
    recovery_steps: int = 900
    recovery: float = 0.6


def sample_symbols(count: int) -> dict[str, float]:
    """`count` symbols in Binance's spelling with their first prices: known ones first, then `C0016USDT` and so on."""
    symbols = dict(list(_KNOWN.items())[:count])
    for index in range(len(symbols), count):
        symbols[f"C{index:04d}USDT"] = round(10 ** (index % 7 - 3) * (1 + index % 9 / 4), 6)
    return symbols


def price_text(price: float, decimals: int) -> str:
    """A price the way venues print it: fixed decimals, never 0."""
    return f"{max(price, 10.0**-decimals):.{decimals}f}"


def market(
    first_prices: Mapping[str, float],
    *,
    seed: int,
    start_ms: int = 1_700_000_000_000,
    shape: MarketShape = MarketShape(),
) -> Iterator[tuple[float, Quotes]]:
    """Yields (seconds since the start, quotes with the marks of all names) step by step.

    Formula: log price += beta * drift(step) + volatility * (sqrt(c) * common + sqrt(1 - c) * own), both normal by step.
    """
    rng = random.Random(seed)
    names = list(first_prices)
    logs = [math.log(first_prices[name]) for name in names]
    betas = [rng.uniform(0.8, 1.8) for _ in names]
    decimals = [max(2, 6 - math.floor(math.log10(first_prices[name]))) for name in names]
    common_share = shape.volatility * math.sqrt(shape.correlation)
    own_share = shape.volatility * math.sqrt(1 - shape.correlation)
    step = 0
    while shape.steps is None or step < shape.steps:
        if step:
            move = common_share * rng.gauss(0, 1) + _drift(step, shape)
            logs = [log + beta * move + own_share * rng.gauss(0, 1) for log, beta in zip(logs, betas, strict=True)]
        marks = {name: price_text(math.exp(log), places) for name, log, places in zip(names, logs, decimals, strict=True)}
        yield step * shape.step_s, Quotes(time_ms=start_ms + round(step * shape.step_s * 1000), numbers={PriceKind.MARK: marks})
        step += 1


def _drift(step: int, shape: MarketShape) -> float:
    """Log move of a name with beta 1 in this step: the fall spread evenly over its steps, then a part of it back."""
    if shape.crash_at is None or step <= shape.crash_at:
        return 0.0
    fall = math.log(1 - shape.crash_depth)
    since = step - shape.crash_at
    if since <= shape.crash_steps:
        return fall / shape.crash_steps
    if since <= shape.crash_steps + shape.recovery_steps:
        return -fall * shape.recovery / shape.recovery_steps
    return 0.0
