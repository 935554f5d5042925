"""What one position is worth and must hold at given prices, in its settle asset, part by part."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal

from monitor.margin.legs import Leg
from monitor.margin.numbers import ZERO
from monitor.margin.options import model_mark
from monitor.margin.prices import Prices
from monitor.margin.schedules import Tier
from monitor.margin.venues import MarginParts, Sized, VenueRules

__all__ = ["PositionHealth", "Priced", "Term", "closing_rate", "initial_rate_of", "price_leg", "size_leg"]

ONE = Decimal(1)
EIGHT_PLACES = Decimal("0.00000001")
FOUR_FIFTHS = Decimal("0.8")


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a margin. None: cannot be computed."""

    name: str
    initial_margin: Decimal | None
    maintenance_margin: Decimal | None


@dataclass(frozen=True, slots=True)
class PositionHealth:
    """One position of a result, in its settle asset; None where an input is missing or the field does not apply.

    Attributes:
        mark_price: Given, or the model's for an option without one.
        notional: Absolute value at mark; of an option the value of its underlying.
        option_value: Signed value of an option at mark.
        entry_value: Absolute value at entry.
        initial_rate, maintenance_rate, deduction: In force.
        liquidation_price, bankruptcy_price: Filled in by `monitor.margin.liquidation`.
        terms: base, closing_fee, loss_cover.
    """

    instrument: str
    side: str
    quantity: Decimal
    mark_price: Decimal | None
    notional: Decimal | None
    option_value: Decimal | None
    entry_value: Decimal | None
    unrealized_pnl: Decimal | None
    initial_rate: Decimal | None
    maintenance_rate: Decimal | None
    deduction: Decimal | None
    initial_margin: Decimal | None
    maintenance_margin: Decimal | None
    liquidation_price: Decimal | None
    bankruptcy_price: Decimal | None
    terms: tuple[Term, ...]


@dataclass(slots=True)
class Priced:
    """A leg at given prices: what its pool sums. Settle asset throughout.

    Attributes:
        mark: Mark price, or None.
        value: Signed value at mark, with the venue's rounding.
        notional: Absolute value; of an option that of its underlying.
        pnl: value - cost, without funding.
        row: Tier in force.
        underlying: Price of an option's underlying, as its margin formula takes it.
        initial, maintenance: Margins without the closing fee that `fees` counts.
        fee: Closing fee inside both margins, and `exit_fee` the one beside them.
        parts: The venue's own parts.
        missing_value, missing_margin: Why value or margins cannot be told.
    """

    leg: Leg
    mark: Decimal | None = None
    value: Decimal | None = None
    notional: Decimal | None = None
    pnl: Decimal | None = None
    row: Tier | None = None
    underlying: Decimal | None = None
    initial_rate: Decimal | None = None
    maintenance_rate: Decimal | None = None
    base: Decimal | None = None
    fee: Decimal | None = ZERO
    loss_cover: Decimal | None = ZERO
    initial: Decimal | None = None
    maintenance: Decimal | None = None
    exit_fee: Decimal | None = ZERO
    missing_value: str | None = None
    missing_margin: str | None = None


def closing_rate(leg: Leg, rate: Decimal) -> Decimal:
    """Fee per unit of entry value for closing at the bankruptcy price: taker_fee * (1 -+ rate), rounded up to 8 places.

    rate = 1/leverage.     The value at bankruptcy is below entry for a linear long and an inverse short, above it for the other two.
    """
    assert leg.taker_fee is not None
    at_bankruptcy = ONE - rate if leg.long != leg.inverse else ONE + rate
    return (leg.taker_fee * at_bankruptcy).quantize(EIGHT_PLACES, ROUND_CEILING)


def size_premium(rules: VenueRules, rate: Decimal, factor: Decimal, quantity: Decimal) -> Decimal:
    """Rate of a position of this size: at least 0.8 * rate + factor * sqrt(quantity), with the venue's rounding where it has one."""
    if rules.size_rate is not None:
        return rules.size_rate(rate, factor, quantity)
    return max(rate, FOUR_FIFTHS * rate + factor * quantity.sqrt())


