"""The columns: how pools, legs, price inputs, cold and hot rows lie in memory, and how they grow.

Every array is made of records, so that one random access brings one cache line. Kernels never allocate: room is made here, between messages.
A row is the place of one pool in one price column: every pool has a *cold* row in each of its columns, with the band lo < y < hi that the price
must leave before the pool is looked at; a *hot* pool has open cold bands and a hot row in each column instead, whose sums follow every tick.

    column -> blocks of 64 rows -> rows     each level keeps the highest lo and the lowest hi below it: a calm tick compares once

A band is kept as (lo, -hi), so that "left" is one comparison, (y, -y) <= band, and a summary is one maximum; whole blocks are compared at once.

Numbers of pools, legs and slots stay while their owner lives. Rows are addressed by (column, offset); the last row of a column moves into a hole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.engine.terms import NO_MARGIN, Holding, Leg, PoolTerms, Schedule
from monitor.margin.prices import PriceKind

__all__ = [
    "ASSET",
    "BAND_MISSES",
    "BLOCK",
    "COLD_EXITS",
    "COLUMN",
    "DEFERRED",
    "DEMOTIONS",
    "DIRTY",
    "EVALUATIONS",
    "EVENT",
    "EVENTS",
    "EXACT",
    "EXITS",
    "FREE",
    "FREE_SLOTS",
    "FRESH",
    "HOT",
    "HOT_POOLS",
    "HOT_ROWS",
    "IDLE",
    "INVALID",
    "KNOWN",
    "LEG",
    "LINEAR",
    "NEXT_EXIT",
    "POOL",
    "PROMOTIONS",
    "REBANDED",
    "SEGMENT",
    "SHORT_OF_ROOM",
    "SLOT",
    "STEPPED",
    "TICKS",
    "UNKNOWN",
    "Book",
    "LinearPools",
]

Array = npt.NDArray[Any]

# How a pool is decided.
LINEAR: Final = 0  # equity and requirement are sums over columns: updated row by row while hot
FRESH: Final = 1  # evaluated from scratch in floats at each touch while hot: several assets, curved schedules
EXACT: Final = 2  # only by the exact core; always hot

# What is known of it.
FREE: Final = 0  # the number is not in use
KNOWN: Final = 1
UNKNOWN: Final = 2  # an input is missing
IDLE: Final = 3  # no positions and no debts: healthy by definition, no rows

BLOCK: Final = 64  # rows of a block
NEAR: Final = 1.25  # bands look no farther up than this times the price
FIRST_VARIANCE: Final = 1e-7  # of a relative move per tick, before any was seen: 3 basis points

POOL = np.dtype(
    [
        ("constant", "f8"),  # equity that no price moves
        ("floor", "f8"),  # requirement that no price moves
        ("slack", "f8"),  # bound on form against exact, beyond rounding
        (
            "exits",
            "f4",
        ),  # expected exits per tick of a row when its band was laid or it became hot, by unit of the book's variance; inf: no band
        ("room", "f4"),  # least of its headrooms then
        ("leg", "i4"),  # first leg
        ("asset", "i4"),  # first asset, of a multi-asset pool
        ("slot", "i4"),  # hot slot, -1 when it is cold
        ("left", "i4"),  # tick of the message at which it left its band, -1
        ("deferred", "i4"),  # tick of the message from which Python decides it, -1
        ("legs", "i4"),
        ("assets", "i2"),  # 0: single asset
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
        ("row", "i4"),  # offset of its cold row in the column; -1: the second leg of its column in the pool
        ("hot", "i4"),  # offset of its hot row in the column, or -1
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
        ("jumps", "f4"),  # of the whole schedule, summed; rounded up, as the next two
        ("highest", "f4"),  # greatest marginal rate of the whole schedule; inf where it is curved
        ("beyond", "f4"),  # greatest rate up to NEAR times `upto`; -1 where the schedule is curved
    ],
    align=True,
)

ASSET = np.dtype(
    [
        ("amount", "f8"),
        ("margin", "f8"),
        ("ask", "f8"),
        ("column", "i4"),  # its index price; -1: price 1
        ("legs", "i4"),  # of the pool's legs, in order, that settle in it; its index price behind them
        ("weights", "i4"),  # first segment; -1: in full
        ("debts", "i4"),
        ("borrow", "i4"),
        ("debt_is_requirement", "i4"),
    ]
)

COLUMN = np.dtype(
    [
        ("variance", "f8"),  # of the relative move per tick
        ("cold", "i8"),  # first cold row, a multiple of BLOCK
        ("hot", "i8"),  # first hot row
        ("colds", "i4"),
        ("cold_room", "i4"),
        ("hots", "i4"),
        ("hot_room", "i4"),
        ("lo", "f4"),  # highest lo and -hi of its cold rows, or stricter
        ("minus_hi", "f4"),
        ("inverse", "i1"),  # 1: y is 1/price; -1: not settled yet
        ("positive", "i1"),  # a price: > 0, else it is missing
        ("short", "i1"),  # a promotion found no room here
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
        ("up", "f4"),  # the next level may be entered where up * equity - requirement <= tolerance
        ("down", "f4"),  # this level may be left where requirement - down * equity <= tolerance
        ("tolerance", "f4"),  # inf: decide at each touch
        ("pool", "i4"),
    ]
)

# Places in the tally array, which kernels and evaluator share.
EVENTS: Final = 0  # events in the buffer
DEFERRED: Final = 1  # pools in the deferred buffer
EXITS: Final = 2  # pools that left their band in this message
NEXT_EXIT: Final = 3  # of those, the first not yet looked at
DIRTY: Final = 4  # blocks whose summary is to be made anew
FREE_SLOTS: Final = 5
SHORT_OF_ROOM: Final = 6  # promotions that found no room
TICKS: Final = 7
HOT_ROWS: Final = 8  # hot rows updated
HOT_POOLS: Final = 9
COLD_EXITS: Final = 10
EVALUATIONS: Final = 11  # pools evaluated from scratch
STEPPED: Final = 12  # pools run tick by tick through a message
PROMOTIONS: Final = 13
DEMOTIONS: Final = 14
REBANDED: Final = 15  # by the background pass
BAND_MISSES: Final = 16
INVALID: Final = 17  # prices that were no prices
TALLIES: Final = 24

EVENT = np.dtype([("tick", "i4"), ("pool", "i4"), ("before", "i1"), ("after", "i1")], align=True)
"""A change of verdict inside one message; levels, or -1 for unknown."""


class HotRows:
    """Hot rows of all columns in one array: a column owns `hot_room` places from `hot`, of which the first `hots` are in use."""

    def __init__(self) -> None:
        self.data: Array = np.zeros(1024, HOT)
        self.end = 0

    def reserve(self, columns: Array, wanted: dict[int, int]) -> None:
        """Makes room for `wanted[column]` rows. Rows keep their offsets."""
        moves = {c: max(n, int(columns[c]["hot_room"] * 1.5), 8) for c, n in wanted.items() if n > columns[c]["hot_room"]}
        if not moves:
            return
        if self.end + sum(moves.values()) > len(self.data):
            for c, room in moves.items():
                columns[c]["hot_room"] = room
            total = int(columns["hot_room"].sum())
            fresh: Array = np.zeros(max(1024, total + total // 4), HOT)
            self._move(columns, dict(enumerate(columns["hot_room"].tolist())), fresh, 0)
            self.data = fresh
        else:
            self._move(columns, moves, self.data, self.end)

    def _move(self, columns: Array, rooms: dict[int, int], target: Array, end: int) -> None:
        for c, room in rooms.items():
            start, used = int(columns[c]["hot"]), int(columns[c]["hots"])
            target[end : end + used] = self.data[start : start + used]
            columns[c]["hot"], columns[c]["hot_room"] = end, room
            end += room
        self.end = end


MOST_SPARE = 1 << 18
"""Cold rows kept free for columns that grow, at most."""


class ColdRows:
    """Cold rows of all columns: owners, bands (lo, -hi), and the summaries of their blocks. A column starts at a block."""

    def __init__(self) -> None:
        self.end = 0
        self._make(1024)

    def _make(self, rows: int) -> None:
        self.owners: Array = np.full(rows, -1, np.int32)
        self.bands: Array = np.empty((rows, 2), np.float32)
        self.blocks: Array = np.empty((rows // BLOCK, 2), np.float32)
        self.bands[:] = self.blocks[:] = -np.inf

    def reserve(self, columns: Array, wanted: dict[int, int]) -> None:
        """Makes room for `wanted[column]` rows. Rows keep their offsets."""
        moves = {
            c: -(-max(n, int(columns[c]["cold_room"] * 1.25)) // BLOCK) * BLOCK for c, n in wanted.items() if n > columns[c]["cold_room"]
        }
        if not moves:
            return
        old = self.owners, self.bands, self.blocks
        if self.end + sum(moves.values()) > len(self.owners):
            for c, room in moves.items():
                columns[c]["cold_room"] = room
            total = int(columns["cold_room"].sum())
            self._make(max(1024, -(-(total + min(total // 8, MOST_SPARE)) // BLOCK) * BLOCK))
            moves, end = dict(enumerate(columns["cold_room"].tolist())), 0
        else:
            end = self.end
        for c, room in moves.items():
            start, used = int(columns[c]["cold"]), int(columns[c]["colds"])
            blocks = -(-used // BLOCK)
            self.owners[end : end + used] = old[0][start : start + used]
            self.bands[end : end + used] = old[1][start : start + used]
            self.blocks[end // BLOCK : end // BLOCK + blocks] = old[2][start // BLOCK : start // BLOCK + blocks]
            columns[c]["cold"], columns[c]["cold_room"] = end, room
            end += room
        self.end = end


class Extents:
    """An array of records handed out in runs; a freed run is used again by a run of the same length."""

    def __init__(self, dtype: np.dtype[Any], hint: int = 1024) -> None:
        self.data: Array = np.zeros(max(16, hint), dtype)
        self.end = 0
        self._free: defaultdict[int, list[int]] = defaultdict(list)

    def take(self, length: int) -> int:
        """First number of a run of `length` records."""
        if self._free[length]:
            return self._free[length].pop()
        if self.end + length > len(self.data):
            self.data = grown(self.data, max(self.end + length, len(self.data) * 3 // 2))
        self.end += length
        return self.end - length

    def reserve(self, total: int) -> None:
        """Makes room for so many records in all."""
        if total > len(self.data):
            self.data = grown(self.data, total)

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

    def take(self, schedule: Schedule, uses: int = 1) -> int:
        """Number of the schedule's first segment."""
        known = self._of.get(schedule)
        if known is not None:
            known[1] += uses
            return known[0]
        start = self._extents.take(len(schedule))
        jumps = _up(sum(row[4] for row in schedule))
        curved = any(row[3] for row in schedule)
        highest = np.inf if curved else _up(max(row[1] for row in schedule))
        for offset, (above, rate, constant, curve, jump) in enumerate(schedule):
            upto = schedule[offset + 1][0] if offset + 1 < len(schedule) else np.inf
            beyond = -1.0 if curved else _up(max(row[1] for row in schedule[offset:] if row[0] <= above or row[0] < NEAR * upto))
            self._extents.data[start + offset] = (above, upto, rate, constant, curve, jump, jumps, highest, beyond)
        self._of[schedule] = [start, uses]
        self._at[start] = schedule
        return start

    def give(self, segment: int) -> None:
        """Gives back one use of the schedule that `segment` (any of its rows) belongs to."""
        while self._extents.data[segment]["above"] >= 0:
            segment -= 1
        schedule = self._at[segment]
        known = self._of[schedule]
        known[1] -= 1
        if not known[1]:
            del self._of[schedule], self._at[segment]
            self._extents.give(segment, len(schedule))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearPools:
    """Many single-asset pools as arrays: one pool an account, legs one after the other, legs of one column of a pool side by side.

    Attributes:
        name: Name of every pool.
        accounts, constants, legs: By pool: account id, equity that no price moves, number of legs.
        slopes, columns, schedule: By leg: signed units, price input, index into `schedules`.
    """

    name: str
    accounts: Sequence[str]
    constants: Array
    legs: Array
    slopes: Array
    columns: Array
    schedule: Array
    schedules: Sequence[Schedule]


