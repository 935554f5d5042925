"""Bybit v5: instruments-info, risk-limit, tiered collateral ratios, borrowing tiers.

    GET /v5/market/instruments-info, /v5/market/risk-limit, /v5/spot-margin-trade/collateral, /v5/spot-margin-trade/position-tiers

Risk limit: each row's `riskLimitValue` is its upper end; a position's maintenance is marginal, `mmDeduction` the deduction (derived where
absent). Old answers print the rates in percent: told by initialMargin * maxLeverage, which is 1 for fractions. Whether borrowing tiers are
marginal is not documented: the whole debt takes its tier's rate here, which never understates. Inverse contracts are 1 USD, linear ones 1
coin. The taker fee, which Bybit counts in both margins, is an account's and in none of these answers.

Sources: bybit-exchange.github.io/docs/v5 "Get Instruments Info", "Get Risk Limit", "Get Tiered Collateral Ratio", "Get Position Tiers";
read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from monitor.wire.canonical import number_text
from monitor.wire.metadata.answers import (
    Answer,
    Converted,
    Row,
    each,
    milliseconds,
    not_an_answer,
    number,
    optional_number,
    rows_above,
)

__all__ = ["bybit"]

_KINDS = {
    "LinearPerpetual": "linear_perpetual",
    "LinearFutures": "linear_future",
    "InversePerpetual": "inverse_perpetual",
    "InverseFutures": "inverse_future",
}


def bybit(answers: Sequence[Answer]) -> Converted:
    """Tables of linear and inverse contracts, options and collateral."""
    out = Converted()
    limits: dict[str, list[Row]] = {}
    for answer in answers:
        result = answer.body.get("result") if isinstance(answer.body, dict) else None
        entries = result.get("list") if isinstance(result, dict) else None
        first = entries[0] if isinstance(entries, list) and entries else None
        if not isinstance(entries, list) or not isinstance(first, dict):
            raise not_an_answer(answer, "instruments-info, risk-limit, spot-margin-trade/collateral or position-tiers, with a list")
        if "riskLimitValue" in first:
            each(out, answer, entries, "a row of risk-limit", lambda row: limits.setdefault(row["symbol"], []).append(row))
        elif "collateralRatioList" in first:
            each(out, answer, entries, "a currency of spot-margin-trade/collateral", lambda row: _collateral(row, out))
        elif "positionTiersRatioList" in first:
            each(out, answer, entries, "a currency of spot-margin-trade/position-tiers", lambda row: _borrowing(row, out))
        elif "settleCoin" in first or "symbol" in first:
            each(out, answer, entries, "an instrument of instruments-info", lambda row: _instrument(row, out))
        else:
            raise not_an_answer(answer, "instruments-info, risk-limit, spot-margin-trade/collateral or position-tiers")
    each(out, Answer("risk-limit", None), limits.items(), "the tiers of a symbol", lambda item: _tiers(item[0], item[1], out))
    return out


def _instrument(row: Any, out: Converted) -> None:
    name = row["symbol"]
    if row.get("optionsType"):
        parts = name.split("-")
        entry: Row = {
            "kind": "linear_option",
            "settle": row["settleCoin"],
            "underlying": row["baseCoin"],
            "option_type": row["optionsType"].lower(),
            "strike": number(parts[2]),
            "expiry": milliseconds(row["deliveryTime"]),
        }
    elif row.get("contractType") in _KINDS:
        kind = _KINDS[row["contractType"]]
        entry = {"kind": kind, "settle": row["settleCoin"], "underlying": row["baseCoin"]}
        if kind.endswith("_future"):
            entry["expiry"] = milliseconds(row["deliveryTime"])
    else:
        out.left_out[name] = f"contract type {row.get('contractType', 'spot')}"
        return
    if row.get("status") in {"Closed", "PreLaunch"}:
        out.left_out[name] = f"status {row['status']}"
        return
    entry["tick_size"] = number(row["priceFilter"]["tickSize"])
    out.instruments[name] = entry


def _tiers(symbol: str, rows: list[Row], out: Converted) -> None:
    if symbol not in out.instruments:
        out.left_out.setdefault(symbol, "it has risk limits but stands in no instruments-info given")
        return
    tiers = []
    for floor, row in rows_above(rows, "riskLimitValue"):
        initial, maintenance = Decimal(number(row["initialMargin"])), Decimal(number(row["maintenanceMargin"]))
        if initial * Decimal(number(row["maxLeverage"])) > 10:
            initial, maintenance = initial / 100, maintenance / 100
        tier: Row = {"floor": floor, "maintenance_rate": number_text(maintenance), "initial_rate": number_text(initial)}
        deduction = optional_number(row, "mmDeduction")
        if deduction is not None:
            tier["deduction"] = deduction
        tiers.append(tier)
    out.instruments[symbol]["tiers"] = tiers


def _collateral(row: Any, out: Converted) -> None:
    weights = [{"floor": number(tier["minQty"]), "weight": number(tier["collateralRatio"])} for tier in row["collateralRatioList"]]
    weights.sort(key=lambda weight: Decimal(weight["floor"]))
    last = max(row["collateralRatioList"], key=lambda tier: Decimal(number(tier["minQty"])))
    if last["maxQty"] != "":
        weights.append({"floor": number(last["maxQty"]), "weight": "0"})
    out.assets.setdefault(row["currency"], {})["weights"] = weights


def _borrowing(row: Any, out: Converted) -> None:
    out.assets.setdefault(row["currency"], {})["borrow_tiers"] = [
        {"floor": floor, "maintenance_rate": number(tier["positionMMR"]), "initial_rate": number(tier["positionIMR"]), "deduction": "0"}
        for floor, tier in rows_above(row["positionTiersRatioList"], "borrowLimit")
    ]
