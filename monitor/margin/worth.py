"""What the assets of a pool are worth: profits, weights, debts and borrowing, and the rates at which requirements count."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from monitor.margin.collateral import Borrowing, borrowing, debt_of, holding_weight, initial_holding_weight
from monitor.margin.legs import Leg
from monitor.margin.numbers import ZERO
from monitor.margin.pools import MarginPool
from monitor.margin.positions import Priced, margin_parts, size_leg
from monitor.margin.prices import Prices
from monitor.margin.worked import AssetWorth, index_of, plus, times

__all__ = [
    "add_bankruptcy_fees",
    "add_borrowing",
    "add_profits",
    "debt_side",
    "default_wallet",
    "holding_side",
    "idle_weight",
    "requirement_rates",
    "set_prices",
    "value_asset",
]

ONE = Decimal(1)


def default_wallet(pool: MarginPool, leg: Leg, prices: Prices) -> Decimal | None:
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
        return times(entry, sized.initial_rate)
    parts = margin_parts(sized, rules, entry, bankruptcy_fee=False)
    return plus(parts.base, parts.fee)


def add_profits(pool: MarginPool, priced: list[Priced], worths: dict[str, AssetWorth]) -> None:
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
            worth.raw = plus(worth.raw, state.value)
            if rules.options_in_equity:
                worth.profit = plus(worth.profit, plus(state.value, funding))
                worth.initial_profit = plus(worth.initial_profit, plus(state.value, funding))
                if state.value is None:
                    worth.missing = worth.missing or state.missing_value
            elif funding:
                worth.profit, worth.initial_profit = plus(worth.profit, funding), plus(worth.initial_profit, funding)
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
        worth.raw = plus(worth.raw, gain)
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
        worth.profit = plus(worth.profit, gain_now)
        worth.initial_profit = plus(worth.initial_profit, gain_initial)
    for adjustment in pool.adjustments:
        worth = worths[adjustment.asset]
        if adjustment.pnl:
            worth.profit, worth.initial_profit = plus(worth.profit, adjustment.pnl), plus(worth.initial_profit, adjustment.pnl)
            worth.raw = plus(worth.raw, adjustment.pnl)
        if adjustment.option_value:
            worth.raw = plus(worth.raw, adjustment.option_value)


def set_prices(pool: MarginPool, worth: AssetWorth, prices: Prices) -> None:
    """Index of the asset, and the worse of it and the smoothed price on either side."""
    name = worth.holding.name
    price = index_of(pool, prices, name)
    worth.price = worth.low = worth.high = price
    if pool.multi and price is not None and name in prices.smoothed:
        smoothed = prices.smoothed[name]
        worth.low, worth.high = min(price, smoothed), max(price, smoothed)


def requirement_rates(pool: MarginPool, worths: Mapping[str, AssetWorth]) -> dict[str, tuple[Decimal | None, Decimal | None]]:
    """What one unit of requirement in an asset counts for: its price, times its debt weight where the venue says so."""
    rates: dict[str, tuple[Decimal | None, Decimal | None]] = {}
    for name, worth in worths.items():
        now, initial = worth.price, worth.high
        if pool.multi and pool.rules.requirement_at_debt_weight:
            row = worth.holding.asset.debt_weights.rows[0]
            now = times(now, row.weight)
            initial = times(initial, row.initial_weight if row.initial_weight is not None else row.weight)
        rates[name] = (now, initial)
    return rates


def add_bankruptcy_fees(priced: list[Priced], worths: Mapping[str, AssetWorth]) -> None:
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
        equity = plus(worth.wallet, worth.profit)
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
        state.initial = plus(state.initial, state.fee)


def value_asset(pool: MarginPool, worth: AssetWorth, prices: Prices) -> None:
    """Weighs one asset's amount on both sides. A single-asset pool's amount counts as it is."""
    joined = pool.rules.profit_joins_wallet
    for initial in (False, True):
        profit = worth.initial_profit if initial else worth.profit
        weighed = plus(worth.wallet, profit) if joined else worth.wallet
        if not initial:
            worth.amount = plus(worth.wallet, profit)
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
            weight = idle_weight(pool, worth, prices, initial=initial)
        else:
            weight, value_or_none, owed = _weigh(pool, worth, prices, weighed, beside, initial=initial)
            if value_or_none is None:
                continue
            value = value_or_none
        if initial:
            worth.initial_weight, worth.initial_value, worth.initial_owed = weight, value, owed
        else:
            worth.weight, worth.value, worth.owed = weight, value, owed


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
        weight, debt = debt_side(pool, worth, prices, -weighed, high, initial=initial)
    else:
        weight, debt = holding_side(pool, worth, prices, weighed, low, initial=initial)
    if debt is None:
        worth.missing_initial = f"{'borrows' if weighed < 0 else 'deposits'} of {worth.holding.name} on the venue are missing"
        return None, None, ZERO
    extra = beside * (low if beside > 0 else high)
    if weighed >= 0:
        return weight, debt + extra, ZERO
    if pool.rules.debts == "requirement":
        return weight, extra, debt
    return weight, extra - debt, ZERO


def holding_side(
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


def debt_side(
    pool: MarginPool, worth: AssetWorth, prices: Prices, debt: Decimal, price: Decimal, *, initial: bool
) -> tuple[Decimal | None, Decimal | None]:
    """(weight, weighted value) of a debt > 0; None where the venue's borrows are needed and not known."""
    rules = pool.rules
    scale_price = price if rules.scale_at_strict_price else worth.price
    assert scale_price is not None
    weight = debt_of(worth.holding.asset, debt, rules, prices, scale_price, pool.account.minimum_initial_rate, initial=initial)
    return weight, None if weight is None else debt * weight * price


def idle_weight(pool: MarginPool, worth: AssetWorth, prices: Prices, *, initial: bool) -> Decimal | None:
    """Weight shown for an amount of 0: a holding's first slice."""
    price = worth.price if worth.price is not None else ONE
    if worth.price is None:
        return None
    return holding_side(pool, worth, prices, ZERO, price, initial=initial)[0]


def add_borrowing(pool: MarginPool, worth: AssetWorth) -> None:
    """Margins on a debt and the fee of buying it back, in the pool's currency. Borrowing is a matter of the cross account."""
    asset = worth.holding.asset
    amount = worth.amount if pool.rules.profit_joins_wallet else worth.wallet
    if amount is None or amount >= 0 or pool.isolated or worth.price is None:
        return
    if asset.borrow_tiers is not None:
        terms = borrowing(asset, -amount)
        worth.borrow = Borrowing(times(terms.initial, worth.price), terms.maintenance * worth.price)
    if asset.taker_fee:
        extra = ZERO if worth.borrow is None else worth.borrow.maintenance
        worth.repay_fee = (-amount * worth.price + extra) * asset.taker_fee
