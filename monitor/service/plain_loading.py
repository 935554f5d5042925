"""The fast half of a start: plain accounts go from their packed records into the engine's columns, without an object for each position.

Whether an instrument's positions are such a sum is asked of the engine's own terms, with two positions for trial: no rule of a venue
is repeated here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import compress
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.engine.book import LinearPools
from monitor.engine.bulk import load_pools, make_room, mark_column, plain_schedule, standing, start_from
from monitor.engine.evaluator import Crossing, Evaluator
from monitor.engine.terms import Schedule, terms_of
from monitor.errors import RefusedError
from monitor.margin.accounts import Account, Balance, Position
from monitor.margin.levels import Level
from monitor.margin.pools import cut
from monitor.margin.prices import PriceKind
from monitor.service.account_book import AccountBook
from monitor.wire.packed import PackedAccounts, Place, columns_of, instrument_hash

__all__ = ["PlainLoading"]

Array = npt.NDArray[Any]
Trial = Callable[[str, str, str], tuple[int, Schedule] | None]

BATCH: Final = 250_000
"""So many accounts go into the engine at once: fewer cost time, more cost memory meanwhile."""

UNTRIED: Final = -2
REFUSED: Final = -1
"""In the place of a column: not yet asked for; positions do not add up, or are of no instrument that is known."""

TRIALS = ((1.0, 1.0), (-3.0, 7.0))
"""Quantity and entry price of the positions tried."""

ERROR = 2.0**-51
"""Bound on the error of a sum of products in floats: this times the number of terms plus two, times the sum of their sizes."""


class _Kind:
    """Plain pools of one venue and asset as they are gathered, and the instruments that may be in them."""

    def __init__(self, venue: str, asset: str, instruments: Iterable[str], trial: Trial) -> None:
        self.venue, self.asset = venue, asset
        self.name = f"cross:{asset}"
        by_hash = sorted((instrument_hash(name), name) for name in instruments)
        self._hashes = np.array([*(number for number, _ in by_hash), 2**64 - 1], np.uint64)
        self._names = [name for _, name in by_hash]
        self._trial = trial
        self._columns = np.full(len(self._hashes), UNTRIED, np.int32)
        self._schedules = np.zeros(len(self._hashes), np.int32)
        self.schedules: list[Schedule] = []
        self.accounts: list[str] = []
        self._gathered: list[tuple[Array, ...]] = []

    def take(self, accounts: Sequence[str], columns: PackedAccounts) -> list[str]:
        """Adds the accounts whose instruments add up; returns the others, which have to be read in full."""
        at = np.searchsorted(self._hashes, columns.instruments)
        used = np.bincount(at, minlength=len(self._hashes)) > 0
        for number in np.flatnonzero(used & (self._columns == UNTRIED)).tolist():
            self._try(number)
        is_known = (self._hashes[at] == columns.instruments) & (self._columns[at] >= 0)
        starts = np.cumsum(columns.counts) - columns.counts
        is_taken = np.logical_and.reduceat(is_known, starts)
        legs = np.repeat(is_taken, columns.counts)
        wallets, counts = columns.wallets[is_taken], columns.counts[is_taken]
        self._gathered.append((wallets, counts, columns.quantities[legs], columns.entries[legs], at[legs].astype(np.int32)))
        self.accounts += compress(accounts, is_taken.tolist())
        return [*compress(accounts, (~is_taken).tolist())]

    def _try(self, number: int) -> None:
        found = self._trial(self.venue, self.asset, self._names[number]) if number < len(self._names) else None
        if found is None:
            self._columns[number] = REFUSED
        else:
            self._columns[number] = found[0]
            self._schedules[number] = len(self.schedules)
            self.schedules.append(found[1])

    def pools(self) -> tuple[LinearPools, Array]:
        """What was gathered, and a bound on the error of each constant; empty afterwards."""
        wallets, counts, quantities, entries, at = (np.concatenate(parts) for parts in zip(*self._gathered, strict=True))
        starts = np.cumsum(counts) - counts
        costs = quantities * entries
        sizes = np.abs(wallets) + np.add.reduceat(np.abs(costs), starts)
        pools = LinearPools(
            name=self.name,
            accounts=self.accounts,
            constants=wallets - np.add.reduceat(costs, starts),
            legs=counts,
            slopes=quantities,
            columns=self._columns[at],
            schedule=self._schedules[at],
            schedules=self.schedules,
        )
        self.accounts, self._gathered = [], []
        return pools, sizes * (counts + 2) * ERROR


class PlainLoading:
    """Takes plain accounts into book and engine (`take`, `load`), and tells how they stand at the prices (`crossings`).

    Attributes:
        wanted: Prices that the accounts need.
    """

    def __init__(self, engine: Evaluator, book: AccountBook, now: datetime, expected: int = 0) -> None:
        """Prepares. `expected`: how many accounts there will be, about."""
        self._engine, self._book, self._now, self._expected = engine, book, now, expected
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._places: dict[bytes, _Kind] = {}
        self._loaded: list[range] = []
        self._started: dict[int, Level] = {}
        self.wanted: set[tuple[str, PriceKind, str]] = set()

    def take(self, accounts: Sequence[str], records: Sequence[bytes]) -> list[str]:
        """Takes packed accounts; returns those that have to be read in full."""
        if not self._book.is_new(accounts):  # read again after a lost connection
            kept = [account not in self._book for account in accounts]
            accounts, records = [*compress(accounts, kept)], [*compress(records, kept)]
        if not accounts:
            return []
        columns = columns_of(records)
        kinds = [self._places.get(place) or self._kind_of(place) for place in columns.places]
        others: list[str] = []
        for kind in {*kinds}:
            if len({*kinds}) == 1:
                refused = kind.take(accounts, columns)
            else:
                chosen = [other is kind for other in kinds]
                refused = kind.take([*compress(accounts, chosen)], columns_of([*compress(records, chosen)]))
            others += refused
            if len(kind.accounts) >= BATCH:
                self._load(kind)
        if others:
            left = {*others}
            kept = [account not in left for account in accounts]
            accounts, records = [*compress(accounts, kept)], [*compress(records, kept)]
        self._book.keep_packed(accounts, records)
        return others

    def load(self) -> None:
        """Puts the rest of what was taken into the engine. Its pools become known by the next prices."""
        for kind in self._kinds.values():
            if kind.accounts:
                self._load(kind)

    def _load(self, kind: _Kind) -> None:
        pools, errors = kind.pools()
        if not self._loaded and self._expected > len(pools.accounts):
            make_room(self._engine, self._expected, int(len(pools.slopes) / len(pools.accounts) * self._expected * 1.02))
        self._loaded.append(load_pools(self._engine, pools, errors))

    def _kind_of(self, key: bytes) -> _Kind:
        place = Place.of(key)
        kind = self._kinds.get((place.venue, place.asset))
        if kind is None:
            instruments = self._book.known(place.venue).instruments
            self._book.know(instruments)
            kind = self._kinds[place.venue, place.asset] = _Kind(place.venue, place.asset, instruments, self._trial)
        self._places[key] = kind
        return kind

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
