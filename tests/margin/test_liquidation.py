"""Liquidation and bankruptcy prices, moves of the whole pool, and cures: put back, they do what they say."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.margin.health import evaluate, margins
from monitor.margin.levels import DEFAULT_THRESHOLDS, Level
from monitor.margin.liquidation import Cure, cure, pool_move, position_prices, priced, reduced, report
from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.pools import MarginPool
from monitor.margin.prices import Prices
from monitor.margin.working import work
from tests.support.judged import NOW, document, first, judged, linear, number, only_pool, perpetual
from tests.support.pool_zoo import AS_OF, Specimen, random_pool, random_portfolio, with_marks

D = Decimal
randoms = st.randoms(use_true_random=False)
CLOSE = D("1e-9")


ONE = D(1)


def headroom(pool: MarginPool, prices: Prices, theta: Decimal = ONE) -> Decimal:
    """Equity times theta less requirement, by the exact evaluation."""
    found = margins(pool, prices, AS_OF)
    with localcontext(EXACT):
        return theta * number(found.equity) - number(found.requirement)


def price_of(body: dict[str, Any], place: int = 0) -> Decimal | None:
    """Liquidation price of one position of a document's first pool."""
    return first(judged(body)).positions[place].liquidation_price


def test_a_second_position_s_own_maintenance_moves_the_price() -> None:
    """95.40 without the other position's maintenance, 99.40 with it: 4.6 % of room would be claimed where there is 0.6 %."""
    alone = document(
        "binance_usdm", [linear("A", "100", "100")], instruments={"A": perpetual()}, mark={"A": "100"}, wallet={"USDT": "555.4"}
    )
    both = document(
        "binance_usdm",
        [linear("A", "100", "100"), linear("B", "396", "100")],
        instruments={"A": perpetual(), "B": perpetual()},
        mark={"A": "100", "B": "100"},
        wallet={"USDT": "555.4"},
    )

    assert price_of(alone) == D("95.4")
    assert price_of(both) == D("99.4")


def test_a_short_among_the_other_positions_counts_with_its_sign() -> None:
    """A short in profit gives room, the same short in loss takes it."""

    def body(short_mark: str) -> dict[str, Any]:
        return document(
            "binance_usdm",
            [linear("A", "100", "100"), linear("S", "-50", "20")],
            instruments={"A": perpetual(), "S": perpetual(tiers="0")},
            mark={"A": "100", "S": short_mark},
            wallet={"USDT": "1000"},
        )

    # 99 p = 10000 - 1000 - profit of the short
    assert abs(number(price_of(body("20"))) - D(9000) / 99) < CLOSE
    assert abs(number(price_of(body("18"))) - D(8900) / 99) < CLOSE
    assert abs(number(price_of(body("22"))) - D(9100) / 99) < CLOSE


def test_tiers_are_those_at_the_answer() -> None:
    """A short that grows into the next tier on its way is liquidated by that tier's rate."""
    tiers = [{"floor": 0, "maintenance_rate": "0.01"}, {"floor": 1500, "maintenance_rate": "0.1"}]
    body = document(
        "binance_usdm", [linear("A", "-10", "100")], instruments={"A": perpetual(tiers=tiers)}, mark={"A": "100"}, wallet={"USDT": "800"}
    )

    # 800 + 1000 - 10 p = 10 p * 0.1 - 135
    assert abs(number(price_of(body)) - D(1935) / 11) < CLOSE


def test_hedge_legs_move_together() -> None:
    """Both legs of a symbol have one price; equal legs are liquidated by their maintenance alone."""
    body = document(
        "binance_usdm",
        [linear("A", "5", "100", side="long"), linear("A", "-5", "100", side="short")],
        instruments={"A": perpetual(tiers="0.1")},
        mark={"A": "100"},
        wallet={"USDT": "150"},
    )

    assert (price_of(body, 0), price_of(body, 1)) == (D(150), D(150))


def test_no_price_above_zero_is_none() -> None:
    """A long that the wallet pays for entirely."""
    body = document("binance_usdm", [linear("A", "1", "100")], instruments={"A": perpetual()}, mark={"A": "100"}, wallet={"USDT": "100"})

    assert price_of(body) is None


