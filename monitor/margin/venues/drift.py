"""Drift v2: weighted collateral against weighted liabilities, with the program's integer weights.

total collateral = sum of deposits * price * asset weight + sum of perpetual profit * price (profit times its weight, a loss in full);
margin requirement = sum of borrows * price * liability weight + sum of |worst-case size| * mark * margin ratio * price of the quote +
0.01 per open order. Initial side: initial weights, the worse of oracle price and 5-minute average of an asset, positive profit of a
position at most 100, the user's own `max_margin_ratio` r: ratio at least r, asset weight at most 1 - r, liability weight at least 1 + r,
the quote asset excepted. Liquidatable when total collateral < maintenance requirement.

Size premium, s = isqrt(10 * size in 1e-9 + 1), f = imf factor (1e-6), weights in 1e-4, all divisions truncated:
  liability, perpetual ratio: max(w, w - w/5 + s*f/1e7);  asset: min(w, 1.1e10 / (1e6 + s*f/1e5)).
Initial asset weight above scale_initial_asset_weight_start of deposits: w * start / deposits, truncated to 1e-4.

Amounts are not truncated to the program's 1e-6 (differences of at most 1e-6 per position).

Source: drift-labs/protocol-v2 programs/drift/src/math/margin.rs, state/spot_market.rs, state/perp_market.rs; read 2026-11-20.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from math import isqrt

from monitor.margin.venues.rules import MULTI, VenueRules

__all__ = ["RULES", "asset_weight", "liability_weight"]

NANO = 1_000_000_000
MILLION = 1_000_000
PRECISION = 10_000
QUANTUM = Decimal("0.0001")


def _root(size: Decimal) -> int:
    return isqrt(int((size * NANO).to_integral_value(ROUND_DOWN)) * 10 + 1)


def _integer(number: Decimal, precision: int) -> int:
    return int((number * precision).to_integral_value(ROUND_DOWN))


def liability_weight(weight: Decimal, factor: Decimal, size: Decimal) -> Decimal:
    """Liability weight, or margin ratio of a perpetual, with the size premium.

    Args:
        weight: Weight or ratio before the premium.
        factor: imf_factor / 1e6; 0 is off.
        size: Units of the asset, >= 0.
    """
    if not factor:
        return weight
    before = _integer(weight, PRECISION)
    premium = before - before // 5 + _root(size) * _integer(factor, MILLION) // (100_000 * MILLION // PRECISION)
    return max(weight, Decimal(premium) * QUANTUM)


def asset_weight(weight: Decimal, factor: Decimal, size: Decimal) -> Decimal:
    """Asset weight with the size discount; arguments as in `liability_weight`."""
    if not factor:
        return weight
    discounted = (MILLION + MILLION // 10) * PRECISION // (MILLION + _root(size) * _integer(factor, MILLION) // 100_000)
    return min(weight, Decimal(discounted) * QUANTUM)


RULES = (
    VenueRules(
        venue="drift",
        name="drift",
        source="https://github.com/drift-labs/protocol-v2 programs/drift/src/math/margin.rs (read 2026-11-20)",
        modes=(MULTI,),
        debts="requirement",
        liquidation="below",
        profit_joins_wallet=False,
        ratio_limits_weights=True,
        quote_asset="USDC",
        weight_quantum=QUANTUM,
        initial_profit_cap=Decimal(100),
        order_fee=Decimal("0.01"),
        worst_case_orders=True,
        size_rate=liability_weight,
        asset_weight=asset_weight,
        debt_weight=liability_weight,
    ),
)
