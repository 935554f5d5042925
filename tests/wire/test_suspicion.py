"""Strange prices: the incidents that a risk monitor must mark, and those it must not hide."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from monitor.margin.prices import PriceKind
from monitor.wire.prices import PriceBatch
from monitor.wire.suspicion import Suspicion, SuspicionKind, SuspicionWatch, suspicions

JUMP, INDEX, MEDIAN, SINGLE = SuspicionKind.JUMP, SuspicionKind.AGAINST_INDEX, SuspicionKind.AGAINST_MEDIAN, SuspicionKind.SINGLE_SOURCE
MARKS = {"binance_usdm": "BTCUSDT", "okx": "BTC-USDT-SWAP", "bybit": "BTCUSDT", "bitmex": "XBTUSD"}
T = 1_700_000_000_000


def tick(venue: str, name: str, price: float, *, at_ms: int = T, kind: PriceKind = PriceKind.MARK) -> PriceBatch:
    """One price."""
    return PriceBatch(venue=venue, kind=kind, names=[name], prices=[price], venue_times_ms=[at_ms], received_at_ns=at_ms * 1_000_000)


def told(watch: SuspicionWatch, batch: PriceBatch) -> dict[str, tuple[Suspicion, ...]]:
    """What is strange in a batch, by name; then the watch has taken it."""
    found = {name: strange for place, name in enumerate(batch.names) if (strange := watch.look(batch, place))}
    watch.take(batch)
    return found


def kinds(found: dict[str, tuple[Suspicion, ...]], name: str) -> set[SuspicionKind]:
    """The tags of a name."""
    return {suspicion.kind for suspicion in found.get(name, ())}


def test_an_ordinary_price_is_not_strange() -> None:
    """Small moves near the index and the other venues say nothing."""
    assert suspicions(100.0, previous=99.0, index=100.5, peers=[100.1, 99.9]) == ()
    assert suspicions(100.0, previous=None) == ()


def test_a_bad_print_of_an_index_component() -> None:
    """An index that falls to three quarters on one venue in one print is a jump and a deviation from the others (BitMEX, 2017-04-15)."""
    watch = SuspicionWatch()
    for venue in ("okx", "bybit", "deribit"):
        watch.take(tick(venue, "BTC", 1183.0, kind=PriceKind.INDEX))
    watch.take(tick("bitmex", "XBT", 1183.0, kind=PriceKind.INDEX))

    found = told(watch, tick("bitmex", "XBT", 888.48, kind=PriceKind.INDEX))

    assert kinds(found, "XBT") == {JUMP, MEDIAN}
    assert found["XBT"][1].reference == 1183.0
    assert round(found["XBT"][1].deviation, 4) == round(888.48 / 1183.0 - 1, 4)


def test_collateral_off_its_peg_on_one_venue() -> None:
    """USDe at 0.65 on one venue and 1.00 elsewhere is told against the median, for as long as it lasts (Binance, 2025-10-10)."""
    watch = SuspicionWatch()
    seen = []
    for second in range(60):
        for venue in ("okx", "bybit"):
            watch.take(tick(venue, "USDE", 1.0, at_ms=T + second * 1000, kind=PriceKind.INDEX))
        price = max(0.65, 1.0 - 0.01 * second)
        found = told(watch, tick("binance_usdm", "USDE", price, at_ms=T + second * 1000, kind=PriceKind.INDEX))
        seen.append(kinds(found, "USDE"))

    assert seen[0] == seen[2] == set()
    assert all(tags == {MEDIAN} for tags in seen[5:])


def test_a_single_source_that_falls() -> None:
    """A fall of 18% in one print of a market nobody else has is a jump that no one can confirm (BitMEX ETH, 2018-04-15)."""
    watch = SuspicionWatch()
    watch.take(tick("bitmex", "ABCUSD", 0.07))

    assert kinds(told(watch, tick("bitmex", "ABCUSD", 0.0574)), "ABCUSD") == {JUMP, SINGLE}


def test_a_real_crash_is_not_strange() -> None:
    """Thirty percent in ten minutes on all venues, each a second behind the other, is told nowhere."""
    watch = SuspicionWatch()
    for second in range(600):
        price = 60_000 * (1 - 0.0005) ** second
        for number, (venue, name) in enumerate(MARKS.items()):
            assert told(watch, tick(venue, name, price * (1 + 0.001 * number), at_ms=T + second * 1000 + number)) == {}


def test_a_mark_against_its_venues_index() -> None:
    """A mark 6% off the venue's own index of the coin is told; contracts on a thousand coins are compared by coin."""
    watch = SuspicionWatch()
    watch.take(tick("binance_usdm", "PEPE", 0.000012, kind=PriceKind.INDEX))

    assert told(watch, tick("binance_usdm", "1000PEPEUSDT", 0.0121)) == {}
    assert kinds(told(watch, tick("binance_usdm", "1000PEPEUSDT", 0.0130)), "1000PEPEUSDT") == {INDEX, SINGLE}


