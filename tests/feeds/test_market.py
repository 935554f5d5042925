"""The seeded market."""

from __future__ import annotations

from itertools import islice

from monitor.feeds.market import MarketShape, market, price_text, sample_symbols
from monitor.margin.prices import PriceKind
from monitor.wire.price_text import price_of


def test_same_seed_same_market() -> None:
    """Two runs of a seed are equal; another seed is another market."""
    shape = MarketShape(steps=20)
    first = list(market(sample_symbols(30), seed=3, shape=shape))

    assert first == list(market(sample_symbols(30), seed=3, shape=shape))
    assert first != list(market(sample_symbols(30), seed=4, shape=shape))
    assert len(first) == 20


def test_every_price_is_a_price() -> None:
    """Symbols are distinct, and every text reads as a price near the one before."""
    last: dict[str, float] = {}
    for _offset, quotes in islice(market(sample_symbols(400), seed=1), 10):
        marks = quotes.numbers[PriceKind.MARK]
        assert len(marks) == 400
        for name, text in marks.items():
            price = price_of(text)
            assert isinstance(price, float)
            assert abs(price / last.get(name, price) - 1) < 0.01
            last[name] = price


def test_the_crash_falls_and_recovers() -> None:
    """A market with a crash loses about its depth and wins a part of it back; time goes on by steps."""
    shape = MarketShape(steps=200, volatility=1e-5, crash_at=50, crash_steps=50, crash_depth=0.2, recovery_steps=100, recovery=0.5)
    rows = list(market({"A": 100.0}, seed=1, shape=shape))
    prices = [float(quotes.numbers[PriceKind.MARK]["A"]) for _offset, quotes in rows]

    assert abs(prices[50] / 100 - 1) < 0.01
    assert prices[100] < 84
    assert prices[100] * 1.05 < prices[-1] < 95
    assert [offset for offset, _quotes in rows[:3]] == [0.0, 1.0, 2.0]
    assert rows[2][1].time_ms - rows[0][1].time_ms == 2000


def test_a_printed_price_is_never_zero() -> None:
    """Rounding down stops at the last digit."""
    assert price_text(1e-9, 4) == "0.0001"
    assert price_text(1234.5, 2) == "1234.50"
