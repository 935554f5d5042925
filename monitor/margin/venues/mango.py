"""Mango v4: health. A perpetual's margin is taken out of its profit, that joins its settle token, and the sum has the token's weight.

health = sum over tokens of amount * price * weight, asset weight where the amount is positive, liability weight where it is negative;
a perpetual adds h = base * price * (1 -/+ rate) + quote, that is profit - rate * notional, times the overall asset weight where positive.
Initial side: initial weights, asset price min(oracle, stable), liability price max(oracle, stable); deposits above `deposit_scale_start`
scale the asset weight by start / deposits, borrows above `borrow_scale_start` the liability weight by borrows / start. Liquidatable when
maintenance health < 0. Open perpetual orders: the worse of all bids and all asks executed. Serum orders are not part of the portfolio
document.

Assets and liabilities are split as the program's health ratio does ("stable liabilities"): per token, A = the positive ones of deposit
and h's, L = the negative ones; liabilities = L * liability weight; assets = liabilities + (A - L) * asset weight where A >= L, else A *
liability weight. Their difference is health; `equity` is assets, `maintenance_margin` and `initial_margin` are liabilities. The venue
prints 100 * (assets - liabilities) / liabilities.

Source: blockworks-foundation/mango-v4 programs/mango-v4/src/health/cache.rs; read 2026-11-20.
Unsure: a perpetual's own stable price (here: `smoothed` of its `underlying` where given).
"""

from __future__ import annotations

from monitor.margin.venues.rules import MULTI, VenueRules

__all__ = ["RULES"]

RULES = (
    VenueRules(
        venue="mango_v4",
        name="mango_v4",
        source="https://github.com/blockworks-foundation/mango-v4 programs/mango-v4/src/health/cache.rs (read 2026-11-20)",
        modes=(MULTI,),
        debts="requirement",
        liquidation="below",
        margin_in_profit=True,
        printed_ratio="health",
        scale_at_strict_price=True,
        worst_case_orders=True,
    ),
)
