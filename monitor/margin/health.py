"""Evaluates one margin pool exactly, term by term: the oracle of the engine, the tie-breaker, and what `evaluate` and `explain` print.

Everything is Decimal under the EXACT context with the venue's own rounding. A missing input makes what depends on it None and, where
equity or requirement depends on it, the pool unknown with the reason; the rest is worked out all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, localcontext

from monitor.margin.accounts import Order, Position
from monitor.margin.collateral import Borrowing, borrowing, debt_of, holding_weight, initial_holding_weight
from monitor.margin.instruments import Instrument
from monitor.margin.legs import Leg
from monitor.margin.levels import DEFAULT_THRESHOLDS, Level, Thresholds, next_level
from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.pools import Holding, MarginPool
from monitor.margin.positions import (
    PositionHealth,
    Priced,
    Term,
    base_rate_of,
    margin_parts,
    price_leg,
    size_leg,
)
from monitor.margin.prices import Prices
from monitor.margin.scenarios import RiskUnit, risk_units

__all__ = ["AssetWorth", "CollateralHealth", "PoolHealth", "PositionHealth", "Term", "Worked", "evaluate", "margins", "work"]

ONE = Decimal(1)
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


@dataclass(slots=True)
class AssetWorth:
    """One asset of a pool at given prices.

    Attributes:
        wallet: What was stated, or the default of an isolated wallet.
        profit, initial_profit: What positions and adjustments add to it, with profit weights.
        raw: wallet + profit without weights + value of options: what it is worth unhaircut, in the asset.
        price: Index in the pool's currency; `low` and `high`: the worse of it and the smoothed price for a holding and for a debt.
        value, initial_value: Signed worth in the pool's currency; part of equity, or of the requirement where `owed`.
        owed, initial_owed: What the asset adds to the requirements as a debt, pool's currency, >= 0.
        net: Where margin is taken out of profit: the amount that has the asset's weight, in the asset.
        borrow: Margins on the debt, pool's currency.
        repay_fee: Fee of buying the debt back, pool's currency.
        missing: Why equity cannot be told; `missing_initial` the same of the initial side.
    """

    holding: Holding
    wallet: Decimal | None
    profit: Decimal | None = None
    initial_profit: Decimal | None = None
    raw: Decimal | None = None
    amount: Decimal | None = None
    price: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    weight: Decimal | None = None
    initial_weight: Decimal | None = None
    value: Decimal | None = None
    initial_value: Decimal | None = None
    owed: Decimal | None = None
    initial_owed: Decimal | None = None
    net: Decimal | None = None
    borrow: Borrowing | None = None
    repay_fee: Decimal = ZERO
    missing: str | None = None
    missing_initial: str | None = None


def _plus(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    return None if first is None or second is None else first + second


def _times(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    return None if first is None or second is None else first * second


def _total(parts: Iterable[Decimal | None]) -> Decimal | None:
    total = ZERO
    for part in parts:
        if part is None:
            return None
        total += part
    return total


@dataclass(slots=True)
class Worked:
    """A pool at given prices, before it is written up: what `evaluate`, `margins` and `liquidation` share.

    Amounts are in the pool's currency unless said otherwise.

    Attributes:
        priced: The legs, in the pool's order, in their settle assets.
        worths: By asset.
        rates: By settle asset: what a requirement of one unit counts for, on the maintenance and on the initial side.
        worst: Open orders that count as filled: (leg held or None, leg as if filled), priced.
        missing: Reasons why equity or requirement cannot be told, the first first.
    """

    priced: list[Priced]
    worths: dict[str, AssetWorth]
    rates: dict[str, tuple[Decimal | None, Decimal | None]]
    worst: list[tuple[Priced | None, Priced]]
    equity: Decimal | None
    initial_equity: Decimal | None
    net_value: Decimal | None
    terms: list[Term]
    fees: Decimal | None
    risk_units: tuple[RiskUnit, ...]
    missing: list[str]

    @property
    def maintenance(self) -> Decimal | None:
        """Sum of the terms' maintenance margins."""
        return _total(term.maintenance_margin for term in self.terms)


def _index(pool: MarginPool, prices: Prices, asset: str) -> Decimal | None:
    """Price of an asset in the pool's currency."""
    return ONE if not pool.multi or asset == pool.currency else prices.index.get(asset)


def _underlying(pool: MarginPool, leg: Leg, prices: Prices) -> Decimal | None:
    """Price of an option's underlying: in the valuation currency where inverse, in the settle asset where linear."""
    name = leg.instrument.underlying
    price = None if name is None else prices.index.get(name)
    if price is None or leg.instrument.kind.value.startswith("inverse"):
        return price
    settle = leg.settle
    if settle == pool.account.valuation_currency:
        return price
    rate = prices.index.get(settle)
    return None if rate is None else price / rate


