"""The fast half of a start: plain accounts go from their documents into the engine's columns, without an object for each position.

Whether an instrument's positions are such a sum is asked of the engine's own terms, with two positions for trial: no rule of a venue
is repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal

import numpy as np

from monitor.engine.book import LinearPools
from monitor.engine.bulk import load_pools, mark_column, plain_schedule, standing, start_from
from monitor.engine.evaluator import Crossing, Evaluator
from monitor.engine.terms import Schedule, terms_of
from monitor.errors import RefusedError
from monitor.margin.accounts import Account, Balance, Position
from monitor.margin.levels import Level
from monitor.margin.pools import cut
from monitor.margin.prices import PriceKind
from monitor.service.account_book import AccountBook
from monitor.wire.plain_accounts import PlainPools, plain_account

__all__ = ["PlainLoading"]

TRIALS = ((1.0, 1.0), (-3.0, 7.0))
"""Quantity and entry price of the positions tried."""

ERROR = 2.0**-51
"""Bound on the error of a sum of products in floats: this times the number of terms plus two, times the sum of their sizes."""


class _Kind:
    """Plain pools of one venue and asset, and the instruments that may be in them."""

    def __init__(self, venue: str, asset: str, trial: Callable[[str, str, str], tuple[int, Schedule] | None]) -> None:
        self.venue, self.asset = venue, asset
        self.name = f"cross:{asset}"
        self.columns: list[int] = []
        self.schedules: list[Schedule] = []
        self.pools = PlainPools(self._number_of)
        self._trial = trial

    def _number_of(self, instrument: str) -> int:
        found = self._trial(self.venue, self.asset, instrument)
        if found is None:
            return -1
        self.columns.append(found[0])
        self.schedules.append(found[1])
        return len(self.columns) - 1


class PlainLoading:
    """Gathers plain accounts (`take`), then puts them into book and engine (`load`), and tells how they stand at the prices (`crossings`).

    Attributes:
        wanted: Prices that the accounts need.
    """

    def __init__(self, engine: Evaluator, book: AccountBook, now: datetime) -> None:
        self._engine, self._book, self._now = engine, book, now
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._loaded: list[range] = []
        self._started: dict[int, Level] = {}
        self.wanted: set[tuple[str, PriceKind, str]] = set()

    def take(self, account_id: str, data: bytes) -> bool:
        """Takes a stored document; False when it has to be read in full."""
        if account_id in self._book:
            return True  # read again after a lost connection
        account = plain_account(data)
        if account is None or account["id"] != account_id:
            return False
        venue, asset = account["venue"], account["balances"][0]["asset"]
        kind = self._kinds.get((venue, asset))
        if kind is None:
            kind = self._kinds[venue, asset] = _Kind(venue, asset, self._trial)
        if not kind.pools.take(account):
            return False
        self._book.keep_plain(account_id, data, venue, account.get("group") or "", kind.name, asset)
        return True

    def load(self) -> None:
        """Puts what was taken into the engine. Its pools become known by the next prices."""
        for kind in self._kinds.values():
            pools = kind.pools
            if not pools.accounts:
                continue
            counts = np.array(pools.counts, np.int64)
            slopes, entries = np.array(pools.quantities), np.array(pools.entries)
            wallets, instruments = np.array(pools.wallets), np.array(pools.instruments)
            starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
            costs = slopes * entries
            sizes = np.abs(wallets) + np.add.reduceat(np.abs(costs), starts)
            bulk = LinearPools(
                name=kind.name,
                accounts=pools.accounts,
                constants=wallets - np.add.reduceat(costs, starts),
                legs=counts,
                slopes=slopes,
                columns=np.array(kind.columns, np.int32)[instruments],
                schedule=instruments,
                schedules=kind.schedules,
            )
            self._loaded.append(load_pools(self._engine, bulk, sizes * (counts + 2) * ERROR))
        self._kinds.clear()

    def start_from(self, account: str, pool: str, level: Level) -> None:
        """Sets the level that a pool has in the ledger, before the prices come. One that is not there is left out."""
        if pool in self._engine.verdicts(account):
            self._started[start_from(self._engine, account, pool, level)] = level

    def crossings(self) -> Iterator[Crossing]:
        """Pools that are not where they started from, at the prices that have come since."""
        for numbers in self._loaded:
            yield from standing(self._engine, numbers, self._started)

    def _trial(self, venue: str, asset: str, instrument: str) -> tuple[int, Schedule] | None:
        """Column and schedule of an instrument whose positions add up; None where they do not, or it is not there."""
        tables = self._book.known(venue)
        entry_of = tables.instruments.get(instrument)
        if entry_of is None or entry_of.tier_unit != "notional":  # a schedule picked by size is another for each position
            return None
        schedules: list[Schedule | None] = []
        for quantity, entry in TRIALS:
            account = Account(
                id="trial",
                venue=venue,
                positions=(Position(instrument=instrument, quantity=Decimal(quantity), entry_price=Decimal(entry)),),
                balances=(Balance(asset=asset, wallet=Decimal(0)),),
            )
            try:
                pools = cut(account, tables, self._now)
            except RefusedError:
                return None
            if [pool.name for pool in pools] != [f"cross:{asset}"]:
                return None
            schedules.append(plain_schedule(terms_of(pools[0]), quantity, entry))
        if schedules[0] is None or schedules[0] != schedules[1]:
            return None
        column = mark_column(self._engine, venue, instrument)
        if column < 0:
            return None
        self.wanted.add((venue, PriceKind.MARK, instrument))
        return column, schedules[0]
