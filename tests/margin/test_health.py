"""The evaluation of one pool: every term, what is missing, and laws that hold of every venue."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.margin.health import PoolHealth, evaluate, margins
from monitor.margin.levels import Level
from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.pools import cut
from tests.support.judged import NOW, document, first, judged, linear, number, only_pool, perpetual
from tests.support.pool_zoo import AS_OF, random_pool

D = Decimal
randoms = st.randoms(use_true_random=False)
BTC_TIERS = [{"floor": 0, "maintenance_rate": "0.004"}, {"floor": 50_000, "maintenance_rate": "0.005"}]


def health(body: dict[str, Any]) -> PoolHealth:
    """The first pool of a document."""
    return first(judged(body))


def two_longs(**account: Any) -> dict[str, Any]:
    """A USDT pool: 1 BTC bought at 60,000 and 10 ETH sold at 3,000."""
    return document(
        "binance_usdm",
        [linear("BTCUSDT", "1", "60000", leverage=20), linear("ETHUSDT", "-10", "3000", leverage=10)],
        instruments={"BTCUSDT": perpetual(tiers=BTC_TIERS), "ETHUSDT": perpetual(tiers="0.01")},
        mark={"BTCUSDT": "61000", "ETHUSDT": "3050"},
        wallet={"USDT": "10000"},
        **account,
    )


def test_every_number_of_a_single_asset_pool() -> None:
    """Two positions, by hand."""
    pool = health(two_longs())

    assert (pool.pool, pool.currency, pool.wallet) == ("cross:USDT", "USDT", D(10_000))
    assert pool.unrealized_pnl == 1000 - 500
    assert pool.equity == pool.net_value == pool.initial_equity == 10_500
    assert pool.maintenance_margin == (61_000 * D("0.005") - 50) + 30_500 * D("0.01")
    assert pool.initial_margin == 61_000 / D(20) + 30_500 / D(10)
    assert pool.fees == 0
    assert pool.available == D(10_500) - 3050 - 3050
    assert pool.headroom == 10_500 - (D(255) + 305)
    assert number(pool.margin_ratio).quantize(D("1e-12")) == (D(560) / 10_500).quantize(D("1e-12"))
    assert pool.venue_ratio == pool.margin_ratio
    assert number(pool.leverage).quantize(D("1e-12")) == (D(91_500) / 10_500).quantize(D("1e-12"))
    assert (pool.liquidatable, pool.level, pool.unknown) == (False, Level.HEALTHY, None)
    assert pool.positions[0].deduction == 50
    assert pool.positions[1].initial_rate == D("0.1")
    assert pool.positions[1].entry_value == 30_000


def test_a_position_without_entry_keeps_its_margins() -> None:
    """The pool is unknown, its maintenance is not."""
    body = two_longs()
    del body["account"]["positions"][0]["entry_price"]

    pool = health(body)

    assert pool.unknown == "entry price of BTCUSDT is missing"
    assert (pool.level, pool.equity, pool.headroom, pool.margin_ratio, pool.liquidatable) == (None, None, None, None, None)
    assert pool.maintenance_margin == 560
    assert pool.positions[1].unrealized_pnl == -500


@pytest.mark.parametrize(
    ("strip", "reason"),
    [
        (lambda b: b["account"].pop("balances"), "balances are not stated"),
        (lambda b: b["prices"]["mark"].pop("ETHUSDT"), "mark price of ETHUSDT is missing"),
        (lambda b: b["instruments"]["ETHUSDT"].pop("tiers"), "tiers of ETHUSDT are missing"),
    ],
)
def test_what_is_missing_is_named(strip: Any, reason: str) -> None:
    """A pool that cannot be judged says why and shows no level; the rest is worked out."""
    body = two_longs()
    strip(body)

    pool = health(body)

    assert (pool.unknown, pool.level) == (reason, None)
    assert pool.positions[0].maintenance_margin == 255
    assert pool.positions[0].liquidation_price is None


def test_a_missing_initial_rate_leaves_the_level_known() -> None:
    """Only what is needed to open is unknown."""
    body = two_longs()
    for row in body["account"]["positions"]:
        del row["leverage"]

    pool = health(body)

    assert pool.level is Level.HEALTHY
    assert (pool.initial_margin, pool.available) == (None, None)


def test_cash_needs_no_entry() -> None:
    """Cash is after paying for the notional: equity = cash + signed values."""
    body = document(
        "hyperliquid",
        [linear("ETH", "2"), linear("BTC", "-1")],
        instruments={"ETH": perpetual("USDC"), "BTC": perpetual("USDC")},
        mark={"ETH": "3000", "BTC": "50000"},
    )
    body["account"]["balances"] = [{"asset": "USDC", "cash": "46000"}]

    pool = health(body)

    assert pool.equity == 46_000 + 6000 - 50_000
    assert pool.unrealized_pnl is None
    assert pool.wallet == 46_000


def test_open_orders_reserve_the_larger_side() -> None:
    """Initial margin only, at the position's rate."""
    orders = [
        {"instrument": "BTCUSDT", "side": "buy", "quantity": "0.1", "price": "50000"},
        {"instrument": "BTCUSDT", "side": "sell", "notional": "8000"},
        {"instrument": "ETHUSDT", "side": "buy", "notional": "1000"},
    ]

    pool = health(two_longs(orders=orders))

    term = next(term for term in pool.terms if term.name == "open_orders")
    assert (term.initial_margin, term.maintenance_margin) == (D(400) + 100, ZERO)


