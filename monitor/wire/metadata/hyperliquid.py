"""Hyperliquid: meta, metaAndAssetCtxs or allPerpMetas, and spotMeta where a dex's collateral is not USDC.

    POST /info {"type": "meta"}, {"type": "metaAndAssetCtxs"}, {"type": "allPerpMetas"}, {"type": "spotMeta"}

A universe entry names its margin table; a table id below 50 is a flat table at that leverage and is not listed. Maintenance is half of the
initial margin at the highest leverage of the tier, so rows carry `max_leverage` only. Collateral token 0 is USDC.

Sources: hyperliquid.gitbook.io "Margin tiers", "Perpetuals metadata"; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from monitor.wire.metadata.answers import Answer, Converted, Row, each, not_an_answer, number

__all__ = ["hyperliquid"]

_FLAT_BELOW = 50


def hyperliquid(answers: Sequence[Answer]) -> Converted:
    """Tables of the perpetuals of every dex in the answers."""
    out = Converted()
    tokens: dict[int, str] = {0: "USDC"}
    metas: list[tuple[Answer, Mapping[str, Any]]] = []
    for answer in answers:
        found = [part for part in (answer.body if isinstance(answer.body, list) else [answer.body]) if isinstance(part, dict)]
        perpetual = [part for part in found if isinstance(part.get("universe"), list) and "tokens" not in part]
        if found and isinstance(found[0].get("tokens"), list):
            each(out, answer, found[0]["tokens"], "a token of spotMeta", lambda token: tokens.update({int(token["index"]): token["name"]}))
        elif perpetual:
            metas += [(answer, part) for part in perpetual]
        else:
            raise not_an_answer(answer, "meta, metaAndAssetCtxs, allPerpMetas or spotMeta")
    for answer, meta in metas:
        token = meta.get("collateralToken") or 0
        tables: dict[int, list[Row]] = {}
        settle = tokens.get(int(token))

        def table(pair: Any, tables: dict[int, list[Row]] = tables) -> None:
            tables[int(pair[0])] = _tiers(pair[1])

        each(out, answer, meta.get("marginTables") or (), "a margin table", table)

        def coin(row: Any, tables: Mapping[int, list[Row]] = tables, settle: str | None = settle, token: Any = token) -> None:
            _coin(row, tables, settle, token, out)

        each(out, answer, meta["universe"], "an asset of the universe", coin)
    return out


def _tiers(table: Any) -> list[Row]:
    rows = [{"floor": number(tier["lowerBound"]), "max_leverage": number(tier["maxLeverage"])} for tier in table["marginTiers"]]
    return sorted(rows, key=lambda row: Decimal(row["floor"]))


def _coin(row: Any, tables: Mapping[int, list[Row]], settle: str | None, token: Any, out: Converted) -> None:
    name = row["name"]
    if row.get("isDelisted"):
        out.left_out[name] = "delisted"
        return
    if settle is None:
        out.left_out[name] = f"its collateral is token {token}, whose name only spotMeta tells"
        return
    table = row.get("marginTableId")
    if table is not None and int(table) in tables:
        tiers = tables[int(table)]
    elif table is None or int(table) < _FLAT_BELOW:
        tiers = [{"floor": "0", "max_leverage": number(row["maxLeverage"] if table is None else table)}]
    else:
        raise ValueError(f"margin table {table} is not in the answer")
    out.instruments[name] = {"kind": "linear_perpetual", "settle": settle, "underlying": name.rpartition(":")[2], "tiers": tiers}
