"""Black-76: printed tables, an independent implementation, and the laws that any price obeys."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from statistics import NormalDist

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.margin.instruments import Instrument, Kind
from monitor.margin.numbers import EXACT
from monitor.margin.options import MODEL, Black76, black76, model_mark, model_of, normal_cdf, years_between
from monitor.margin.prices import Prices
from tests.support.shared import SHARED, needs_shared

__all__: list[str] = []


@pytest.fixture(autouse=True)
def _wide_context() -> Iterator[None]:
    """The tests' own sums must not be rounded more than what they check."""
    with localcontext(MODEL):
        yield


D = Decimal
NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)

forwards = st.decimals("0.01", "100000", places=2)
strikes = st.decimals("0.01", "100000", places=2)
volatilities = st.decimals("0.01", "3", places=2)
spans = st.decimals("0.0001", "5", places=4)
rates = st.decimals("-0.1", "0.2", places=2)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        # Abramowitz and Stegun, Handbook of Mathematical Functions, table 26.1.
        ("0", "0.5"),
        ("1", "0.841344746068543"),
        ("2", "0.977249868051821"),
        ("-1", "0.158655253931457"),
        ("3", "0.998650101968370"),
    ],
)
def test_normal_distribution_as_tabled(x: str, expected: str) -> None:
    """Fifteen digits of a printed table."""
    assert abs(normal_cdf(D(x)) - D(expected)) < D("1e-15")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.decimals("-20", "20", places=6))
def test_normal_distribution_is_symmetric_and_agrees_with_another(x: Decimal) -> None:
    """N(x) + N(-x) = 1 to the last digits, and N is the standard library's to float accuracy."""
    assert abs(normal_cdf(x) + normal_cdf(-x) - 1) < D("1e-47")
    assert math.isclose(float(normal_cdf(x)), 0.5 * math.erfc(-float(x) / math.sqrt(2)), rel_tol=1e-12, abs_tol=1e-40)


@needs_shared
def test_textbook_prices() -> None:
    """Every Black-76 row of the reference cases, to its own tolerance."""
    count = 0
    with (SHARED / "venues" / "cases.jsonl").open("rb") as lines:
        for line in lines:
            case = orjson.loads(line)
            if case.get("calc") != "b76":
                continue
            i = case["inputs"]
            call, forward, strike = i["option_type"] == "call", D(str(i["forward"])), D(str(i["strike"]))
            price = black76(
                call=call, forward=forward, strike=strike, volatility=D(str(i["vol"])), years=D(str(i["t_years"])), rate=D(str(i["rate"]))
            )
            assert abs(price - D(str(case["expected"]["price"]))) <= D("0.0001"), case["id"]
            count += 1

    assert count >= 7


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), forwards, strikes, volatilities, spans, rates)
def test_price_agrees_with_floats(
    call: bool, forward: Decimal, strike: Decimal, volatility: Decimal, years: Decimal, rate: Decimal
) -> None:
    """A float implementation of the textbook formula gives the same number within float error."""
    f, k, v, t, r = map(float, (forward, strike, volatility, years, rate))
    deviation = v * math.sqrt(t)
    d1 = math.log(f / k) / deviation + deviation / 2
    n, sign = NormalDist().cdf, 1 if call else -1
    expected = math.exp(-r * t) * sign * (f * n(sign * d1) - k * n(sign * (d1 - deviation)))

    price = black76(call=call, forward=forward, strike=strike, volatility=volatility, years=years, rate=rate)

    assert abs(float(price) - expected) <= 1e-11 * max(f, k)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(forwards, strikes, volatilities, spans, rates)
