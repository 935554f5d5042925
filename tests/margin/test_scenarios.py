"""Risk units of portfolio margin: the venues' own examples digit by digit, and the laws of the sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, localcontext

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.margin.accounts import Account, Position
from monitor.margin.instruments import Instrument, Kind, Risk
from monitor.margin.legs import Leg, leg_of
from monitor.margin.numbers import EXACT
from monitor.margin.options import Black76
from monitor.margin.prices import Prices
from monitor.margin.scenarios import RiskUnit, risk_units

__all__: list[str] = []

D = Decimal
NOW = datetime(2024, 6, 17, 10, 24, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """The tests' own sums are not rounded more than what they check."""
    with localcontext(EXACT):
        yield


def legs_of(*held: tuple[Instrument, str]) -> tuple[Leg, ...]:
    """Legs of (instrument, quantity)."""
    positions = tuple(Position(instrument=instrument.name, quantity=D(quantity)) for instrument, quantity in held)
    account = Account(id="a", venue="house", positions=positions)
    return tuple(leg_of(account, index, instrument) for index, (instrument, _) in enumerate(held))


def perpetual(name: str = "X-PERP", kind: Kind = Kind.LINEAR_PERPETUAL, settle: str = "USDT", underlying: str | None = "X") -> Instrument:
    """A perpetual."""
    return Instrument(name=name, kind=kind, settle=settle, underlying=underlying)


def option(kind: Kind, settle: str) -> Instrument:
    """A call struck at 100 that expires 73 days after NOW."""
    expiry = datetime(2024, 8, 29, 10, 24, tzinfo=UTC)
    return Instrument(name="C", kind=kind, settle=settle, underlying="X", option_type="call", strike=D(100), expiry=expiry)


PLAIN = Risk(underlying="X", price_moves=(D("-0.1"), D(0), D("0.1")), maintenance_factor=D(1), initial_factor=D("1.5"))


def one(
    legs: Sequence[Leg], prices: Prices, risk: Risk = PLAIN, *, currency: str = "USDT", valuation: str = "USDT", at_index: bool = False
) -> RiskUnit:
    """The only unit of some legs in X."""
    (unit,) = risk_units(legs, prices, {"X": risk}, NOW, currency=currency, valuation_currency=valuation, at_index=at_index)
    return unit


def known(value: Decimal | None) -> Decimal:
    """A number that must be there."""
    assert value is not None
    return value


DERIBIT = Risk(
    underlying="BTC",
    price_moves=tuple(D(k) for k in ("-0.16", "-0.12", "-0.08", "-0.04", "0", "0.04", "0.08", "0.12", "0.16")),
    profit_offset=D(0),
    basis_floor=D("0.01"),
    basis_annualised=D("0.075"),
    delta_shock_threshold=D(20_000_000),
    delta_shock_maximum=D("0.1"),
    maintenance_factor=D("0.8"),
    initial_factor=D(1),
)


def test_deribit_perpetual_and_future_as_simulated() -> None:
    """docs.deribit.com, private/simulate example: worst case, roll shock, risk matrix margin, to the digits printed."""
    legs = legs_of(
        (perpetual("BTC-PERPETUAL", Kind.INVERSE_PERPETUAL, "BTC", "BTC"), "20731.40285810748"),
        (
            Instrument(
                name="BTC-28JUN24", kind=Kind.INVERSE_FUTURE, settle="BTC", underlying="BTC", expiry=datetime(2024, 6, 28, 8, tzinfo=UTC)
            ),
            "-80.0062437645",
        ),
    )
    prices = Prices(mark={"BTC-PERPETUAL": D("65910.57"), "BTC-28JUN24": D("67371.75")}, index={"BTC": D("65666.19")})

    (unit,) = risk_units(legs, prices, {"BTC": DERIBIT}, NOW, currency="BTC", valuation_currency="USD", at_index=False)

    for value, expected in (
        (unit.price_charge, "0.05968587238095239"),
        (unit.basis_charge, "0.00315725898"),
        (unit.charge, "0.06284313098"),
        (unit.initial_margin, "0.06284313098"),
        (unit.maintenance_margin, "0.050274504784"),
    ):
        assert abs(known(value) / D(expected) - 1) < D("2e-8")
    assert unit.scenario_pnl[4:] == (D(0),) * 5
    assert unit.missing is None and unit.extreme_charge == unit.minimum_charge == 0


def test_deribit_profit_offset_as_a_real_response_has_it() -> None:
    """private/pme/simulate of 2026-02-15, ETH short: the best bucket counts 60 %, the worst in full."""
    legs = legs_of((perpetual("ETH-PERPETUAL", Kind.INVERSE_PERPETUAL, "ETH", "ETH"), "-1948.49001495297"))
    moves = tuple(D(k) for k in ("-0.18", "-0.135", "-0.09", "-0.045", "0", "0.045", "0.09", "0.135", "0.18"))
    risk = replace(DERIBIT, underlying="ETH", price_moves=moves, profit_offset=D("0.6"), basis_floor=D("0.005"), basis_annualised=D("0.05"))
    prices = Prices(mark={"ETH-PERPETUAL": D("1949.49")}, index={"ETH": D("1949.34")})

    (unit,) = risk_units(legs, prices, {"ETH": risk}, NOW, currency="ETH", valuation_currency="USD", at_index=False)

    for value, expected in (
        (unit.price_charge, "0.15246412672881357"),
        (unit.basis_charge, "0.004997435265"),
        (unit.maintenance_margin, "0.125969249812"),
        (unit.scenario_pnl[0], "0.13163975819999998"),
    ):
        assert abs(known(value) / D(expected) - 1) < D("3e-9")


