"""A seeded market: correlated geometric walks with one crash and its recovery. Same seed, same prices."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from monitor.margin.prices import PriceKind
from monitor.wire.quotes import Quotes

__all__ = ["SAMPLES", "MarketShape", "Sample", "market", "price_text", "sample_symbols", "venue_market"]

FUNDING_PERIOD_MS = 8 * 3_600_000
"""Funding is paid at 0, 8 and 16 hours UTC."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A small market in a venue's own spelling.

    Attributes:
        instruments: Name -> first price.
        assets: Asset -> the instrument whose price is its index.
        options: Option -> (the instrument whose mark is its forward, its own first price: an inverse one's in coin).
        rates: Whether instruments have funding rates. funding_times, open_interest: whether the venue sends them.
        timed: Whether its numbers carry event times. positional: whether its array has a place for every market, where a silent one repeats
            its last mark, like a quiet one.
    """

    instruments: Mapping[str, float]
    assets: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    rates: bool = True
    funding_times: bool = False
    open_interest: bool = False
    timed: bool = True
    positional: bool = False


SAMPLES: dict[str, Sample] = {
    "binance_usdm": Sample(instruments=dict(list(_KNOWN.items())[:6]), assets={"BTC": "BTCUSDT", "ETH": "ETHUSDT"}, funding_times=True),
    "binance_coinm": Sample(
        instruments={"BTCUSD_PERP": 62_000.0, "BTCUSD_261225": 63_100.0, "ETHUSD_PERP": 3_100.0},
        assets={"BTC": "BTCUSD_PERP", "ETH": "ETHUSD_PERP"},
        funding_times=True,
    ),
    "bybit": Sample(
        instruments={"BTCUSDT": 62_000.0, "ETHUSDT": 3_100.0, "XRPUSDT": 0.52, "BTCPERP": 62_000.0, "BTCUSD": 62_000.0},
        assets={"BTC": "BTCUSD", "ETH": "ETHUSDT", "XRP": "XRPUSDT"},
        options={"BTC-25DEC26-70000-C": ("BTCUSDT", 3_100.0)},
        funding_times=True,
    ),
    "okx": Sample(
        instruments={"BTC-USDT-SWAP": 62_000.0, "ETH-USDT-SWAP": 3_100.0, "BTC-USD-SWAP": 62_000.0, "BTC-USDT-261225": 63_100.0},
        assets={"BTC": "BTC-USD-SWAP", "ETH": "ETH-USDT-SWAP"},
        options={"BTC-USD-261225-70000-C": ("BTC-USD-SWAP", 0.05)},
        funding_times=True,
    ),
    "deribit": Sample(
        instruments={"BTC-PERPETUAL": 62_000.0, "ETH-PERPETUAL": 3_100.0, "BTC-25DEC26": 63_100.0},
        assets={"BTC": "BTC-PERPETUAL", "ETH": "ETH-PERPETUAL"},
        options={
            "BTC-25DEC26-70000-C": ("BTC-25DEC26", 0.05),
            "BTC-25DEC26-50000-P": ("BTC-25DEC26", 0.02),
            "ETH-25DEC26-4000-C": ("ETH-PERPETUAL", 0.04),
        },
    ),
    "hyperliquid": Sample(
        instruments={"BTC": 62_000.0, "ETH": 3_100.0, "SOL": 150.0, "kPEPE": 0.012, "xyz:GOLD": 4_000.0},
        assets={"BTC": "BTC", "ETH": "ETH"},
        timed=False,
        positional=True,
    ),
    "dydx_v4": Sample(instruments={"BTC-USD": 62_000.0, "ETH-USD": 3_100.0, "SOL-USD": 150.0}, open_interest=True),
    "bitmex": Sample(
        instruments={"XBTUSD": 62_000.0, "ETHUSD": 3_100.0, "XBTUSDT": 62_000.0, "XBTZ26": 63_100.0},
        assets={"XBT": "XBTUSD", "ETH": "ETHUSD"},
        funding_times=True,
    ),
    "kraken_futures": Sample(
        instruments={"PF_XBTUSD": 62_000.0, "PF_ETHUSD": 3_100.0, "FI_XBTUSD_261225": 63_100.0},
        assets={"XBT": "PF_XBTUSD", "ETH": "PF_ETHUSD"},
        funding_times=True,
    ),
}
"""A market for each venue's simulator."""


def venue_market(
    sample: Sample, *, seed: int, start_ms: int = 1_700_000_000_000, shape: MarketShape = MarketShape()
) -> Iterator[tuple[float, Quotes]]:
    """`market` of a sample, with the indices, rates, funding times, volatilities, forwards and open interest of its marks."""
    options = {name: price for name, (_forward, price) in sample.options.items()}
    for offset, quotes in market({**sample.instruments, **options}, seed=seed, start_ms=start_ms, shape=shape):
        marks = quotes.numbers[PriceKind.MARK]
        step = round(offset / shape.step_s)
        numbers: dict[PriceKind, Mapping[str, str]] = {
            PriceKind.MARK: marks,
            PriceKind.INDEX: {asset: marks[name] for asset, name in sample.assets.items()},
        }
        if sample.rates:
            numbers[PriceKind.FUNDING_RATE] = {
                name: f"{1e-4 * math.cos(step / 500 + index):.8f}" for index, name in enumerate(sample.instruments)
            }
        if sample.funding_times:
            due_ms = (quotes.time_ms // FUNDING_PERIOD_MS + 1) * FUNDING_PERIOD_MS
            numbers[PriceKind.FUNDING_TIME] = dict.fromkeys(sample.instruments, str(due_ms))
        if sample.options:
            numbers[PriceKind.VOLATILITY] = {name: f"{0.5 + 0.1 * math.sin(step / 300):.4f}" for name in sample.options}
            numbers[PriceKind.FORWARD] = {name: marks[forward] for name, (forward, _price) in sample.options.items()}
        if sample.open_interest:
            numbers[PriceKind.OPEN_INTEREST] = dict.fromkeys(sample.instruments, f"{1000 + step // 10}")
        yield offset, Quotes(time_ms=quotes.time_ms, numbers=numbers)


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
