"""The price store: what is read back, and advancing inside a message."""

from __future__ import annotations

from dataclasses import replace
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


def test_a_moment_keeps_the_prices_of_each_tick() -> None:
    """Whatever comes later, the prices right after each tick of a batch can still be asked for."""
    store = PriceStore()
    store.take(BATCH, 0, 2)
    later = replace(BATCH, names=["XRPUSDT", "BTCUSDT"], prices=[0.4, 30000.0], venue_times_ms=[5, 5])
    moment = store.moment(later)
    store.take(later)
    store.take(replace(later, prices=[9.0, 9.0]))

    first, second = moment.at(0).mark, moment.at(1).mark
    assert dict(first) == {"BTCUSDT": Decimal("20100.1"), "ETHUSDT": Decimal("1100.01"), "XRPUSDT": Decimal("0.4")}
    assert dict(second) == {"BTCUSDT": Decimal(30000), "ETHUSDT": Decimal("1100.01"), "XRPUSDT": Decimal("0.4")}
    assert "XRPUSDT" not in moment.at(-1).mark
    assert len(moment.at(-1).mark) == 2
    assert dict(moment.at(0).index) == {}
