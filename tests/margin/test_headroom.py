"""The course of headroom is the evaluation's own headroom, at every mark, price and part held."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.margin.courses import Course
from monitor.margin.headroom import Headroom, Motion, NotPolynomial
from monitor.margin.health import margins
from monitor.margin.liquidation import reduced
from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.pools import MarginPool
from monitor.margin.prices import Prices
from monitor.margin.worked import Worked
from monitor.margin.working import work
from tests.support.judged import number
from tests.support.pool_zoo import AS_OF, Specimen, random_pool, random_portfolio, with_marks

D = Decimal
ONE = D(1)
randoms = st.randoms(use_true_random=False)
factors = st.decimals(min_value="0.05", max_value=20, places=3)
PLAIN = sorted(
    {"binance_usdm", "binance multi-assets", "binance_coinm", "okx", "okx single-currency", "deribit", "kraken_futures", "house"}
)


def value(course: Course, t: Decimal) -> Decimal:
    """Headroom at t."""
    c0, c1, c2 = course.place(t, 1)
    return c0 + t * (c1 + c2 * t)


def headroom(pool: MarginPool, prices: Prices) -> Decimal:
    """By evaluating."""
    found = margins(pool, prices, AS_OF)
    with localcontext(EXACT):
        return number(found.equity) - number(found.requirement)


def start(sample: Specimen) -> tuple[Worked, Headroom]:
    """A worked pool and its headroom before anything moves."""
    worked = work(sample.pool, sample.prices, AS_OF)
    return worked, Headroom(sample.pool, sample.prices, AS_OF, worked, ONE, ONE)


def close(first: Decimal, second: Decimal) -> bool:
    """Equal but for the last digits of quotients."""
    return abs(first - second) <= D("1e-40") * (1 + abs(first) + abs(second))


@given(randoms, factors, st.sampled_from(PLAIN))
def test_a_mark(r: Any, factor: Decimal, breed: str) -> None:
    """One instrument's mark anywhere: the same headroom as evaluating there."""
    sample = random_pool(r, breed)
    name = sample.pool.legs[0].name
    mark = sample.prices.mark[name] * factor
    with localcontext(EXACT):
        worked, course = start(sample)
        for state in worked.priced:
            if state.leg.name == name:
                units = state.leg.units
                moving = sample.pool.rules.value_basis == "mark"
                course.move(Motion(state, ZERO, -units if state.leg.inverse else units), margins_move=moving)
        found = value(course.course(), 1 / mark if sample.pool.legs[0].inverse else mark)

        assert close(found, headroom(sample.pool, with_marks(sample.prices, **{name: mark})))


@settings(max_examples=40, deadline=None)
@given(randoms, factors)
def test_a_mark_under_portfolio_margin(r: Any, factor: Decimal) -> None:
    """The chain of hinges is the charge."""
    sample = random_portfolio(r)
    leg = sample.pool.legs[0]
    mark = sample.prices.mark[leg.name] * factor
    with localcontext(EXACT):
        worked, course = start(sample)
        course.move(Motion(worked.priced[0], ZERO, -leg.units if leg.inverse else leg.units))
        found = value(course.course(), 1 / mark if leg.inverse else mark)

        assert close(found, headroom(sample.pool, with_marks(sample.prices, **{leg.name: mark})))


@given(randoms, st.decimals(min_value=0, max_value=1, places=3), st.sampled_from([*PLAIN, "bybit", "mango_v4"]))
def test_a_part_held(r: Any, part: Decimal, breed: str) -> None:
    """Closing a part at the mark: the same headroom as the pool that is left."""
    sample = random_pool(r, breed)
    if sample.pool.orders:
        return
    with localcontext(EXACT):
        worked, course = start(sample)
        state = worked.priced[-1]
        course.move(Motion(state, ZERO, number(state.value), ZERO, ONE))
        found = value(course.course(), part)
        left = reduced(sample.pool, state, part)

        assert close(found, headroom(left, sample.prices))


@given(randoms, st.decimals(min_value=0, max_value=100_000, places=2), st.sampled_from(["binance multi-assets", "bybit", "okx", "house"]))
def test_a_deposit(r: Any, amount: Decimal, breed: str) -> None:
    """More of one asset: through its debt, its margins and its slices."""
    sample = random_pool(r, breed)
    asset = r.choice(sample.pool.holdings).name
    richer = tuple(
        replace(holding, amount=number(holding.amount) + amount) if holding.name == asset else holding for holding in sample.pool.holdings
    )
    with localcontext(EXACT):
        _, course = start(sample)
        course.deposit(asset)

        assert close(value(course.course(), amount), headroom(replace(sample.pool, holdings=richer), sample.prices))


@given(randoms, factors)
def test_an_index_price(r: Any, factor: Decimal) -> None:
    """Collateral that no position settles in follows its own price."""
    sample = random_pool(r, "binance multi-assets")
    settles = {leg.settle for leg in sample.pool.legs}
    free = [holding.name for holding in sample.pool.holdings if holding.name not in settles]
    if not free:
        return
    price = sample.prices.index[free[0]] * factor
    moved = replace(sample.prices, index={**sample.prices.index, free[0]: price})
    with localcontext(EXACT):
        _, course = start(sample)
        course.price(free[0], ZERO, ONE)

        assert close(value(course.course(), price), headroom(sample.pool, moved))


def test_what_does_not_fit_says_so() -> None:
    """A threshold other than 1 with margin taken out of profit, and a price under margins, are left to a search."""
    mango, house = random_pool(Random(1), "mango_v4"), random_pool(Random(1), "binance multi-assets")
    with localcontext(EXACT):
        worked = work(mango.pool, mango.prices, AS_OF)
        with pytest.raises(NotPolynomial):
            Headroom(mango.pool, mango.prices, AS_OF, worked, D("0.6"), ONE)
        _, course = start(house)
        with pytest.raises(NotPolynomial):
            course.price(house.pool.legs[0].settle, ZERO, ONE)
