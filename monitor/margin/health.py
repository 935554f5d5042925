"""Evaluates one margin pool exactly, term by term: the oracle of the engine, the tie-breaker, and what `evaluate` and `explain` print.

Everything is Decimal under the EXACT context with the venue's own rounding. A missing input makes what depends on it None and, where
equity or requirement depends on it, the pool unknown with the reason; the rest is worked out all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext

from monitor.margin.levels import DEFAULT_THRESHOLDS, Level, Thresholds, next_level
from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.pools import MarginPool
from monitor.margin.positions import PositionHealth, Priced, Term
from monitor.margin.prices import Prices
from monitor.margin.scenarios import RiskUnit
from monitor.margin.worked import AssetWorth, Worked, plus, times, total
from monitor.margin.working import unknown_of, work

__all__ = ["BEYOND", "CollateralHealth", "Margins", "PoolHealth", "PositionHealth", "Term", "beyond", "evaluate", "margins", "write_up"]

HUNDRED = Decimal(100)
BEYOND = "a number is too large or too small to be worked out exactly"
"""Reason of a pool whose sizes and prices, each a valid number, do not fit 60 digits together."""


@dataclass(frozen=True, slots=True)
class CollateralHealth:
    """One asset of a pool: amounts in the asset, price and values in the pool's currency. `value` is signed; a debt's is negative."""

    asset: str
    amount: Decimal | None
    price: Decimal | None
    weight: Decimal | None
    value: Decimal | None
    initial_weight: Decimal | None
    initial_value: Decimal | None
    available: Decimal | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolHealth:
    """Health of one pool, in its currency: the fields of a result's `pool`. None: unknown or not applicable.

    Attributes:
        equity: With haircuts: what margins are compared with.
        net_value: Without haircuts, options at mark, without credit.
        headroom: equity - maintenance_margin - fees; <= 0 is the liquidation threshold.
        margin_ratio: (maintenance_margin + fees) / equity; None when equity <= 0.
        unknown: Why the level cannot be claimed, or None.
    """

    pool: str
    currency: str
    wallet: Decimal | None
    unrealized_pnl: Decimal | None
    option_value: Decimal | None
    net_value: Decimal | None
    equity: Decimal | None
    initial_equity: Decimal | None
    initial_margin: Decimal | None
    maintenance_margin: Decimal | None
    fees: Decimal | None
    available: Decimal | None
    headroom: Decimal | None
    margin_ratio: Decimal | None
    initial_margin_ratio: Decimal | None
    venue_ratio: Decimal | None
    leverage: Decimal | None
    liquidatable: bool | None
    level: Level | None
    unknown: str | None
    terms: tuple[Term, ...]
    collateral: tuple[CollateralHealth, ...]
    risk_units: tuple[RiskUnit, ...]
    positions: tuple[PositionHealth, ...]

    @property
    def requirement(self) -> Decimal | None:
        """maintenance_margin + fees."""
        if self.maintenance_margin is None or self.fees is None:
            return None
        return EXACT.add(self.maintenance_margin, self.fees)


@dataclass(frozen=True, slots=True)
class Margins:
    """Equity and requirement (maintenance + fees) of a pool, in its currency; or None with the reason in `unknown`."""

    equity: Decimal | None
    requirement: Decimal | None
    unknown: str | None


def margins(pool: MarginPool, prices: Prices, as_of: datetime) -> Margins:
    """Equity and requirement alone, exactly as `evaluate` gives them."""
    try:
        with localcontext(EXACT):
            worked = work(pool, prices, as_of)
            reason = unknown_of(pool, worked)
            if reason is not None:
                return Margins(worked.equity, None, reason)
            return Margins(worked.equity, plus(worked.maintenance, worked.fees), None)
    except ArithmeticError:
        return Margins(None, None, BEYOND)


def evaluate(
    pool: MarginPool, prices: Prices, as_of: datetime, current: Level = Level.HEALTHY, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> PoolHealth:
    """Health of one pool at given prices, every term of it.

    Args:
        prices: Of the pool's venue; absent names are missing.
        as_of: UTC; time to expiry of options.
        current: The level held now (hysteresis); `HEALTHY` gives the level by enter thresholds alone.

    Returns:
        All fields of a result's pool but the liquidation and bankruptcy prices, which `monitor.margin.liquidation` fills in.
    """
    try:
        with localcontext(EXACT):
            return write_up(pool, work(pool, prices, as_of), current, thresholds)
    except ArithmeticError:
        return beyond(pool)


def beyond(pool: MarginPool) -> PoolHealth:
    """A pool whose numbers do not fit the EXACT context: nothing is claimed of it."""
    return PoolHealth(
        pool=pool.name,
        currency=pool.currency,
        wallet=None,
        unrealized_pnl=None,
        option_value=None,
        net_value=None,
        equity=None,
        initial_equity=None,
        initial_margin=None,
        maintenance_margin=None,
        fees=None,
        available=None,
        headroom=None,
        margin_ratio=None,
        initial_margin_ratio=None,
        venue_ratio=None,
        leverage=None,
        liquidatable=None,
        level=None,
        unknown=BEYOND,
        terms=(),
        collateral=(),
        risk_units=(),
        positions=tuple(_position(Priced(leg), "none", (None, None)) for leg in pool.legs),
    )


def write_up(
    pool: MarginPool,
    worked: Worked,
    current: Level,
    thresholds: Thresholds,
    found: Sequence[tuple[Decimal | None, Decimal | None]] | None = None,
) -> PoolHealth:
    """The rich form of a worked pool; `found`: liquidation and bankruptcy price of each leg. Call under the EXACT context."""
    rules = pool.rules
    terms = worked.terms
    equity, fees = worked.equity, worked.fees
    initial_margin = total(term.initial_margin for term in terms)
    maintenance = worked.maintenance
    reason = unknown_of(pool, worked)
    requirement = plus(maintenance, fees)
    headroom = ratio = initial_ratio = venue_ratio = None
    if equity is not None and requirement is not None:
        headroom = equity - requirement
        ratio = requirement / equity if equity > 0 else None
        venue_ratio = _venue_ratio(rules.printed_ratio, equity, requirement, ratio)
    if equity is not None and initial_margin is not None and equity > 0:
        initial_ratio = initial_margin / equity
    available = None if worked.initial_equity is None or initial_margin is None else worked.initial_equity - initial_margin
    level: Level | None = None
    liquidatable: bool | None = None
    if reason is None and equity is not None and requirement is not None and maintenance is not None:
        breached = equity <= requirement if rules.liquidation == "at" else equity < requirement
        liquidatable = breached and maintenance > 0
        idle = not pool.legs and not requirement and not equity
        level = Level.HEALTHY if idle else next_level(current, equity, requirement, thresholds)
    first = next(iter(worked.worths.values()), None)
    return PoolHealth(
        pool=pool.name,
        currency=pool.currency,
        wallet=None if pool.multi or first is None else first.wallet,
        unrealized_pnl=_pnl(pool, worked),
        option_value=_option_value(pool, worked),
        net_value=worked.net_value,
        equity=equity,
        initial_equity=worked.initial_equity,
        initial_margin=initial_margin,
        maintenance_margin=maintenance,
        fees=fees,
        available=available,
        headroom=headroom,
        margin_ratio=ratio,
        initial_margin_ratio=initial_ratio,
        venue_ratio=venue_ratio,
        leverage=_leverage(pool, worked, equity),
        liquidatable=liquidatable,
        level=level,
        unknown=reason,
        terms=tuple(terms),
        collateral=tuple(_collateral(worked, worth, available) for worth in worked.worths.values()),
        risk_units=worked.risk_units,
        positions=tuple(
            _position(state, rules.closing_fee, prices)
            for state, prices in zip(worked.priced, found or [(None, None)] * len(worked.priced), strict=True)
        ),
    )


def _venue_ratio(printed: str, equity: Decimal, requirement: Decimal, ratio: Decimal | None) -> Decimal | None:
    if printed == "ratio":
        return ratio
    if not requirement:
        return None
    return equity / requirement if printed == "inverse" else HUNDRED * (equity - requirement) / requirement


def _pnl(pool: MarginPool, worked: Worked) -> Decimal | None:
    """Profit of positions (options have a value instead) and adjustments, in the pool's currency, without weights and funding."""
    total: Decimal | None = ZERO
    for state in worked.priced:
        if not state.leg.option:
            total = plus(total, times(state.pnl, worked.worths[state.leg.settle].price))
    for adjustment in pool.adjustments:
        if adjustment.pnl:
            total = plus(total, times(adjustment.pnl, worked.worths[adjustment.asset].price))
    return total


