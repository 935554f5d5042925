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
from monitor.wire.event_body import level_facts

__all__ = ["Facts", "facts_of"]


class Facts:
    """Builds the facts of events. Stateless; a class so that a bench can count and replace it."""

    def of(
        self,
        book: AccountBook,
        data: bytes,
        prices: Prices,
        account: str,
        pool: str,
        level: Level,
        thresholds: Thresholds,
        *,
        cause: Mapping[str, Any],
        as_of: datetime,
        decided_at_ns: int,
    ) -> bytes:
        """Facts of one pool, JSON.

        Args:
            data: The account's document; `prices`: of its venue. Neither need be the present ones.
            level: As decided; the shortfall is measured from its threshold.
        """
        held = book.held(account, as_of) if account in book and book.data(account) is data else book.parse(data, as_of, stored=True)
        document_hash = sha256(data).hexdigest()[:32]
        facts = facts_of(
            held.pools[pool],
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