def _default_wallet(pool: MarginPool, leg: Leg, prices: Prices) -> Decimal | None:
    """Wallet of an isolated pool that states none: the initial margin at entry.

    With the closing fee where that is part of both margins from bankruptcy (BitMEX).
    """
    if leg.cost is None or leg.option:
        return None
    entry = abs(leg.cost)
    rules = pool.rules
    if leg.instrument.tiers is None:
        return None if leg.leverage_rate is None or rules.closing_fee == "bankruptcy" else entry * leg.leverage_rate
    sized = size_leg(leg, entry, None, rules, prices, pool.account.minimum_initial_rate, isolated=True)
    if rules.closing_fee != "bankruptcy":
        return _times(entry, sized.initial_rate)
    parts = margin_parts(sized, rules, entry, bankruptcy_fee=False)
    return _plus(parts.base, parts.fee)


def _profits(pool: MarginPool, priced: list[Priced], worths: dict[str, AssetWorth]) -> None:
    """Adds what each leg and adjustment gives to its asset: profit by weight, raw worth, value of options."""
    rules = pool.rules
    cap = rules.initial_profit_cap
    for worth in worths.values():
        worth.profit = worth.initial_profit = ZERO
        worth.raw = worth.wallet
    for state in priced:
        leg = state.leg
        instrument = leg.instrument
        worth = worths[instrument.settle]
        funding = leg.position.unsettled_funding
        if leg.option:
            worth.raw = _plus(worth.raw, state.value)
            if rules.options_in_equity:
                worth.profit = _plus(worth.profit, _plus(state.value, funding))
                worth.initial_profit = _plus(worth.initial_profit, _plus(state.value, funding))
                if state.value is None:
                    worth.missing = worth.missing or state.missing_value
            elif funding:
                worth.profit, worth.initial_profit = _plus(worth.profit, funding), _plus(worth.initial_profit, funding)
            continue
        weight = instrument.profit_weight
        initial_weight = instrument.initial_profit_weight if instrument.initial_profit_weight is not None else weight
        gain = state.value if pool.is_cash else state.pnl
        if gain is None:
            worth.missing = worth.missing or state.missing_value or f"entry price of {instrument.name} is missing"
            worth.raw = worth.profit = worth.initial_profit = None
            continue
        if funding:
            gain += funding
        worth.raw = _plus(worth.raw, gain)
        gain_initial: Decimal | None = gain
        gain_now: Decimal | None = gain
        if weight != 1 or initial_weight != 1 or cap is not None:
            profit = None if state.pnl is None else state.pnl + funding
            if profit is None:
                gain_now = gain if weight == 1 else None
                gain_initial = None
                if weight != 1:
                    worth.missing = worth.missing or f"entry price of {instrument.name} is missing"
            elif profit > 0:
                gain_now = gain - (1 - weight) * profit
                counted = initial_weight * profit
                gain_initial = gain - profit + (counted if cap is None else min(counted, cap))
        worth.profit = _plus(worth.profit, gain_now)
        worth.initial_profit = _plus(worth.initial_profit, gain_initial)
    for adjustment in pool.adjustments:
        worth = worths[adjustment.asset]
        if adjustment.pnl:
            worth.profit, worth.initial_profit = _plus(worth.profit, adjustment.pnl), _plus(worth.initial_profit, adjustment.pnl)
            worth.raw = _plus(worth.raw, adjustment.pnl)
        if adjustment.option_value:
            worth.raw = _plus(worth.raw, adjustment.option_value)


def _debt_side(
    pool: MarginPool, worth: AssetWorth, prices: Prices, debt: Decimal, price: Decimal, *, initial: bool
) -> tuple[Decimal | None, Decimal | None]:
    """(weight, weighted value) of a debt > 0; None where the venue's borrows are needed and not known."""
    rules = pool.rules
    scale_price = price if rules.scale_at_strict_price else worth.price
    assert scale_price is not None
    weight = debt_of(worth.holding.asset, debt, rules, prices, scale_price, pool.account.minimum_initial_rate, initial=initial)
    return weight, None if weight is None else debt * weight * price