def _option_value(pool: MarginPool, worked: Worked) -> Decimal | None:
    """Value of options at mark and of adjustments, in the pool's currency."""
    total: Decimal | None = ZERO
    for state in worked.priced:
        if state.leg.option:
            total = plus(total, times(state.value, worked.worths[state.leg.settle].price))
    for adjustment in pool.adjustments:
        if adjustment.option_value:
            total = plus(total, times(adjustment.option_value, worked.worths[adjustment.asset].price))
    return total


def _leverage(pool: MarginPool, worked: Worked, equity: Decimal | None) -> Decimal | None:
    """Notional of positions and adjustments / equity; None when equity is 0."""
    if not equity:
        return None
    total: Decimal | None = ZERO
    for state in worked.priced:
        total = plus(total, times(state.notional, worked.worths[state.leg.settle].price))
    for adjustment in pool.adjustments:
        if adjustment.notional:
            total = plus(total, times(adjustment.notional, worked.worths[adjustment.asset].price))
    return None if total is None else total / equity


def _collateral(worked: Worked, worth: AssetWorth, available: Decimal | None) -> CollateralHealth:
    """The row of one asset. What is available in it is the pool's available amount at the rate requirements in it count for."""
    rate = worked.rates[worth.holding.name][0]
    return CollateralHealth(
        asset=worth.holding.name,
        amount=worth.amount,
        price=worth.price,
        weight=worth.weight,
        value=None if worth.value is None else worth.value - (worth.owed or ZERO),
        initial_weight=worth.initial_weight,
        initial_value=None if worth.initial_value is None else worth.initial_value - (worth.initial_owed or ZERO),
        available=None if available is None or not rate else available / rate,
    )


