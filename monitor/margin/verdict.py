"""One whole account, exactly: its rule set, every pool with liquidation prices, and the account's level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from monitor.margin.accounts import Account
from monitor.margin.health import PoolHealth
from monitor.margin.levels import DEFAULT_THRESHOLDS, Level, Thresholds, worst
from monitor.margin.liquidation import assess
from monitor.margin.pools import cut
from monitor.margin.prices import Prices
from monitor.margin.tables import Tables
from monitor.margin.venues import VenueRules, rules_of

__all__ = ["AccountVerdict", "judge"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountVerdict:
    """An account of a result.

    Attributes:
        rules: The rule set it was judged by.
        as_of: UTC; the moment described.
        level: Of its worst pool; None when any pool is unknown.
        unknown: The first reason why a level cannot be claimed, or None.
        pools: Cross first, then isolated.
    """

    account: Account
    rules: VenueRules
    as_of: datetime
    level: Level | None
    unknown: str | None
    pools: tuple[PoolHealth, ...]


def judge(
    account: Account,
    tables: Tables,
    prices: Prices,
    as_of: datetime,
    *,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    current: Mapping[str, Level] | None = None,
) -> AccountVerdict:
    """Cuts an account into pools and evaluates each, liquidation and bankruptcy prices included.

    Args:
        tables: Of its venue; the document's own entries already over the configured ones.
        current: Levels held now, by pool (hysteresis); default: levels by enter thresholds alone.

    Raises:
        RefusedError: As `monitor.margin.pools.cut`.
    """
    held = current or {}
    pools = tuple(assess(pool, prices, as_of, held.get(pool.name, Level.HEALTHY), thresholds) for pool in cut(account, tables, as_of))
    unknown = next((pool.unknown for pool in pools if pool.unknown is not None), None)
    level = worst(pool.level for pool in pools)
    if not pools:
        if account.balances is None:
            unknown = "balances are not stated"
        else:
            level = Level.HEALTHY
    return AccountVerdict(account=account, rules=rules_of(account, tables, as_of), as_of=as_of, level=level, unknown=unknown, pools=pools)
