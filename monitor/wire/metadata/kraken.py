"""Kraken Futures: instruments of the multi-collateral wallet.

    GET /derivatives/api/v3/instruments

`flexible_futures` (PF_, FF_) are linear in USD, one contract a coin. `numNonContractUnits` of a margin level is the position in USD,
`contracts` the position in contracts; the whole position takes the rate of its level (deduction 0; whether levels are marginal is not
documented, and this reading never understates). Single-collateral inverse contracts (PI_, FI_) stand in wallets of their own and are left
out.

Sources: docs.kraken.com "Get instruments"; support.kraken.com 360022632452 "Multi-collateral futures margin schedule" (sizes in USD); read
2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from monitor.wire.metadata.answers import Answer, Converted, Row, each, not_an_answer, number

__all__ = ["kraken"]


def kraken(answers: Sequence[Answer]) -> Converted:
    """Tables of the linear contracts."""
    out = Converted()
    for answer in answers:
        entries = answer.body.get("instruments") if isinstance(answer.body, dict) else None
        if not isinstance(entries, list):
            raise not_an_answer(answer, "instruments")
        each(out, answer, entries, "an instrument", lambda row: _instrument(row, out))
    return out


def _instrument(row: Any, out: Converted) -> None:
    name = row["symbol"].upper() if row["symbol"].islower() else row["symbol"]
    if row["type"] != "flexible_futures":
        out.left_out[name] = f"type {row['type']}: not in the multi-collateral wallet"
        return
    if not row.get("tradeable", True):
        out.left_out[name] = "not tradeable"
        return
    base = row.get("base") or name.split("_")[1].removesuffix("USD")
    entry: Row = {
        "kind": "linear_perpetual",
        "settle": "USD",
        "underlying": {"XBT": "BTC", "XDG": "DOGE"}.get(base, base),
        "contract_size": number(row["contractSize"]),
        "tick_size": number(row["tickSize"]),
    }
    if row.get("lastTradingTime"):
        entry |= {"kind": "linear_future", "expiry": row["lastTradingTime"].replace(".000Z", "Z")}
    levels = row["marginLevels"]
    by_contracts = "contracts" in levels[0]
    if by_contracts:
        entry["tier_unit"] = "quantity"
    tiers = [
        {
            "floor": number(level["contracts" if by_contracts else "numNonContractUnits"]),
            "maintenance_rate": number(level["maintenanceMargin"]),
            "initial_rate": number(level["initialMargin"]),
            "deduction": "0",
        }
        for level in levels
    ]
    entry["tiers"] = sorted(tiers, key=lambda tier: Decimal(tier["floor"]))
    out.instruments[name] = entry