def _holding_side(
    pool: MarginPool, worth: AssetWorth, prices: Prices, amount: Decimal, price: Decimal, *, initial: bool
) -> tuple[Decimal | None, Decimal | None]:
    """(weight, weighted value) of a holding >= 0; None where the venue's deposits are needed and not known."""
    if not worth.holding.collateral:
        return ZERO, ZERO
    rules, asset = pool.rules, worth.holding.asset
    weight: Decimal | None = holding_weight(asset, amount, rules, initial=initial)
    if initial and weight is not None:
        scale_price = price if rules.scale_at_strict_price else worth.price
        assert scale_price is not None
        weight = initial_holding_weight(asset, weight, rules, prices, scale_price, pool.account.minimum_initial_rate)
    return weight, None if weight is None else amount * weight * price


def _value_asset(pool: MarginPool, worth: AssetWorth, prices: Prices) -> None:
    """Weighs one asset's amount on both sides. A single-asset pool's amount counts as it is."""
    joined = pool.rules.profit_joins_wallet
    for initial in (False, True):
        profit = worth.initial_profit if initial else worth.profit
        weighed = _plus(worth.wallet, profit) if joined else worth.wallet
        if not initial:
            worth.amount = _plus(worth.wallet, profit)
        if weighed is None or profit is None:
            if initial:
                worth.missing_initial = worth.missing or pool.unknown or f"profit in {worth.holding.name} is not known"
            else:
                worth.missing = worth.missing or pool.unknown or f"wallet of {worth.holding.name} is missing"
            continue
        beside = ZERO if joined else profit
        if not pool.multi:
            value, owed = weighed + beside, ZERO
            if pool.rules.debts == "requirement" and weighed < 0:
                value, owed = beside, -weighed
            weight: Decimal | None = ONE
        elif not weighed and not beside:
            value = owed = ZERO
            weight = _idle_weight(pool, worth, prices, initial=initial)
        else:
            weight, value_or_none, owed = _weigh(pool, worth, prices, weighed, beside, initial=initial)
            if value_or_none is None:
                continue
            value = value_or_none
        if initial:
            worth.initial_weight, worth.initial_value, worth.initial_owed = weight, value, owed
        else:
            worth.weight, worth.value, worth.owed = weight, value, owed


def _idle_weight(pool: MarginPool, worth: AssetWorth, prices: Prices, *, initial: bool) -> Decimal | None:
    """Weight shown for an amount of 0: a holding's first slice."""
    price = worth.price if worth.price is not None else ONE
    if worth.price is None:
        return None
    return _holding_side(pool, worth, prices, ZERO, price, initial=initial)[0]


def _weigh(
    pool: MarginPool, worth: AssetWorth, prices: Prices, weighed: Decimal, beside: Decimal, *, initial: bool
) -> tuple[Decimal | None, Decimal | None, Decimal]:
    """(weight, value in equity, owed in the requirement) of an amount in a multi-asset pool; value None with the reason set."""
    if worth.price is None or worth.low is None or worth.high is None:
        reason = f"index price of {worth.holding.name} is missing"
        if initial:
            worth.missing_initial = reason
        else:
            worth.missing = worth.missing or reason
        return None, None, ZERO
    low, high = (worth.low, worth.high) if initial else (worth.price, worth.price)
    if weighed < 0:
        weight, debt = _debt_side(pool, worth, prices, -weighed, high, initial=initial)
    else:
        weight, debt = _holding_side(pool, worth, prices, weighed, low, initial=initial)
    if debt is None:
        worth.missing_initial = f"{'borrows' if weighed < 0 else 'deposits'} of {worth.holding.name} on the venue are missing"
        return None, None, ZERO
    extra = beside * (low if beside > 0 else high)
    if weighed >= 0:
        return weight, debt + extra, ZERO
    if pool.rules.debts == "requirement":
        return weight, extra, debt
    return weight, extra - debt, ZERO


def _borrow(pool: MarginPool, worth: AssetWorth) -> None:
    """Margins on a debt and the fee of buying it back, in the pool's currency. Borrowing is a matter of the cross account."""
    asset = worth.holding.asset
    amount = worth.amount if pool.rules.profit_joins_wallet else worth.wallet
    if amount is None or amount >= 0 or pool.isolated or worth.price is None:
        return
    if asset.borrow_tiers is not None:
        terms = borrowing(asset, -amount)
        worth.borrow = Borrowing(_times(terms.initial, worth.price), terms.maintenance * worth.price)
    if asset.taker_fee:
        extra = ZERO if worth.borrow is None else worth.borrow.maintenance
        worth.repay_fee = (-amount * worth.price + extra) * asset.taker_fee


