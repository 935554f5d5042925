"""The engine's plain input: a margin pool as floats, and the schedules its rows point to.

The additive form of a pool, in its valuation currency (docs/design.md, "The engine"):

    amount_k    = amount of asset k + sum over its legs of slope * y          y = mark, or 1/mark for an inverse contract
    equity      = constant + sum_k price_k * worth_k(amount_k)                worth: sliced weights, debts in full or dearer
    requirement = floor + sum_k price_k * ask_k * (margin_k + sum over its legs of schedule(|slope| * y)) + price_k * debt_margin_k(amount_k)

A single-asset pool is the case of one asset at price 1 and weight 1 (`holdings` empty). What does not fit is `exact_only`: evaluated by the
exact core at each tick that touches it, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

from monitor.margin.health import margins
from monitor.margin.instruments import ONE_WEIGHT
from monitor.margin.legs import Leg as PoolLeg
from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.pools import Holding as PoolHolding
from monitor.margin.pools import MarginPool
from monitor.margin.positions import base_rate_of, closing_rate, price_leg
from monitor.margin.prices import PriceKind, Prices
from monitor.margin.schedules import TierTable, WeightTable
from monitor.margin.venues import dydx

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

ONE = Decimal(1)

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
        bare: No positions: healthy by definition where equity and requirement are both 0.
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
    bare: bool = False
    exact_only: str | None = None
    source: object = None


Verdict = tuple[Decimal, Decimal] | str
"""(equity, requirement), or why they cannot be told."""

ExactEvaluation = Callable[[str, str, object, Prices], Verdict]
"""Evaluates (account, pool, source) exactly at these prices."""


def schedule_of_tiers(
    table: TierTable, *, fee: Decimal = ZERO, scale: Decimal = ONE, constants: Sequence[Decimal] | None = None
) -> Schedule | None:
    """scale * max(0, n*(rate + slope*n) - deduction) + fee*n + the row's constant, by size n.

    None where the clip at 0 falls inside a curved row: such a table is left to the exact core.
    """
    rows: list[tuple[float, float, float, float, float]] = []
    before: tuple[Decimal, Decimal, Decimal, Decimal] | None = None
    for index, tier in enumerate(table.rows):
        rate, deduction, curve, floor = tier.maintenance_rate, tier.deduction, tier.slope, tier.floor
        assert rate is not None and deduction is not None
        constant = constants[index] if constants is not None else ZERO
        above, jump = (float(floor), ZERO) if index else (-1.0, ZERO)
        if before is not None:
            jump = abs(scale * _tier_value(floor, rate, deduction, curve) + constant - scale * _tier_value(floor, *before[:3]) - before[3])
        before = (rate, deduction, curve, constant)
        if deduction > 0 and _tier_value(floor, rate, deduction, curve) == 0:
            # Nothing is required up to the size where rate * n reaches the deduction.
            if curve:
                return None
            rows.append((above, float(fee), float(constant), 0.0, float(jump)))
            end = table.rows[index + 1].floor if index + 1 < len(table.rows) else None
            start = deduction / rate if rate else None
            if start is None or (end is not None and start >= end):
                continue
            if start > floor:
                above, jump = float(start), ZERO
            else:
                rows.pop()
        rows.append((above, float(scale * rate + fee), float(constant - scale * deduction), float(scale * curve), float(jump)))
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
    if _is_idle(pool):
        return PoolTerms(name=pool.name, venue=pool.account.venue, idle=True, source=pool)
    with localcontext(EXACT):
        try:
            return _additive(pool)
        except _Inexpressible as reason:
            inputs = tuple(Leg(kind=kind, name=name, slope=0.0) for kind, name in dict.fromkeys(_inputs(pool)))
            return PoolTerms(name=pool.name, venue=pool.account.venue, legs=inputs, bare=not pool.legs, exact_only=str(reason), source=pool)


class _Inexpressible(Exception):
    """Why the additive form cannot express a pool. Does not leave this module."""


def _is_idle(pool: MarginPool) -> bool:
    """No positions, no orders that count as filled, no debts and nothing else that could be required."""
    return not (
        pool.legs
        or pool.unknown is not None
        or (pool.orders and pool.rules.worst_case_orders)
        or pool.adjustments
        or any(holding.amount is None or holding.amount < 0 for holding in pool.holdings)
    )


@dataclass(slots=True)
class _Share:
    """What is gathered for one asset while a pool is taken apart."""

    amount: Decimal
    margin: Decimal = ZERO
    legs: list[Leg] = field(default_factory=list)


def _additive(pool: MarginPool) -> PoolTerms:
    rules = pool.rules
    if pool.unknown is not None:
        raise _Inexpressible(pool.unknown)
    if pool.portfolio:
        raise _Inexpressible("portfolio margin")
    whole_units = rules.margins is dydx.margins and rules.value is dydx.value
    if (rules.margins is not None or rules.value is not None) and not whole_units:
        raise _Inexpressible(f"the margins of {rules.name}")
    if rules.margin_in_profit or (not rules.profit_joins_wallet and pool.legs) or rules.closing_fee == "bankruptcy":
        raise _Inexpressible(f"the profit or fees of {rules.name}")
    if pool.orders and rules.worst_case_orders:
        raise _Inexpressible("orders that count as filled")
    if rules.netting != "none" and rules.value_basis != "entry" and not pool.isolated:
        raise _Inexpressible("netting at mark prices")
    if rules.closing_fee == "mark" and pool.multi and rules.requirement_at_debt_weight:
        raise _Inexpressible("fees beside requirements at debt weights")
    shares = {holding.name: _Share(holding.amount if holding.amount is not None else ZERO) for holding in pool.holdings}
    if pool.wallet_defaulted:
        shares[pool.legs[0].settle].amount = _defaulted_wallet(pool)
    for leg in pool.legs:
        share = shares[leg.settle]
        if not pool.is_cash:
            if leg.cost is None:
                raise _Inexpressible(f"no entry price of {leg.name}")
            share.amount -= leg.cost
        share.amount += leg.position.unsettled_funding
        share.legs.append(_leg(pool, leg, whole_units=whole_units))
    if rules.value_basis == "entry":
        _margins_at_entry(pool, shares)
    constant = ZERO
    for adjustment in pool.adjustments:
        share = shares[adjustment.asset]
        share.amount += adjustment.pnl or ZERO
        share.margin += adjustment.maintenance_margin or ZERO
        if adjustment.credit:
            if pool.multi and adjustment.asset != pool.currency:
                raise _Inexpressible(f"credit in {adjustment.asset}")
            constant += adjustment.credit
    slack = 4e-6 * len(pool.legs) if whole_units else 0.0
    single = not pool.multi and rules.debts == "equity"
    (first, *_) = pool.holdings
    if single and (pool.isolated or (first.asset.borrow_tiers is None and not first.asset.taker_fee)):
        (share,) = shares.values()
        return PoolTerms(
            name=pool.name,
            venue=pool.account.venue,
            constant=float(constant + share.amount),
            floor=float(share.margin),
            slack=slack,
            legs=tuple(share.legs),
            bare=not pool.legs,
            source=pool,
        )
    holdings = tuple(
        _holding(pool, holding, shares[holding.name])
        for holding in pool.holdings
        if shares[holding.name].amount or shares[holding.name].legs or shares[holding.name].margin
    )
    if not holdings:
        raise _Inexpressible("nothing but credit")
    return PoolTerms(
        name=pool.name,
        venue=pool.account.venue,
        constant=float(constant),
        slack=slack,
        holdings=holdings,
        bare=not pool.legs,
        source=pool,
    )


def _leg(pool: MarginPool, leg: PoolLeg, *, whole_units: bool) -> Leg:
    """One position as a slope and a schedule."""
    rules, instrument = pool.rules, leg.instrument
    if leg.option or instrument.size_factor or instrument.profit_weight != 1:
        raise _Inexpressible(f"{leg.name}: option, size premium or weighted profit")
    table = instrument.tiers
    if table is None:
        raise _Inexpressible(f"no tiers of {leg.name}")
    fee = ZERO
    if rules.closing_fee == "mark":
        if leg.taker_fee is None:
            raise _Inexpressible(f"no taker_fee of {leg.name}")
        fee = leg.taker_fee
    schedule: Schedule | None
    if rules.value_basis == "entry":
        schedule = ((-1.0, float(fee), 0.0, 0.0, 0.0),) if fee else NO_MARGIN
    else:
        if instrument.tier_unit == "quantity":
            row = table.at(abs(leg.position.quantity))
            table = TierTable((replace(row, floor=ZERO),), (ZERO,))
        if whole_units:
            if len(table.rows) > 1:
                raise _Inexpressible(f"tiers of {leg.name} in whole units")
            table = _whole_units(table)
        constants = _closing_fees(pool, leg, table) if rules.closing_fee == "entry" and leg.taker_fee != 0 else None
        schedule = _schedule(table, fee) if constants is None else schedule_of_tiers(table, fee=fee, constants=constants)
    if schedule is None:
        raise _Inexpressible(f"{leg.name}: curved tiers with a deduction")
    return Leg(
        kind=PriceKind.MARK,
        name=leg.name,
        slope=float(-leg.units if leg.inverse else leg.units),
        inverse=leg.inverse,
        schedule=schedule,
    )


def _closing_fees(pool: MarginPool, leg: PoolLeg, table: TierTable) -> list[Decimal]:
    """The closing fee at the bankruptcy price that a venue fixes at entry, for each tier the position could be in."""
    if leg.taker_fee is None or leg.cost is None:
        raise _Inexpressible(f"no taker_fee or entry price of {leg.name}")
    if leg.leverage_rate is None and pool.rules.fee_at_bankruptcy and not pool.multi and not pool.isolated:
        raise _Inexpressible(f"the closing fee of {leg.name} depends on the whole pool's equity")
    fees = []
    for row in table.rows:
        rate = leg.leverage_rate
        if rate is None:
            base = base_rate_of(row)
            if base is None or row.slope or leg.instrument.open_interest_upper:
                raise _Inexpressible(f"the initial rate of {leg.name} is missing or moves")
            rate = max(base, pool.account.minimum_initial_rate)
        fees.append(abs(leg.cost) * closing_rate(leg, rate))
    return fees


def _whole_units(table: TierTable) -> TierTable:
    """The rates that dYdX's integer rule comes to: base rate times a fraction in whole millionths, without deductions."""
    rows = []
    for row in table.rows:
        rate, base = row.maintenance_rate, base_rate_of(row)
        assert rate is not None
        if base:
            rate = base * (rate / base).quantize(Decimal("0.000001"), ROUND_HALF_EVEN)
        elif base is not None:
            rate = ZERO
        rows.append(replace(row, maintenance_rate=rate, deduction=ZERO, slope=ZERO))
    return TierTable(tuple(rows), table.floors)