def test_adjustments_count_where_they_say() -> None:
    """Profit in equity, credit in equity but not owned, option value owned but not equity, margins as terms."""
    rows = [
        {"name": "others", "asset": "USDT", "pnl": "-100", "notional": "5000", "initial_margin": "20", "maintenance_margin": "10"},
        {"name": "line", "asset": "USDT", "credit": "1000"},
        {"name": "options", "asset": "USDT", "option_value": "70"},
    ]

    pool = health(two_longs(adjustments=rows))

    assert pool.equity == 10_500 - 100 + 1000
    assert pool.net_value == 10_500 - 100 + 70
    assert pool.maintenance_margin == 570
    assert pool.terms[-1].name == "adjustment:others"
    assert pool.unrealized_pnl == 400
    assert pool.option_value == 70
    assert number(pool.leverage).quantize(D("1e-9")) == (D(96_500) / 11_400).quantize(D("1e-9"))


def test_unsettled_funding_is_equity() -> None:
    """Funding to pay since the last settlement, in the settle asset."""
    body = two_longs()
    body["account"]["positions"][0]["unsettled_funding"] = "-12.5"

    pool = health(body)

    assert pool.equity == D("10487.5")
    assert pool.positions[0].unrealized_pnl == 1000


def test_debts_count_in_full_and_collateral_can_be_switched_off() -> None:
    """A holding that is switched off counts 0, a debt never less than itself."""
    assets = {"BTC": {"weights": [{"floor": 0, "weight": "0.9"}]}}
    index = {"BTC": "50000", "USDT": "1"}
    held = document("bybit", [], wallet={"BTC": "1", "USDT": "-1000"}, assets=assets, index=index)
    off = document("bybit", [], wallet={"BTC": "1", "USDT": "-1000"}, assets=assets, index=index)
    off["account"]["balances"][0]["collateral"] = False

    assert health(held).equity == 45_000 - 1000
    assert health(off).equity == -1000
    assert health(off).net_value == 49_000
    assert health(off).level is Level.BANKRUPT
    assert [row.value for row in health(held).collateral] == [45_000, -1000]


def test_an_asset_of_amount_zero_needs_no_price() -> None:
    """Nothing times an unknown price is nothing; something is unknown."""
    nothing = health(document("bybit", [], wallet={"XYZ": "0", "USD": "5"}))
    something = health(document("bybit", [], wallet={"XYZ": "0.1", "USD": "5"}))

    assert (nothing.equity, nothing.unknown) == (D(5), None)
    assert (something.equity, something.unknown) == (None, "index price of XYZ is missing")


def test_thresholds_hold_a_level_until_it_is_left() -> None:
    """The level held now is part of the question."""
    pool, prices = only_pool(two_longs())
    tight = replace(pool, holdings=(replace(pool.holdings[0], amount=D(200)),))  # equity 700, requirement 560: ratio 0.8

    assert evaluate(tight, prices, NOW).level is Level.MARGIN_CALL
    assert evaluate(tight, prices, NOW, Level.LIQUIDATION).level is Level.MARGIN_CALL
    eased = replace(pool, holdings=(replace(pool.holdings[0], amount=D(230)),))  # ratio 0.767
    assert evaluate(eased, prices, NOW).level is Level.WATCH
    assert evaluate(eased, prices, NOW, Level.MARGIN_CALL).level is Level.MARGIN_CALL


def test_nothing_held_is_healthy_but_a_bare_debt_is_bankrupt() -> None:
    """A pool without positions and debts is healthy although 0 <= 0."""
    assert health(document("binance_usdm", [], wallet={"USDT": "0"})).level is Level.HEALTHY
    assert health(document("binance_usdm", [], wallet={"USDT": "-1"})).level is Level.BANKRUPT