def test_old_prices_of_other_venues_do_not_count() -> None:
    """A venue that has been silent for ten seconds is no witness."""
    watch = SuspicionWatch()
    for venue in ("okx", "bybit"):
        watch.take(tick(venue, MARKS[venue], 60_000.0))

    assert kinds(told(watch, tick("bitmex", "XBTUSD", 50_000.0, at_ms=T + 9_000)), "XBTUSD") == {MEDIAN}
    assert told(watch, tick("bitmex", "XBTUSD", 50_100.0, at_ms=T + 11_000)) == {}


def test_a_venue_is_no_witness_for_itself() -> None:
    """Its own prices, of this or another contract on the coin, make no median against which it could be measured."""
    watch = SuspicionWatch()
    watch.take(tick("okx", MARKS["okx"], 60_000.0))
    watch.take(tick("bitmex", "XBTUSDT", 60_000.0))

    assert told(watch, tick("bitmex", "XBTUSD", 50_000.0)) == {}


def test_other_kinds_are_not_watched() -> None:
    """Rates and volatilities pass."""
    watch = SuspicionWatch()
    assert told(watch, tick("okx", "BTC-USDT-SWAP", -1.0, kind=PriceKind.FUNDING_RATE)) == {}


@given(st.lists(st.floats(min_value=1e-6, max_value=1e6), min_size=2, max_size=20))
def test_a_jump_is_told_exactly_when_it_is_one(prices: list[float]) -> None:
    """A price is told as a jump when, and only when, it moved more than the limit since the one before; the batch is never changed."""
    watch = SuspicionWatch()
    seen = []
    for price in prices:
        batch = tick("bitmex", "NOBODYKNOWS", price)
        seen.append(JUMP in kinds(told(watch, batch), "NOBODYKNOWS"))
        assert batch == tick("bitmex", "NOBODYKNOWS", price)

    assert seen == [False, *(abs(after / before - 1) > 0.10 for before, after in pairwise(prices))]


def test_a_jump_stands_for_a_minute() -> None:
    """The list of strange prices shows a jump until a minute after it, and a deviation from the others for as long as it lasts."""
    watch = SuspicionWatch()
    watch.take(tick("bitmex", "ABCUSD", 100.0))
    watch.take(tick("bitmex", "ABCUSD", 120.0, at_ms=T + 1_000))
    watch.take(tick("bitmex", "ABCUSD", 120.0, at_ms=T + 61_000))
    (shown,) = watch.standing(T + 61_000)

    assert shown[:3] == ("bitmex", PriceKind.MARK, "ABCUSD")
    assert {suspicion.kind for suspicion in shown[3]} == {JUMP, SINGLE}
    assert list(watch.standing(T + 61_001)) == []


def test_medians_are_of_the_other_venues_and_in_this_contract() -> None:
    """Names that two other venues know have a median, per thousand coins for a contract on a thousand; the others have none."""
    watch = SuspicionWatch()
    watch.take(tick("okx", "PEPE-USDT-SWAP", 0.000010))
    watch.take(tick("bybit", "1000PEPEUSDT", 0.012))
    watch.take(tick("bitmex", "XBTUSD", 50_000.0))

    names = {"mark": ["1000PEPEUSDT", "BTCUSDT"], "index": ["BTC"]}
    assert watch.medians("binance_usdm", names, T) == {"mark": {"1000PEPEUSDT": Decimal("0.011")}}
    assert watch.medians("okx", {"mark": ["PEPE-USDT-SWAP"]}, T) == {}
