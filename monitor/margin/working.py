"""Prices a pool and adds up equity and requirement, term by term."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from monitor.margin.legs import Leg
from monitor.margin.numbers import ZERO
from monitor.margin.open_orders import orders_term, worst_orders
from monitor.margin.pools import MarginPool
from monitor.margin.positions import Priced, Term, price_leg
from monitor.margin.prices import Prices
from monitor.margin.scenarios import risk_units
from monitor.margin.token_health import health_by_asset
from monitor.margin.worked import AssetWorth, Worked, margin_sums, plus, times, total
from monitor.margin.worth import (
    add_bankruptcy_fees,
    add_borrowing,
    add_profits,
    default_wallet,
    requirement_rates,
    set_prices,
    value_asset,
)

__all__ = ["unknown_of", "work"]


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
        worth.wallet = default_wallet(pool, leg, prices)
        if worth.wallet is None:
            what = "entry price" if leg.cost is None else "isolated_wallet, or leverage and fee it could follow from,"
            worth.missing = f"{what} of {leg.name} is missing"
    for worth in worths.values():
        set_prices(pool, worth, prices)
    add_profits(pool, priced, worths)
    rates = requirement_rates(pool, worths)
    worst = worst_orders(pool, priced, prices, as_of) if rules.worst_case_orders and pool.orders else []
    if by_pool:
        add_bankruptcy_fees(priced, worths)
    worked = Worked(priced, worths, rates, worst, None, None, None, [], None, (), [])
    if rules.margin_in_profit:
        health_by_asset(pool, worked, prices)
    else:
        for worth in worths.values():
            value_asset(pool, worth, prices)
            add_borrowing(pool, worth)
    _equities(pool, worked)
    _requirements(pool, worked, prices, as_of)
    return worked


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


def _equities(pool: MarginPool, worked: Worked) -> None:
    """Sums the assets: equity, initial equity and net value. Credit counts in equity at its price, and is not owned."""
    equity: Decimal | None = ZERO
    initial: Decimal | None = ZERO
    net: Decimal | None = ZERO
    for worth in worked.worths.values():
        equity = plus(equity, worth.value)
        initial = plus(initial, worth.initial_value)
        net = plus(net, worth.raw if not worth.raw else times(worth.raw, worth.price))
        if worth.value is None and worth.missing is not None:
            worked.missing.append(worth.missing)
    for adjustment in pool.adjustments:
        if adjustment.credit:
            credit = times(adjustment.credit, worked.worths[adjustment.asset].price)
            equity, initial = plus(equity, credit), plus(initial, credit)
    worked.equity, worked.initial_equity, worked.net_value = equity, initial, net


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
            terms.append(orders_term(pool, worked))
        terms.extend(_borrowing_term(worked))
    for adjustment in pool.adjustments:
        if adjustment.initial_margin is None and adjustment.maintenance_margin is None:
            continue
        rate, initial_rate = worked.rates[adjustment.asset]
        terms.append(
            Term(
                f"adjustment:{adjustment.name}",
                times(adjustment.initial_margin, initial_rate) if adjustment.initial_margin else ZERO,
                times(adjustment.maintenance_margin, rate) if adjustment.maintenance_margin else ZERO,
            )
        )
        if rate is None:
            worked.missing.append(f"index price of {adjustment.asset} is missing")
    worked.fees = total(worth.repay_fee for worth in worked.worths.values())
    if rules.closing_fee == "mark":
        for state in worked.priced:
            worked.fees = plus(worked.fees, times(state.exit_fee, worked.worths[state.leg.settle].price))


def _positions_term(pool: MarginPool, worked: Worked) -> Term:
    """Margins of all positions; with netting per underlying the larger of longs and shorts."""
    if pool.rules.netting == "none" or pool.isolated:
        return Term("positions", *margin_sums(worked, worked.priced))
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
        (long_initial, long_kept), (short_initial, short_kept) = margin_sums(worked, longs), margin_sums(worked, shorts)
        initial = None if long_initial is None or short_initial is None else plus(initial, max(long_initial, short_initial))
        maintenance = None if long_kept is None or short_kept is None else plus(maintenance, max(long_kept, short_kept))
    return Term("positions", initial, maintenance)


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
            maintenance = plus(maintenance, worth.owed)
        initial = plus(initial, worth.initial_owed if worth.initial_owed is not None or worth.initial_value is not None else None)
        if worth.borrow is not None:
            initial = plus(initial, worth.borrow.initial)
            maintenance = plus(maintenance, worth.borrow.maintenance)
    return [Term("borrowing", initial, maintenance)] if shown else []


def unknown_of(pool: MarginPool, worked: Worked) -> str | None:
    """The first reason why the pool cannot be judged, or None."""
    if worked.equity is not None and worked.maintenance is not None and worked.fees is not None:
        return None
    if pool.unknown is not None:
        return pool.unknown
    return worked.missing[0] if worked.missing else "an input is missing"