def test_two_prices_where_there_are_two() -> None:
    """A hedged coin-margined pool loses on either side; the nearer one is the price."""
    body = document(
        "binance_coinm",
        [linear("P", "100", "50000", side="long"), linear("P", "-100", "50000", side="short")],
        instruments={"P": perpetual("BTC", tiers="0.2", inverse=True, contract_size=100)},
        mark={"P": "50000"},
        wallet={"BTC": "0.1"},
    )
    pool, prices = only_pool(body)

    (found, _) = position_prices(pool, prices, NOW)

    assert found.above is None
    assert found.below == 40_000  # 0.1 = 2 * 10000 * 0.2 / p
    net_short = document(
        "binance_usdm",
        [linear("A", "10", "100", side="long"), linear("A", "-9", "100", side="short")],
        instruments={"A": perpetual(tiers="0.2")},
        mark={"A": "100"},
        wallet={"USDT": "400"},
    )
    (hedged, _) = position_prices(*only_pool(net_short), NOW)
    assert hedged.below is None
    assert abs(number(hedged.above) - D(300) / D("2.8")) < CLOSE  # 400 + (p - 100) = 19 p * 0.2


@pytest.mark.parametrize(
    ("quantity", "expected"), [("10", "92.00"), ("-10", "107.85")], ids=["a long's is rounded up", "a short's is rounded down"]
)
def test_prices_are_rounded_against_the_holder(quantity: str, expected: str) -> None:
    """To the tick, so that liquidation is never claimed later than it comes."""
    body = document(
        "binance_usdm",
        [linear("A", quantity, "100")],
        instruments={"A": perpetual(tick_size="0.05")},
        mark={"A": "100"},
        wallet={"USDT": "90"},
    )
    body["instruments"]["A"]["tiers"][0]["maintenance_rate"] = "0.0104"

    assert price_of(body) == D(expected)


def test_a_haircut_and_a_debt_are_part_of_the_price() -> None:
    """Losses first eat the wallet, then become a debt that counts in full beside discounted collateral."""
    body = document(
        "bybit",
        [linear("ETHUSDT", "-10", "3000", leverage=10)],
        instruments={"ETHUSDT": perpetual(taker_fee=0)},
        assets={"BTC": {"weights": [{"floor": 0, "weight": "0.98"}, {"floor": 10, "weight": 0}]}},
        wallet={"BTC": "1", "USDT": "0"},
        mark={"ETHUSDT": "3000"},
        index={"BTC": "50000", "USDT": "1"},
    )

    assert abs(number(price_of(body)) - D("7821.782178217821782178")) < CLOSE
    body["assets"]["USDT"] = {"borrow_tiers": [{"floor": 0, "maintenance_rate": "0.04"}]}
    # 49000 + (30000 - 10 p) * 1.04 = 10 p * 0.01
    assert abs(number(price_of(body)) - D(80_200) / D("10.5")) < CLOSE


def test_an_unknown_pool_has_no_prices_and_no_cure() -> None:
    """Nothing is claimed of what is not known."""
    body = document("binance_usdm", [linear("A", "1", "100")], instruments={"A": perpetual()}, mark={"A": "100"})
    pool, prices = only_pool(body)

    assert [p.liquidation_price for p in position_prices(pool, prices, NOW)] == [None]
    assert pool_move(pool, prices, NOW).down is None
    assert cure(pool, prices, NOW, Level.WATCH).deposit is None
    assert report(pool, prices, NOW).health.unknown == "balances are not stated"


def test_bankruptcy_is_where_equity_ends() -> None:
    """The same without maintenance; other positions are held still."""
    body = document(
        "binance_usdm",
        [linear("A", "10", "100"), linear("B", "5", "10")],
        instruments={"A": perpetual(), "B": perpetual()},
        mark={"A": "100", "B": "12"},
        wallet={"USDT": "200"},
    )
    pool = first(judged(body))

    assert pool.positions[0].bankruptcy_price == 79


def test_deribit_s_slope_is_a_quadratic() -> None:
    """Rate 1.5 % + 0.005 % per coin on the whole of it: the root of a parabola, put back."""
    tiers = [{"floor": 0, "maintenance_rate": "0.015", "initial_rate": "0.02", "slope": "0.00005"}]
    body = document(
        "deribit",
        [linear("BTC-PERPETUAL", "-2000000", "10000")],
        instruments={"BTC-PERPETUAL": perpetual("BTC", tiers=tiers, inverse=True)},
        mark={"BTC-PERPETUAL": "10000"},
        wallet={"BTC": "20"},
    )
    pool, prices = only_pool(body)

    (found,) = position_prices(pool, prices, NOW)

    assert found.liquidation_price is not None
    assert abs(headroom(pool, with_marks(prices, **{"BTC-PERPETUAL": found.liquidation_price}))) < D("1e-40")