def test_okx_unit_as_the_position_builder_prints_it() -> None:
    """OKX, position builder example, 10 LTC: MR1 and MR6 at the index, delta, MR4 and MR7 at the mark."""
    legs = legs_of((perpetual("LTC-USDT-SWAP", underlying="LTC"), "10"))
    risk = Risk(
        underlying="LTC",
        price_moves=tuple(D(k) for k in ("0", "0.06", "-0.06", "0.12", "-0.12", "0.18", "-0.18")),
        extreme_moves=(D("0.36"), D("-0.36")),
        extreme_factor=D("0.5"),
        basis_floor=D("0.008"),
        minimum_charge=D("0.007"),
        maintenance_factor=D(1),
        initial_factor=D("1.3"),
    )
    prices = Prices(mark={"LTC-USDT-SWAP": D(102)}, index={"LTC": D("101.948182254"), "USDT": D("0.99954")})

    (unit,) = risk_units(legs, prices, {"LTC": risk}, NOW, currency="USD", valuation_currency="USD", at_index=True)

    for value, expected in (
        (unit.delta, "1019.5308"),
        (unit.price_charge, "183.50672805719995"),
        (unit.extreme_charge, "183.5067280572"),
        (unit.basis_charge, "8.1562464"),
        (unit.minimum_charge, "7.1367156"),
        (unit.maintenance_margin, "191.6629744572"),
        (unit.initial_margin, "249.16186679436"),
    ):
        assert abs(known(value) / D(expected) - 1) < D("1e-9")


def test_an_option_loses_what_the_model_says() -> None:
    """A short call in a unit: the loss at a move is the model's price there less its price now, in coin where it is inverse."""
    prices = Prices(forward={"C": D(110)}, volatility={"C": D("0.5")}, index={"X": D(110)})
    model = Black76.of(call=True, strike=D(100), volatility=D("0.5"), years=D("0.2"))
    linear = one(legs_of((option(Kind.LINEAR_OPTION, "USDT"), "-2")), prices)
    inverse = one(legs_of((option(Kind.INVERSE_OPTION, "X"), "-2")), prices, currency="X")

    assert abs(linear.scenario_pnl[2] + 2 * (model.price(D(121)) - model.price(D(110)))) < D("1e-40")
    assert abs(inverse.scenario_pnl[0] + 2 * (model.price(D(99)) / 99 - model.price(D(110)) / 110)) < D("1e-40")
    assert linear.scenario_pnl[1] == 0
    assert known(linear.delta) == -2 * model.delta(D(110)) * 110
    assert known(inverse.delta) == -2 * model.delta(D(110))
    assert known(linear.price_charge) > 0


def test_a_covered_option_needs_less() -> None:
    """Legs of one underlying stand in for each other: a short call against the future loses less than alone."""
    prices = Prices(mark={"X-PERP": D(110)}, forward={"C": D(110)}, volatility={"C": D("0.5")})
    alone = one(legs_of((option(Kind.LINEAR_OPTION, "USDT"), "-1")), prices)
    covered = one(legs_of((option(Kind.LINEAR_OPTION, "USDT"), "-1"), (perpetual(), "0.7")), prices)

    assert known(covered.price_charge) < known(alone.price_charge) / 3


def test_a_multi_asset_pool_counts_in_its_valuation_currency() -> None:
    """Settle assets are converted at their index; the same book is worth as much more as its asset."""
    prices = Prices(mark={"X-PERP": D(100)}, index={"USDT": D("0.5")})
    unit = one(legs_of((perpetual(), "3")), prices, currency="USD", valuation="USD")

    assert unit.delta == 150 and unit.price_charge == 15


def test_scenarios_at_the_index_convert_it_to_the_pool() -> None:
    """A single-asset pool in USDT with USD indices: the underlying's index over the settle asset's. An inverse leg divides by it."""
    prices = Prices(mark={"X-PERP": D(999), "X-INV": D(999)}, index={"USDT": D("0.5"), "X": D(100)})
    linear = one(legs_of((perpetual(), "3")), prices, currency="USDT", valuation="USD", at_index=True)
    inverse = one(legs_of((perpetual("X-INV", Kind.INVERSE_PERPETUAL, "X"), "300")), prices, currency="X", valuation="USD", at_index=True)
    quanto = one(legs_of((perpetual(kind=Kind.QUANTO_PERPETUAL), "3")), prices, currency="USDT", valuation="USD", at_index=True)

    assert linear.scenario_pnl[2] == 60
    assert inverse.scenario_pnl[2] == 3 * D("0.1") / D("1.1")
    assert quanto.scenario_pnl[2] == 3 * 999 * D("0.1")


