"""One position with everything about it that no price moves: units, cost, schedule, fee."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from monitor.margin.accounts import Account, Position
from monitor.margin.instruments import Instrument

__all__ = ["Leg", "leg_of", "signed_value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """A position beside its instrument, ready to be priced.

    Attributes:
        index: Place in `account.positions`.
        units: quantity * contract_size, signed: coins (linear), quote currency (inverse), settle per point (quanto).
        long: quantity > 0.
        inverse: The value is -units / mark instead of units * mark.
        option: Linear or inverse option; its value is units * mark in the settle asset.
        cost: Signed value at entry in the settle asset; None when the document gives neither `cost` nor `entry_price`.
        leverage_rate: 1 / leverage, or None.
        taker_fee: The account's rate, else the instrument's, else None.
    """

    index: int
    position: Position
    instrument: Instrument
    units: Decimal
    long: bool
    inverse: bool
    option: bool
    cost: Decimal | None
    leverage_rate: Decimal | None
    taker_fee: Decimal | None

    @property
    def name(self) -> str:
        """The instrument's name."""
        return self.instrument.name

    @property
    def settle(self) -> str:
        """Asset of margin and profit."""
        return self.instrument.settle

    def value(self, mark: Decimal) -> Decimal:
        """Signed value at a mark price, settle asset: units * mark; -units / mark where inverse."""
        return -self.units / mark if self.inverse else self.units * mark


def signed_value(units: Decimal, price: Decimal, *, inverse: bool) -> Decimal:
    """Signed value of `units` at `price` in the settle asset: u * p; -u / p where inverse. Profit is value - cost for both."""
    return -units / price if inverse else units * price


def leg_of(account: Account, index: int, instrument: Instrument, value: Callable[[Leg, Decimal], Decimal] | None = None) -> Leg:
    """Builds the leg of `account.positions[index]`.

    Args:
        value: The venue's own rounding of a position's value, used for the cost when only `entry_price` is known.

    Call under the EXACT context.
    """
    position = account.positions[index]
    leg = Leg(
        index=index,
        position=position,
        instrument=instrument,
        units=position.quantity * instrument.contract_size,
        long=position.quantity > 0,
        inverse=instrument.kind.is_inverse,
        option=instrument.kind.is_option,
        cost=position.cost,
        leverage_rate=None if position.leverage is None else 1 / position.leverage,
        taker_fee=instrument.taker_fee if account.taker_fee is None else account.taker_fee,
    )
    if leg.cost is not None or position.entry_price is None:
        return leg
    try:
        cost = value(leg, position.entry_price) if value is not None else leg.value(position.entry_price)
    except ArithmeticError:  # not to be rounded within 60 digits: an entry value of that size is not known
        return leg
    return Leg(
        index=index,
        position=position,
        instrument=instrument,
        units=leg.units,
        long=leg.long,
        inverse=leg.inverse,
        option=leg.option,
        cost=cost,
        leverage_rate=leg.leverage_rate,
        taker_fee=leg.taker_fee,
    )