def test_a_short_option_is_solved_on_its_own_mark() -> None:
    """Deribit: a short put's maintenance bends where its mark reaches a coin; index and other marks stand still."""
    option = {"kind": "inverse_option", "settle": "BTC", "underlying": "BTC", "strike": 60_000, "expiry": "2026-02-01T08:00:00Z"}
    body = document(
        "deribit",
        [linear("P", "-1"), linear("F", "10000", "50000")],
        instruments={"P": {**option, "option_type": "put"}, "F": perpetual("BTC", tiers="0.01", inverse=True)},
        mark={"P": "0.2", "F": "50000"},
        index={"BTC": "50000"},
        wallet={"BTC": "2"},
    )
    pool, prices = only_pool(body)

    option_price, _ = position_prices(pool, prices, NOW)

    assert option_price.below is None
    assert option_price.above is not None and option_price.above > 1
    assert abs(headroom(pool, with_marks(prices, P=option_price.above))) < D("1e-40")


def test_portfolio_margin_by_hand() -> None:
    """Long 500,000 USD at 50,000 with 3 BTC: in coin, 3 + 10 - x of equity against 0.8 * (x * 0.16 / 0.84 + 0.01 x), x = 500,000 / p."""
    body = document(
        "deribit",
        [linear("F", "500000", "50000")],
        instruments={"F": perpetual("BTC", tiers="0", inverse=True, underlying="BTC")},
        mark={"F": "50000"},
        index={"BTC": "50000"},
        wallet={"BTC": "3"},
        margin_model="portfolio",
    )
    body["risk"] = {"BTC": {"price_moves": ["-0.16", "0", "0.16"], "basis_floor": "0.01", "maintenance_factor": "0.8", "initial_factor": 1}}
    pool, prices = only_pool(body)

    (found,) = position_prices(pool, prices, NOW)

    with localcontext(EXACT):
        coins = 13 / (1 + D("0.8") * (D("0.16") / D("0.84") + D("0.01")))
        assert abs(number(found.liquidation_price) - 500_000 / coins) < D("1e-40")
    assert found.bankruptcy_price is not None and abs(found.bankruptcy_price - D(500_000) / 13) < CLOSE


def test_a_root_where_an_amount_turns_into_a_debt_is_found() -> None:
    """Mango's health and the settle token's amount are 0 at the same mark, which has no exact decimal: 1100 / 0.693."""
    asset = {"weights": [{"floor": 0, "weight": "0.9"}], "debt_weights": [{"floor": 0, "weight": "1.1"}]}
    for quantity, mark in (("0.7", "3000"), ("-0.7", "500")):
        cost = "2100" if quantity[0] != "-" else "-700"
        body = document(
            "mango_v4",
            [linear("P", quantity, cost=cost)],
            instruments={"P": perpetual("USDC", profit_weight="0.5")},
            assets={"USDC": asset},
            mark={"P": mark},
            index={"USDC": "0.999"},
            wallet={"USDC": "1000"},
        )
        pool, prices = only_pool(body)

        (found,) = position_prices(pool, prices, NOW)

        expected = D(1100) / D("0.693") if quantity[0] != "-" else D(1700) / D("0.707")
        assert abs(number(found.liquidation_price) - expected) < CLOSE


@settings(max_examples=30, deadline=None)
@given(randoms)
def test_portfolio_prices_and_reductions_put_back(r: Any) -> None:
    """Headroom changes sign at each price, and each reduction brings the pool below the level."""
    sample = random_portfolio(r)
    for leg, found in zip(sample.pool.legs, position_prices(sample.pool, sample.prices, AS_OF), strict=True):
        for root in (found.below, found.above):
            assert root is None or leg.option or crosses(sample, leg.name, root), (sample.breed, leg.name, root)
    theta = DEFAULT_THRESHOLDS.watch.leave
    with localcontext(EXACT):
        states = work(sample.pool, sample.prices, AS_OF).priced
    for state, reduction in zip(states, cure(sample.pool, sample.prices, AS_OF, Level.WATCH).reductions, strict=False):
        if reduction.quantity is not None:
            with localcontext(EXACT):
                after = reduced(sample.pool, state, 1 - abs(reduction.quantity / state.leg.position.quantity))
            assert headroom(after, sample.prices, theta) > 0


