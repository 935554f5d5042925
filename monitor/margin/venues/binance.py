"""Binance USD-M and COIN-M futures.

unrealised profit = q * (mark - entry); notional = |q| * mark; maintenance = notional * rate - cum, with
cum_n = cum_(n-1) + floor_n * (rate_n - rate_(n-1)): continuous and convex. No fee in any margin. Mark price everywhere.
COIN-M: notional (coin) = |q| * contract_size / mark, profit = q * contract_size * (1/entry - 1/mark), brackets in coin.
Single-asset mode: one pool per margin asset. Liquidation when maintenance / margin balance >= 100 %.

Multi-assets mode: an asset counts index * (1 - bid buffer) when its equity is positive and index * (1 + ask buffer) when negative (the
documents' `weights` and `debt_weights`); requirements in an asset count at its ask rate; what is available in an asset is the pool's at
its ask rate.

Liquidation price, cross: all other marks stand still, brackets are picked anew at the answer; both hedge legs of one symbol share it.

Sources: Binance FAQ b3c689c1f50a44cabb3a84e663b81d93 (USD-M liquidation price), ceccfcfb4e3a45e3b48b0b1bb1a8ae46 (COIN-M),
c983a9268cfa4e70a4916c276bb3b7bc (multi-assets margin ratio); read 2026-11-20.
Unsure: how open orders net against the position (here: the larger side's notional at the position's rate); `availableBalance` of one real
account differs from margin balance less initial margin by 0.14 %.
"""

from __future__ import annotations

from monitor.margin.venues.rules import MULTI, SINGLE, VenueRules

__all__ = ["COIN_M", "USD_M"]

USD_M = (
    VenueRules(
        venue="binance_usdm",
        name="binance_usdm",
        source="https://www.binance.com/en/support/faq/b3c689c1f50a44cabb3a84e663b81d93 (read 2026-11-20)",
        modes=(SINGLE, MULTI),
        requirement_at_debt_weight=True,
    ),
)

COIN_M = (
    VenueRules(
        venue="binance_coinm",
        name="binance_coinm",
        source="https://www.binance.com/en/support/faq/ceccfcfb4e3a45e3b48b0b1bb1a8ae46 (read 2026-11-20)",
        modes=(SINGLE,),
    ),
)