@pytest.mark.parametrize(
    ("leg", "prices", "currency", "at_index", "missing"),
    [
        ((perpetual(), "1"), Prices(), "USDT", False, "mark price of X-PERP is missing"),
        ((perpetual(settle="USDC"), "1"), Prices(mark={"X-PERP": D(1)}), "USDT", False, "index price of USDC is missing"),
        ((perpetual(), "1"), Prices(mark={"X-PERP": D(1)}), "USDT", True, "index price of X is missing"),
        (
            (perpetual(kind=Kind.INVERSE_PERPETUAL, settle="X"), "1"),
            Prices(mark={"X-PERP": D(1)}),
            "X",
            True,
            "index price of X is missing",
        ),
        ((option(Kind.LINEAR_OPTION, "USDT"), "1"), Prices(mark={"C": D(1)}), "USDT", False, "forward of C is missing"),
        ((perpetual(underlying="Y"), "1"), Prices(), "USDT", False, "risk scenarios of Y are missing"),
        ((perpetual(underlying=None), "1"), Prices(), "USDT", False, "underlying of X-PERP is missing: portfolio margin needs it"),
    ],
)
def test_a_missing_input_makes_the_unit_unknown(
    leg: tuple[Instrument, str], prices: Prices, currency: str, at_index: bool, missing: str
) -> None:
    """The reason names the input, and no number is claimed."""
    unit = one(legs_of(leg), prices, currency=currency, at_index=at_index)

    assert unit.missing == missing
    assert unit.maintenance_margin is None and unit.delta is None and unit.scenario_pnl == ()


def test_above_the_delta_shock_threshold_the_unit_is_unknown() -> None:
    """Its form is not published; below it nothing is added. In a coin pool the coin's index decides, and is needed."""
    risk = replace(PLAIN, delta_shock_threshold=D(1000))
    legs = legs_of((perpetual(kind=Kind.INVERSE_PERPETUAL, settle="X"), "900"))
    mark = {"X-PERP": D(100)}

    assert one(legs, Prices(mark=mark, index={"X": D(100)}), risk, currency="X", valuation="USD").missing is None
    assert "above 1000" in (one(legs, Prices(mark=mark, index={"X": D(120)}), risk, currency="X", valuation="USD").missing or "")
    assert "index price of X is missing" in (one(legs, Prices(mark=mark), risk, currency="X", valuation="USD").missing or "")


def test_units_come_in_the_order_they_are_first_held() -> None:
    """One unit per underlying; a leg without one stands at the end by its own name."""
    legs = legs_of(
        (perpetual("N", underlying=None), "1"), (perpetual("B", underlying="Y"), "1"), (perpetual("A"), "1"), (perpetual("C"), "-1")
    )
    units = risk_units(
        legs,
        Prices(mark=dict.fromkeys("ABC", D(10))),
        {"X": PLAIN, "Y": PLAIN},
        NOW,
        currency="USDT",
        valuation_currency="USD",
        at_index=False,
    )

    assert [(unit.underlying, unit.missing is None) for unit in units] == [("Y", True), ("X", True), ("N", False)]
    assert units[1].delta == 0 and units[1].maintenance_margin == 0


quantities = st.lists(st.decimals("-50", "50", places=2).filter(bool), min_size=1, max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(quantities, st.booleans())
def test_margins_are_ordered_and_scale_with_the_book(sizes: list[Decimal], inverse: bool) -> None:
    """Charges are >= 0, initial >= maintenance with these factors, and twice the book needs twice the margin."""
    extreme = replace(PLAIN, extreme_moves=(D("-0.3"), D("0.3")), extreme_factor=D("0.5"))
    risk = replace(extreme, basis_floor=D("0.01"), minimum_charge=D("0.02"), profit_offset=D("0.4"))
    kind, settle = (Kind.INVERSE_PERPETUAL, "X") if inverse else (Kind.LINEAR_PERPETUAL, "USDT")
    instruments = [perpetual(f"P{index}", kind, settle) for index in range(len(sizes))]
    prices = Prices(mark={instrument.name: D(10 + index) for index, instrument in enumerate(instruments)})

    def unit(factor: int) -> RiskUnit:
        held = [(i, str(size * factor)) for i, size in zip(instruments, sizes, strict=True)]
        return one(legs_of(*held), prices, risk, currency=settle)

    once, twice = unit(1), unit(2)

    charges = [known(getattr(once, name)) for name in ("price_charge", "extreme_charge", "basis_charge", "minimum_charge", "charge")]
    assert min(charges) >= 0
    assert known(once.initial_margin) >= known(once.maintenance_margin) >= known(once.minimum_charge)
    assert abs(known(twice.charge) - 2 * known(once.charge)) < D("1e-45")
    assert known(once.charge) >= max(known(once.price_charge), known(once.extreme_charge))