def _prices_of(pool: MarginPool, worth: AssetWorth, prices: Prices) -> None:
    """Index of the asset, and the worse of it and the smoothed price on either side."""
    name = worth.holding.name
    price = _index(pool, prices, name)
    worth.price = worth.low = worth.high = price
    if pool.multi and price is not None and name in prices.smoothed:
        smoothed = prices.smoothed[name]
        worth.low, worth.high = min(price, smoothed), max(price, smoothed)


def _rates(pool: MarginPool, worths: Mapping[str, AssetWorth]) -> dict[str, tuple[Decimal | None, Decimal | None]]:
    """What one unit of requirement in an asset counts for: its price, times its debt weight where the venue says so."""
    rates: dict[str, tuple[Decimal | None, Decimal | None]] = {}
    for name, worth in worths.items():
        now, initial = worth.price, worth.high
        if pool.multi and pool.rules.requirement_at_debt_weight:
            row = worth.holding.asset.debt_weights.rows[0]
            now = _times(now, row.weight)
            initial = _times(initial, row.initial_weight if row.initial_weight is not None else row.weight)
        rates[name] = (now, initial)
    return rates


def _bankruptcy_fees(priced: list[Priced], worths: Mapping[str, AssetWorth]) -> None:
    """Fills in the closing fees of cross positions without a stated leverage.

    Taker fee on the value at which the pool's equity equals it, all others held still.

    With N the notional, E the pool's equity now and f the fee rate: N_b = (N - E) / (1 - f) where the value falls with the loss (linear
    long, inverse short), else (N + E) / (1 + f); fee = f * N_b, never below 0.
    """
    for state in priced:
        leg = state.leg
        if state.fee is not None or state.missing_margin is not None or state.maintenance is None or not leg.taker_fee:
            continue
        worth = worths[leg.settle]
        equity = _plus(worth.wallet, worth.profit)
        if equity is None or state.notional is None:
            state.missing_margin = worth.missing or "balances are not stated"
            state.maintenance = state.initial = None
            continue
        fee = leg.taker_fee
        falls = leg.long != leg.inverse
        if falls and fee == 1:
            state.missing_margin = f"taker_fee of {leg.name} is 1: closing costs all there is"
            state.maintenance = state.initial = None
            continue
        bankrupt = (state.notional - equity) / (1 - fee) if falls else (state.notional + equity) / (1 + fee)
        state.fee = fee * max(ZERO, bankrupt)
        state.maintenance += state.fee
        state.initial = _plus(state.initial, state.fee)


def work(pool: MarginPool, prices: Prices, as_of: datetime) -> Worked:
    """Prices a pool. Call under the EXACT context."""
    rules, account = pool.rules, pool.account
    minimum = account.minimum_initial_rate
    by_pool = rules.fee_at_bankruptcy and not pool.multi and not pool.isolated
    priced = [
        price_leg(
            leg,
            rules,
            prices,
            as_of,
            minimum,
            _underlying(pool, leg, prices) if leg.option else None,
            isolated=pool.isolated,
            portfolio=pool.portfolio,
            bankruptcy_fee=by_pool and leg.leverage_rate is None,
        )
        for leg in pool.legs
    ]
    worths = {holding.name: AssetWorth(holding, holding.amount) for holding in pool.holdings}
    if pool.wallet_defaulted:
        (leg,) = pool.legs
        worth = worths[leg.settle]
        worth.wallet = _default_wallet(pool, leg, prices)
        if worth.wallet is None:
            what = "entry price" if leg.cost is None else "isolated_wallet, or leverage and fee it could follow from,"
            worth.missing = f"{what} of {leg.name} is missing"
    for worth in worths.values():
        _prices_of(pool, worth, prices)
    _profits(pool, priced, worths)
    rates = _rates(pool, worths)
    worst = _worst_orders(pool, priced, prices, as_of) if rules.worst_case_orders and pool.orders else []
    if by_pool:
        _bankruptcy_fees(priced, worths)
    worked = Worked(priced, worths, rates, worst, None, None, None, [], None, (), [])
    if rules.margin_in_profit:
        _health_by_asset(pool, worked, prices)
    else:
        for worth in worths.values():
            _value_asset(pool, worth, prices)
            _borrow(pool, worth)
    _equities(pool, worked)
    _requirements(pool, worked, prices, as_of)
    return worked


