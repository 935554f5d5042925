"""The numbers of an event: the exact evaluation of its pool, its liquidation prices and its cures, as JSON.

One place builds them, so that `verify` recomputes an event by the very same path.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

import orjson

from monitor.margin.levels import Level, Thresholds
from monitor.margin.liquidation import report
from monitor.margin.pools import MarginPool
from monitor.margin.prices import Prices
from monitor.service.account_book import AccountBook
from monitor.service.price_store import PriceStore
from monitor.wire.event_body import level_facts

__all__ = ["Facts", "facts_of"]


class Facts:
    """Builds the facts of events. Stateless; a class so that a bench can count and replace it."""

    def of(
        self,
        book: AccountBook,
        store: PriceStore,
        account: str,
        pool: str,
        level: Level,
        thresholds: Thresholds,
        *,
        cause: Mapping[str, Any],
        as_of: datetime,
        decided_at_ns: int,
    ) -> bytes:
        """Facts of one pool at the prices in the store, JSON. `level`: as decided, whose threshold the shortfall is measured from."""
        held = book.held(account, as_of)
        margin_pool = held.pools[pool]
        document_hash = sha256(book.data(account)).hexdigest()[:32]
        prices = store.prices(margin_pool.account.venue)
        facts = facts_of(
            margin_pool,
            prices,
            level,
            thresholds,
            cause=cause,
            document_hash=document_hash,
            as_of=as_of,
            decided_at_ns=decided_at_ns,
        )
        return orjson.dumps(facts)


def facts_of(
    pool: MarginPool,
    prices: Prices,
    level: Level,
    thresholds: Thresholds,
    *,
    cause: Mapping[str, Any],
    document_hash: str,
    as_of: datetime,
    decided_at_ns: int,
) -> dict[str, Any]:
    """The facts of a pool at these prices, as plain values."""
    found = report(pool, prices, as_of, current=level, thresholds=thresholds)
    return level_facts(
        pool,
        found,
        prices,
        thresholds=thresholds,
        cause=cause,
        document_hash=document_hash,
        as_of=as_of,
        decided_at_ns=decided_at_ns,
    )