def _margins_at_entry(pool: MarginPool, shares: dict[str, _Share]) -> None:
    """Margins on the value at entry do not move; with netting the larger side of each underlying counts."""
    sides: dict[str, tuple[set[str], list[Decimal]]] = {}
    netting = pool.rules.netting != "none" and not pool.isolated
    for leg in pool.legs:
        # Any mark will do: the basis is the value at entry.
        priced = price_leg(
            leg,
            pool.rules,
            Prices(mark={leg.name: ONE}),
            datetime(2000, 1, 1, tzinfo=UTC),
            pool.account.minimum_initial_rate,
            None,
            isolated=pool.isolated,
            bankruptcy_fee=pool.rules.fee_at_bankruptcy and not pool.multi and not pool.isolated and leg.leverage_rate is None,
        )
        if priced.maintenance is None or (priced.fee is None and pool.rules.closing_fee == "entry"):
            raise _Inexpressible(f"the margin of {leg.name} at entry")
        if not netting:
            shares[leg.settle].margin += priced.maintenance
            continue
        if leg.instrument.underlying is None:
            raise _Inexpressible(f"no underlying of {leg.name}")
        settles, totals = sides.setdefault(leg.instrument.underlying, (set(), [ZERO, ZERO]))
        settles.add(leg.settle)
        totals[0 if leg.long else 1] += priced.maintenance
    for underlying, (settles, totals) in sides.items():
        if len(settles) > 1:
            raise _Inexpressible(f"netting of {underlying} over several settle assets")
        shares[settles.pop()].margin += max(totals)


