"""The columns: how pools, legs, price inputs and hot rows lie in memory, and how they grow.

Every array is a numpy structured array, so that one random access brings one cache line. Kernels never allocate: room is made here, between
messages. An index into an array stays valid while its owner lives; only the rows of a price column move, and they are addressed by
(column, offset).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.engine.terms import NO_MARGIN, Holding, Leg, PoolTerms, Schedule
from monitor.margin.prices import PriceKind

__all__ = [
    "ASSET",
    "COLUMN",
    "DEFERRED",
    "EVALUATIONS",
    "EVENT",
    "EVENTS",
    "EXACT",
    "FREE",
    "FREE_SLOTS",
    "FRESH",
    "HOT",
    "HOT_ROWS",
    "IDLE",
    "INVALID",
    "KNOWN",
    "LEG",
    "LINEAR",
    "POOL",
    "SEGMENT",
    "SLOT",
    "TICKS",
    "UNKNOWN",
    "Book",
    "Rows",
]

Array = npt.NDArray[Any]

# How a pool is decided.
LINEAR: Final = 0  # equity and requirement are sums over columns: updated row by row
FRESH: Final = 1  # evaluated from scratch in floats: several assets, curved schedules
EXACT: Final = 2  # only by the exact core

# What is known of it.
FREE: Final = 0  # the number is not in use
KNOWN: Final = 1
UNKNOWN: Final = 2  # an input is missing
IDLE: Final = 3  # no positions and no debts: healthy by definition, no rows

POOL = np.dtype(
    [
        ("constant", "f8"),  # equity that no price moves
        ("floor", "f8"),  # requirement that no price moves
        ("slack", "f8"),  # bound on form against exact, beyond rounding
        ("leg", "i4"),  # first leg
        ("legs", "i4"),
        ("asset", "i4"),  # first asset, of a multi-asset pool
        ("assets", "i4"),  # 0: single asset
        ("slot", "i4"),  # hot slot, -1 when it has none
        ("deferred", "i4"),  # tick of the message from which Python decides it, -1
        ("radius", "f4"),
        ("kind", "i1"),
        ("state", "i1"),
        ("level", "i1"),  # the last one known
    ],
    align=True,
)

LEG = np.dtype(
    [
        ("slope", "f8"),  # signed units; value is slope * y
        ("column", "i4"),
        ("segment", "i4"),  # row of its schedule last used: where the next look-up starts
        ("row", "i4"),  # offset of its cold row in the column
        ("hot", "i4"),  # offset of its hot row in the column; -1: none, or the second leg of its column in the pool
    ]
)

SEGMENT = np.dtype(
    [
        ("above", "f8"),
        ("upto", "f8"),
        ("rate", "f8"),
        ("constant", "f8"),
        ("curve", "f8"),
        ("jump", "f8"),  # discontinuity at `above`
        ("jump_upto", "f8"),
        ("highest", "f8"),  # greatest marginal rate of the whole schedule
    ]
)

ASSET = np.dtype(
    [
        ("amount", "f8"),
        ("margin", "f8"),
        ("ask", "f8"),
        ("column", "i4"),  # its index price; -1: price 1
        ("legs", "i4"),  # of the pool's legs, in order, that settle in it
        ("weights", "i4"),  # first segment; -1: in full
        ("debts", "i4"),
        ("borrow", "i4"),
        ("debt_is_requirement", "i4"),
    ]
)

COLUMN = np.dtype(
    [
        ("variance", "f8"),  # of the relative move per tick
        ("hot", "i8"),  # first hot row
        ("hots", "i4"),
        ("hot_room", "i4"),
        ("inverse", "i1"),
        ("positive", "i1"),  # a price: > 0, else it is missing
    ],
    align=True,
)

HOT = np.dtype(
    [
        ("net", "f8"),  # d equity / d y
        ("margin", "f8"),  # d requirement / d y inside (below, above)
        ("slot", "i4"),
        ("leg", "i4"),
        ("below", "f4"),
        ("above", "f4"),
    ]
)

SLOT = np.dtype(
    [
        ("equity", "f8"),
        ("requirement", "f8"),
        ("up", "f4"),  # next level is entered where up * equity - requirement <= tolerance
        ("down", "f4"),  # this level is left where requirement - down * equity <= tolerance
        ("tolerance", "f4"),  # inf: decide at each touch
        ("pool", "i4"),
    ]
)

# Places in the tally array, which kernels and evaluator share.
EVENTS: Final = 0  # events in the buffer
DEFERRED: Final = 1  # pools in the deferred buffer
FREE_SLOTS: Final = 2
TICKS: Final = 3
HOT_ROWS: Final = 4  # hot rows updated
EVALUATIONS: Final = 5  # pools evaluated from scratch
INVALID: Final = 6  # prices that were no prices
TALLIES: Final = 16

EVENT = np.dtype([("tick", "i4"), ("pool", "i4"), ("before", "i1"), ("after", "i1")], align=True)
"""A change of verdict inside one message; levels, or -1 for unknown."""


class Rows:
    """Rows of every price column in one array: column c owns `room[c]` places from `base[c]`, of which the first `count[c]` are in use."""

    def __init__(self, dtype: np.dtype[Any], columns: Array, base: str, count: str, room: str) -> None:
        self.data: Array = np.zeros(1024, dtype)
        self.end = 0
        self._names = (base, count, room)
        self.columns = columns

    def reserve(self, wanted: dict[int, int]) -> None:
        """Makes room for `wanted[c]` rows in column c. Rows keep their offsets."""
        base, count, room = (self.columns[name] for name in self._names)
        moves: list[tuple[int, int]] = []
        needed = 0
        for column, rows in wanted.items():
            if rows > room[column]:
                place = max(rows, int(room[column] * 1.5), 8)
                moves.append((column, place))
                needed += place
        if not moves:
            return
        if self.end + needed > len(self.data):
            self._repack(dict(moves))
            return
        for column, place in moves:
            start, used = int(base[column]), int(count[column])
            self.data[self.end : self.end + used] = self.data[start : start + used]
            base[column], room[column] = self.end, place
            self.end += place

    def _repack(self, places: dict[int, int]) -> None:
        base, count, room = (self.columns[name] for name in self._names)
        for column, place in places.items():
            room[column] = place
        total = int(room.sum())
        fresh: Array = np.zeros(max(1024, total + total // 4), self.data.dtype)
        end = 0
        for column in range(len(base)):
            start, used = int(base[column]), int(count[column])
            fresh[end : end + used] = self.data[start : start + used]
            base[column] = end
            end += int(room[column])
        self.data, self.end = fresh, end


class Extents:
    """An array of records handed out in runs; a freed run is used again by a run of the same length."""

    def __init__(self, dtype: np.dtype[Any], hint: int = 1024) -> None:
        self.data: Array = np.zeros(max(16, hint), dtype)
        self.end = 0
        self._free: defaultdict[int, list[int]] = defaultdict(list)

    def take(self, length: int) -> int:
        """First index of a run of `length` records."""
        if self._free[length]:
            return self._free[length].pop()
        if self.end + length > len(self.data):
            self.data = grown(self.data, max(self.end + length, len(self.data) * 3 // 2))
        self.end += length
        return self.end - length

    def give(self, start: int, length: int) -> None:
        """Takes a run back."""
        if length:
            self._free[length].append(start)


class Schedules:
    """Schedules, each once: equal tables of different accounts share their rows. Counted, and forgotten with their last user."""

    def __init__(self) -> None:
        self._extents = Extents(SEGMENT)
        self._of: dict[Schedule, list[int]] = {}
        self._at: dict[int, Schedule] = {}

    @property
    def data(self) -> Array:
        """All segments."""
        return self._extents.data

    def take(self, schedule: Schedule) -> int:
        """Index of the schedule's first segment."""
        known = self._of.get(schedule)
        if known is not None:
            known[1] += 1
            return known[0]
        start = self._extents.take(len(schedule))
        highest = max(rate + (float("inf") if curve > 0 else 0.0) for _, rate, _, curve, _ in schedule)
        for offset, (above, rate, constant, curve, jump) in enumerate(schedule):
            last = offset + 1 == len(schedule)
            self._extents.data[start + offset] = (
                above,
                np.inf if last else schedule[offset + 1][0],
                rate,
                constant,
                curve,
                jump,
                0.0 if last else schedule[offset + 1][4],
                highest,
            )
        self._of[schedule] = [start, 1]
        self._at[start] = schedule
        return start

    def give(self, segment: int) -> None:
        """Gives back one use of the schedule that `segment` (any of its rows) belongs to."""
        while segment not in self._at or self._extents.data[segment]["above"] >= 0:
            segment -= 1
        schedule = self._at[segment]
        known = self._of[schedule]
        known[1] -= 1
        if not known[1]:
            del self._of[schedule], self._at[segment]
            self._extents.give(segment, len(schedule))


