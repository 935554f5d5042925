"""Binance USD-M and COIN-M: exchangeInfo, leverageBracket and (USD-M) assetIndex.

    GET /fapi/v1/exchangeInfo, /fapi/v1/leverageBracket (signed), /fapi/v1/assetIndex
    GET /dapi/v1/exchangeInfo, /dapi/v2/leverageBracket (signed)

Brackets: maintMarginRatio and `cum` are rate and deduction; initialLeverage the highest leverage. COIN-M brackets are in coin, which is the
settle asset. A `notionalCoef` (an account's own multiple of the default brackets) is not applied: whether the printed caps already hold it
is not documented. assetIndex: a holding counts 1 - bidBuffer, a debt 1 + askBuffer.

Sources: developers.binance.com "Exchange Information", "Notional and Leverage Brackets", "Multi-Assets Mode Asset Index"; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from monitor.wire.canonical import number_text
from monitor.wire.metadata.answers import Answer, Converted, Row, each, milliseconds, not_an_answer, number

__all__ = ["coinm", "usdm"]

_FUTURES = frozenset(("CURRENT_QUARTER", "NEXT_QUARTER", "CURRENT_MONTH", "NEXT_MONTH"))


def usdm(answers: Sequence[Answer]) -> Converted:
    """Tables of USD-M futures."""
    return _convert(answers, "linear")


def coinm(answers: Sequence[Answer]) -> Converted:
    """Tables of COIN-M futures."""
    return _convert(answers, "inverse")


def _convert(answers: Sequence[Answer], kind: str) -> Converted:
    out = Converted()
    brackets: dict[str, list[Row]] = {}
    for answer in answers:
        body = answer.body
        if isinstance(body, dict) and "brackets" in body:
            body = [body]
        if isinstance(body, dict) and isinstance(body.get("symbols"), list):
            each(out, answer, body["symbols"], "a symbol of exchangeInfo", lambda row: _symbol(row, kind, out))
        elif isinstance(body, list) and body and isinstance(body[0], dict) and "brackets" in body[0]:
            each(out, answer, body, "a symbol of leverageBracket", lambda row: _brackets(row, brackets, out))
        elif isinstance(body, list) and body and isinstance(body[0], dict) and "bidBuffer" in body[0]:
            each(out, answer, body, "an asset of assetIndex", lambda row: _asset(row, out))
        else:
            raise not_an_answer(answer, "exchangeInfo, leverageBracket or assetIndex")
    for name, tiers in brackets.items():
        if name in out.instruments:
            out.instruments[name]["tiers"] = tiers
        else:
            out.left_out.setdefault(name, "it has brackets but stands in no exchangeInfo given")
    return out


def _symbol(row: Any, kind: str, out: Converted) -> None:
    name, contract = row["symbol"], row["contractType"]
    status = row.get("status", row.get("contractStatus"))
    if status in {"SETTLING", "CLOSE", "PENDING_TRADING", "PRE_DELIVERING", "DELIVERING", "DELIVERED"}:
        out.left_out[name] = f"status {status}"
        return
    if contract == "PERPETUAL" or contract.endswith("_PERPETUAL"):
        entry: Row = {"kind": f"{kind}_perpetual"}
    elif contract.split(" ")[0] in _FUTURES:
        entry = {"kind": f"{kind}_future", "expiry": milliseconds(row["deliveryDate"])}
    else:
        out.left_out[name] = f"contract type {contract or '(empty)'}"
        return
    entry |= {"settle": row["marginAsset"], "underlying": row["baseAsset"]}
    if "contractSize" in row:
        entry["contract_size"] = number(row["contractSize"])
    tick = next((f["tickSize"] for f in row.get("filters", ()) if f.get("filterType") == "PRICE_FILTER"), None)
    if tick is not None and Decimal(number(tick)) > 0:
        entry["tick_size"] = number(tick)
    out.instruments[name] = entry


def _brackets(row: Any, brackets: dict[str, list[Row]], out: Converted) -> None:
    tiers = [
        {
            "floor": number(next(bracket[key] for key in ("notionalFloor", "qtyFloor", "qtylFloor") if key in bracket)),
            "maintenance_rate": number(bracket["maintMarginRatio"]),
            "max_leverage": number(bracket["initialLeverage"]),
            "deduction": number(bracket["cum"]),
        }
        for bracket in row["brackets"]
    ]
    if number(row.get("notionalCoef", 1)) != "1":
        out.left_out[f"notionalCoef of {row['symbol']}"] = "an account's own multiple of the brackets is not applied"
    brackets[row["symbol"]] = sorted(tiers, key=lambda tier: Decimal(tier["floor"]))


def _asset(row: Any, out: Converted) -> None:
    name = row["symbol"].removesuffix("USD")
    out.assets[name] = {
        "weights": [{"floor": "0", "weight": number_text(1 - Decimal(number(row["bidBuffer"])))}],
        "debt_weights": [{"floor": "0", "weight": number_text(1 + Decimal(number(row["askBuffer"])))}],
    }
