"""Accounts ranked by danger, with what their ratios were some minutes ago: whole columns at once, pages of it to people.

An account stands where its worst pool stands: bankrupt, liquidation, unknown, margin call, watch, healthy; inside a level by margin ratio,
bankrupt ones by equity. An account with an unknown pool is unknown whatever its others are, and none of them makes it healthy.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEVELS", "UNKNOWN", "Board", "Columns", "Prepared", "Ranking"]

LEVELS = ("healthy", "watch", "margin_call", "liquidation", "bankrupt")
UNKNOWN = 5
"""Level number of what cannot be judged."""

PLACE = np.array([0.0, 1.0, 2.0, 4.0, 5.0, 3.0])
"""Danger of each level number; unknown stands between margin call and liquidation."""

PAST_S = 30.0
PAST_KEPT = 11
"""Ratios of the whole book are remembered each 30 s, for five minutes: 4 bytes an account each."""

SEARCHES_KEPT = 16

Numbers = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """All pools of a book at one moment.

    Attributes:
        pools: Their numbers. level: 0 to 4, or `UNKNOWN`. equity, requirement: NaN where unknown or idle.
        account_of: Account by pool number.
    """

    pools: Numbers
    level: Numbers
    equity: Numbers
    requirement: Numbers
    account_of: Sequence[str]


@dataclass(frozen=True, slots=True)
class Ranking:
    """Rows (numbers of accounts) in the order of their danger, as they stood at `at`.

    Attributes:
        order: Rows, worst first. ids: by row. level, ratio: by row, of the worst pool; a row with an unknown pool has level `UNKNOWN`.
        change: By row, ratio now less what it was `change_s` ago; NaN where it was not known.
    """

    at: float
    order: Numbers
    ids: Sequence[str]
    level: Numbers
    ratio: Numbers
    change: Numbers
    change_s: float
    venue: Numbers
    group: Numbers


@dataclass(frozen=True, slots=True)
class Prepared:
    """A book ready to be ranked: its columns, the row of each pool in them, the rows that are there and those that are held."""

    now: float
    columns: Columns
    of_pool: Numbers
    alive: Numbers
    held: Numbers
    ids: Sequence[str]
    venue: Numbers
    group: Numbers


class Board:
    """Ranks a book again and again. Rows are given to accounts for good; those that are gone are not ranked."""

    def __init__(self, place_of: Callable[[str], tuple[str, str]]) -> None:
        """`place_of`: venue and group of an account; raises KeyError for one that is gone."""
        self._place_of = place_of
        self._start()

    def _start(self) -> None:
        self.ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._names: dict[str, int] = {"": 0}
        self.venues: set[str] = set()
        self.groups: set[str] = set()
        self._venue: Numbers = np.zeros(0, np.int32)
        self._group: Numbers = np.zeros(0, np.int32)
        self._accounts: list[str] = []
        self._row_of_pool: Numbers = np.zeros(0, np.int32)
        self._searches: dict[str, tuple[int, Numbers]] = {}
        self._past: deque[tuple[float, Numbers]] = deque(maxlen=PAST_KEPT)

    def rank(self, columns: Columns, book: Iterable[str], size: int, held: Iterable[str], now: float) -> Ranking:
        """Ranks all accounts of `book` (of `size`), those `held` as unknown."""
        return self.sort(self.prepare(columns, book, size, held, now))

    def prepare(self, columns: Columns, book: Iterable[str], size: int, held: Iterable[str], now: float) -> Prepared:
        """What has to be read while nobody changes the book: which rows there are, and whose each pool is."""
        if len(self.ids) > 2 * size + 1_000:
            self._start()
        self._follow(columns.account_of)
        if len(self.ids) != size:
            for account in book:
                if account not in self._row_of:
                    self._new_row(account)
        rows = len(self.ids)
        alive = np.arange(rows) if rows == size else np.array([self._row_of[account] for account in book], np.int64)
        held_rows = np.array([self._row_of[account] for account in held if account in self._row_of], np.int64)
        return Prepared(now, columns, self._row_of_pool[columns.pools], alive, held_rows, self.ids, self._venue[:rows], self._group[:rows])

    def sort(self, prepared: Prepared) -> Ranking:
        """The ranking of what was prepared. May run in a thread, one at a time: it touches nothing that lives."""
        columns, of_pool, alive = prepared.columns, prepared.of_pool, prepared.alive
        rows, level = len(prepared.venue), columns.level
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(columns.equity > 0, columns.requirement / columns.equity, np.nan)
            within = np.where(columns.equity > 0, ratio / (1 + ratio), 0.5 + np.arctan(-columns.equity / 1e5) / np.pi)
        danger = PLACE[level] + 0.999 * np.nan_to_num(within, nan=0.0)
        danger[np.isnan(columns.equity) & (level == 0)] = -1.0
        worst_last = np.argsort(danger, kind="stable")
        key = np.full(rows, -2.0)
        row_level = np.zeros(rows, np.int8)
        row_ratio = np.full(rows, np.nan, np.float32)
        chosen = of_pool[worst_last]
        key[chosen], row_level[chosen], row_ratio[chosen] = danger[worst_last], level[worst_last], ratio[worst_last]
        row_level[of_pool[level == UNKNOWN]] = UNKNOWN
        held = prepared.held
        key[held], row_level[held], row_ratio[held] = np.maximum(key[held], PLACE[UNKNOWN]), UNKNOWN, np.nan
        order = alive[np.argsort(-key[alive], kind="stable")].astype(np.int32)
        change, change_s = self._remember(row_ratio, prepared.now)
        return Ranking(prepared.now, order, prepared.ids, row_level, row_ratio, change, change_s, prepared.venue, prepared.group)

    def code(self, name: str) -> int:
        """Number of a venue or group in the columns of a ranking; -1 for one that no account has."""
        return self._names.get(name, -1)

    def row(self, account: str) -> int | None:
        """Row of an account, if it has one."""
        return self._row_of.get(account)

    def chosen(self, ranking: Ranking, *, group: str | None, venue: str | None, level: str | None, search: str | None) -> Numbers:
        """Rows of a ranking that pass the filters, in its order."""
        order = ranking.order
        if group is not None:
            order = order[ranking.group[order] == self.code(group)]
        if venue is not None:
            order = order[ranking.venue[order] == self.code(venue)]
        if level is not None:
            wanted = UNKNOWN if level == "unknown" else LEVELS.index(level) if level in LEVELS else -1
            order = order[ranking.level[order] == wanted]
        if search:
            order = order[self._found(search.casefold())[order]]
        return order

    def _found(self, needle: str) -> Numbers:
        """By row, whether its account has this in its id; remembered, since it is asked for again and again while somebody reads."""
        count, found = self._searches.get(needle, (0, np.zeros(0, bool)))
        if count < len(self.ids):
            more = np.array([needle in account.casefold() for account in self.ids[count:]], bool)
            found = np.concatenate([found, more])
            self._searches.pop(needle, None)
            self._searches[needle] = len(found), found
            while len(self._searches) > SEARCHES_KEPT:
                del self._searches[next(iter(self._searches))]
        return found

    def _new_row(self, account: str) -> int:
        row = self._row_of[account] = len(self.ids)
        self.ids.append(account)
        try:
            venue, group = self._place_of(account)
            self.venues.add(venue)
            self.groups.add(group)
        except KeyError:
            venue, group = "", ""
        if row >= len(self._venue):
            more = np.zeros(max(1_024, row), np.int32)
            self._venue, self._group = np.concatenate([self._venue, more]), np.concatenate([self._group, more])
        self._venue[row] = self._names.setdefault(venue, len(self._names))
        self._group[row] = self._names.setdefault(group, len(self._names))
        return row

    def _follow(self, account_of: Sequence[str]) -> None:
        """Keeps pool -> row in step: pools that changed hands since the last time are told by their names, compared at C speed."""
        if len(account_of) > len(self._row_of_pool):
            grown = np.full(max(1_024, len(account_of) * 5 // 4), -1, np.int32)
            grown[: len(self._row_of_pool)] = self._row_of_pool
            self._row_of_pool = grown
        if account_of == self._accounts:
            return
        before = self._accounts
        for pool, account in enumerate(account_of):
            if pool < len(before) and before[pool] is account:
                continue
            row = self._row_of.get(account)
            self._row_of_pool[pool] = self._new_row(account) if row is None and account else -1 if row is None else row
        self._accounts = list(account_of)

    def _remember(self, ratio: Numbers, now: float) -> tuple[Numbers, float]:
        if not self._past or now - self._past[-1][0] >= PAST_S:
            self._past.append((now, ratio.copy()))
        then, before = self._past[0]
        change = np.full(len(ratio), np.nan, np.float32)
        count = min(len(before), len(ratio))
        change[:count] = ratio[:count] - before[:count]
        return change, now - then
