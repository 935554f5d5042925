"""Deribit: segregated (single_asset) and cross (multi_asset) accounts, each with standard or portfolio margin.

margin balance = balance + session profit of futures; equity (net value) = margin balance + value of options, in the standard and in the
portfolio model (a real portfolio-margin summary: equity 78.44878563 = 78.23488563 + 0.2139 of options). Liquidation when maintenance >
margin balance: strictly.

Futures: rate = base + slope * size, both margins, the whole position (2 % + 0.5 % per 100 BTC: 25 BTC give 2.125 %).
Short inverse options, coin per contract, U = index, m = mark, OTM = max(0, K - U) of a call, max(0, U - K) of a put:
  call: initial = max(0.15 - OTM/U, 0.1) + m;                maintenance = 0.075 + m
  put:  initial = max(max(0.15 - OTM/U, 0.1) + m, maintenance); maintenance = max(0.075, 0.075 m) + m
Linear options: the same with 0.15, 0.1 and 0.075 times U, in the settle asset (as other venues print that form; unsure for Deribit). Long
options: none.

Sources: support.deribit.com 25944811317149 (standard margin), 25944756247837 (portfolio margin), 25944777203869 (cross collateral),
25944738177565 (linear perpetuals), test.deribit.com/pages/docs/futures; read 2026-11-20.
"""

from __future__ import annotations

from decimal import Decimal

from monitor.margin.instruments import Kind
from monitor.margin.legs import Leg
from monitor.margin.numbers import ZERO
from monitor.margin.schedules import Tier
from monitor.margin.venues.rules import MULTI, PORTFOLIO, SINGLE, STANDARD, VenueRules

__all__ = ["RULES", "short_option", "short_option_kink"]

HIGH, LOW, MAINTENANCE = Decimal("0.15"), Decimal("0.1"), Decimal("0.075")


def short_option(leg: Leg, mark: Decimal, underlying: Decimal, _row: Tier | None) -> tuple[Decimal, Decimal]:
    """Initial and maintenance margin of a short option in the settle asset; formula above.

    Args:
        leg: A short option.
        mark: Its mark price in the settle asset.
        underlying: Price of the underlying in the settle asset: 1 coin for an inverse option's own units is `index`; see the formula's U.
    """
    strike = leg.instrument.strike
    assert strike is not None
    call = leg.instrument.option_type == "call"
    out_of_the_money = max(ZERO, strike - underlying if call else underlying - strike)
    scale = Decimal(1) if leg.instrument.kind is Kind.INVERSE_OPTION else underlying
    initial = max(HIGH - out_of_the_money / underlying, LOW) * scale + mark
    if call:
        maintenance = MAINTENANCE * scale + mark
    else:
        maintenance = max(MAINTENANCE * scale, MAINTENANCE * mark) + mark
        initial = max(initial, maintenance)
    size = abs(leg.units)
    return initial * size, maintenance * size


def short_option_kink(leg: Leg, underlying: Decimal) -> Decimal | None:
    """Mark at which a short put's maintenance bends: max(0.075 U, 0.075 m) changes sides at m = U (1 coin of an inverse option)."""
    if leg.instrument.option_type == "call":
        return None
    return Decimal(1) if leg.instrument.kind is Kind.INVERSE_OPTION else underlying


RULES = (
    VenueRules(
        venue="deribit",
        name="deribit",
        source="https://support.deribit.com/hc/en-us/articles/25944811317149 (read 2026-11-20)",
        modes=(SINGLE, MULTI),
        models=(STANDARD, PORTFOLIO),
        liquidation="below",
        short_option=short_option,
        short_option_kink=short_option_kink,
    ),
)
