"""The engine's plain input: a margin pool as floats, and the schedules its rows point to.

The additive form of a pool, in its valuation currency (docs/design.md, "The engine"):

    amount_k    = amount of asset k + sum over its legs of slope * y          y = mark, or 1/mark for an inverse contract
    equity      = constant + sum_k price_k * worth_k(amount_k)                worth: sliced weights, debts in full or dearer
    requirement = floor + sum_k price_k * ask_k * (margin_k + sum over its legs of schedule(|slope| * y)) + price_k * debt_margin_k(amount_k)

A single-asset pool is the case of one asset at price 1 and weight 1 (`holdings` empty). What does not fit is `exact_only`: evaluated by the
exact core at each tick that touches it, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, localcontext

from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.pools import MarginPool
from monitor.margin.prices import PriceKind, Prices
from monitor.margin.schedules import TierTable, WeightTable

__all__ = [
    "NO_MARGIN",
    "ExactEvaluation",
    "Holding",
    "Leg",
    "PoolTerms",
    "Schedule",
    "Verdict",
    "schedule_of_tiers",
    "schedule_of_weights",
    "terms_of",
]

Schedule = tuple[tuple[float, float, float, float, float], ...]
"""Rows (above, rate, constant, curve, jump): for above < n <= the next row's, the value is rate*n + constant + curve*n*n.

`jump` is a bound on the discontinuity at `above` (0 where the schedule is continuous). The first `above` is -1, so that 0 has a row.
"""

NO_MARGIN: Schedule = ((-1.0, 0.0, 0.0, 0.0, 0.0),)
"""Nothing required, whatever the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One position, or one bare price (slope 0) that an `exact_only` pool needs.

    Attributes:
        kind, name: The price it moves with.
        slope: Signed units, long > 0: value is slope * mark; of an inverse contract minus the quote amount: value is slope / mark.
        inverse: The price enters as 1/mark.
        schedule: Maintenance (and fee) of |slope| * y.
    """

    kind: PriceKind
    name: str
    slope: float
    inverse: bool = False
    schedule: Schedule = NO_MARGIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One asset of a multi-asset pool, with the legs that settle in it.

    Attributes:
        amount: Balance less the cost of its legs, in the asset.
        legs: Those settled in it.
        index: Asset whose index price values it; None is price 1.
        margin: Requirement in the asset that does not move, >= 0.
        ask: Factor on requirements of this asset, >= 1 or 1.
        weights: Worth of an amount >= 0. None: in full.
        debts: Worth (as a positive number) of a debt. None: in full.
        debt_is_requirement: A debt counts in the requirement, not in equity.
        borrow: Requirement, in the asset, on a debt. None: none.
    """

    amount: float
    legs: tuple[Leg, ...] = ()
    index: str | None = None
    margin: float = 0.0
    ask: float = 1.0
    weights: Schedule | None = None
    debts: Schedule | None = None
    debt_is_requirement: bool = False
    borrow: Schedule | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTerms:
    """One margin pool for the columns.

    Attributes:
        name: Name of the pool in its account.
        venue: Whose prices it moves with.
        constant: Equity that no price moves.
        floor: Requirement that no price moves, >= 0.
        slack: Bound on |this form - exact evaluation| beyond the rounding of floats (a venue's rounding to its unit).
        legs: Of a single-asset pool, or the bare inputs of an `exact_only` one.
        holdings: Of a multi-asset pool.
        idle: No positions and no debts: healthy by definition, whatever the prices.
        exact_only: Why the additive form cannot express it, or None.
        source: What the exact evaluation is given for this pool.
    """

    name: str
    venue: str
    constant: float = 0.0
    floor: float = 0.0
    slack: float = 0.0
    legs: tuple[Leg, ...] = ()
    holdings: tuple[Holding, ...] = ()
    idle: bool = False
    exact_only: str | None = None
    source: object = None


Verdict = tuple[Decimal, Decimal] | str
"""(equity, requirement), or why they cannot be told."""

ExactEvaluation = Callable[[str, str, object, Prices], Verdict]
"""Evaluates (account, pool, source) exactly at these prices."""


def schedule_of_tiers(table: TierTable, *, fee: Decimal = Decimal(0)) -> Schedule | None:
    """Maintenance by size, max(0, n*(rate + slope*n) - deduction), plus fee * n.

    None where the clip at 0 falls inside a curved row: such a table is left to the exact core.
    """
    rows: list[tuple[float, float, float, float, float]] = []
    before: tuple[Decimal, Decimal, Decimal] | None = None
    for index, tier in enumerate(table.rows):
        rate, deduction, curve, floor = tier.maintenance_rate, tier.deduction, tier.slope, tier.floor
        assert rate is not None and deduction is not None
        jump = Decimal(0)
        if before is not None:
            jump = abs(_tier_value(floor, rate, deduction, curve) - _tier_value(floor, *before))
        end = table.rows[index + 1].floor if index + 1 < len(table.rows) else None
        above = float(floor) if index else -1.0
        if deduction > 0:
            if floor * (rate + curve * floor) >= deduction:
                zero_until = floor
            elif curve:
                return None
            else:
                zero_until = deduction / rate if rate else None  # type: ignore[assignment]
            if zero_until is None or (end is not None and zero_until >= end):
                rows.append((above, float(fee), 0.0, 0.0, float(jump)))
                before = (rate, deduction, curve)
                continue
            if zero_until > floor:
                rows.append((above, float(fee), 0.0, 0.0, float(jump)))
                above, jump = float(zero_until), Decimal(0)
        rows.append((above, float(rate + fee), -float(deduction), float(curve), float(jump)))
        before = (rate, deduction, curve)
    return tuple(rows)


