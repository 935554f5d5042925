"""A broker's own rules, written in configuration: parameters only, defaults as of a plain cross-margin book.

Rates, haircuts and add-ons are instrument and asset tables and adjustments like everyone's. Long options need no margin and are not
credited; a short option needs the tier's rate on the notional of its underlying plus its value at mark, so that the cost of closing it is
covered whatever its moneyness.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal, cast

from monitor.margin.instruments import Kind
from monitor.margin.legs import Leg
from monitor.margin.schedules import Tier
from monitor.margin.tables import HouseRules
from monitor.margin.venues.rules import MULTI, PORTFOLIO, SINGLE, STANDARD, VenueRules

__all__ = ["house_rules", "short_option"]


def short_option(leg: Leg, mark: Decimal, underlying: Decimal, row: Tier | None) -> tuple[Decimal, Decimal] | None:
    """(initial, maintenance) of a short option: rate * notional of the underlying + value at mark, settle asset. None without a tier.

    Args:
        underlying: Price of the underlying in the valuation currency; an inverse option's unit is one coin, so its notional is the units
            themselves.
    """
    if row is None or row.maintenance_rate is None:
        return None
    size = abs(leg.units)
    notional = size if leg.instrument.kind is Kind.INVERSE_OPTION else size * underlying
    initial = row.initial_rate
    if initial is None:
        initial = row.maintenance_rate if row.max_leverage is None else 1 / row.max_leverage
    return notional * initial + size * mark, notional * row.maintenance_rate + size * mark


def house_rules(rules: HouseRules) -> VenueRules:
    """The rule set that a configuration's words stand for."""
    return VenueRules(
        venue="house",
        name=rules.name,
        since=rules.since,
        source="the configuration's own rules",
        modes=(MULTI, SINGLE),
        models=(STANDARD, PORTFOLIO),
        value_basis=cast(Literal["mark", "entry"], rules.value_basis),
        closing_fee=cast(Literal["none", "entry", "mark"], rules.closing_fee),
        debts=cast(Literal["equity", "requirement"], rules.debts),
        netting=cast(Literal["none", "larger_side"], rules.netting),
        liquidation=cast(Literal["at", "below"], rules.liquidation),
        short_option=short_option,
    )
