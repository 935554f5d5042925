"""dYdX v4: integer rules of the chain. Amounts are quote quantums of 1e-6 USDC, rates are parts per million.

value = q * oracle price, truncated towards zero to 1e-6. initial margin = ceil(notional * rate); maintenance =
ceil(ceil(notional * base rate) * maintenance fraction): the base rate, never scaled by open interest nor by the user's own leverage.
Open interest: rate = base + floor((1 - base) * (OI - lower) / (upper - lower)) in ppm, between base and 1; upper 0 is off.
Liquidatable: maintenance > 0 and maintenance > net collateral, strictly. No fee in margin. Solving for a price leaves the rounding out.

Source: dydxprotocol/v4-chain, protocol/x/perpetuals/lib/lib.go, protocol/lib/quote_quantums.go,
protocol/x/perpetuals/types/liquidity_tier.go; read 2026-11-20.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from monitor.margin.legs import Leg
from monitor.margin.numbers import ZERO
from monitor.margin.venues.rules import SINGLE, MarginParts, Sized, VenueRules

__all__ = ["RULES", "margins", "open_interest_rate", "value"]

QUANTUM = Decimal("0.000001")
ONE = Decimal(1)


def value(leg: Leg, mark: Decimal) -> Decimal:
    """Signed value in USDC, truncated towards zero to whole quantums."""
    return (leg.units * mark).quantize(QUANTUM, ROUND_DOWN)


def open_interest_rate(rate: Decimal, notional: Decimal, lower: Decimal, upper: Decimal) -> Decimal:
    """Initial rate scaled by the market's open interest, in whole ppm.

    Args:
        rate: Base initial rate.
        notional: Open interest at the oracle price, USDC.
        lower, upper: Caps in USDC; upper > 0.
    """
    notional = notional.quantize(QUANTUM, ROUND_DOWN)
    if notional <= lower:
        return rate
    if notional >= upper:
        return ONE
    return min(ONE, rate + ((ONE - rate) * (notional - lower) / (upper - lower)).quantize(QUANTUM, ROUND_FLOOR))


def margins(sized: Sized) -> MarginParts:
    """Initial and maintenance margin, each rounded up to whole quantums; formula above.

    A deduction (the chain has none) is taken off. The chain's tables give the maintenance fraction; the document gives its product
    with the base rate, so the fraction is recovered in whole ppm.
    """
    assert sized.row.maintenance_rate is not None
    initial = None if sized.initial_rate is None else (sized.basis * sized.initial_rate).quantize(QUANTUM, ROUND_CEILING)
    if sized.base_rate is None:
        maintenance = (sized.basis * sized.row.maintenance_rate).quantize(QUANTUM, ROUND_CEILING)
    elif sized.base_rate:
        fraction = (sized.row.maintenance_rate / sized.base_rate).quantize(QUANTUM, ROUND_HALF_EVEN)
        base = (sized.basis * sized.base_rate).quantize(QUANTUM, ROUND_CEILING)
        maintenance = (base * fraction).quantize(QUANTUM, ROUND_CEILING)
    else:
        maintenance = ZERO
    deduction = sized.row.deduction
    return MarginParts(base=initial, maintenance=max(ZERO, maintenance - deduction) if deduction else maintenance)


RULES = (
    VenueRules(
        venue="dydx_v4",
        name="dydx_v4",
        source="https://github.com/dydxprotocol/v4-chain protocol/x/perpetuals/lib/lib.go (read 2026-11-20)",
        modes=(SINGLE,),
        liquidation="below",
        value=value,
        margins=margins,
        open_interest_rate=open_interest_rate,
    ),
)