def initial_rate_of(leg: Leg, row: Tier, basis: Decimal, rules: VenueRules, prices: Prices, minimum: Decimal) -> Decimal | None:
    """Initial rate in force, or None when tables or open interest do not say.

    1/leverage if the position states one, else the tier's rate (plus slope * value); then open-interest scaling, size premium, the user's
    own minimum.

    Args:
        basis: Absolute value that the rate is taken on.
        minimum: `account.minimum_initial_rate`.
    """
    instrument = leg.instrument
    rate = leg.leverage_rate
    if rate is None:
        rate = base_rate_of(row)
        if rate is None:
            return None
        if row.slope:
            rate += row.slope * basis
    upper = instrument.open_interest_upper
    if upper:
        held = prices.open_interest.get(instrument.name)
        mark = prices.mark.get(instrument.name)
        if held is None or mark is None:
            return None
        notional = held * instrument.contract_size / mark if leg.inverse else held * instrument.contract_size * mark
        lower = instrument.open_interest_lower or ZERO
        if rules.open_interest_rate is not None:
            rate = rules.open_interest_rate(rate, notional, lower, upper)
        elif notional >= upper:
            rate = max(rate, ONE)
        elif notional > lower:
            rate += max(ZERO, ONE - rate) * (notional - lower) / (upper - lower)
    if instrument.size_factor:
        rate = size_premium(rules, rate, instrument.size_factor, abs(leg.position.quantity))
    return max(rate, minimum)


def base_rate_of(row: Tier) -> Decimal | None:
    """The tier's own initial rate: `initial_rate`, else 1 / max_leverage, else None."""
    if row.initial_rate is not None:
        return row.initial_rate
    return None if row.max_leverage is None else ONE / row.max_leverage


def size_leg(
    leg: Leg, basis: Decimal, pnl: Decimal | None, rules: VenueRules, prices: Prices, minimum: Decimal, *, isolated: bool
) -> Sized:
    """Picks the tier of a position of value `basis` and its rates. The instrument must have tiers."""
    instrument = leg.instrument
    assert instrument.tiers is not None
    quantity = abs(leg.position.quantity)
    row = instrument.tiers.at(quantity if instrument.tier_unit == "quantity" else basis)
    assert row.maintenance_rate is not None
    rate = row.maintenance_rate
    if row.slope:
        rate += row.slope * basis
    if instrument.size_factor:
        rate = size_premium(rules, rate, instrument.size_factor, quantity)
    return Sized(
        leg=leg,
        basis=basis,
        pnl=pnl,
        row=row,
        base_rate=base_rate_of(row),
        initial_rate=initial_rate_of(leg, row, basis, rules, prices, minimum),
        maintenance_rate=rate,
        isolated=isolated,
        prices=prices,
    )


def margin_parts(sized: Sized, rules: VenueRules, entry_value: Decimal | None, *, bankruptcy_fee: bool) -> MarginParts:
    """Margins of a sized position: by the venue's own function, else by rates.

    base = basis * initial rate; maintenance = max(0, basis * rate - deduction); the fee by the rules.

    Args:
        entry_value: Absolute value at entry.
        bankruptcy_fee: The fee depends on the whole pool's equity and is filled in later: leave it None without a reason.
    """
    if rules.margins is not None:
        return rules.margins(sized)
    row = sized.row
    assert row.deduction is not None
    base = None if sized.initial_rate is None else sized.basis * sized.initial_rate
    maintenance = sized.basis * sized.maintenance_rate - row.deduction
    if maintenance < 0:
        maintenance = ZERO
    if rules.closing_fee != "entry":
        return MarginParts(base, maintenance)
    leg = sized.leg
    if leg.taker_fee is None:
        return MarginParts(base, maintenance, None, missing=f"taker_fee of {leg.name} is missing")
    if not leg.taker_fee:
        return MarginParts(base, maintenance)
    if bankruptcy_fee:
        return MarginParts(base, maintenance, None)
    rate = sized.initial_rate if leg.leverage_rate is None else leg.leverage_rate
    if entry_value is None or rate is None:
        what = "entry price" if entry_value is None else "leverage or initial rate"
        return MarginParts(base, maintenance, None, missing=f"{what} of {leg.name} is missing")
    return MarginParts(base, maintenance, entry_value * closing_rate(leg, rate))