def _tier_value(size: Decimal, rate: Decimal, deduction: Decimal, curve: Decimal) -> Decimal:
    return max(Decimal(0), size * (rate + curve * size) - deduction)


def schedule_of_weights(table: WeightTable) -> Schedule:
    """Worth of an amount >= 0, slice by slice: continuous, so no jumps."""
    rows: list[tuple[float, float, float, float, float]] = []
    worth = Decimal(0)
    for index, row in enumerate(table.rows):
        if index:
            last = table.rows[index - 1]
            worth += (row.floor - last.floor) * last.weight
        rows.append((float(row.floor) if index else -1.0, float(row.weight), float(worth - row.floor * row.weight), 0.0, 0.0))
    return tuple(rows)


def terms_of(pool: MarginPool) -> PoolTerms:
    """The engine's form of a pool, or an `exact_only` one with every price that could matter to it."""
    venue = pool.account.venue
    if not pool.legs and pool.unknown is None and all((holding.amount or ZERO) >= 0 for holding in pool.holdings):
        return PoolTerms(name=pool.name, venue=venue, idle=True, source=pool)
    reason = _inexpressible(pool)
    if reason is not None:
        inputs = tuple(Leg(kind=kind, name=name, slope=0.0) for kind, name in dict.fromkeys(_inputs(pool)))
        return PoolTerms(name=pool.name, venue=venue, legs=inputs, exact_only=reason, source=pool)
    with localcontext(EXACT):
        constant = sum((holding.amount or ZERO for holding in pool.holdings), ZERO)
        legs = []
        for leg in pool.legs:
            assert leg.instrument.tiers is not None
            if not pool.is_cash:
                assert leg.cost is not None
                constant -= leg.cost
            schedule = _schedule(leg.instrument.tiers)
            assert schedule is not None
            slope = float(-leg.units if leg.inverse else leg.units)
            legs.append(Leg(kind=PriceKind.MARK, name=leg.name, slope=slope, inverse=leg.inverse, schedule=schedule))
    return PoolTerms(name=pool.name, venue=venue, constant=float(constant), legs=tuple(legs), source=pool)


_schedules: dict[int, tuple[TierTable, Schedule | None]] = {}


def _schedule(table: TierTable) -> Schedule | None:
    """`schedule_of_tiers`, once per table object: the tables of a venue are shared by all its accounts."""
    known = _schedules.get(id(table))
    if known is None or known[0] is not table:
        if len(_schedules) > 20_000:
            _schedules.clear()
        known = _schedules[id(table)] = (table, schedule_of_tiers(table))
    return known[1]


def _inexpressible(pool: MarginPool) -> str | None:
    """Why the additive form cannot express a pool, or None."""
    rules = pool.rules
    if pool.unknown is not None:
        return pool.unknown
    if pool.multi or pool.portfolio:
        return "several assets" if pool.multi else "portfolio margin"
    if rules.margins is not None or rules.value is not None or rules.value_basis != "mark" or rules.closing_fee != "none":
        return f"the margins of {rules.name}"
    if pool.adjustments or pool.wallet_defaulted or (pool.orders and rules.worst_case_orders):
        return "adjustments, orders or a wallet that is not stated"
    for leg in pool.legs:
        instrument = leg.instrument
        if leg.option or instrument.size_factor or instrument.profit_weight != 1 or leg.position.unsettled_funding:
            return f"{leg.name}: option, size premium, profit weight or unsettled funding"
        if instrument.tiers is None or instrument.tier_unit != "notional" or _schedule(instrument.tiers) is None:
            return f"{leg.name}: tiers that are missing, by quantity, or curved"
        if leg.cost is None and not pool.is_cash:
            return f"{leg.name}: no entry price"
    return None


def _inputs(pool: MarginPool) -> Iterator[tuple[PriceKind, str]]:
    """Every number that the exact evaluation of a pool could look up."""
    assets = {holding.name for holding in pool.holdings}
    for leg in pool.legs:
        yield PriceKind.MARK, leg.name
        yield PriceKind.FUNDING_RATE, leg.name
        yield PriceKind.OPEN_INTEREST, leg.name
        if leg.option:
            yield PriceKind.FORWARD, leg.name
            yield PriceKind.VOLATILITY, leg.name
        assets |= {leg.settle, leg.instrument.underlying or leg.settle}
    for instrument in pool.order_instruments:
        yield PriceKind.MARK, instrument.name
        assets.add(instrument.settle)
    for asset in sorted(assets | {adjustment.asset for adjustment in pool.adjustments}):
        yield PriceKind.INDEX, asset
        yield PriceKind.SMOOTHED, asset
        yield PriceKind.INTEREST_RATE, asset
        yield PriceKind.DEPOSITS, asset
        yield PriceKind.BORROWS, asset
