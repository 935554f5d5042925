"""Portfolio documents as Python values, read by the real reader and judged: the shortest way to say a case."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from monitor.margin.health import PoolHealth
from monitor.margin.pools import MarginPool, cut
from monitor.margin.prices import Prices
from monitor.margin.tables import NO_TABLES
from monitor.margin.verdict import AccountVerdict, judge
from monitor.wire.documents import Document, read_bytes

__all__ = ["NOW", "document", "first", "judged", "linear", "number", "only_pool", "opened", "perpetual"]

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def opened(body: Mapping[str, Any]) -> Document:
    """The document, read; its own tables are the only ones."""
    return read_bytes(json.dumps(body).encode(), purpose="evaluate", known=lambda _venue: NO_TABLES, now=NOW)


def judged(body: Mapping[str, Any]) -> AccountVerdict:
    """The verdict on a document, at its own time or NOW."""
    read = opened(body)
    assert read.account is not None
    return judge(read.account, read.tables, read.prices, read.as_of or NOW)


def only_pool(body: Mapping[str, Any]) -> tuple[MarginPool, Prices]:
    """The one pool of a document, and its prices."""
    read = opened(body)
    assert read.account is not None
    (pool,) = cut(read.account, read.tables, read.as_of or NOW)
    return pool, read.prices


def perpetual(settle: str = "USDT", *, tiers: Any = "0.01", inverse: bool = False, **more: Any) -> dict[str, Any]:
    """An instrument entry; `tiers` may be one flat maintenance rate."""
    rows = [{"floor": 0, "maintenance_rate": tiers}] if isinstance(tiers, str) else tiers
    return {"kind": "inverse_perpetual" if inverse else "linear_perpetual", "settle": settle, "tiers": rows, **more}


def linear(name: str, quantity: str, entry: str | None = None, **more: Any) -> dict[str, Any]:
    """A position row."""
    row = {"instrument": name, "quantity": quantity, **more}
    return row if entry is None else {**row, "entry_price": entry}


def document(
    venue: str,
    positions: list[dict[str, Any]],
    *,
    instruments: Mapping[str, Any] | None = None,
    mark: Mapping[str, str] | None = None,
    wallet: Mapping[str, str] | None = None,
    assets: Mapping[str, Any] | None = None,
    index: Mapping[str, str] | None = None,
    as_of: str | None = None,
    prices: Mapping[str, Any] | None = None,
    **account: Any,
) -> dict[str, Any]:
    """A portfolio document. `wallet`: balances by asset; None: not stated."""
    body: dict[str, Any] = {
        "account": {"id": "a", "venue": venue, "positions": positions, **account},
        "prices": {"mark": dict(mark or {}), "index": dict(index or {}), **(prices or {})},
    }
    if wallet is not None:
        body["account"]["balances"] = [{"asset": asset, "wallet": amount} for asset, amount in wallet.items()]
    tables = {"instruments": instruments, "assets": assets, "as_of": as_of}
    return body | {key: value for key, value in tables.items() if value}


def number(value: Decimal | None) -> Decimal:
    """A value that must be there."""
    assert value is not None
    return value


def first(verdict: AccountVerdict) -> PoolHealth:
    """The first pool of a verdict."""
    return verdict.pools[0]