def test_parity_and_bounds(forward: Decimal, strike: Decimal, volatility: Decimal, years: Decimal, rate: Decimal) -> None:
    """Call - put = discount * (F - K); a price lies between its exercise value and its underlying, discounted."""
    call, put = (Black76.of(call=c, strike=strike, volatility=volatility, years=years, rate=rate) for c in (True, False))
    c, p = call.price(forward), put.price(forward)

    assert abs(EXACT.subtract(c, p) - EXACT.multiply(call.discount, forward - strike)) <= D("1e-43") * max(forward, strike)
    least = D("1e-43") * max(forward, strike)
    assert call.discount * max(D(0), forward - strike) - least <= c <= call.discount * forward + least
    assert put.discount * max(D(0), strike - forward) - least <= p <= put.discount * strike + least


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), forwards, strikes, volatilities, spans, rates)
def test_greeks_are_the_slopes(call: bool, forward: Decimal, strike: Decimal, volatility: Decimal, years: Decimal, rate: Decimal) -> None:
    """Each greek is the central difference of what it is the derivative of."""
    scale = max(forward, strike)

    def price(f: Decimal = forward, v: Decimal = volatility, t: Decimal = years) -> Decimal:
        return black76(call=call, forward=f, strike=strike, volatility=v, years=t, rate=rate)

    model = Black76.of(call=call, strike=strike, volatility=volatility, years=years, rate=rate)
    greeks = model.greeks(forward)
    step = D("1e-16")

    def slope(up: Decimal, down: Decimal) -> Decimal:
        return MODEL.divide(up - down, 2 * step)

    assert greeks.delta == model.delta(forward)
    assert abs(greeks.delta - slope(price(f=forward + step), price(f=forward - step))) < D("1e-9")
    assert abs(greeks.gamma - slope(model.delta(forward + step), model.delta(forward - step))) < D("1e-6")
    assert abs(greeks.vega - slope(price(v=volatility + step), price(v=volatility - step))) < D("1e-9") * scale
    assert abs(greeks.theta + slope(price(t=years + step), price(t=years - step))) < D("1e-6") * scale


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.booleans(), forwards, strikes)
def test_at_expiry_an_option_is_worth_its_exercise(call: bool, forward: Decimal, strike: Decimal) -> None:
    """No time left: max(0, F - K) or max(0, K - F), delta 1, 0 or -1."""
    model = Black76.of(call=call, strike=strike, volatility=D("0.5"), years=D(0))

    assert model.price(forward) == max(D(0), forward - strike if call else strike - forward)
    assert model.delta(forward) in ({D(0), D(1), D("0.5")} if call else {D(0), D(-1), D("-0.5")})
    assert model.greeks(forward).gamma == model.greeks(forward).vega == model.greeks(forward).theta == 0


def put(kind: Kind = Kind.INVERSE_OPTION) -> Instrument:
    """A put struck at 1500 that expires in December 2023."""
    return Instrument(
        name="P", kind=kind, settle="ETH", underlying="ETH", option_type="put", strike=D(1500), expiry=datetime(2023, 12, 29, 8, tzinfo=UTC)
    )


def test_an_inverse_mark_as_the_venue_printed_it() -> None:
    """Deribit, ETH-29DEC23-1500-P at 2023-10-11 10:06:03.524: forward 1581.39, 38.53 %: mark 0.0468 ETH (rounded to 4 places)."""
    as_of = datetime(2023, 10, 11, 10, 6, 3, 524_000, tzinfo=UTC)
    prices = Prices(forward={"P": D("1581.39")}, volatility={"P": D("0.3853")})

    mark = model_mark(put(), prices, as_of)

    assert isinstance(mark, Decimal) and abs(mark - D("0.0468")) <= D("0.00005")
    linear = model_mark(put(Kind.LINEAR_OPTION), prices, as_of)
    assert isinstance(linear, Decimal) and abs(linear / D("1581.39") - mark) < D("1e-26")


def test_a_given_mark_wins_and_a_missing_input_is_named() -> None:
    """Missing is unknown, with the reason; a mark needs no model."""
    assert model_mark(put(), Prices(mark={"P": D("0.05")}), NOW) == D("0.05")
    no_mark = "mark price of P is missing, and so is what Black-76 needs"
    assert model_mark(put(), Prices(volatility={"P": D(1)}), NOW) == f"{no_mark}: forward of P is missing"
    assert model_mark(put(), Prices(forward={"P": D(1)}), NOW) == f"{no_mark}: volatility of P is missing"
    model = model_of(put(), Prices(forward={"P": D(1)}, volatility={"P": D(1)}, interest_rate={"ETH": D("0.1")}), NOW)
    assert not isinstance(model, str) and model[0].rate == D("0.1") and model[0].years == 0


def test_years_have_365_days_and_are_never_negative() -> None:
    """As Deribit counts them."""
    assert years_between(NOW, NOW + timedelta(days=73)) == D("0.2")
    assert years_between(NOW, NOW - timedelta(days=1)) == 0
    assert years_between(NOW, NOW + timedelta(microseconds=1)) == MODEL.divide(D(1), D(31_536_000_000_000))