class Book:
    """All columns of one evaluator."""

    def __init__(self, *, pools: int, legs: int, columns: int) -> None:
        self.column_of: dict[tuple[str, PriceKind, str], int] = {}
        self.inputs: list[tuple[str, PriceKind, str]] = []
        self.columns: Array = np.zeros(max(16, columns), COLUMN)
        self.columns["lo"] = self.columns["minus_hi"] = -np.inf
        self.y: Array = np.full(len(self.columns), np.nan)
        self.price: Array = np.full(len(self.columns), np.nan)
        self.y_before: Array = np.full(len(self.columns), np.nan)
        self.price_before: Array = np.full(len(self.columns), np.nan)
        self.position: Array = np.full(len(self.columns), -1, np.int32)
        self.pools: Array = np.zeros(max(16, pools), POOL)
        self.pools_end = 0
        self.free_pools: list[int] = []
        self.account_of: list[str] = []
        self.name_of: list[str] = []
        self.accounts: dict[str, int | tuple[int, ...]] = {}  # a number where there is one pool: a million tuples are 64 MB
        self.legs = Extents(LEG, legs)
        self.assets = Extents(ASSET, 16)
        self.schedules = Schedules()
        self.no_margin = self.schedules.take(NO_MARGIN)
        self.hot = HotRows()
        self.cold = ColdRows()
        self.slots: Array = np.zeros(16, SLOT)
        self.free_slots: Array = np.arange(15, -1, -1, dtype=np.int32)
        self.tally: Array = np.zeros(TALLIES, np.int64)
        self.tally[FREE_SLOTS] = 16
        self.most_legs = 16
        self.pools_used = self.legs_used = self.exact_pools = 0
        self._legs_expected = 0  # in all, of accounts that are being loaded

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
            self.columns[column]["variance"] = FIRST_VARIANCE
            self.columns[column]["positive"] = kind in {PriceKind.MARK, PriceKind.INDEX}
            return column
        if inverse is not None:
            held = self.columns[column]["inverse"]
            if held == -1:
                self.columns[column]["inverse"] = inverse
                if inverse:
                    self.y[column] = 1.0 / self.price[column]
            elif bool(held) != inverse:
                return -1
        return column

    def _grow_columns(self) -> None:
        size, more = len(self.columns), len(self.columns) * 2
        self.columns = grown(self.columns, more)
        self.columns["lo"][size:] = self.columns["minus_hi"][size:] = -np.inf
        for name in ("y", "price", "y_before", "price_before"):
            setattr(self, name, grown(getattr(self, name), more, np.nan))
        self.position = grown(self.position, more, -1)

    def new_pool(self, account: str, terms: PoolTerms) -> int:
        """Writes a pool and its legs, without rows yet. Returns its number."""
        kind = EXACT if terms.exact_only else FRESH if terms.holdings else LINEAR
        legs: list[tuple[float, int, Schedule]] = []
        for group in leg_groups(terms):
            for leg in group:
                column = self.column(terms.venue, leg.kind, leg.name, inverse=None if kind == EXACT or not leg.slope else leg.inverse)
                if column < 0:  # another account holds it as 1/price: rare enough for the exact core
                    return self.new_pool(account, exact_twin(terms, f"{leg.name} is linear here and inverse elsewhere"))
                if kind == LINEAR and any(row[3] for row in leg.schedule):
                    kind = FRESH
                legs.append((leg.slope, column, leg.schedule))
        pool = self._number()
        record = self.pools[pool]
        start = self.legs.take(len(legs))
        for offset, (slope, column, schedule) in enumerate(legs):
            segment = self.no_margin if schedule is NO_MARGIN else self.schedules.take(schedule)
            self.legs.data[start + offset] = (slope, column, segment, -1, -1)
        self.most_legs = max(self.most_legs, len(legs))
        assets = self.assets.take(len(terms.holdings))
        for offset, holding in enumerate(terms.holdings):
            self.assets.data[assets + offset] = self._asset(terms.venue, holding)
        record["constant"], record["floor"], record["slack"], record["exits"] = terms.constant, terms.floor, terms.slack, np.inf
        record["leg"], record["legs"], record["asset"], record["assets"] = start, len(legs), assets, len(terms.holdings)
        record["slot"] = record["left"] = record["deferred"] = -1
        record["kind"], record["state"], record["level"] = kind, IDLE if terms.idle else UNKNOWN, 0
        self.pools_used += 1
        self.legs_used += len(legs)
        self.exact_pools += kind == EXACT and not terms.idle
        self.account_of[pool], self.name_of[pool] = account, terms.name
        self._add(account, pool)
        return pool

    def load_linear(self, bulk: LinearPools) -> range:
        """Writes many single-asset pools at once, without rows yet. Returns their numbers."""
        count, size = len(bulk.accounts), self.pools_end + len(bulk.accounts)
        if size > len(self.pools):
            self.pools = grown(self.pools, size)
        numbers = range(self.pools_end, size)
        self.pools_end = size
        self.pools_used += count
        self.legs_used += len(bulk.slopes)
        start = self.legs.take(len(bulk.slopes))
        legs = self.legs.data[start : start + len(bulk.slopes)]
        legs["slope"], legs["column"], legs["row"], legs["hot"] = bulk.slopes, bulk.columns, -1, -1
        uses = np.bincount(bulk.schedule, minlength=len(bulk.schedules)).tolist()
        firsts = [self.schedules.take(schedule, used) for schedule, used in zip(bulk.schedules, uses, strict=True)]
        legs["segment"] = np.array(firsts, np.int32)[bulk.schedule]
        records = self.pools[numbers.start : numbers.stop]
        records["constant"], records["exits"] = bulk.constants, np.inf
        records["leg"] = start + np.concatenate([[0], np.cumsum(bulk.legs)[:-1]])
        records["legs"] = bulk.legs
        records["slot"] = records["left"] = records["deferred"] = -1
        records["kind"], records["state"], records["level"] = LINEAR, UNKNOWN, 0
        self.most_legs = max(self.most_legs, int(bulk.legs.max(initial=0)))
        self.account_of.extend(bulk.accounts)
        self.name_of.extend([bulk.name] * count)
        if self.accounts.keys().isdisjoint(bulk.accounts):
            self.accounts.update(zip(bulk.accounts, numbers, strict=True))
        else:
            for account, pool in zip(bulk.accounts, numbers, strict=True):
                self._add(account, pool)
        held = np.bincount(bulk.columns, minlength=len(self.columns))
        # What is still to come is taken to be spread over the columns as this is, give or take four times what chance does.
        left = self._legs_expected - self.legs_used
        rows = held + (share := held * (max(left, 0) / max(1, len(bulk.columns)))) + 4.0 * np.sqrt(share)
        self.cold.reserve(self.columns, {int(c): int(self.columns[c]["colds"] + rows[c]) for c in np.flatnonzero(held)})
        return numbers

    def _number(self) -> int:
        if self.free_pools:
            return self.free_pools.pop()
        pool = self.pools_end
        if pool == len(self.pools):
            self.pools = grown(self.pools, pool * 3 // 2)
        self.account_of.append("")
        self.name_of.append("")
        self.pools_end += 1
        return pool

    def _asset(self, venue: str, holding: Holding) -> tuple[float, ...]:
        return (
            holding.amount,
            holding.margin,
            holding.ask,
            -1 if holding.index is None else self.column(venue, PriceKind.INDEX, holding.index),
            len(holding.legs) + (holding.index is not None),
            *(-1 if table is None else self.schedules.take(table) for table in (holding.weights, holding.debts, holding.borrow)),
            int(holding.debt_is_requirement),
        )

    def free_pool(self, pool: int) -> None:
        """Forgets a pool that has no rows any more."""
        record = self.pools[pool]
        assert record["slot"] < 0
        for segment in self.legs.data["segment"][record["leg"] : record["leg"] + record["legs"]].tolist():
            if segment != self.no_margin:
                self.schedules.give(segment)
        for asset in self.assets.data[record["asset"] : record["asset"] + record["assets"]]:
            for table in ("weights", "debts", "borrow"):
                if asset[table] >= 0:
                    self.schedules.give(int(asset[table]))
        self.pools_used -= 1
        self.legs_used -= int(record["legs"])
        self.exact_pools -= int(record["kind"] == EXACT and record["state"] != IDLE)
        self.legs.give(int(record["leg"]), int(record["legs"]))
        self.assets.give(int(record["asset"]), int(record["assets"]))
        record["state"], record["legs"], record["assets"] = FREE, 0, 0
        account = self.account_of[pool]
        rest = tuple(other for other in self.pools_of(account) if other != pool)
        if rest:
            self.accounts[account] = rest if len(rest) > 1 else rest[0]
        else:
            del self.accounts[account]
        self.account_of[pool] = self.name_of[pool] = ""
        self.free_pools.append(pool)

    def pool(self, account: str, name: str) -> int:
        """Number of a pool. Raises KeyError."""
        for pool in self.pools_of(account):
            if self.name_of[pool] == name:
                return pool
        raise KeyError(account, name)

    def pools_of(self, account: str) -> tuple[int, ...]:
        """Numbers of an account's pools; empty when it is not there."""
        pools = self.accounts.get(account, ())
        return (pools,) if isinstance(pools, int) else pools

    def _add(self, account: str, pool: int) -> None:
        held = self.pools_of(account)
        self.accounts[account] = (*held, pool) if held else pool

    def reserve(self, pools: int, legs: int) -> None:
        """Makes room for so many pools and legs in all, so that loading them in parts does not copy what is there."""
        if pools > len(self.pools):
            self.pools = grown(self.pools, pools)
        self.legs.reserve(legs)
        self._legs_expected = legs

    def columns_of_pool(self, pool: int) -> Array:
        """Columns of its legs, in order; one column twice in hedge mode."""
        record = self.pools[pool]
        columns: Array = self.legs.data["column"][record["leg"] : record["leg"] + record["legs"]]
        return columns

    def reserve_cold(self, pools: Sequence[int]) -> None:
        """Makes room for these pools' cold rows."""
        wanted: dict[int, int] = {}
        for pool in pools:
            for column in self.columns_of_pool(pool).tolist():
                wanted[column] = wanted.get(column, int(self.columns[column]["colds"])) + 1
        self.cold.reserve(self.columns, wanted)

    def reserve_hot(self, pool: int) -> None:
        """Makes room for one more hot row in each of the pool's columns, and for its slot."""
        self.hot.reserve(self.columns, {c: int(self.columns[c]["hots"]) + 1 for c in self.columns_of_pool(pool).tolist()})
        self.reserve_slots(1)

    def reserve_slots(self, count: int) -> None:
        """Makes `count` slots free."""
        left, size = int(self.tally[FREE_SLOTS]), len(self.slots)
        if left < count:
            more = max(count, size // 2)
            self.slots = grown(self.slots, size + more)
            self.free_slots = grown(self.free_slots, size + more)
            self.free_slots[left : left + more] = np.arange(size + more - 1, size - 1, -1, dtype=np.int32)
            self.tally[FREE_SLOTS] = left + more

    def widen(self) -> None:
        """More room where promotions found none: half as many again in those columns, never more than they have rows."""
        short = np.flatnonzero(self.columns["short"])
        self.columns["short"] = 0
        self.tally[SHORT_OF_ROOM] = 0
        hots, colds = self.columns["hots"], self.columns["colds"]
        self.hot.reserve(self.columns, {int(c): min(int(hots[c]) * 3 // 2 + 16, int(colds[c])) for c in short})
        self.reserve_slots(min(len(self.slots) // 4, self.pools_end - int(self.tally[HOT_POOLS])) + 1)


def leg_groups(terms: PoolTerms) -> list[list[Leg]]:
    """Legs in storage order: by asset, those of one column side by side (hedge mode), each asset's index price behind its legs."""
    if not terms.holdings:
        return [sorted(terms.legs, key=lambda leg: (leg.kind, leg.name))]
    groups = []
    for holding in terms.holdings:
        legs = sorted(holding.legs, key=lambda leg: (leg.kind, leg.name))
        if holding.index is not None:
            legs.append(Leg(kind=PriceKind.INDEX, name=holding.index, slope=0.0))
        groups.append(legs)
    return groups


def exact_twin(terms: PoolTerms, reason: str) -> PoolTerms:
    """The same pool, left to the exact core."""
    legs = {(leg.kind, leg.name): Leg(kind=leg.kind, name=leg.name, slope=0.0) for group in leg_groups(terms) for leg in group}
    return PoolTerms(
        name=terms.name,
        venue=terms.venue,
        legs=tuple(legs.values()),
        idle=terms.idle,
        bare=terms.bare,
        exact_only=reason,
        source=terms.source,
    )


def _up(number: float) -> np.float32:
    """Not below `number` as a float32; 0 stays 0."""
    return np.nextafter(np.float32(number), np.float32(np.inf)) if number else np.float32(0)


def grown(data: Array, size: int, fill: float | None = None) -> Array:
    """A larger copy."""
    larger: Array = np.zeros(size, data.dtype) if fill is None else np.full(size, fill, data.dtype)
    larger[: len(data)] = data
    return larger
