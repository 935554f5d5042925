"""BitMEX: integer amounts, margins on the value at entry, fee and funding inside maintenance.

Amounts are whole satoshi (1e-8 XBT) or 1e-6 USDT. The value of an inverse contract is an integer: value = q * round(1e8 / price) satoshi.
  posInit  = ceil(|cost| * initial rate)                     rate 1/leverage, else the table's
  posCross = max(0, -profit) of a cross position             covers its loss, initial side only
  posComm  = ceil(taker * value at bankruptcy)               see `margins`
  initial margin = posInit + posComm + posCross
  maintenance    = ceil(|cost| * (rate + funding payable)) + posComm
funding payable = max(0, side * next funding rate): what is to be received is not credited.
Equity = wallet + profit; liquidation when it is <= maintenance, on the fair (mark) price. Tiers apply to the whole position.
Liquidation price: maintenance stands still, values unrounded; bankruptcy price: equity = posComm. Default isolated wallet: posInit +
posComm.

posComm, fitted to the positions below: taker * (|cost| + posInit + posCross) rounded up; of a long inverse position that bankruptcy value
is first rounded up to a whole number per contract. Every integer of these real positions comes out: XBTUSD long 898 (2019-08-12), long 1
at 3779.5 (2019-01-04), long 1 (2019-05-10); short 500 (2018-08-27), short 20 (2019-02-09), short 693 (2019-04-07); ETHUSD quanto long 131
(2020-05-31), long 8 (2019-11-21); ETHUSDT linear long (2022-05-21). It is one formula for both sides of an inverse contract although a
short's value at bankruptcy is below its cost: that is what the venue prints.

Sources: bitmex.com/app/riskLimitsExamples, API documentation of GET /position, positions as above; read 2026-11-20.
Bankruptcy and liquidation prices are those of unrounded values; the venue first rounds a contract's value to a whole satoshi, which is up
to a tick apart.
Unsure: the effect of `instantPnl`; the rounding of a linear contract's value (here the position's total to 1e-6).
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

from monitor.margin.legs import Leg
from monitor.margin.numbers import ZERO
from monitor.margin.venues.rules import SINGLE, MarginParts, Sized, VenueRules

__all__ = ["RULES", "margins", "unit_of", "value"]

SATOSHI = Decimal("0.00000001")
MICRO = Decimal("0.000001")


def unit_of(asset: str) -> Decimal:
    """The smallest amount BitMEX counts in: 1e-8 of XBT (and BTC), 1e-6 of the others."""
    return SATOSHI if asset in {"XBT", "BTC", "XBt"} else MICRO


def value(leg: Leg, mark: Decimal) -> Decimal:
    """Signed value in the settle asset: per contract a whole number of units where inverse, in total where not."""
    unit = unit_of(leg.settle)
    if leg.inverse:
        return -leg.position.quantity * (leg.instrument.contract_size / mark).quantize(unit, ROUND_HALF_UP)
    return (leg.units * mark).quantize(unit, ROUND_HALF_UP)


def margins(sized: Sized) -> MarginParts:
    """posInit, posComm, posCross and posMaint of one position, in the settle asset; formulas above."""
    leg, basis = sized.leg, sized.basis
    unit = unit_of(leg.settle)
    side = 1 if leg.long else -1
    base = None if sized.initial_rate is None else (basis * sized.initial_rate).quantize(unit, ROUND_CEILING)
    loss_cover: Decimal | None = ZERO
    if not sized.isolated:
        loss_cover = None if sized.pnl is None else max(ZERO, -sized.pnl)
    fee: Decimal | None = None
    missing: str | None = None
    if leg.taker_fee is None:
        missing = f"taker_fee of {leg.name} is missing"
    elif leg.taker_fee == 0:
        fee = ZERO
    elif base is None:
        missing = f"initial rate of {leg.name} is missing"
    elif loss_cover is None:
        missing = f"entry price of {leg.name} is missing"
    else:
        bankrupt = basis + base + loss_cover
        if leg.inverse and leg.long:
            contracts = abs(leg.position.quantity)
            bankrupt = contracts * (bankrupt / contracts).quantize(unit, ROUND_CEILING)
        fee = (leg.taker_fee * bankrupt).quantize(unit, ROUND_CEILING)
    maintenance: Decimal | None = None
    funding = sized.prices.funding_rate.get(leg.name)
    perpetual = leg.instrument.expiry is None
    if funding is None and perpetual:
        missing = missing or f"funding rate of {leg.name} is missing"
    else:
        payable = max(ZERO, side * funding) if funding is not None and perpetual else ZERO
        maintenance = (basis * (sized.maintenance_rate + payable)).quantize(unit, ROUND_CEILING)
    return MarginParts(base=base, maintenance=maintenance, fee=fee, loss_cover=loss_cover, missing=missing)


RULES = (
    VenueRules(
        venue="bitmex",
        name="bitmex",
        source="https://www.bitmex.com/app/riskLimitsExamples (read 2026-11-20)",
        modes=(SINGLE,),
        value_basis="entry",
        closing_fee="bankruptcy",
        value=value,
        margins=margins,
    ),
)
