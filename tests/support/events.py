"""Rows with event bodies for tests of sinks, messages and policy."""

from __future__ import annotations

from typing import Any

import orjson

from monitor.wire.events import EventId
from monitor.wire.rows import Row

__all__ = ["event", "row"]

TOKEN = 1_795_214_857_062


def event(**changes: Any) -> dict[str, Any]:
    """The body of a margin call of account acme-1, with changes. `seq` goes into the id."""
    seq = changes.pop("seq", 7)
    body: dict[str, Any] = {
        "id": str(EventId(0, seq, TOKEN)),
        "kind": "level",
        "account": "acme-1",
        "venue": "binance_usdm",
        "group": "desk-a",
        "pool": "cross:USDT",
        "currency": "USDT",
        "level": "margin_call",
        "previous": "watch",
        "unknown": None,
        "previous_unknown": None,
        "rev": 3,
        "episode": 1,
        "cause": {
            "kind": "mark",
            "instrument": "BTCUSDT",
            "price": "26316.89",
            "venue_time_ms": TOKEN,
            "received_at_ns": TOKEN * 1_000_000,
            "tick": [1, 2, 3],
        },
        "equity": "1030895.55638",
        "maintenance_margin": "846895.1",
        "fees": "0",
        "margin_ratio": "0.821514123",
        "headroom": "184000.45638",
        "shortfall": "27723.301",
        "positions": [
            {
                "instrument": "BTCUSDT",
                "side": "both",
                "quantity": "109.488",
                "mark_price": "26316.89",
                "notional": "2881383.6",
                "unrealized_pnl": "-56354.57",
                "maintenance_margin": "14406.9",
                "liquidation_price": "24316.891234567",
                "bankruptcy_price": "24000",
                "distance": "-0.07599",
            },
            {
                "instrument": "ETHUSDT",
                "side": "long",
                "quantity": "3683.979",
                "mark_price": "1327.3",
                "notional": "4889745.3",
                "unrealized_pnl": "-448192.89",
                "maintenance_margin": "24448.7",
                "liquidation_price": None,
                "bankruptcy_price": None,
                "distance": None,
            },
        ],
        "pool_liquidation": {"down": "-0.0611", "up": None},
        "cure": {
            "below": "margin_call",
            "deposit": "27723.301",
            "reduce": [
                {"instrument": "ETHUSDT", "side": "long", "quantity": None},
                {"instrument": "BTCUSDT", "side": "both", "quantity": "-12.5"},
            ],
        },
        "rules": {"name": "binance_usdm", "since": "2026-01-01"},
        "inputs": {"document_hash": "ab", "prices": {}},
        "decided_at_ns": TOKEN * 1_000_000 + 21_000_000,
    }
    return {**body, **changes}


def row(seq: int = 7, **changes: Any) -> Row:
    """The same as a row of partition 0."""
    return Row(partition=0, seq=seq, token=TOKEN, body=orjson.dumps(event(seq=seq, **changes)), hash="0" * 32)
