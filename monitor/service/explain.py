"""One account as it stands now: every pool evaluated exactly at the present prices."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from monitor.margin.levels import Level, Thresholds
from monitor.service.evaluator_stage import EvaluatorStage
from monitor.service.facts import facts_of
from monitor.wire.event_body import prices_used

__all__ = ["account_now"]


def account_now(evaluator: EvaluatorStage, account_id: str, now: datetime, thresholds: Thresholds) -> dict[str, Any]:
    """Id, venue, group and the pools of an account, each with level, reason if unknown, and the numbers of an event."""
    held = evaluator.book.held(account_id, now)
    verdicts = evaluator.engine.verdicts(account_id)
    document_hash = evaluator.book.document_hash(account_id)
    venue, group = evaluator.book.venue_and_group(account_id)
    pools = []
    for name, pool in held.pools.items():
        level, unknown = verdicts[name] if name in verdicts else (None, evaluator.holds.get(account_id, "not evaluated"))
        now_ns = int(now.timestamp() * 1e9)
        prices = evaluator.store.prices(venue)
        facts = facts_of(
            pool,
            prices,
            level if level is not None else Level.HEALTHY,
            thresholds,
            cause={"kind": "asked"},
            document_hash=document_hash,
            as_of=now,
            decided_at_ns=now_ns,
            medians=evaluator.decider.watch.medians(venue, prices_used(pool, prices), now_ns // 1_000_000),
        )
        pools.append({"pool": name, "level": None if unknown or level is None else level.word, "unknown": unknown, **facts})
    return {"id": account_id, "venue": venue, "group": group or None, "pools": pools}