@pytest.mark.parametrize(("cash", "at", "below"), [("0.01", True, False), ("0.0099", True, True), ("0.0101", False, False)])
def test_liquidation_at_and_below(cash: str, at: bool, below: bool) -> None:
    """Equity equal to maintenance is liquidatable on some venues and not on others."""
    sums = [{"name": "others", "asset": "USDC", "maintenance_margin": "0.01"}]
    bodies = [document(venue, [], wallet={"USDC": cash}, adjustments=sums) for venue in ("binance_usdm", "deribit")]

    assert [health(body).liquidatable for body in bodies] == [at, below]


def test_isolated_defaults_to_the_initial_margin_at_entry() -> None:
    """Without a stated wallet."""
    position = linear("BTCUSDT", "2", "100", margin_mode="isolated", leverage=4)
    body = document("binance_usdm", [position], instruments={"BTCUSDT": perpetual()}, mark={"BTCUSDT": "90"})

    pool = health(body)

    assert (pool.pool, pool.wallet, pool.equity) == ("isolated:BTCUSDT", D(50), D(30))


@given(randoms)
def test_the_short_way_is_the_long_way(r: Any) -> None:
    """`margins` gives exactly the equity and requirement of `evaluate`."""
    sample = random_pool(r)
    full, short = evaluate(sample.pool, sample.prices, AS_OF), margins(sample.pool, sample.prices, AS_OF)

    assert (short.equity, short.requirement, short.unknown) == (full.equity, full.requirement, full.unknown)
    with localcontext(EXACT):
        assert full.maintenance_margin == sum((number(term.maintenance_margin) for term in full.terms), ZERO)
        assert full.headroom == number(full.equity) - number(full.requirement)


@given(randoms, st.decimals(min_value="0.01", max_value=100_000, places=2))
def test_more_cash_never_worsens_health(r: Any, more: Decimal) -> None:
    """On every venue, whatever the asset was before: headroom does not fall and the level does not rise."""
    sample = random_pool(r)
    place = r.randrange(len(sample.pool.holdings))
    holdings = list(sample.pool.holdings)
    amount = holdings[place].amount
    assert amount is not None
    holdings[place] = replace(holdings[place], amount=amount + more)
    richer = replace(sample.pool, holdings=tuple(holdings))

    before, after = evaluate(sample.pool, sample.prices, AS_OF), evaluate(richer, sample.prices, AS_OF)

    assert number(after.headroom) >= number(before.headroom)
    assert after.level is not None and before.level is not None
    assert after.level <= before.level


@given(randoms, st.decimals(min_value="0.1", max_value="0.9", places=2))
def test_splitting_a_position_changes_nothing_within_one_tier(r: Any, share: Decimal) -> None:
    """One rate for all sizes: two accounts of a part each need together what one needs."""
    rate = r.choice(["0.01", "0.05"])
    whole = D(r.randint(1, 1000))

    def requirement(quantity: Decimal) -> Decimal:
        body = document(
            "binance_usdm",
            [linear("X", str(quantity), "100")],
            instruments={"X": perpetual(tiers=rate)},
            mark={"X": "104"},
            wallet={"USDT": "1000"},
        )
        return number(health(body).requirement)

    assert requirement(whole * share) + requirement(whole * (1 - share)) == requirement(whole)


@given(randoms)
def test_the_order_of_positions_does_not_matter(r: Any) -> None:
    """Decimal sums are exact, so any order gives the same digits where nothing is divided."""
    sample = random_pool(r, "binance_usdm")
    read = sample.pool.account
    (turned,) = cut(replace(read, positions=read.positions[::-1]), sample.pool.tables, AS_OF)

    assert margins(turned, sample.prices, AS_OF) == margins(sample.pool, sample.prices, AS_OF)


@given(randoms)
def test_scaling_everything_scales_everything(r: Any) -> None:
    """Twice the positions and twice the wallet: twice the headroom, where there is one tier."""
    body = document(
        "binance_usdm",
        [linear("X", str(r.randint(1, 99)), "100"), linear("Y", str(-r.randint(1, 99)), "50")],
        instruments={"X": perpetual(), "Y": perpetual(tiers="0.02")},
        mark={"X": "97", "Y": "53"},
        wallet={"USDT": "500"},
    )
    double = document(
        "binance_usdm",
        [{**row, "quantity": str(2 * int(row["quantity"]))} for row in body["account"]["positions"]],
        instruments=body["instruments"],
        mark=body["prices"]["mark"],
        wallet={"USDT": "1000"},
    )

    assert number(health(double).headroom) == 2 * number(health(body).headroom)
