"""dYdX v4: the indexer's perpetual markets.

    GET /v4/perpetualMarkets

Margins are fractions of the notional, the same for every size; between the open-interest caps the initial one rises to 1 (an upper cap of 0
switches that off). Everything settles in USDC.

Sources: docs.dydx.exchange "List perpetual markets", v4-chain perpetuals module; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from monitor.wire.metadata.answers import Answer, Converted, Row, base_of_pair, each, not_an_answer, number, optional_number

__all__ = ["dydx"]


def dydx(answers: Sequence[Answer]) -> Converted:
    """Tables of all markets."""
    out = Converted()
    for answer in answers:
        body = answer.body
        if isinstance(body, dict) and isinstance(body.get("result"), dict):
            body = body["result"]
        markets = body.get("markets") if isinstance(body, dict) else None
        if not isinstance(markets, dict):
            raise not_an_answer(answer, "perpetualMarkets")
        each(out, answer, markets.items(), "a market", lambda item: _market(item[0], item[1], out))
    return out


def _market(name: str, row: Any, out: Converted) -> None:
    if row.get("status") in {"FINAL_SETTLEMENT", "INITIALIZING"}:
        out.left_out[name] = f"status {row['status']}"
        return
    entry: Row = {
        "kind": "linear_perpetual",
        "settle": "USDC",
        "underlying": base_of_pair(name),
        "tick_size": number(row["tickSize"]),
        "tiers": [
            {
                "floor": "0",
                "maintenance_rate": number(row["maintenanceMarginFraction"]),
                "initial_rate": number(row["initialMarginFraction"]),
            }
        ],
    }
    lower, upper = optional_number(row, "openInterestLowerCap"), optional_number(row, "openInterestUpperCap")
    if lower is not None and upper is not None and Decimal(upper) > 0:
        entry |= {"open_interest_lower": lower, "open_interest_upper": upper}
    out.instruments[name] = entry