def _equities(pool: MarginPool, worked: Worked) -> None:
    """Sums the assets: equity, initial equity and net value. Credit counts in equity at its price, and is not owned."""
    equity: Decimal | None = ZERO
    initial: Decimal | None = ZERO
    net: Decimal | None = ZERO
    for worth in worked.worths.values():
        equity = _plus(equity, worth.value)
        initial = _plus(initial, worth.initial_value)
        net = _plus(net, worth.raw if not worth.raw else _times(worth.raw, worth.price))
        if worth.value is None and worth.missing is not None:
            worked.missing.append(worth.missing)
    for adjustment in pool.adjustments:
        if adjustment.credit:
            credit = _times(adjustment.credit, worked.worths[adjustment.asset].price)
            equity, initial = _plus(equity, credit), _plus(initial, credit)
    worked.equity, worked.initial_equity, worked.net_value = equity, initial, net


def _sums(worked: Worked, states: Iterable[Priced]) -> tuple[Decimal | None, Decimal | None]:
    """(initial, maintenance) of legs in the pool's currency."""
    initial: Decimal | None = ZERO
    maintenance: Decimal | None = ZERO
    for state in states:
        rate, initial_rate = worked.rates[state.leg.instrument.settle]
        initial = _plus(initial, _times(state.initial, initial_rate))
        maintenance = _plus(maintenance, _times(state.maintenance, rate))
    return initial, maintenance


def _positions_term(pool: MarginPool, worked: Worked) -> Term:
    """Margins of all positions; with netting per underlying the larger of longs and shorts."""
    if pool.rules.netting == "none" or pool.isolated:
        return Term("positions", *_sums(worked, worked.priced))
    groups: dict[str, tuple[list[Priced], list[Priced]]] = {}
    for state in worked.priced:
        underlying = state.leg.instrument.underlying
        if underlying is None:
            worked.missing.append(f"underlying of {state.leg.name} is missing")
            return Term("positions", None, None)
        groups.setdefault(underlying, ([], []))[0 if state.leg.long else 1].append(state)
    initial: Decimal | None = ZERO
    maintenance: Decimal | None = ZERO
    for longs, shorts in groups.values():
        (long_initial, long_kept), (short_initial, short_kept) = _sums(worked, longs), _sums(worked, shorts)
        initial = None if long_initial is None or short_initial is None else _plus(initial, max(long_initial, short_initial))
        maintenance = None if long_kept is None or short_kept is None else _plus(maintenance, max(long_kept, short_kept))
    return Term("positions", initial, maintenance)


def _requirements(pool: MarginPool, worked: Worked, prices: Prices, as_of: datetime) -> None:
    """Terms and fees, and the reasons why they cannot be told."""
    rules = pool.rules
    terms = worked.terms
    for state in worked.priced:
        for reason in (state.missing_value if state.mark is None else None, state.missing_margin):
            if reason is not None and reason not in worked.missing:
                worked.missing.append(reason)
        if pool.multi and worked.worths[state.leg.settle].price is None:
            reason = f"index price of {state.leg.settle} is missing"
            if reason not in worked.missing:
                worked.missing.append(reason)
    if not rules.margin_in_profit:
        if pool.portfolio:
            terms.extend(_risk_terms(pool, worked, prices, as_of))
        else:
            terms.append(_positions_term(pool, worked))
        if pool.orders:
            terms.append(_orders_term(pool, worked))
        terms.extend(_borrowing_term(worked))
    for adjustment in pool.adjustments:
        if adjustment.initial_margin is None and adjustment.maintenance_margin is None:
            continue
        rate, initial_rate = worked.rates[adjustment.asset]
        terms.append(
            Term(
                f"adjustment:{adjustment.name}",
                _times(adjustment.initial_margin, initial_rate) if adjustment.initial_margin else ZERO,
                _times(adjustment.maintenance_margin, rate) if adjustment.maintenance_margin else ZERO,
            )
        )
        if rate is None:
            worked.missing.append(f"index price of {adjustment.asset} is missing")
    worked.fees = _total(worth.repay_fee for worth in worked.worths.values())
    if rules.closing_fee == "mark":
        for state in worked.priced:
            worked.fees = _plus(worked.fees, _times(state.exit_fee, worked.worths[state.leg.settle].price))


def _risk_terms(pool: MarginPool, worked: Worked, prices: Prices, as_of: datetime) -> list[Term]:
    """Margins of each underlying under portfolio margin."""
    worked.risk_units = risk_units(
        pool.legs,
        prices,
        pool.tables.risk,
        as_of,
        currency=pool.currency,
        valuation_currency=pool.account.valuation_currency,
        at_index=pool.rules.scenarios_at_index,
    )
    worked.missing.extend(unit.missing for unit in worked.risk_units if unit.missing is not None and unit.missing not in worked.missing)
    return [Term(f"risk:{unit.underlying}", unit.initial_margin, unit.maintenance_margin) for unit in worked.risk_units]


