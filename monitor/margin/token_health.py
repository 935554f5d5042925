"""Assets and liabilities of a pool where margin is taken out of profit before weights: Mango's health."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from monitor.margin.numbers import ZERO
from monitor.margin.pools import MarginPool
from monitor.margin.positions import Priced, Term
from monitor.margin.prices import Prices
from monitor.margin.worked import AssetWorth, Worked, plus
from monitor.margin.worth import debt_side, holding_side, idle_weight

__all__ = ["health_by_asset"]


def health_by_asset(pool: MarginPool, worked: Worked, prices: Prices) -> None:
    """Assets and liabilities of each asset, where margin is taken out of profit before weights (`venues.mango`)."""
    terms: dict[bool, list[Decimal | None]] = {False: [ZERO, ZERO], True: [ZERO, ZERO]}
    filled = {held.leg.name if held is not None else state.leg.name: state for held, state in worked.worst}
    for worth in worked.worths.values():
        worth.amount = plus(worth.wallet, worth.profit)
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
                weight, value, owed = idle_weight(pool, worth, prices, initial=initial), ZERO, ZERO
            elif worth.price is None or worth.low is None or worth.high is None:
                worth.missing = worth.missing or f"index price of {worth.holding.name} is missing"
                terms[initial] = [None, None]
                continue
            else:
                low, high = (worth.low, worth.high) if initial else (worth.price, worth.price)
                surplus = positive - negative
                up, worth_up = holding_side(pool, worth, prices, max(ZERO, surplus), low, initial=initial)
                down, owed_or_none = debt_side(pool, worth, prices, negative, high, initial=initial)
                if worth_up is None or owed_or_none is None or down is None:
                    worth.missing_initial = f"deposits or borrows of {worth.holding.name} on the venue are missing"
                    terms[initial] = [None, None]
                    continue
                owed = owed_or_none
                value = owed + worth_up if surplus >= 0 else positive * down * high
                weight = up if surplus >= 0 else down
                for place, part in enumerate((losses, debts)):
                    terms[initial][place] = plus(terms[initial][place], part * down * high)
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
