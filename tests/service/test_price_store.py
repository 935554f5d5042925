"""The price store: what is read back, and advancing inside a message."""

from __future__ import annotations

from decimal import Decimal

from monitor.margin.prices import PriceKind
from monitor.service.price_store import PriceStore
from monitor.wire.prices import PriceBatch

BATCH = PriceBatch(
    venue="binance_usdm",
    kind=PriceKind.MARK,
    names=["BTCUSDT", "ETHUSDT", "XRPUSDT"],
    prices=[20100.1, 1100.01, 0.3],
    venue_times_ms=[1, 2, 3],
    received_at_ns=4,
)


def test_prices_come_back_as_the_decimals_that_were_sent() -> None:
    """The float 0.3 is the decimal 0.3, and a name without a price is absent."""
    store = PriceStore()
    prices = store.prices("binance_usdm")
    store.take(BATCH)

    assert prices.mark["XRPUSDT"] == Decimal("0.3")
    assert "SOLUSDT" not in prices.mark
    assert store.time_ms("binance_usdm", PriceKind.MARK, "ETHUSDT") == 2
    assert store.prices("bybit").mark.get("BTCUSDT") is None
    assert store.count("binance_usdm") == 3


def test_a_message_can_be_taken_in_parts() -> None:
    """After the first part, later names of the message still have their earlier price."""
    store = PriceStore()
    store.take(BATCH, 0, 1)

    assert store.price("binance_usdm", PriceKind.MARK, "BTCUSDT") == 20100.1
    assert store.price("binance_usdm", PriceKind.MARK, "ETHUSDT") is None
    store.take(BATCH, 1)
    assert store.price("binance_usdm", PriceKind.MARK, "XRPUSDT") == 0.3