def _defaulted_wallet(pool: MarginPool) -> Decimal:
    """The wallet that an isolated pool states by its position alone: what the exact core takes, less the profit it adds."""
    (leg,) = pool.legs
    if leg.cost is None or leg.option or leg.instrument.open_interest_upper:
        raise _Inexpressible(f"the wallet of {pool.name} is not stated")
    equity = margins(pool, Prices(mark={leg.name: ONE}), datetime(2000, 1, 1, tzinfo=UTC)).equity
    if equity is None:
        raise _Inexpressible(f"the wallet of {pool.name} cannot be told")
    return equity - leg.value(ONE) + leg.cost - leg.position.unsettled_funding


def _holding(pool: MarginPool, holding: PoolHolding, share: _Share) -> Holding:
    """One asset of a multi-asset pool."""
    asset = holding.asset
    if asset.size_factor:
        raise _Inexpressible(f"the size discount of {holding.name}")
    at_debt_weight = pool.multi and pool.rules.requirement_at_debt_weight
    weights = debts = None
    if pool.multi:
        weights = NO_MARGIN if not holding.collateral else None if asset.weights is ONE_WEIGHT else schedule_of_weights(asset.weights)
        debts = None if asset.debt_weights is ONE_WEIGHT else schedule_of_weights(asset.debt_weights)
    borrow: Schedule | None = None
    if not pool.isolated and (asset.borrow_tiers is not None or asset.taker_fee):
        if asset.borrow_tiers is not None:
            borrow = schedule_of_tiers(asset.borrow_tiers, fee=asset.taker_fee, scale=ONE + asset.taker_fee)
            if borrow is None:
                raise _Inexpressible(f"curved borrowing tiers of {holding.name}")
        else:
            borrow = ((-1.0, float(asset.taker_fee), 0.0, 0.0, 0.0),)
    return Holding(
        amount=float(share.amount),
        legs=tuple(share.legs),
        index=None if not pool.multi or holding.name == pool.currency else holding.name,
        margin=float(share.margin),
        ask=float(asset.debt_weights.rows[0].weight) if at_debt_weight else 1.0,
        weights=weights,
        debts=debts,
        debt_is_requirement=pool.rules.debts == "requirement",
        borrow=borrow,
    )


_schedules: dict[tuple[int, Decimal], tuple[TierTable, Schedule | None]] = {}


def _schedule(table: TierTable, fee: Decimal) -> Schedule | None:
    """`schedule_of_tiers`, once per table object: the tables of a venue are shared by all its accounts."""
    known = _schedules.get((id(table), fee))
    if known is None or known[0] is not table:
        if len(_schedules) > 20_000:
            _schedules.clear()
        known = _schedules[id(table), fee] = (table, schedule_of_tiers(table, fee=fee))
    return known[1]


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
