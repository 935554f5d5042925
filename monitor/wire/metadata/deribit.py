"""Deribit: get_instruments.

    public/get_instruments?currency=...&expired=false

The quantity of a position is Deribit's `size`: USD for inverse futures, coins for options and linear futures. So contract_size is 1,
whatever the answer's contract_size (the step of an order) is. Margin schedules are in no public answer: those below are published in text
and are written into the inverse futures of BTC and ETH; other futures get none.

    initial 2 % + s * size in coin, maintenance 1 % + s * size in coin; s = 0.005 % a BTC, 0.0004 % an ETH

Sources: docs.deribit.com public/get_instruments; support.deribit.com 25944826427293 (11 January 2022, margin changes); read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monitor.wire.metadata.answers import Answer, Converted, Row, each, milliseconds, not_an_answer, number

__all__ = ["deribit"]

_SLOPES = {"BTC": "0.00005", "ETH": "0.000004"}


def deribit(answers: Sequence[Answer]) -> Converted:
    """Tables of futures, perpetuals and options."""
    out = Converted()
    for answer in answers:
        entries = answer.body.get("result") if isinstance(answer.body, dict) else None
        if isinstance(entries, dict):
            entries = [entries]
        if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict) or "instrument_name" not in entries[0]:
            raise not_an_answer(answer, "public/get_instruments")
        each(out, answer, entries, "an instrument", lambda row: _instrument(row, out))
    return out


def _instrument(row: Any, out: Converted) -> None:
    name, kind = row["instrument_name"], row["kind"]
    if kind not in {"future", "option"}:
        out.left_out[name] = f"kind {kind}"
        return
    base = row["base_currency"]
    settle = row.get("settlement_currency", base)
    inverse = row.get("instrument_type", "reversed" if settle == base else "linear") == "reversed"
    entry: Row = {"settle": settle, "underlying": base, "tick_size": number(row["tick_size"])}
    side = "inverse" if inverse else "linear"
    if kind == "option":
        entry |= {
            "kind": f"{side}_option",
            "option_type": row["option_type"],
            "strike": number(row["strike"]),
            "expiry": milliseconds(row["expiration_timestamp"]),
        }
    else:
        if row["settlement_period"] == "perpetual":
            entry["kind"] = f"{side}_perpetual"
        else:
            entry |= {"kind": f"{side}_future", "expiry": milliseconds(row["expiration_timestamp"])}
        if inverse and base in _SLOPES:
            entry["tiers"] = [{"floor": "0", "maintenance_rate": "0.01", "initial_rate": "0.02", "slope": _SLOPES[base]}]
    out.instruments[name] = entry