def test_options_are_repriced_when_the_market_moves() -> None:
    """A long call by its forward and volatility: the pool of a short future against it ends above, not where the future alone would."""
    option = {"kind": "linear_option", "settle": "USDT", "underlying": "BTC", "strike": 50_000, "expiry": "2026-06-01T08:00:00Z"}
    body = document(
        "okx",
        [linear("C", "1"), linear("F", "-0.5", "50000")],
        instruments={"C": {**option, "option_type": "call"}, "F": perpetual(underlying="BTC", taker_fee=0)},
        index={"BTC": "50000", "USDT": "1"},
        mark={"F": "50000"},
        wallet={"USDT": "3000"},
        mode="single_asset",
        prices={"forward": {"C": "50000"}, "volatility": {"C": "0.5"}},
    )
    body["instruments"]["C"]["taker_fee"] = 0
    pool, prices = only_pool(body)

    found = pool_move(pool, prices, NOW)

    assert found.up is None
    assert position_prices(pool, prices, NOW)[1].above is not None


def test_the_market_moves_all_marks_alike() -> None:
    """A long and a short of equal size cancel; what is left moves by its own share."""
    body = document(
        "binance_usdm",
        [linear("A", "10", "100"), linear("B", "-5", "100")],
        instruments={"A": perpetual(tiers="0"), "B": perpetual(tiers="0.02")},
        mark={"A": "100", "B": "100"},
        wallet={"USDT": "100"},
    )
    pool, prices = only_pool(body)

    # 100 + 1000 s - 500 s = 500 (1 + s) 0.02
    assert abs(number(pool_move(pool, prices, NOW).down) - D(-90) / 490) < CLOSE
    assert pool_move(pool, prices, NOW).up is None
    only_b = pool_move(pool, prices, NOW, betas={"B": D(2)})
    assert abs(number(only_b.up) - D(90) / 1020) < CLOSE  # 100 - 1000 s = 10 + 20 s


def test_coin_collateral_falls_with_the_market() -> None:
    """The index price of a coin moves with the marks, that of a stable coin does not."""
    body = document(
        "bybit",
        [linear("BTCUSDT", "1", "50000", leverage=10)],
        instruments={"BTCUSDT": perpetual(taker_fee=0, underlying="BTC", tiers="0.01")},
        wallet={"BTC": "0.1", "USDT": "0"},
        mark={"BTCUSDT": "50000"},
        index={"BTC": "50000", "USDT": "1"},
    )
    pool, prices = only_pool(body)

    # 5000 (1 + s) + 50000 s = 500 (1 + s)
    assert abs(number(pool_move(pool, prices, NOW).down) - D(-4500) / 54_500) < CLOSE
    assert abs(number(pool_move(pool, prices, NOW, index_betas={}).down) - D(-4500) / 49_500) < CLOSE


def test_cures_of_a_plain_pool() -> None:
    """Deposit and reductions by hand, and nothing below healthy."""
    body = document(
        "binance_usdm",
        [linear("A", "100", "100"), linear("B", "10", "100")],
        instruments={"A": perpetual(tiers="0.01"), "B": perpetual(tiers="0.01")},
        mark={"A": "100", "B": "100"},
        wallet={"USDT": "120"},
    )
    pool, prices = only_pool(body)  # equity 120, requirement 110

    found = cure(pool, prices, NOW, Level.MARGIN_CALL)

    assert found.deposit == D("26.66666667")  # 110 / 0.75 - 120, rounded up
    assert found.reductions[0].quantity == D("-20.00000001")  # 0.75 * 120 = 90 > 110 - 20
    assert found.reductions[1].quantity is None  # closing all of B leaves 100
    rich = replace(pool, holdings=(replace(pool.holdings[0], amount=D(500)),))
    assert cure(rich, prices, NOW, Level.WATCH) == Cure(Level.WATCH, ZERO, ())
    with pytest.raises(ValueError, match="healthy"):
        cure(pool, prices, NOW, Level.HEALTHY)


def test_a_report_says_what_its_parts_say() -> None:
    """One call gives the numbers that the single ones give."""
    body = document(
        "binance_usdm",
        [linear("A", "100", "100"), linear("B", "-10", "100")],
        instruments={"A": perpetual(), "B": perpetual()},
        mark={"A": "100", "B": "100"},
        wallet={"USDT": "130"},
    )
    pool, prices = only_pool(body)

    whole = report(pool, prices, NOW)

    assert whole.health == priced(pool, evaluate(pool, prices, NOW), prices, NOW)
    assert whole.health.level is Level.MARGIN_CALL
    assert whole.move == pool_move(pool, prices, NOW)
    assert whole.cure == cure(pool, prices, NOW, Level.MARGIN_CALL)


