"""dYdX v4: whole quantums, rounded as the chain rounds."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from monitor.margin.venues.dydx import open_interest_rate
from tests.support.judged import document, first, judged, linear, perpetual

D = Decimal


def pool(quantity: str, mark: str, initial: str, maintenance: str, cash: str = "1000", **more: Any) -> Any:
    """One position of a subaccount."""
    tiers = [{"floor": 0, "initial_rate": initial, "maintenance_rate": maintenance}]
    instruments = {"X-USD": perpetual("USDC", tiers=tiers)}
    body = document("dydx_v4", [linear("X-USD", quantity)], instruments=instruments, mark={"X-USD": mark}, **more)
    body["account"]["balances"] = [{"asset": "USDC", "cash": cash}]
    return first(judged(body))


def test_margins_round_up_and_value_towards_zero() -> None:
    """Both requirements in whole quantums, never less; the value of a short is truncated, not floored."""
    found = pool("-0.0000003", "7.77", "0.1", "0.06")

    assert found.positions[0].notional == D("0.000002")
    assert (found.positions[0].initial_margin, found.positions[0].maintenance_margin) == (D("0.000001"), D("0.000001"))
    assert found.equity == D("999.999998")


def test_maintenance_is_a_fraction_of_the_rounded_initial_margin() -> None:
    """ceil(ceil(notional * rate) * fraction): the inner rounding shows."""
    found = pool("0.000001", "1.000001", "0.5", "0.3")

    assert found.positions[0].initial_margin == D("0.000001")
    assert found.positions[0].maintenance_margin == D("0.000001")


def test_open_interest_scales_in_whole_ppm() -> None:
    """Between the caps the rate rises to 1; the part beyond a ppm is dropped."""
    rate, lower, upper = D("0.2"), D(1), D(2)

    assert open_interest_rate(rate, D("1.234567"), lower, upper) == D("0.387653")
    assert [open_interest_rate(rate, D(n), lower, upper) for n in ("0.5", "1", "2", "9")] == [rate, rate, 1, 1]


def test_maintenance_ignores_scaling_and_the_user_s_own_rate() -> None:
    """Only opening gets dearer."""
    body: dict[str, Any] = {"minimum_initial_rate": "0.5"}
    found = pool("1", "100", "0.1", "0.05", **body)

    assert (found.initial_margin, found.maintenance_margin) == (D(50), D(5))


def test_liquidatable_strictly_below() -> None:
    """Net collateral equal to the requirement is not liquidatable."""
    assert pool("1", "100", "0.1", "0.05", cash="-95").liquidatable is False
    assert pool("1", "100", "0.1", "0.05", cash="-95.000001").liquidatable is True


def test_the_price_is_the_formula_without_rounding() -> None:
    """P = (NC - q p0 - others) / (|q| * fraction - q)."""
    found = pool("2", "100", "0.1", "0.05", cash="-150")

    assert found.positions[0].liquidation_price is not None
    assert abs(found.positions[0].liquidation_price - D(150) / D("1.9")) < D("1e-25")
