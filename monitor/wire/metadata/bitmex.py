"""BitMEX: instrument.

    GET /api/v1/instrument/active

contract_size in the document's whole units: |multiplier| / 1e8 for contracts settled in XBt (quoted in USD when inverse, in XBT per point
when quanto, in coin when linear), / 1e6 for those settled in USDt. Risk limits: up to `riskLimit` the base rates hold; each `riskStep`
above adds the base maintenance rate to both; the whole position takes the rates of its step (deduction 0).

Sources: bitmex.com/app "Risk limits", API explorer "Instrument"; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from monitor.wire.canonical import number_text
from monitor.wire.metadata.answers import Answer, Converted, Row, each, not_an_answer, number

__all__ = ["bitmex"]

_SETTLED = {"XBt": ("XBT", Decimal(100_000_000)), "USDt": ("USDT", Decimal(1_000_000))}
_TYPES = {"FFWCSX": "perpetual", "FFWCSF": "perpetual", "FFCCSX": "future"}
MOST_STEPS = 400
"""Rows after which a table ends: an instrument with tiny steps would else fill a file. The last row's rate then holds for more."""


def bitmex(answers: Sequence[Answer]) -> Converted:
    """Tables of perpetuals and futures."""
    out = Converted()
    for answer in answers:
        entries = [answer.body] if isinstance(answer.body, dict) else answer.body
        if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict) or "settlCurrency" not in entries[0]:
            raise not_an_answer(answer, "instrument")
        each(out, answer, entries, "an instrument", lambda row: _instrument(row, out))
    return out


def _instrument(row: Any, out: Converted) -> None:
    name, term = row["symbol"], _TYPES.get(row["typ"])
    if term is None or row["state"] not in {"Open", "Closed"}:
        out.left_out[name] = f"type {row['typ']}, state {row['state']}"
        return
    if row["settlCurrency"] not in _SETTLED:
        out.left_out[name] = f"settled in {row['settlCurrency']}, whose unit is not known here"
        return
    settle, scale = _SETTLED[row["settlCurrency"]]
    kind = "inverse" if row["isInverse"] else "quanto" if row["isQuanto"] else "linear"
    entry: Row = {
        "kind": f"{kind}_{term}",
        "settle": settle,
        "underlying": row["underlying"],
        "contract_size": number_text(abs(Decimal(number(row["multiplier"]))) / scale),
        "tick_size": number(row["tickSize"]),
        "taker_fee": number(row["takerFee"]),
        "tiers": _tiers(row, scale),
    }
    if term == "future":
        entry["expiry"] = row["expiry"].replace(".000Z", "Z")
    out.instruments[name] = entry


def _tiers(row: Any, scale: Decimal) -> list[Row]:
    initial, maintenance = Decimal(number(row["initMargin"])), Decimal(number(row["maintMargin"]))
    limit, step = Decimal(number(row["riskLimit"])) / scale, Decimal(number(row["riskStep"])) / scale
    tiers: list[Row] = []
    added, floor = Decimal(0), Decimal(0)
    while len(tiers) < MOST_STEPS:
        tiers.append(
            {
                "floor": number_text(floor),
                "maintenance_rate": number_text(min(maintenance + added, Decimal(1))),
                "initial_rate": number_text(min(initial + added, Decimal(1))),
                "deduction": "0",
            }
        )
        if initial + added >= 1 or not maintenance or not step:
            break
        floor = limit if not floor else floor + step
        added += maintenance
    return tiers
