"""OKX v5: instruments, position tiers, discount rates.

    GET /api/v5/public/instruments, /api/v5/public/position-tiers, /api/v5/public/discount-rate-interest-free-quota

One contract is ctVal * ctMult. Tiers are by contracts and the whole position takes the rate of its tier (deduction 0). An answer of
position-tiers does not say for which instType it was asked: the file's name must (swap, futures or option). Discount rates are per slice,
in the currency; the older `discountInfo` is in USD and cannot be turned into amounts of the currency, so it is left out.

Sources: okx.com/docs-v5 "Get instruments", "Get position tiers", "Get discount rate and interest-free quota"; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from monitor.errors import RefusedError
from monitor.wire.canonical import number_text
from monitor.wire.metadata.answers import (
    Answer,
    Converted,
    Row,
    base_of_pair,
    each,
    milliseconds,
    not_an_answer,
    number,
    rows_above,
)

__all__ = ["okx"]

_TYPES = {"swap": "SWAP", "futures": "FUTURES", "option": "OPTION"}


def okx(answers: Sequence[Answer]) -> Converted:
    """Tables of swaps, futures, options and collateral."""
    out = Converted()
    families: dict[str, tuple[str, str]] = {}
    tiers: dict[tuple[str, str], list[Row]] = {}
    for answer in answers:
        entries = answer.body.get("data") if isinstance(answer.body, dict) else None
        first = entries[0] if isinstance(entries, list) and entries else None
        if not isinstance(entries, list) or not isinstance(first, dict):
            raise not_an_answer(answer, "instruments, position-tiers or discount-rate-interest-free-quota, with data")
        if "maxSz" in first and "mmr" in first:
            kind = _type_of(answer)

            def tier(row: Any, kind: str = kind) -> None:
                tiers.setdefault((kind, row.get("instFamily") or row.get("uly") or row["instId"]), []).append(row)

            each(out, answer, entries, "a row of position-tiers", tier)
        elif "discountLv" in first or "details" in first:
            each(out, answer, entries, "a currency of discount-rate-interest-free-quota", lambda row: _discount(row, out))
        elif "instType" in first:
            each(out, answer, entries, "an instrument", lambda row: _instrument(row, out, families))
        else:
            raise not_an_answer(answer, "instruments, position-tiers or discount-rate-interest-free-quota")
    converted: dict[tuple[str, str], list[Row]] = {}

    def convert(item: tuple[tuple[str, str], list[Row]]) -> None:
        family, rows = item
        converted[family] = [
            {"floor": floor, "maintenance_rate": number(row["mmr"]), "initial_rate": number(row["imr"]), "deduction": "0"}
            for floor, row in rows_above(rows, "maxSz")
        ]

    each(out, Answer("position-tiers", None), tiers.items(), "the tiers of a family", convert)
    for name, family in families.items():
        if family in converted:
            out.instruments[name] |= {"tier_unit": "quantity", "tiers": converted[family]}
    return out


def _type_of(answer: Answer) -> str:
    found = [kind for word, kind in _TYPES.items() if word in answer.name.lower()]
    if len(found) != 1:
        expected = "a file name that says swap, futures or option: the answer of position-tiers does not say for which it was asked"
        raise RefusedError(answer.name, answer.name, expected)
    return found[0]


def _instrument(row: Any, out: Converted, families: dict[str, tuple[str, str]]) -> None:
    name, kind = row["instId"], row["instType"]
    if kind not in _TYPES.values():
        out.left_out[name] = f"instrument type {kind}"
        return
    if row.get("state") in {"expired", "preopen"}:
        out.left_out[name] = f"state {row['state']}"
        return
    family = row.get("instFamily") or row["uly"]
    underlying, settle = base_of_pair(family), row["settleCcy"]
    linear = row["ctType"] == "linear" if kind != "OPTION" else settle != underlying
    entry: Row = {
        "kind": f"{'linear' if linear else 'inverse'}_{ {'SWAP': 'perpetual', 'FUTURES': 'future', 'OPTION': 'option'}[kind] }",
        "settle": settle,
        "underlying": underlying,
        "contract_size": number_text(Decimal(number(row["ctVal"])) * Decimal(number(row["ctMult"] or "1"))),
        "tick_size": number(row["tickSz"]),
    }
    if kind != "SWAP":
        entry["expiry"] = milliseconds(row["expTime"])
    if kind == "OPTION":
        entry |= {"option_type": {"C": "call", "P": "put"}[row["optType"]], "strike": number(row["stk"])}
    else:
        families[name] = (kind, family)
    out.instruments[name] = entry


def _discount(row: Any, out: Converted) -> None:
    if not row.get("details"):
        out.left_out[f"discount of {row['ccy']}"] = "only discountInfo, whose tiers are in USD"
        return
    weights = [{"floor": number(tier["minAmt"]), "weight": number(tier["discountRate"])} for tier in row["details"]]
    weights.sort(key=lambda weight: Decimal(weight["floor"]))
    last = max(row["details"], key=lambda tier: Decimal(number(tier["minAmt"])))
    if last["maxAmt"] != "":
        weights.append({"floor": number(last["maxAmt"]), "weight": number(row.get("minDiscountRate") or "0")})
    out.assets[row["ccy"]] = {"weights": weights}
