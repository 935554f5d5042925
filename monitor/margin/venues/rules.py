"""What a venue's margin rules are made of: parameters first, and functions only for what is not data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from monitor.margin.numbers import ZERO
from monitor.margin.schedules import Tier

if TYPE_CHECKING:
    from monitor.margin.legs import Leg
    from monitor.margin.prices import Prices

__all__ = ["MULTI", "PORTFOLIO", "SINGLE", "STANDARD", "MarginParts", "Sized", "VenueRules"]

SINGLE = "single_asset"
MULTI = "multi_asset"
STANDARD = "standard"
PORTFOLIO = "portfolio"


@dataclass(frozen=True, slots=True)
class Sized:
    """A position sized for its schedule: what a venue's own margin function gets.

    Attributes:
        leg: The position.
        basis: Absolute value that margins are taken on, settle asset: at mark, or at entry where the rules say so.
        pnl: Unrealised profit at mark, or None when the entry is unknown.
        row: The tier in force.
        base_rate: The tier's own initial rate before leverage and scaling, or None.
        initial_rate: The rate in force, or None when the tables do not say.
        maintenance_rate: The rate in force, with slope and size premium.
        isolated: The position is a pool of its own.
        prices: For what else a venue counts (funding).
    """

    leg: Leg
    basis: Decimal
    pnl: Decimal | None
    row: Tier
    base_rate: Decimal | None
    initial_rate: Decimal | None
    maintenance_rate: Decimal
    isolated: bool
    prices: Prices


@dataclass(frozen=True, slots=True)
class MarginParts:
    """Margins of one position in the settle asset, part by part; None where an input is missing.

    initial margin = base + fee + loss_cover; maintenance margin = maintenance + fee. `missing` says why maintenance or fee is None.
    """

    base: Decimal | None
    maintenance: Decimal | None
    fee: Decimal | None = ZERO
    loss_cover: Decimal | None = ZERO
    missing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueRules:
    """One rule set of one venue, in force from `since` until the next one.

    Attributes:
        name: What results print and `account.rules` may name.
        since: First day it holds (UTC), ISO; None: as far back as is known.
        source: Page of the venue that the set was read from, and the day it was read.
        modes: Account modes the venue has; the first is the default.
        models: Margin models it has.
        value_basis: Margins are taken on the value at `mark` or at `entry`.
        closing_fee: `none`; `entry`: in initial and maintenance margin, on the value at entry; `mark`: in `fees`; `bankruptcy`: in both
            margins.
        debts: A debt lowers `equity`, or is a `requirement` with its debt weight.
        netting: `larger_side`: per underlying the larger of the margins of longs and of shorts.
        liquidation: `at` equity <= requirement, or `below`: equity < requirement.
        printed_ratio: What the venue prints: `ratio` requirement / equity, `inverse` equity / requirement, or `health` 100 * (equity -
            requirement) / requirement.
        ratio_limits_weights: `minimum_initial_rate` r also limits initial weights to 1 - r and initial debt weights to at least 1 + r.
        quote_asset: Exempt from that limit: the venue's own quote asset.
        requirement_at_debt_weight: In multi_asset, requirements in an asset count times its index times its debt weight.
        profit_joins_wallet: Profit is part of the settle asset's amount before weights; else it is counted beside it, without them.
        margin_in_profit: A position's margin is taken out of its profit before weights (Mango).
        options_in_equity: Option value is part of equity in the `standard` model.
        scenarios_at_index: Under portfolio margin the profit of futures is taken from the index price and not from their mark.
        held_maintenance: Maintenance stands still while a liquidation price is solved for.
        isolated_price_at_entry: An isolated liquidation price takes maintenance on the value at entry.
        fee_at_bankruptcy: Without a stated leverage a cross position's closing fee is taken at the price where equity equals it.
        weight_quantum: Scaled initial weights are truncated to it.
        scale_at_strict_price: Deposits and borrows are valued at the worse of index and smoothed price when they scale a weight.
        initial_profit_cap: Most that a position's positive profit counts for on the initial side, settle asset.
        order_fee: Added to both margins for each open order, valuation currency.
        worst_case_orders: Open orders count as if those of the worse side were filled, in both margins.
        value: The venue's rounding of a position's signed value at a price.
        margins: The venue's own margins of a position; None: base = basis * rate, maintenance = max(0, basis * rate - deduction).
        open_interest_rate: Rate after open-interest scaling: (rate, open interest notional, lower, upper).
        size_rate: Rate after the size premium: (rate, size_factor, quantity).
        asset_weight, debt_weight: Weight after the size premium: (weight, size_factor, amount).
        short_option: (initial, maintenance) of a short option, or None where the tables lack a tier: (leg, mark, price of the underlying,
            row or None). The price is in the valuation currency for an inverse option and in the settle asset for a linear one.
    """

    venue: str
    name: str
    since: str | None = None
    source: str
    modes: tuple[str, ...]
    models: tuple[str, ...] = (STANDARD,)
    value_basis: Literal["mark", "entry"] = "mark"
    closing_fee: Literal["none", "entry", "mark", "bankruptcy"] = "none"
    debts: Literal["equity", "requirement"] = "equity"
    netting: Literal["none", "larger_side"] = "none"
    liquidation: Literal["at", "below"] = "at"
    printed_ratio: Literal["ratio", "inverse", "health"] = "ratio"
    ratio_limits_weights: bool = False
    quote_asset: str | None = None
    requirement_at_debt_weight: bool = False
    profit_joins_wallet: bool = True
    margin_in_profit: bool = False
    options_in_equity: bool = False
    scenarios_at_index: bool = False
    held_maintenance: bool = False
    isolated_price_at_entry: bool = False
    fee_at_bankruptcy: bool = False
    weight_quantum: Decimal | None = None
    scale_at_strict_price: bool = False
    initial_profit_cap: Decimal | None = None
    order_fee: Decimal = Decimal(0)
    worst_case_orders: bool = False
    value: Callable[[Leg, Decimal], Decimal] | None = None
    margins: Callable[[Sized], MarginParts] | None = None
    open_interest_rate: Callable[[Decimal, Decimal, Decimal, Decimal], Decimal] | None = None
    size_rate: Callable[[Decimal, Decimal, Decimal], Decimal] | None = None
    asset_weight: Callable[[Decimal, Decimal, Decimal], Decimal] | None = None
    debt_weight: Callable[[Decimal, Decimal, Decimal], Decimal] | None = None
    short_option: Callable[[Leg, Decimal, Decimal, Tier | None], tuple[Decimal, Decimal] | None] | None = None
    short_option_kink: Callable[[Leg, Decimal], Decimal | None] | None = None