def crosses(sample: Specimen, name: str, root: Decimal) -> bool:
    """Headroom changes sign at a mark, or is 0 there to the venue's unit."""
    low = headroom(sample.pool, with_marks(sample.prices, **{name: root * (1 - CLOSE)}))
    high = headroom(sample.pool, with_marks(sample.prices, **{name: root * (1 + CLOSE)}))
    return (low > 0) != (high > 0) or (sample.rounds and min(abs(low), abs(high)) < D("0.0001"))


HOLDING_STILL = {"bitmex"}
"""Venues whose requirement, evaluated anew at another mark, is not what stands still while a price is solved for."""


@given(randoms)
def test_a_liquidation_price_put_back_as_mark_has_no_headroom(r: Any) -> None:
    """On every venue, on either side: headroom changes sign there."""
    sample = random_pool(r)
    if sample.pool.rules.venue in HOLDING_STILL:
        return
    for leg, found in zip(sample.pool.legs, position_prices(sample.pool, sample.prices, AS_OF), strict=True):
        for root in (found.below, found.above):
            assert root is None or crosses(sample, leg.name, root), (sample.breed, leg.name, root)


@given(randoms)
def test_no_change_of_sign_is_missed(r: Any) -> None:
    """Between the present mark and its liquidation prices a grid finds no other."""
    sample = random_pool(r)
    if sample.pool.rules.venue in HOLDING_STILL:
        return
    now = headroom(sample.pool, sample.prices)
    unit = D("0.0001") if sample.rounds else ZERO
    found = position_prices(sample.pool, sample.prices, AS_OF)
    for leg, prices in zip(sample.pool.legs, found, strict=True):
        mark = sample.prices.mark[leg.name]
        for factor in (D("0.97"), D("0.8"), D("0.5"), D("0.2"), D("1.03"), D("1.3"), D(2), D(4)):
            root = prices.below if factor < 1 else prices.above
            there = mark * factor
            if root is not None and (there <= root if factor < 1 else there >= root):
                continue
            moved = headroom(sample.pool, with_marks(sample.prices, **{leg.name: there}))
            assert (moved > 0) == (now > 0) or abs(moved) <= unit, (sample.breed, leg.name, factor)


@given(randoms)
def test_a_pool_move_put_back_has_no_headroom(r: Any) -> None:
    """All marks moved by the answer: headroom changes sign."""
    sample = random_pool(r)
    if sample.pool.rules.venue in HOLDING_STILL:
        return
    found = pool_move(sample.pool, sample.prices, AS_OF, index_betas={})
    for move in (found.down, found.up):
        if move is None:
            continue
        sides = [
            headroom(
                sample.pool, replace(sample.prices, mark={name: mark * (1 + move + step) for name, mark in sample.prices.mark.items()})
            )
            for step in (-CLOSE, CLOSE)
        ]
        assert (sides[0] > 0) != (sides[1] > 0) or (sample.rounds and min(map(abs, sides)) < D("0.0001"))


@given(randoms, st.sampled_from([Level.WATCH, Level.MARGIN_CALL, Level.LIQUIDATION]))
def test_a_cure_cures_and_hardly_less_does_not(r: Any, level: Level) -> None:
    """Deposit and reductions bring headroom of the level above 0; a deposit smaller by 1e-8 would not."""
    sample = random_pool(r)
    theta = DEFAULT_THRESHOLDS.ladder()[level - 1].leave
    found = cure(sample.pool, sample.prices, AS_OF, level)
    now = headroom(sample.pool, sample.prices, theta)
    deposit = number(found.deposit)

    assert (deposit == 0) == (now > 0)
    if not deposit:
        return
    with localcontext(EXACT):
        assert now + theta * deposit > 0
        assert now + theta * (deposit - D("1.01e-8")) <= 0
        states = work(sample.pool, sample.prices, AS_OF).priced
    for state, reduction in zip(states, found.reductions, strict=True):
        if reduction.quantity is None:
            continue
        with localcontext(EXACT):
            left = 1 - abs(reduction.quantity / state.leg.position.quantity)
            after = reduced(sample.pool, state, left)
        assert (reduction.quantity < 0) == state.leg.long
        assert headroom(after, sample.prices, theta) > 0
