"""The facts of one event, from an exact evaluation of its pool at the tick that caused it.

What the ledger adds when it writes the row (id, account, pool, level and the one before, rev, episode, chain hash) is
not here. Money is printed as plain decimals in the pool's currency; ratios and distances are fractions. Everything can be
recomputed from `inputs`: the document by its hash, the prices by value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, localcontext
from typing import Any

from monitor.margin.health import PoolHealth
from monitor.margin.levels import Level, Thresholds
from monitor.margin.liquidation import PoolReport
from monitor.margin.numbers import EXACT, ZERO, plain
from monitor.margin.pools import MarginPool
from monitor.margin.prices import PriceKind, Prices
from monitor.wire.suspicion import Medians, Suspicion

__all__ = ["document_cause", "level_facts", "prices_used", "tick_cause"]

_PLACES = Decimal("0.00000001")


def tick_cause(
    kind: PriceKind, name: str, price: float, venue_time_ms: int, received_at_ns: int, strange: Sequence[Suspicion] = ()
) -> dict[str, Any]:
    """The cause of an event that a price made. `strange`: why to doubt it; the event is told all the same."""
    cause: dict[str, Any] = {
        "kind": kind.value,
        "instrument": name,
        "price": plain(Decimal(repr(price))) if price == price else None,
        "venue_time_ms": venue_time_ms,
        "received_at_ns": received_at_ns,
    }
    if strange:
        cause["suspicious"] = [
            {"reason": found.kind.value, "reference": plain(Decimal(repr(found.reference))), "deviation": _places(Decimal(found.deviation))}
            for found in strange
        ]
    return cause


def document_cause(epoch: int, sequence: int | None, received_at_ns: int) -> dict[str, Any]:
    """The cause of an event that an account's document made."""
    return {"kind": "document", "epoch": epoch, "sequence": sequence, "received_at_ns": received_at_ns}


def prices_used(pool: MarginPool, prices: Prices) -> dict[str, dict[str, str]]:
    """Every price that the evaluation of a pool can have used: kind -> name -> exact decimal. Enough to evaluate it again."""
    instruments = {leg.name for leg in pool.legs} | {instrument.name for instrument in pool.order_instruments}
    assets = {holding.name for holding in pool.holdings}
    for leg in pool.legs:
        assets |= {leg.settle, *([leg.instrument.underlying] if leg.instrument.underlying else [])}
    wanted: dict[str, tuple[Mapping[str, Decimal], Iterable[str]]] = {
        "mark": (prices.mark, instruments),
        "index": (prices.index, assets),
        "smoothed": (prices.smoothed, assets),
        "forward": (prices.forward, instruments),
        "volatility": (prices.volatility, instruments),
        "interest_rate": (prices.interest_rate, assets),
        "funding_rate": (prices.funding_rate, instruments),
        "open_interest": (prices.open_interest, instruments),
        "deposits": (prices.deposits, assets),
        "borrows": (prices.borrows, assets),
    }
    used: dict[str, dict[str, str]] = {}
    for kind, (table, names) in wanted.items():
        if table:
            found = {name: plain(table[name]) for name in sorted(names) if name in table}
            if found:
                used[kind] = found
    return used


def level_facts(
    pool: MarginPool,
    found: PoolReport,
    prices: Prices,
    *,
    thresholds: Thresholds,
    cause: Mapping[str, Any],
    document_hash: str,
    as_of: datetime,
    decided_at_ns: int,
    medians: Medians,
    at_median: PoolHealth | None,
) -> dict[str, Any]:
    """The numbers of an event about a pool. `found`: what `monitor.margin.liquidation.report` says of it at `prices`.

    Args:
        medians: Prices of other venues for its inputs. at_median: its health with these in their places; None where there are none.
    """
    health = found.health
    priced_apart = {kind: {name: plain(price) for name, price in table.items()} for kind, table in medians.items()}
    requirement = health.requirement
    shortfall = None
    if health.equity is not None and requirement is not None:
        with localcontext(EXACT):
            shortfall = max(ZERO, _needed_equity(requirement, health.level, thresholds) - health.equity)
    return {
        "venue": pool.account.venue,
        "group": pool.account.group,
        "currency": health.currency,
        "cause": dict(cause),
        "equity": _plain(health.equity),
        "maintenance_margin": _plain(health.maintenance_margin),
        "fees": _plain(health.fees),
        "margin_ratio": _plain(health.margin_ratio),
        "headroom": _plain(health.headroom),
        "level_at_median": at_median.level.word if at_median is not None and at_median.level is not None else None,
        "margin_ratio_at_median": _plain(at_median.margin_ratio) if at_median is not None else None,
        "shortfall": _plain(shortfall),
        "positions": [
            {
                "instrument": position.instrument,
                "side": position.side,
                "quantity": plain(position.quantity),
                "mark_price": _plain(position.mark_price),
                "notional": _plain(position.notional),
                "unrealized_pnl": _plain(position.unrealized_pnl),
                "maintenance_margin": _plain(position.maintenance_margin),
                "liquidation_price": _plain(position.liquidation_price),
                "bankruptcy_price": _plain(position.bankruptcy_price),
                "distance": _distance(position.mark_price, position.liquidation_price),
            }
            for position in health.positions
        ],
        "pool_liquidation": {"down": _places(found.move.down), "up": _places(found.move.up)},
        "cure": {
            "below": found.cure.below.word,
            "deposit": _plain(found.cure.deposit),
            "reduce": [
                {"instrument": part.instrument, "side": part.side, "quantity": _plain(part.quantity)} for part in found.cure.reductions
            ],
        },
        "rules": {"name": pool.rules.name, "since": pool.rules.since},
        "inputs": {
            "document_hash": document_hash,
            "as_of": as_of.isoformat(),
            "prices": prices_used(pool, prices),
            **({"medians": priced_apart} if medians else {}),
        },
        "decided_at_ns": decided_at_ns,
    }


def _needed_equity(requirement: Decimal, level: Level | None, thresholds: Thresholds) -> Decimal:
    """Equity at which the pool's level would just be left: requirement / leave ratio; for bankrupt and liquidation that of liquidation."""
    if level is None or level is Level.HEALTHY:
        return ZERO
    return requirement / thresholds.ladder()[min(level, Level.LIQUIDATION) - 1].leave


def _distance(mark: Decimal | None, liquidation: Decimal | None) -> str | None:
    """(liquidation price - mark) / mark to 8 places: negative when the price has to fall."""
    return None if not mark or liquidation is None else _places((liquidation - mark) / mark)


def _places(fraction: Decimal | None) -> str | None:
    return None if fraction is None else plain(fraction.quantize(_PLACES))


def _plain(number: Decimal | None) -> str | None:
    return None if number is None else plain(number)
