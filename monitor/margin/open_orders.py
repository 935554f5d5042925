"""What open orders add to the margins of a pool."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from monitor.margin.accounts import Order, Position
from monitor.margin.instruments import Instrument
from monitor.margin.legs import Leg
from monitor.margin.numbers import ZERO
from monitor.margin.pools import MarginPool
from monitor.margin.positions import Priced, Term, base_rate_of, price_leg
from monitor.margin.prices import Prices
from monitor.margin.worked import Worked, margin_sums, plus, times

__all__ = ["orders_term", "worst_orders"]


def orders_term(pool: MarginPool, worked: Worked) -> Term:
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
                    first, second = margin_sums(worked, (state,))
                    initial, maintenance = plus(initial, times(first, Decimal(sign))), plus(maintenance, times(second, Decimal(sign)))
            if filled.missing_margin is not None and filled.missing_margin not in worked.missing:
                worked.missing.append(filled.missing_margin)
        fee = rules.order_fee * sum(order.count for order in pool.orders)
        return Term("open_orders", plus(initial, fee), plus(maintenance, fee))
    held_rates = {state.leg.name: state.initial_rate for state in worked.priced}
    for name, (instrument, buys, sells, _) in _order_sides(pool).items():
        notional = max(buys, sells)
        rate = held_rates[name] if name in held_rates else _free_rate(pool, instrument, notional)
        initial = plus(initial, times(times(notional, rate), worked.rates[instrument.settle][1]))
    return Term("open_orders", initial, maintenance)


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


def _order_notional(order: Order, instrument: Instrument) -> Decimal:
    """Notional of open orders in the settle asset: as stated, else quantity * contract_size at their price."""
    if order.notional is not None:
        return order.notional
    assert order.quantity is not None and order.price is not None
    units = order.quantity * instrument.contract_size
    return units / order.price if instrument.kind.is_inverse else units * order.price


def _free_rate(pool: MarginPool, instrument: Instrument, notional: Decimal) -> Decimal | None:
    """Initial rate of orders in an instrument without a position: the tier's, at least the user's own minimum."""
    if instrument.tiers is None or instrument.tier_unit != "notional":
        return None
    rate = base_rate_of(instrument.tiers.at(notional))
    return None if rate is None else max(rate, pool.account.minimum_initial_rate)


def worst_orders(pool: MarginPool, priced: list[Priced], prices: Prices, as_of: datetime) -> list[tuple[Priced | None, Priced]]:
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