def _borrowing_term(worked: Worked) -> list[Term]:
    """Weighted debts where they are a requirement, and margins on debts; nothing when there is neither."""
    initial: Decimal | None = ZERO
    maintenance: Decimal | None = ZERO
    shown = False
    for worth in worked.worths.values():
        if worth.owed or worth.initial_owed or worth.borrow is not None:
            shown = True
        if worth.owed is not None:
            maintenance = _plus(maintenance, worth.owed)
        initial = _plus(initial, worth.initial_owed if worth.initial_owed is not None or worth.initial_value is not None else None)
        if worth.borrow is not None:
            initial = _plus(initial, worth.borrow.initial)
            maintenance = _plus(maintenance, worth.borrow.maintenance)
    return [Term("borrowing", initial, maintenance)] if shown else []


def _order_notional(order: Order, instrument: Instrument) -> Decimal:
    """Notional of open orders in the settle asset: as stated, else quantity * contract_size at their price."""
    if order.notional is not None:
        return order.notional
    assert order.quantity is not None and order.price is not None
    units = order.quantity * instrument.contract_size
    return units / order.price if instrument.kind.is_inverse else units * order.price


def _order_sides(pool: MarginPool) -> dict[str, tuple[Instrument, Decimal, Decimal, int]]:
    """By instrument: notional of buys, of sells, and how many orders."""
    sides: dict[str, tuple[Instrument, Decimal, Decimal, int]] = {}
    for order, instrument in zip(pool.orders, pool.order_instruments, strict=True):
        _, buys, sells, count = sides.get(instrument.name, (instrument, ZERO, ZERO, 0))
        notional = _order_notional(order, instrument)
        if order.side == "buy":
            buys += notional
        else:
            sells += notional
        sides[instrument.name] = (instrument, buys, sells, count + order.count)
    return sides


def _orders_term(pool: MarginPool, worked: Worked) -> Term:
    """What open orders add.

    Initial side only: per instrument the larger of buys and sells at the initial rate. Or, where orders count as filled, what the worse
    side adds to both margins, and a fee for each.
    """
    rules = pool.rules
    initial: Decimal | None = ZERO
    maintenance: Decimal | None = ZERO
    if rules.worst_case_orders:
        for held, filled in worked.worst:
            for state, sign in ((filled, 1), (held, -1)):
                if state is not None:
                    first, second = _sums(worked, (state,))
                    initial, maintenance = _plus(initial, _times(first, Decimal(sign))), _plus(maintenance, _times(second, Decimal(sign)))
            if filled.missing_margin is not None and filled.missing_margin not in worked.missing:
                worked.missing.append(filled.missing_margin)
        fee = rules.order_fee * sum(order.count for order in pool.orders)
        return Term("open_orders", _plus(initial, fee), _plus(maintenance, fee))
    held_rates = {state.leg.name: state.initial_rate for state in worked.priced}
    for name, (instrument, buys, sells, _) in _order_sides(pool).items():
        notional = max(buys, sells)
        rate = held_rates[name] if name in held_rates else _free_rate(pool, instrument, notional)
        initial = _plus(initial, _times(_times(notional, rate), worked.rates[instrument.settle][1]))
    return Term("open_orders", initial, maintenance)


def _free_rate(pool: MarginPool, instrument: Instrument, notional: Decimal) -> Decimal | None:
    """Initial rate of orders in an instrument without a position: the tier's, at least the user's own minimum."""
    if instrument.tiers is None or instrument.tier_unit != "notional":
        return None
    rate = base_rate_of(instrument.tiers.at(notional))
    return None if rate is None else max(rate, pool.account.minimum_initial_rate)


def _worst_orders(pool: MarginPool, priced: list[Priced], prices: Prices, as_of: datetime) -> list[tuple[Priced | None, Priced]]:
    """For each instrument whose orders can make the position larger: the leg held, and it as if the worse side were filled."""
    found: list[tuple[Priced | None, Priced]] = []
    quantities: dict[str, tuple[Instrument, Decimal, Decimal]] = {}
    for order, instrument in zip(pool.orders, pool.order_instruments, strict=True):
        quantity = order.quantity
        mark = prices.mark.get(instrument.name)
        if quantity is None:
            assert order.notional is not None
            if mark is None:
                continue
            units = order.notional * mark if instrument.kind.is_inverse else order.notional / mark
            quantity = units / instrument.contract_size
        _, bids, asks = quantities.get(instrument.name, (instrument, ZERO, ZERO))
        quantities[instrument.name] = (instrument, bids + quantity, asks) if order.side == "buy" else (instrument, bids, asks + quantity)
    by_name = {state.leg.name: state for state in priced}
    for name, (instrument, bids, asks) in quantities.items():
        held = by_name.get(name)
        quantity = ZERO if held is None else held.leg.position.quantity
        filled = quantity + bids if abs(quantity + bids) > abs(quantity - asks) else quantity - asks
        if abs(filled) <= abs(quantity):
            continue
        leg = resized(pool, instrument, held.leg if held is not None else None, filled)
        found.append((held, price_leg(leg, pool.rules, prices, as_of, pool.account.minimum_initial_rate, None, isolated=pool.isolated)))
    return found