class Book:
    """All columns of one evaluator."""

    def __init__(self, *, pools: int, legs: int, columns: int) -> None:
        self.column_of: dict[tuple[str, PriceKind, str], int] = {}
        self.inputs: list[tuple[str, PriceKind, str]] = []
        self.columns: Array = np.zeros(columns, COLUMN)
        self.y: Array = np.full(columns, np.nan)
        self.price: Array = np.full(columns, np.nan)
        self.previous: Array = np.full(columns, np.nan)
        self.position: Array = np.full(columns, -1, np.int32)
        self.pools: Array = np.zeros(max(16, pools), POOL)
        self.legs = Extents(LEG, legs)
        self.assets = Extents(ASSET)
        self.schedules = Schedules()
        self.no_margin = self.schedules.take(NO_MARGIN)
        self.hot = Rows(HOT, self.columns, "hot", "hots", "hot_room")
        self.slots: Array = np.zeros(16, SLOT)
        self.free_slots: Array = np.arange(15, -1, -1, dtype=np.int32)
        self.tally: Array = np.zeros(TALLIES, np.int64)
        self.tally[FREE_SLOTS] = 16
        self.names: list[tuple[str, str] | None] = [None] * len(self.pools)
        self.free_pools: list[int] = list(range(len(self.pools) - 1, -1, -1))
        self.accounts: dict[str, dict[str, int]] = {}

    def column(self, venue: str, kind: PriceKind, name: str, *, inverse: bool | None = None) -> int:
        """Number of a price input, made when new. -1 when it is already held the other way round (1/price against price)."""
        key = (venue, kind, name)
        column = self.column_of.get(key, -1)
        if column < 0:
            column = len(self.inputs)
            if column == len(self.columns):
                self._grow_columns()
            self.column_of[key] = column
            self.inputs.append(key)
            self.columns[column]["inverse"] = -1 if inverse is None else inverse
            self.columns[column]["positive"] = kind in {PriceKind.MARK, PriceKind.INDEX}
            return column
        if inverse is not None:
            held = self.columns[column]["inverse"]
            if held == -1:
                self.columns[column]["inverse"] = inverse
                if inverse and not np.isnan(self.price[column]):
                    self.y[column] = 1.0 / self.price[column]
            elif bool(held) != inverse:
                return -1
        return column

    def _grow_columns(self) -> None:
        size = len(self.columns) * 2
        self.columns = grown(self.columns, size)
        self.hot.columns = self.columns
        for name in ("y", "price", "previous"):
            setattr(self, name, grown(getattr(self, name), size, np.nan))
        self.position = grown(self.position, size, -1)

    def new_pool(self, account: str, terms: PoolTerms) -> int:
        """Writes a pool and its legs; no hot rows yet. Returns its number."""
        if not self.free_pools:
            size = len(self.pools)
            self.pools = grown(self.pools, size * 3 // 2 + 16)
            self.names.extend([None] * (len(self.pools) - size))
            self.free_pools = list(range(len(self.pools) - 1, size - 1, -1))
        groups = _groups(terms)
        kind = EXACT if terms.exact_only else FRESH if terms.holdings else LINEAR
        legs: list[tuple[float, int, Schedule, bool]] = []
        for _, group in groups:
            for leg in group:
                column = self.column(terms.venue, leg.kind, leg.name, inverse=None if kind == EXACT else leg.inverse)
                if column < 0:  # another account holds it as 1/price: rare enough for the exact core
                    return self.new_pool(account, exact_twin(terms, f"{leg.name} is linear here and inverse elsewhere"))
                if any(row[3] for row in leg.schedule) and kind == LINEAR:
                    kind = FRESH
                legs.append((leg.slope, column, leg.schedule, False))
        pool = self.free_pools.pop()
        record = self.pools[pool]
        start = self.legs.take(len(legs))
        seen: set[int] = set()
        for offset, (slope, column, schedule, _) in enumerate(legs):
            segment = self.no_margin if schedule is NO_MARGIN else self.schedules.take(schedule)
            self.legs.data[start + offset] = (slope, column, segment, -1, -1)
            seen.add(column)
        assets = self.assets.take(len(terms.holdings))
        for offset, holding in enumerate(terms.holdings):
            self.assets.data[assets + offset] = self._asset(terms.venue, holding)
        record["constant"], record["floor"], record["slack"] = terms.constant, terms.floor, terms.slack
        record["leg"], record["legs"], record["asset"], record["assets"] = start, len(legs), assets, len(terms.holdings)
        record["slot"], record["deferred"], record["radius"] = -1, -1, 0.0
        record["kind"], record["state"], record["level"] = kind, IDLE if terms.idle else UNKNOWN, 0
        self.names[pool] = (account, terms.name)
        self.accounts.setdefault(account, {})[terms.name] = pool
        return pool

    def _asset(self, venue: str, holding: Holding) -> tuple[float, ...]:
        price_legs = 0 if holding.index is None else 1
        return (
            holding.amount,
            holding.margin,
            holding.ask,
            -1 if holding.index is None else self.column(venue, PriceKind.INDEX, holding.index),
            len(holding.legs) + price_legs,
            *(-1 if table is None else self.schedules.take(table) for table in (holding.weights, holding.debts, holding.borrow)),
            int(holding.debt_is_requirement),
        )

    def free_pool(self, pool: int) -> None:
        """Forgets a pool that has no hot rows any more."""
        record = self.pools[pool]
        names = self.names[pool]
        assert names is not None and record["slot"] < 0
        for leg in self.legs.data[record["leg"] : record["leg"] + record["legs"]]:
            if leg["segment"] != self.no_margin:
                self.schedules.give(int(leg["segment"]))
        for asset in self.assets.data[record["asset"] : record["asset"] + record["assets"]]:
            for table in ("weights", "debts", "borrow"):
                if asset[table] >= 0:
                    self.schedules.give(int(asset[table]))
        self.legs.give(int(record["leg"]), int(record["legs"]))
        self.assets.give(int(record["asset"]), int(record["assets"]))
        record["state"] = FREE
        record["legs"] = record["assets"] = 0
        account, name = names
        self.names[pool] = None
        del self.accounts[account][name]
        if not self.accounts[account]:
            del self.accounts[account]
        self.free_pools.append(pool)

    def reserve_hot(self, pools: Sequence[int]) -> None:
        """Makes room for these pools' hot rows and slots."""
        wanted: dict[int, int] = {}
        for pool in pools:
            record = self.pools[pool]
            for column in self.legs.data["column"][record["leg"] : record["leg"] + record["legs"]].tolist():
                wanted[column] = wanted.get(column, int(self.columns[column]["hots"])) + 1
        self.hot.reserve(wanted)
        left = int(self.tally[FREE_SLOTS])
        if left < len(pools):
            size = len(self.slots)
            more = max(len(pools), size // 2)
            self.slots = grown(self.slots, size + more)
            self.free_slots = grown(self.free_slots, size + more)
            self.free_slots[left : left + more] = np.arange(size + more - 1, size - 1, -1, dtype=np.int32)
            self.tally[FREE_SLOTS] = left + more


def _groups(terms: PoolTerms) -> list[tuple[Holding | None, list[Leg]]]:
    """Legs in storage order: by asset, legs of one column side by side (hedge mode), each asset's index price behind its legs."""
    if not terms.holdings:
        return [(None, sorted(terms.legs, key=lambda leg: (leg.kind, leg.name)))]
    groups: list[tuple[Holding | None, list[Leg]]] = []
    for holding in terms.holdings:
        legs = sorted(holding.legs, key=lambda leg: (leg.kind, leg.name))
        if holding.index is not None:
            legs.append(Leg(kind=PriceKind.INDEX, name=holding.index, slope=0.0))
        groups.append((holding, legs))
    return groups


def exact_twin(terms: PoolTerms, reason: str) -> PoolTerms:
    """The same pool, left to the exact core."""
    legs = {(leg.kind, leg.name): Leg(kind=leg.kind, name=leg.name, slope=0.0) for _, group in _groups(terms) for leg in group}
    return PoolTerms(name=terms.name, venue=terms.venue, legs=tuple(legs.values()), idle=terms.idle, exact_only=reason, source=terms.source)


def grown(data: Array, size: int, fill: float | None = None) -> Array:
    """A larger copy."""
    larger: Array = np.zeros(size, data.dtype) if fill is None else np.full(size, fill, data.dtype)
    larger[: len(data)] = data
    return larger
