"""Rates and margins of one position."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.support.judged import document, first, judged, linear, perpetual

D = Decimal
TIERS = [
    {"floor": 0, "maintenance_rate": "0.01", "initial_rate": "0.02"},
    {"floor": 1000, "maintenance_rate": "0.02", "max_leverage": 20},
    {"floor": 5000, "maintenance_rate": "0.05"},
]


def position(quantity: str = "5", instrument: dict[str, Any] | None = None, prices: dict[str, Any] | None = None, **row: Any) -> Any:
    """One position at a mark of 100."""
    more = {"minimum_initial_rate": row.pop("minimum")} if "minimum" in row else {}
    body = document(
        "house",
        [linear("X", quantity, "90", **row)],
        instruments={"X": perpetual("USD", tiers=TIERS, **(instrument or {}))},
        mark={"X": "100"},
        wallet={"USD": "1000"},
        prices=prices,
        **more,
    )
    return first(judged(body)).positions[0]


@pytest.mark.parametrize(
    ("quantity", "row", "rate"),
    [
        ("5", {}, "0.02"),
        ("20", {}, "0.05"),
        ("60", {}, None),
        ("60", {"leverage": 4}, "0.25"),
        ("5", {"leverage": 100, "minimum": "0.1"}, "0.1"),
    ],
    ids=["the tier's rate", "1 / max leverage", "neither", "1 / leverage", "the user's own floor"],
)
def test_the_initial_rate(quantity: str, row: dict[str, Any], rate: str | None) -> None:
    """1/leverage if stated, else the tier's own; never below the user's own minimum."""
    assert position(quantity, **row).initial_rate == (None if rate is None else D(rate))


@pytest.mark.parametrize(("held", "rate"), [("10", "0.02"), ("20", "0.51"), ("30", "1"), ("99", "1")])
def test_open_interest_raises_the_initial_rate(held: str, rate: str) -> None:
    """From its own value at the lower cap to 1 at the upper one; maintenance stays."""
    caps = {"open_interest_lower": 1000, "open_interest_upper": 3000}

    found = position(instrument=caps, prices={"open_interest": {"X": held}})

    assert (found.initial_rate, found.maintenance_rate) == (D(rate), D("0.01"))


def test_open_interest_that_is_missing_leaves_only_the_initial_side_unknown() -> None:
    """And a cap of 0 is off."""
    missing = position(instrument={"open_interest_lower": 1000, "open_interest_upper": 3000})
    off = position(instrument={"open_interest_lower": 0, "open_interest_upper": 0})

    assert (missing.initial_margin, missing.maintenance_margin) == (None, D(5))
    assert off.initial_margin == 10


def test_a_size_premium_counts_in_both_rates() -> None:
    """At least 0.8 * rate + factor * sqrt(quantity)."""
    found = position("16", instrument={"size_factor": "0.01"}, leverage=25)

    assert found.maintenance_rate == D("0.056")
    assert found.initial_rate == D("0.072")


def test_tiers_by_quantity() -> None:
    """The row is picked by the count, whatever it is worth."""
    found = position("1500", instrument={"tier_unit": "quantity"})

    assert (found.maintenance_rate, found.initial_rate) == (D("0.02"), D("0.05"))


def test_values_of_all_kinds() -> None:
    """Linear u m, inverse -u/m, quanto in a third asset; profit is value - cost for all."""
    body = document(
        "house",
        [linear("L", "-2", "90"), linear("I", "3", "50"), linear("Q", "4", cost="-7")],
        instruments={
            "L": perpetual("USD", contract_size=10),
            "I": perpetual("BTC", inverse=True, contract_size=100),
            "Q": {"kind": "quanto_perpetual", "settle": "XBT", "contract_size": "0.5", "tiers": [{"floor": 0, "maintenance_rate": 0}]},
        },
        mark={"L": "100", "I": "60", "Q": "3"},
        index={"BTC": "60", "XBT": "60"},
        wallet={"USD": "1000"},
    )

    found = first(judged(body)).positions

    assert [p.notional for p in found] == [2000, 5, 6]
    assert [p.entry_value for p in found] == [1800, 6, 7]
    assert [p.unrealized_pnl for p in found] == [-200, 1, 13]