def resized(pool: MarginPool, instrument: Instrument, leg: Leg | None, quantity: Decimal) -> Leg:
    """A leg of another size: margins only, its cost scaled with it."""
    if leg is None:
        position = Position(instrument=instrument.name, quantity=quantity)
        fee = instrument.taker_fee if pool.account.taker_fee is None else pool.account.taker_fee
        leverage, cost, index = None, None, -1
    else:
        position = replace(leg.position, quantity=quantity)
        fee, leverage, index = leg.taker_fee, leg.leverage_rate, leg.index
        cost = None if leg.cost is None else leg.cost * (quantity / leg.position.quantity)
    return Leg(
        index=index,
        position=position,
        instrument=instrument,
        units=quantity * instrument.contract_size,
        long=quantity > 0,
        inverse=instrument.kind.is_inverse,
        option=instrument.kind.is_option,
        cost=cost,
        leverage_rate=leverage,
        taker_fee=fee,
    )


def _health_by_asset(pool: MarginPool, worked: Worked, prices: Prices) -> None:
    """Assets and liabilities of each asset, where margin is taken out of profit before weights (`venues.mango`)."""
    terms: dict[bool, list[Decimal | None]] = {False: [ZERO, ZERO], True: [ZERO, ZERO]}
    filled = {held.leg.name if held is not None else state.leg.name: state for held, state in worked.worst}
    for worth in worked.worths.values():
        worth.amount = _plus(worth.wallet, worth.profit)
        for initial in (False, True):
            positive, debts, losses = _split_asset(pool, worked, worth, filled, prices.smoothed, initial=initial)
            if positive is None:
                if initial:
                    worth.missing_initial = worth.missing or pool.unknown or "a margin is not known"
                else:
                    worth.missing = (
                        worth.missing or pool.unknown or next((s.missing_margin for s in worked.priced if s.missing_margin), None)
                    )
                terms[initial] = [None, None]
                continue
            negative = debts + losses
            if not initial:
                worth.net = positive - negative
            if not positive and not negative:
                weight, value, owed = _idle_weight(pool, worth, prices, initial=initial), ZERO, ZERO
            elif worth.price is None or worth.low is None or worth.high is None:
                worth.missing = worth.missing or f"index price of {worth.holding.name} is missing"
                terms[initial] = [None, None]
                continue
            else:
                low, high = (worth.low, worth.high) if initial else (worth.price, worth.price)
                surplus = positive - negative
                up, worth_up = _holding_side(pool, worth, prices, max(ZERO, surplus), low, initial=initial)
                down, owed_or_none = _debt_side(pool, worth, prices, negative, high, initial=initial)
                if worth_up is None or owed_or_none is None or down is None:
                    worth.missing_initial = f"deposits or borrows of {worth.holding.name} on the venue are missing"
                    terms[initial] = [None, None]
                    continue
                owed = owed_or_none
                value = owed + worth_up if surplus >= 0 else positive * down * high
                weight = up if surplus >= 0 else down
                for place, part in enumerate((losses, debts)):
                    terms[initial][place] = _plus(terms[initial][place], part * down * high)
            if initial:
                worth.initial_weight, worth.initial_value, worth.initial_owed = weight, value, owed
            else:
                worth.weight, worth.value, worth.owed = weight, value, owed
    worked.terms.append(Term("positions", terms[True][0], terms[False][0]))
    if terms[False][1] != 0 or terms[True][1] != 0:
        worked.terms.append(Term("borrowing", terms[True][1], terms[False][1]))


