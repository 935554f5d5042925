"""Bybit: index prices in USD out of three pairs, and which address serves what."""

from __future__ import annotations

from typing import Any

import pytest

from monitor.margin.prices import PriceKind
from monitor.wire.frames import Wanted
from monitor.wire.prices import PriceBatch
from monitor.wire.venues.bybit import UsdIndices, endpoint_of, pair_of, topics

T = 1_790_143_909_000


def index(pair: str, price: float, time: int) -> list[PriceBatch]:
    """One index price of a pair, as the codec gives it."""
    return [PriceBatch(venue="bybit", kind=PriceKind.INDEX, names=[pair], prices=[price], venue_times_ms=[time], received_at_ns=T * 10**6)]


def told(batches: list[PriceBatch]) -> list[Any]:
    """Asset, price and time of what was derived."""
    return [(batch.names[0], batch.prices[0], batch.venue_times_ms[0]) for batch in batches]


def test_indices_in_dollars() -> None:
    """BTC comes from the inverse contract; USDT and USDC from the two BTC pairs; others from their USDT pair times the price of USDT."""
    usd = UsdIndices()

    assert told(usd.derive(index("ETH/USDT", 3000.0, T))) == []
    assert told(usd.derive(index("BTC/USD", 60_060.0, T + 1))) == [("BTC", 60_060.0, T + 1)]
    assert told(usd.derive(index("BTC/USDT", 60_000.0, T + 2))) == [("USDT", 1.001, T + 1)]
    assert told(usd.derive(index("ETH/USDT", 3000.0, T + 3))) == [("ETH", pytest.approx(3003.0), T + 1)]
    assert told(usd.derive(index("BTC/USDC", 60_120.0, T + 4))) == [("USDC", pytest.approx(0.999002, abs=1e-6), T + 1)]
    assert told(usd.derive(index("ETH/USDC", 3000.0, T + 5))) == []
    assert told(usd.derive(index("ETH/USD", 3003.0, T + 5))) == []


def test_a_derived_index_is_as_old_as_its_oldest_input() -> None:
    """While the BTC pairs stand, what is made of them does not get younger."""
    usd = UsdIndices()
    usd.derive(index("BTC/USD", 60_000.0, T))
    usd.derive(index("BTC/USDT", 60_000.0, T + 5_000))

    assert told(usd.derive(index("ETH/USDT", 3000.0, T + 9_000)))[0][2] == T
    usd.derive(index("BTC/USD", 60_000.0, T + 8_000))
    assert told(usd.derive(index("ETH/USDT", 3000.0, T + 9_000)))[0][2] == T + 5_000


def test_other_kinds_pass_unchanged() -> None:
    """Marks go through as they are, in order."""
    mark = PriceBatch(venue="bybit", kind=PriceKind.MARK, names=["BTCUSDT"], prices=[1.0], venue_times_ms=[T], received_at_ns=1)

    assert UsdIndices().derive([mark, *index("X/USDT", 1.0, T), mark]) == [mark, mark]


@pytest.mark.parametrize(
    ("name", "endpoint", "pair"),
    [
        ("BTCUSDT", "linear", "BTC/USDT"),
        ("BTCPERP", "linear", "BTC/USDC"),
        ("BTC-26SEP25", "linear", None),
        ("BTCUSDT-26SEP25", "linear", None),
        ("BTCUSD", "inverse", "BTC/USD"),
        ("BTCUSDZ26", "inverse", None),
        ("BTC-25DEC26-90000-C", "option", None),
        ("SOL-25DEC26-150-P-USDT", "option", None),
        ("1000PEPEUSDT", "linear", "1000PEPE/USDT"),
    ],
)
def test_spellings(name: str, endpoint: str, pair: str | None) -> None:
    """An instrument's spelling says which address serves it, and which pair its index price is of."""
    assert (endpoint_of(name), pair_of(name)) == (endpoint, pair)


def test_an_assets_index_subscribes_what_it_is_made_of() -> None:
    """ETH needs its own pair and both of BTC; each promise stands at the topic that completes it."""
    plan = {(topic.endpoint, topic.key): topic.supplies for topic in topics(Wanted(assets=frozenset({"ETH", "USDC"})))}

    assert plan == {
        ("inverse", "tickers.BTCUSD"): (),
        ("linear", "tickers.BTCUSDT"): (),
        ("linear", "tickers.ETHUSDT"): ((PriceKind.INDEX, ("ETH",)),),
        ("linear", "tickers.BTCPERP"): ((PriceKind.INDEX, ("USDC",)),),
    }
