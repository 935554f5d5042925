"""Kraken Futures, multi-collateral wallet.

margin equity = sum of balance * price * (1 - haircut) + unrealised profit. Per underlying the requirement is the larger of the margins of
longs and of shorts; margins are rates on the value at entry, so maintenance does not move with the mark. Liquidation when margin equity <
maintenance.

Sources: support.kraken.com 4844463246100 (multi-collateral margin), 360022632452 (margin schedule: "based on the value at entry price");
read 2026-11-20. Unsure: whether a level's rate applies to the whole size (here: what the tables say, `deduction` 0 being whole-size).
"""

from __future__ import annotations

from monitor.margin.venues.rules import MULTI, VenueRules

__all__ = ["RULES"]

RULES = (
    VenueRules(
        venue="kraken_futures",
        name="kraken_futures",
        source="https://support.kraken.com/articles/4844463246100 (read 2026-11-20)",
        modes=(MULTI,),
        value_basis="entry",
        netting="larger_side",
        liquidation="below",
    ),
)
