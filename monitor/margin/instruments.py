"""What a position is in, and what an asset counts for: the entries of the instrument and asset tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from monitor.margin.numbers import ZERO
from monitor.margin.schedules import TierTable, WeightRow, WeightTable

__all__ = ["ONE_WEIGHT", "Asset", "Instrument", "Kind", "Risk"]

ONE = Decimal(1)
ONE_WEIGHT = WeightTable((WeightRow(floor=ZERO, weight=ONE),))
"""Counts in full: the default of `Asset.weights` and `Asset.debt_weights`."""


class Kind(StrEnum):
    """How an instrument pays. u = contract_size * quantity, e = entry, m = mark.

    linear:  profit u * (m - e) in the settle asset, which is the quote currency;
    inverse: profit u * (1/e - 1/m) in the settle asset, which is the coin; contract_size is in quote currency;
    quanto:  profit u * (m - e) in the settle asset, which is neither; contract_size is settle per point.
    """

    LINEAR_PERPETUAL = "linear_perpetual"
    LINEAR_FUTURE = "linear_future"
    INVERSE_PERPETUAL = "inverse_perpetual"
    INVERSE_FUTURE = "inverse_future"
    QUANTO_PERPETUAL = "quanto_perpetual"
    QUANTO_FUTURE = "quanto_future"
    LINEAR_OPTION = "linear_option"
    INVERSE_OPTION = "inverse_option"

    @property
    def is_option(self) -> bool:
        """Linear or inverse option."""
        return self in (Kind.LINEAR_OPTION, Kind.INVERSE_OPTION)

    @property
    def is_inverse(self) -> bool:
        """Inverse perpetual or future (an inverse option pays linearly in its own coin price)."""
        return self in (Kind.INVERSE_PERPETUAL, Kind.INVERSE_FUTURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One entry of `instruments` in PORTFOLIO words. Field meanings and defaults: docs/reference/portfolio.md."""

    name: str
    kind: Kind
    settle: str
    underlying: str | None = None
    contract_size: Decimal = ONE
    tick_size: Decimal | None = None
    expiry: datetime | None = None
    option_type: str | None = None
    strike: Decimal | None = None
    taker_fee: Decimal | None = None
    tier_unit: str = "notional"
    tiers: TierTable | None = None
    open_interest_lower: Decimal | None = None
    open_interest_upper: Decimal | None = None
    size_factor: Decimal = ZERO
    profit_weight: Decimal = ONE
    initial_profit_weight: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One entry of `assets`: what a holding or a debt of the asset counts for as collateral."""

    name: str
    weights: WeightTable = ONE_WEIGHT
    debt_weights: WeightTable = ONE_WEIGHT
    borrow_tiers: TierTable | None = None
    taker_fee: Decimal = ZERO
    size_factor: Decimal = ZERO
    deposit_scale_start: Decimal | None = None
    borrow_scale_start: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """One entry of `risk`: the scenarios of a portfolio-margin underlying."""

    underlying: str
    price_moves: tuple[Decimal, ...]
    maintenance_factor: Decimal
    initial_factor: Decimal
    profit_offset: Decimal = ONE
    extreme_moves: tuple[Decimal, ...] = ()
    extreme_factor: Decimal | None = None
    basis_floor: Decimal = ZERO
    basis_annualised: Decimal = ZERO
    minimum_charge: Decimal = ZERO
    delta_shock_threshold: Decimal | None = None
    delta_shock_maximum: Decimal | None = None
