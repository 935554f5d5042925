"""The numbers of an event: the exact evaluation of its pool, its liquidation prices and its cures, as JSON.

One place builds them, so that `verify` recomputes an event by the very same path.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from monitor.margin.health import evaluate
from monitor.margin.levels import Level, Thresholds
from monitor.margin.liquidation import report
from monitor.margin.pools import MarginPool
from monitor.margin.prices import Prices
from monitor.service.account_book import Held
from monitor.wire.event_body import level_facts, prices_used
from monitor.wire.suspicion import Medians, SuspicionWatch

__all__ = ["Facts", "facts_of"]


class Facts:
    """Builds the facts of events. Stateless; a class so that a bench can count and replace it."""

    def of(
        self,
        held: Held,
        document_hash: str,
        prices: Prices,
        pool: str,
        level: Level,
        thresholds: Thresholds,
        *,
        cause: Mapping[str, Any],
        as_of: datetime,
        decided_at_ns: int,
        watch: SuspicionWatch,
    ) -> bytes:
        """Facts of one pool, JSON.

        Args:
            held: The account; `document_hash`: of its document; `prices`: of its venue. None need be the present ones.
            level: As decided; the shortfall is measured from its threshold.
            watch: Knows the prices of the other venues.
        """
        cut = held.pools[pool]
        facts = facts_of(
            cut,
            prices,
            level,
            thresholds,
            cause=cause,
            document_hash=document_hash,
            as_of=as_of,
            decided_at_ns=decided_at_ns,
            medians=watch.medians(cut.account.venue, prices_used(cut, prices), decided_at_ns // 1_000_000),
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
    medians: Medians,
) -> dict[str, Any]:
    """The facts of a pool at these prices, as plain values; and its level, by enter thresholds alone, at the medians of other venues."""
    at_median = None
    if medians:
        over = {kind: ChainMap({**table}, getattr(prices, kind)) for kind, table in medians.items()}
        at_median = evaluate(pool, replace(prices, **over), as_of, thresholds=thresholds)
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
        medians=medians,
        at_median=at_median,
    )