def _position(state: Priced, closing_fee: str, found: tuple[Decimal | None, Decimal | None]) -> PositionHealth:
    """The row of one position; its terms are those that the venue has."""
    leg = state.leg
    position = leg.position
    row = state.row
    terms: tuple[Term, ...] = ()
    if state.base is not None or state.maintenance is not None:
        kept = state.maintenance if state.maintenance is None or state.fee is None else state.maintenance - state.fee
        terms = (Term("base", state.base, kept),)
        if closing_fee in {"entry", "bankruptcy"}:
            terms += (Term("closing_fee", state.fee, state.fee),)
        if closing_fee == "bankruptcy":
            terms += (Term("loss_cover", state.loss_cover, ZERO),)
    return PositionHealth(
        instrument=position.instrument,
        side=position.side,
        quantity=position.quantity,
        mark_price=state.mark,
        notional=state.notional,
        option_value=state.value if leg.option else None,
        entry_value=None if leg.cost is None else abs(leg.cost),
        unrealized_pnl=state.pnl,
        initial_rate=state.initial_rate,
        maintenance_rate=state.maintenance_rate,
        deduction=None if row is None else row.deduction,
        initial_margin=state.initial,
        maintenance_margin=state.maintenance,
        liquidation_price=found[0],
        bankruptcy_price=found[1],
        terms=terms,
    )