def _split_asset(
    pool: MarginPool,
    worked: Worked,
    worth: AssetWorth,
    filled: Mapping[str, Priced],
    smoothed: Mapping[str, Decimal],
    *,
    initial: bool,
) -> tuple[Decimal | None, Decimal, Decimal]:
    """(positive amounts, debts, negative health of positions) of one asset, in the asset; first None when an input is missing."""
    if worth.wallet is None:
        return None, ZERO, ZERO
    amount = worth.wallet
    for adjustment in pool.adjustments:
        if adjustment.asset == worth.holding.name and adjustment.pnl:
            amount += adjustment.pnl
    positive, debts, losses = max(ZERO, amount), max(ZERO, -amount), ZERO
    names = {state.leg.name for state in worked.priced}
    extra = [state for name, state in filled.items() if name not in names]
    for state in [*worked.priced, *extra]:
        if state.leg.settle != worth.holding.name:
            continue
        sized = filled.get(state.leg.name, state)
        margin = sized.initial if initial else sized.maintenance
        held = state.leg.index >= 0
        pnl = state.pnl if held else ZERO
        if pnl is None or margin is None:
            return None, ZERO, ZERO
        if initial:
            pnl, margin = _at_worse_price(sized, pnl, margin, state.leg.units if held else ZERO, smoothed)
        health = pnl + state.leg.position.unsettled_funding - margin
        if health > 0:
            instrument = state.leg.instrument
            weight = instrument.profit_weight
            if initial and instrument.initial_profit_weight is not None:
                weight = instrument.initial_profit_weight
            positive += health * weight
        else:
            losses -= health
    return positive, debts, losses


def _at_worse_price(
    sized: Priced, pnl: Decimal, margin: Decimal, held: Decimal, smoothed: Mapping[str, Decimal]
) -> tuple[Decimal, Decimal]:
    """Profit and initial margin at the worse of mark and smoothed price of the underlying, where that is known: Mango's initial side.

    The position with its orders filled is valued at the lower price if long, at the higher if short; orders buy at the higher and sell at
    the lower.

    Args:
        sized: The leg with the worse side of its orders filled.
        held: Units really held.
    """
    leg, mark = sized.leg, sized.mark
    stable = smoothed.get(leg.instrument.underlying or "")
    if stable is None or mark is None or leg.inverse:
        return pnl, margin
    low, high = min(mark, stable), max(mark, stable)
    worse = low if leg.long else high
    ordered = leg.units - held
    return pnl + leg.units * worse - ordered * (high if ordered > 0 else low) - held * mark, margin * worse / mark


@dataclass(frozen=True, slots=True)
class Margins:
    """Equity and requirement (maintenance + fees) of a pool, in its currency; or None with the reason in `unknown`."""

    equity: Decimal | None
    requirement: Decimal | None
    unknown: str | None


def unknown_of(pool: MarginPool, worked: Worked) -> str | None:
    """The first reason why the pool cannot be judged, or None."""
    if worked.equity is not None and worked.maintenance is not None and worked.fees is not None:
        return None
    if pool.unknown is not None:
        return pool.unknown
    return worked.missing[0] if worked.missing else "an input is missing"


def margins(pool: MarginPool, prices: Prices, as_of: datetime) -> Margins:
    """Equity and requirement alone, exactly as `evaluate` gives them."""
    try:
        with localcontext(EXACT):
            worked = work(pool, prices, as_of)
            reason = unknown_of(pool, worked)
            if reason is not None:
                return Margins(worked.equity, None, reason)
            return Margins(worked.equity, _plus(worked.maintenance, worked.fees), None)
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
    initial_margin = _total(term.initial_margin for term in terms)
    maintenance = worked.maintenance
    reason = unknown_of(pool, worked)
    requirement = _plus(maintenance, fees)
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
            total = _plus(total, _times(state.pnl, worked.worths[state.leg.settle].price))
    for adjustment in pool.adjustments:
        if adjustment.pnl:
            total = _plus(total, _times(adjustment.pnl, worked.worths[adjustment.asset].price))
    return total


def _option_value(pool: MarginPool, worked: Worked) -> Decimal | None:
    """Value of options at mark and of adjustments, in the pool's currency."""
    total: Decimal | None = ZERO
    for state in worked.priced:
        if state.leg.option:
            total = _plus(total, _times(state.value, worked.worths[state.leg.settle].price))
    for adjustment in pool.adjustments:
        if adjustment.option_value:
            total = _plus(total, _times(adjustment.option_value, worked.worths[adjustment.asset].price))
    return total


def _leverage(pool: MarginPool, worked: Worked, equity: Decimal | None) -> Decimal | None:
    """Notional of positions and adjustments / equity; None when equity is 0."""
    if not equity:
        return None
    total: Decimal | None = ZERO
    for state in worked.priced:
        total = _plus(total, _times(state.notional, worked.worths[state.leg.settle].price))
    for adjustment in pool.adjustments:
        if adjustment.notional:
            total = _plus(total, _times(adjustment.notional, worked.worths[adjustment.asset].price))
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