def price_leg(
    leg: Leg,
    rules: VenueRules,
    prices: Prices,
    as_of: datetime,
    minimum: Decimal,
    underlying: Decimal | None,
    *,
    isolated: bool = False,
    portfolio: bool = False,
    bankruptcy_fee: bool = False,
) -> Priced:
    """Values one leg and works out its margins.

    Args:
        minimum: The user's own floor on initial rates.
        underlying: Price of an option's underlying: in the valuation currency for an inverse option, in the settle asset for a linear
            one.
        isolated: The leg is a pool of its own.
        portfolio: Margins come from scenarios: only the value is worked out.
        bankruptcy_fee: See `margin_parts`.
    """
    priced = Priced(leg)
    instrument = leg.instrument
    mark = prices.mark.get(instrument.name)
    if mark is None:
        priced.missing_value = f"mark price of {instrument.name} is missing"
        if leg.option:
            found = model_mark(instrument, prices, as_of)
            if isinstance(found, str):
                priced.missing_value = found
            else:
                mark = found
    priced.mark = mark
    cost = leg.cost
    if mark is not None:
        priced.missing_value = None
        value = rules.value(leg, mark) if rules.value is not None else (-leg.units / mark if leg.inverse else leg.units * mark)
        priced.value = value
        if cost is not None:
            priced.pnl = value - cost
        if not leg.option:
            priced.notional = abs(value)
    if leg.option:
        _price_option(priced, rules, underlying, portfolio=portfolio)
        return priced
    if rules.closing_fee == "mark":
        priced.exit_fee = None if leg.taker_fee is None or priced.notional is None else priced.notional * leg.taker_fee
        if leg.taker_fee is None:
            priced.missing_margin = f"taker_fee of {instrument.name} is missing"
    if portfolio:
        return priced
    entry_value = None if cost is None else abs(cost)
    basis = priced.notional if rules.value_basis == "mark" else entry_value
    if basis is None:
        priced.missing_margin = priced.missing_value if rules.value_basis == "mark" else f"entry price of {instrument.name} is missing"
        return priced
    if instrument.tiers is None:
        priced.missing_margin = f"tiers of {instrument.name} are missing"
        if leg.leverage_rate is not None:
            priced.initial_rate = max(leg.leverage_rate, minimum)
        return priced
    sized = size_leg(leg, basis, priced.pnl, rules, prices, minimum, isolated=isolated)
    priced.row, priced.initial_rate, priced.maintenance_rate = sized.row, sized.initial_rate, sized.maintenance_rate
    parts = margin_parts(sized, rules, entry_value, bankruptcy_fee=bankruptcy_fee)
    priced.base, priced.fee, priced.loss_cover = parts.base, parts.fee, parts.loss_cover
    priced.missing_margin = parts.missing
    if parts.fee is not None or bankruptcy_fee:
        fee = parts.fee if parts.fee is not None else ZERO
        priced.maintenance = None if parts.maintenance is None else parts.maintenance + fee
        if parts.base is not None and parts.loss_cover is not None:
            priced.initial = parts.base + fee + parts.loss_cover
    return priced


def _price_option(priced: Priced, rules: VenueRules, underlying: Decimal | None, *, portfolio: bool) -> None:
    """Notional and margins of an option. Long: none. Short: the venue's formula; without one the margin is unknown."""
    leg = priced.leg
    instrument = leg.instrument
    inverse = instrument.kind.value.startswith("inverse")
    size = abs(leg.units)
    if inverse:
        priced.notional = size
    elif underlying is not None:
        priced.notional = size * underlying
    if portfolio:
        return
    if leg.long:
        priced.base = priced.initial = priced.maintenance = ZERO
        return
    if rules.short_option is None:
        priced.missing_margin = f"the margin of short options such as {instrument.name} is not published as a formula"
        return
    if priced.mark is None:
        priced.missing_margin = priced.missing_value
        return
    if underlying is None:
        priced.missing_margin = f"index price of {instrument.underlying} is missing"
        return
    row = None
    if instrument.tiers is not None and priced.notional is not None:
        row = instrument.tiers.at(size if instrument.tier_unit == "quantity" else priced.notional)
    priced.row, priced.underlying = row, underlying
    margins = rules.short_option(leg, priced.mark, underlying, row)
    if margins is None:
        priced.missing_margin = f"tiers of {instrument.name} are missing"
        return
    priced.initial, priced.maintenance = margins
    priced.base = priced.initial
