"""Bybit: unified trading account (multi_asset) and the older contract accounts (single_asset).

initial margin = value / leverage + F; maintenance = value * rate - mmDeduction + F, value at mark; before 2023 at entry.
F, the fee to close at the bankruptcy price, is fixed at entry: F = |q| * entry * ceil8(taker_fee * (1 - side / leverage)), side +1 long,
-1 short;
of an inverse contract the value at bankruptcy is the larger one for longs: ceil8(taker_fee * (1 + side / leverage)). Real messages of
2025 reproduce to 1e-8 with the rate rounded up to 8 places; that rounding is inferred from them.

Margin balance = wallet at collateral ratio (each slice of an amount has its own) + profit; a negative balance counts in full and
borrowing adds its own margins. Liquidation when maintenance / margin balance >= 100 %. The value of options is not in the margin balance.

Isolated: liquidation price with margins at entry, linear entry -/+ (IM - MM) / q: the fee cancels out of that difference, so a wallet
that is the initial margin at entry (the default) is held against maintenance without the fee. Bankruptcy price entry * (1 -/+
1/leverage). Legacy inverse cross: no leverage is stated, the whole balance stands in; the fee is that at the bankruptcy price, where
equity equals it.

Sources: Bybit API v5 documentation and help centre (position margin, collateral value ratios, 360039261334 liquidation price of inverse
contracts); read 2026-11-20. Unsure: the margin of short options is not in those pages as a formula, so such a pool is unknown.
"""

from __future__ import annotations

from monitor.margin.venues.rules import MULTI, SINGLE, VenueRules

__all__ = ["RULES"]

RULES = (
    VenueRules(
        venue="bybit",
        name="bybit-entry-value",
        source="https://help.bybit.com/hc/en-us/articles/360039261334 (read 2026-11-20)",
        modes=(MULTI, SINGLE),
        value_basis="entry",
        closing_fee="entry",
        isolated_price_at_entry=True,
        fee_at_bankruptcy=True,
    ),
    VenueRules(
        venue="bybit",
        name="bybit",
        since="2023-01-01",
        source="https://bybit-exchange.github.io/docs/v5/position (read 2026-11-20)",
        modes=(MULTI, SINGLE),
        closing_fee="entry",
        isolated_price_at_entry=True,
        fee_at_bankruptcy=True,
    ),
)
