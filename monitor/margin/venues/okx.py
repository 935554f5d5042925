"""OKX: single-currency, multi-currency and portfolio margin.

imr = notional / leverage; mmr = notional * rate of the tier that the whole position falls in (deduction 0 in the tables; the standard
reading of the
tier pages, not quoted in them: unsure). Fees are not maintenance but stand beside it in the ratio:
ratio = equity / (maintenance + fees), high is safe, liquidation at <= 100 %; fees = notional at mark * taker fee, and for repaying a debt
(liability + its borrowing margin) * fee (inferred: the one published example closes exactly that way).

Multi-currency: equity of a currency = cash + profit + option value; liability = |min(0, equity)|; adjEq = sum of equity * discount (each
slice its own) * USD price; a debt counts in full and has borrowing margins of its own.

Sources: OKX API v5 documentation (account, position tiers, discount rates, position builder), OKX help "multi-currency margin mode"; read
2026-11-20. Unsure: the margin of short options outside portfolio margin is not in those pages as a formula, so such a pool is unknown.
"""

from __future__ import annotations

from monitor.margin.venues.rules import MULTI, PORTFOLIO, SINGLE, STANDARD, VenueRules

__all__ = ["RULES"]

RULES = (
    VenueRules(
        venue="okx",
        name="okx",
        source="https://www.okx.com/docs-v5/en/ (read 2026-11-20)",
        modes=(MULTI, SINGLE),
        models=(STANDARD, PORTFOLIO),
        closing_fee="mark",
        printed_ratio="inverse",
        options_in_equity=True,
        scenarios_at_index=True,
    ),
)
