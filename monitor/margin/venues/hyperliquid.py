"""Hyperliquid perpetuals: cross pool per clearinghouse, isolated pools.

equity = cash + sum(signed size * mark), cash being `totalRawUsd` (cross) or `rawUsd` (isolated), after the notional was paid for.
initial margin = notional / leverage. maintenance = notional * rate - deduction, rate = 1 / (2 * max leverage) of the tier, continuous
over tiers. Liquidation when equity < maintenance, on the mark price, without fees.
liquidation price = price - side * margin_available / size / (1 - l * side), l = 1 / (2 * max leverage); with tiers: those at the answer
(unsure). The engine of March 2023 had no /(1 - l * side): maintenance stood still; twelve recorded positions reproduce exactly that way.
The day of the change is not published; mid-2023 is assumed.

Sources: hyperliquid.gitbook.io/hyperliquid-docs/trading/liquidations and /margin-tiers; read 2026-11-20.
Unsure: accounts with `unifiedAccount` or `portfolioMargin` abstraction have rules that were not found.
"""

from __future__ import annotations

from monitor.margin.venues.rules import SINGLE, VenueRules

__all__ = ["RULES"]

SOURCE = "https://hyperliquid.gitbook.io/hyperliquid-docs/trading/liquidations (read 2026-11-20)"

RULES = (
    VenueRules(venue="hyperliquid", name="hyperliquid-2023", source=SOURCE, modes=(SINGLE,), liquidation="below", held_maintenance=True),
    VenueRules(venue="hyperliquid", name="hyperliquid", since="2023-07-01", source=SOURCE, modes=(SINGLE,), liquidation="below"),
)
