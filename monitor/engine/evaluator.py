"""The evaluator: prices in, changes of level out, for every margin pool of the book.

One message of prices is one call. Each tick of it is decided on its own, in the order received, after all rows of a pool in that instrument
are at the new price. What floats cannot tell is decided by the exact core at the prices of that tick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from monitor.engine import book as b
from monitor.engine import kernels, loop
from monitor.engine.bands import SCRATCH
from monitor.engine.book import EXACT, FREE, IDLE, KNOWN, UNKNOWN, Book, LinearPools
from monitor.engine.terms import ExactEvaluation, Leg, PoolTerms, Verdict, terms_of
from monitor.margin.levels import DEFAULT_THRESHOLDS, Level, Thresholds, next_level
from monitor.margin.numbers import exact_of_float
from monitor.margin.pools import MarginPool
from monitor.margin.prices import PriceKind, Prices

__all__ = ["RATIO_EDGES", "Crossing", "EngineStatistics", "Evaluator", "Gathered", "PoolView"]

Array = npt.NDArray[Any]

NO_NUMBERS: Final[Array] = np.zeros(0, np.int32)
SETTLED_AT_ONCE = 20_000
"""Pools at a time in `settle_all`: room for as many events."""
NO_EVENTS: Final[Array] = np.zeros(0, b.EVENT)
LEVELS: Final = tuple(Level)

RATIO_EDGES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
"""Upper edges of the margin ratio histogram: finer where thresholds usually are."""


class Gathered(NamedTuple):
    """What the last whole background pass saw.

    Attributes:
        counts: Pools by level; None: unknown.
        histogram: Known pools by margin ratio, by the edges the evaluator was made with; equity <= 0 in the last.
        worst: The worst pools of that pass, evaluated now, worst first. Pools that only the exact core can evaluate are not among them.
    """

    counts: dict[Level | None, int]
    histogram: list[int]
    worst: list[PoolView]


class _Gathering:
    """What one background pass gathers: pools by ratio, by verdict (the last one: unknown), and the worst ones."""

    def __init__(self, edges: int, worst: int) -> None:
        self.histogram: Array = np.zeros(edges + 1, np.int64)
        self.counts: Array = np.zeros(6, np.int64)
        self.worst: Array = np.full(worst, -np.inf)
        self.worst_pools: Array = np.full(worst, -1, np.int32)


class Crossing(NamedTuple):
    """A pool whose verdict changed.

    Attributes:
        tick: Index in the message of the price that did it; -1 from `put`.
        account, pool: Whose.
        before: Level before; None when it was unknown.
        after: Level now; None when it is unknown.
        reason: Why it is unknown, else None.
    """

    tick: int
    account: str
    pool: str
    before: Level | None
    after: Level | None
    reason: str | None = None


class PoolView(NamedTuple):
    """One pool as the columns have it; None where unknown."""

    account: str
    pool: str
    level: Level | None
    equity: float | None
    requirement: float | None

    @property
    def ratio(self) -> float | None:
        """Requirement over equity; None when unknown or equity <= 0."""
        if self.equity is None or self.requirement is None or self.equity <= 0:
            return None
        return self.requirement / self.equity


@dataclass(slots=True)
class EngineStatistics:
    """What the engine did since it was made, and what it holds. Plain numbers.

    Attributes:
        rms_move: Relative move of a price per tick (root mean square over the rows of the book), as measured.
        epsilon, epsilon_fresh: Relative width below which a band is not worth having: a pool whose bands would be narrower is kept hot.
            Of pools whose sums follow row by row, and of those evaluated from scratch at each touch. `rms_move` times the moves allowed.
    """

    messages: int = 0
    ticks: int = 0
    hot_rows: int = 0
    cold_exits: int = 0
    stepped: int = 0
    evaluations: int = 0
    exact_evaluations: int = 0
    ties_remembered: int = 0
    invalid_prices: int = 0
    crossings: int = 0
    accounts: int = 0
    pools: int = 0
    legs: int = 0
    columns: int = 0
    hot_pools: int = 0
    exact_pools: int = 0
    promotions: int = 0
    demotions: int = 0
    rebanded: int = 0
    band_misses: int = 0
    passes: int = 0
    rms_move: float = 0.0
    epsilon: float = 0.0
    epsilon_fresh: float = 0.0


class Evaluator:
    """All margin pools of one process and their levels, as prices and accounts come in. Not to be shared between threads."""

    def __init__(
        self,
        thresholds: Thresholds = DEFAULT_THRESHOLDS,
        *,
        exact: ExactEvaluation,
        pools: int = 1024,
        legs: int = 8192,
        columns: int = 1024,
        hot_moves: float = 7.0,
        hot_moves_fresh: float = 2.0,
        ratio_edges: Sequence[float] = RATIO_EDGES,
        worst: int = 64,
        keep_sources: bool = True,
    ) -> None:
        """Makes an empty book.

        Args:
            thresholds: Enter and leave ratios of the levels.
            exact: The exact evaluation of one pool, asked where floats cannot tell.
            pools, legs, columns: Expected sizes; the book grows past them.
            hot_moves: A pool is kept hot when its bands would be narrower than this many moves (root mean square, per tick). inf: all pools
                are hot, which is the exhaustive engine; 0: none, bands alone.
            hot_moves_fresh: The same for pools that have to be evaluated from scratch at each touch.
            ratio_edges: Upper edges of the histogram of margin ratios that the background pass makes.
            worst: How many of the worst pools the background pass remembers.
            keep_sources: Keep what each pool was made from, for `exact`. False: only of pools that every tick asks it about; for the ties of
                the others it is given None and finds the pool by account and name, which is what a million accounts need.
        """
        self.thresholds = thresholds
        self._exact = exact
        self._keep_sources = keep_sources
        self._book = Book(pools=pools, legs=legs, columns=columns)
        self._sources: dict[int, object] = {}
        self._reasons: dict[int, str] = {}
        self._exact_values: dict[int, tuple[Decimal, Decimal]] = {}
        self._bare: set[int] = set()
        self._ties: dict[int, tuple[bytes, Verdict]] = {}
        self._events: Array = np.zeros(4096, b.EVENT)
        self._scratch: Array = np.zeros((self._book.most_legs, SCRATCH))
        self._exits: Array = np.zeros(0, np.int32)
        self._deferred: Array = np.zeros((0, 2), np.int32)
        self._dirty: Array = np.zeros((0, 2), np.int32)
        self._sides: Array = np.zeros(2 * b.BLOCK, np.float32)
        self._y_after: Array = np.zeros(1024)
        self._ladder, self._lines, self._lines32 = _ladders(thresholds)
        self._hot_moves = hot_moves, hot_moves_fresh
        self._policy: Array = np.array([_per_moves(hot_moves), _per_moves(hot_moves_fresh), 1 / 1.5**2, 1 / 1.5**2, b.FIRST_VARIANCE])
        self._last: Array = NO_NUMBERS
        self._names: dict[tuple[str, PriceKind, str], Array] = {}
        self._names_made_at = 0
        self._since_refresh = self._since_pass = 0
        self._messages = self._exact_evaluations = self._ties_remembered = self._crossings = self._passes = 0
        self._edges: Array = np.asarray(ratio_edges, np.float64)
        self._cursor = 0
        self._gathering = _Gathering(len(self._edges), worst)
        self._gathered = _Gathering(len(self._edges), worst)
        self._room()

    # Price inputs

    def column(self, venue: str, kind: PriceKind, name: str) -> int:
        """Number of a price input. Registering all that the feeds carry gives a new account its prices at once."""
        return self._book.column(venue, kind, name)

    def columns_of(self, venue: str, kind: PriceKind, names: list[str]) -> Array:
        """Numbers of a feed's names, int32; -1 where nobody asked for the name. A list seen before is answered from memory."""
        if self._names_made_at != len(self._book.inputs) or len(self._names) > 256:
            self._names.clear()
            self._names_made_at = len(self._book.inputs)
        key = (venue, kind, "\n".join(names))
        numbers = self._names.get(key)
        if numbers is None:
            known = self._book.column_of
            numbers = np.array([known.get((venue, kind, name), -1) for name in names], np.int32)
            self._names[key] = numbers
        return numbers

    def apply(self, columns: Array, prices: Array) -> list[Crossing]:
        """Runs one message of prices, tick by tick.

        Args:
            columns: int32, from `columns_of` or `column`; each at most once; -1 is skipped.
            prices: float64, same length. What is not a price (not finite, or <= 0 for a mark or index) makes its pools unknown.

        Returns:
            Changes of verdict, by tick, account and pool.

        Raises:
            ValueError: A column comes twice.
        """
        found = self._crossings_of(self.run(columns, prices))
        found.sort(key=_order)
        return found

    def run(self, columns: Array, prices: Array) -> Array:
        """`apply` without objects: changes of verdict as an array of `EVENT` records, in the order they were found. Raises ValueError as it does.

        Changes of pools that only the exact core can decide are among them.
        """
        book = self._book
        numbers = np.ascontiguousarray(columns, np.int32)
        prices = np.ascontiguousarray(prices, np.float64)
        if not loop.open_message(numbers, self._last, book.price, book.y, book.price_before, book.y_before, book.position):
            self._last = NO_NUMBERS
            raise ValueError("a price input comes twice in one message")
        self._last = numbers
        self._messages += 1
        self._since_refresh += len(numbers)
        self._since_pass += len(numbers)
        if self._since_refresh > kernels.UPDATES:
            self._refresh()
        if len(numbers) > len(self._y_after):
            self._y_after = np.zeros(len(numbers))
        taken: list[Array] = []
        tick = 0
        while True:
            tick = loop.run_ticks(
                numbers,
                prices,
                tick,
                book.columns,
                book.price,
                book.y,
                book.y_before,
                self._y_after,
                book.position,
                book.pools,
                book.legs.data,
                book.assets.data,
                book.schedules.data,
                book.cold.owners,
                book.cold.bands,
                book.cold.blocks,
                book.hot.data,
                book.slots,
                book.free_slots,
                self._ladder,
                self._lines,
                self._lines32,
                self._policy,
                self._scratch,
                self._exits,
                self._dirty,
                self._sides,
                self._events,
                self._deferred,
                book.tally,
                book.pools_end,
            )
            if tick > len(numbers):
                break
            taken.append(self._take_events(room=max(int(book.columns["hots"].max()), book.most_legs)))
        if book.tally[b.DEFERRED]:
            taken.extend(self._decide_deferred())
        if book.tally[b.SHORT_OF_ROOM]:
            book.widen()
        if taken or book.tally[b.EVENTS]:
            taken.append(self._take_events())
        if not taken:
            return NO_EVENTS
        events = np.concatenate(taken) if len(taken) > 1 else taken[0]
        self._crossings += len(events)
        return events

    def prices_at(self, account: str, pool: str, tick: int) -> Prices:
        """The exact prices of a pool's inputs as they stood right after `tick` of the last message (-1: before it), without missing ones."""
        return self._prices(self._book.pool(account, pool), tick)

    # Accounts

    def put(self, account: str, pools: Sequence[MarginPool], levels: Mapping[str, Level] | None = None) -> list[Crossing]:
        """Inserts an account, or replaces it whole, and evaluates its pools at the prices there are.

        A pool starts from `levels`, else from its present level, else from healthy. A pool that is gone counts as healthy.

        Returns:
            Changes against where each pool started, with tick -1.
        """
        return self.put_terms(account, [terms_of(pool) for pool in pools], levels)

    def put_terms(self, account: str, pools: Sequence[PoolTerms], levels: Mapping[str, Level] | None = None) -> list[Crossing]:
        """The same for pools that are terms already."""
        present = self.verdicts(account)
        self.remove(account)
        found: list[Crossing] = []
        for terms in pools:
            start, reason = present.pop(terms.name, (Level.HEALTHY, None))
            unknown = reason is not None
            if levels is not None and terms.name in levels:
                start, unknown = levels[terms.name], False
            found.extend(self._insert(account, terms, start, unknown=unknown))
        found.extend(
            Crossing(-1, account, name, None if reason is not None else level, Level.HEALTHY)
            for name, (level, reason) in present.items()
            if level is not Level.HEALTHY or reason is not None
        )
        self._crossings += len(found)
        return found

    def load(self, pools: LinearPools, levels: Array | None = None) -> None:
        """Inserts many accounts at once. They are new. They become known with the next message that brings their last missing price.

        Args:
            pools: As arrays; each leg's column holds price, not 1/price.
            levels: int8, by pool: where hysteresis starts from. None: healthy.
        """
        book = self._book
        numbers = book.load_linear(pools)
        if levels is not None:
            book.pools["level"][numbers.start : numbers.stop] = levels
        self._room()
        kernels.place_many(book.pools, book.legs.data, book.columns, book.cold.owners, book.cold.bands, numbers.start, numbers.stop)

    def remove(self, account: str) -> None:
        """Forgets an account. An unknown one is no error."""
        book = self._book
        for pool in book.pools_of(account):
            if book.pools[pool]["slot"] >= 0:
                kernels.demote(book.pools, book.legs.data, book.columns, book.hot.data, book.free_slots, book.tally, pool)
            kernels.displace(book.pools, book.legs.data, book.columns, book.cold.owners, book.cold.bands, book.cold.blocks, pool)
            book.free_pool(pool)
            for memory in (self._sources, self._reasons, self._exact_values, self._ties):
                memory.pop(pool, None)
            self._bare.discard(pool)

    def verdict(self, account: str, pool: str) -> tuple[Level, str | None]:
        """(level, unknown): the reason when the level cannot be claimed, and then the level is the last one known. Raises KeyError."""
        return self._verdict(self._book.pool(account, pool))

    def verdicts(self, account: str) -> dict[str, tuple[Level, str | None]]:
        """Verdicts of an account's pools by name; empty for an account that is not here."""
        return {self._book.name_of[pool]: self._verdict(pool) for pool in self._book.pools_of(account)}

    # Views

    def views(self, account: str) -> list[PoolView]:
        """The pools of one account."""
        return list(self._views(np.array(self._book.pools_of(account), np.int32)))

    def worst(self, count: int) -> list[PoolView]:
        """The pools nearest to or deepest in trouble: by level, then by ratio; bankrupt ones by equity. Without unknown and idle ones."""
        chosen, equity, requirement = self.columns_now()
        levels = self._book.pools["level"][chosen]
        with np.errstate(divide="ignore", invalid="ignore"):
            badness = np.where(equity > 0, requirement / equity, np.inf)
        known = np.flatnonzero((self._book.pools["state"][chosen] == KNOWN) & ~np.isnan(equity))
        order = np.lexsort((equity[known], -badness[known], -levels[known].astype(np.int32)))[:count]
        return list(self._views(chosen[known[order]]))

    def unknown(self, count: int) -> list[tuple[str, str, str]]:
        """(account, pool, reason) of pools whose level cannot be claimed, at most `count`."""
        book = self._book
        found = []
        for pool in np.flatnonzero(book.pools["state"] == UNKNOWN)[:count].tolist():
            found.append((book.account_of[pool], book.name_of[pool], self._verdict(pool)[1] or "unknown"))
        return found

    def columns_now(self) -> tuple[Array, Array, Array]:
        """(pool numbers int32, equity, requirement float64) of all pools at the present prices; NaN where unknown or idle."""
        book = self._book
        chosen = np.flatnonzero(book.pools["state"] != FREE).astype(np.int32)
        equity, requirement = np.empty(len(chosen)), np.empty(len(chosen))
        kernels.view(chosen, book.pools, book.legs.data, book.assets.data, book.schedules.data, book.y, equity, requirement)
        place = {int(pool): index for index, pool in enumerate(chosen)} if self._exact_values else {}
        for pool, (exact_equity, exact_requirement) in self._exact_values.items():
            equity[place[pool]], requirement[place[pool]] = float(exact_equity), float(exact_requirement)
        return chosen, equity, requirement

    def counts(self) -> dict[Level | None, int]:
        """Pools by verdict; None counts the unknown ones."""
        pools = self._book.pools
        known = np.bincount(pools["level"][(pools["state"] == KNOWN) | (pools["state"] == IDLE)], minlength=len(Level))
        counts: dict[Level | None, int] = {level: int(known[level]) for level in Level}
        counts[None] = int((pools["state"] == UNKNOWN).sum())
        return counts

    def histogram(self, edges: Sequence[float]) -> list[int]:
        """Known pools by margin ratio: how many lie in (-inf, edges[0]], ..., (edges[-1], inf]. Equity <= 0 is in the last."""
        _, equity, requirement = self.columns_now()
        known = ~np.isnan(equity)
        equity, requirement = equity[known], requirement[known]
        ratio = np.full(len(equity), np.inf)
        np.divide(requirement, equity, out=ratio, where=equity > 0)
        return [int(n) for n in np.bincount(np.searchsorted(np.asarray(edges, np.float64), ratio, side="left"), minlength=len(edges) + 1)]

    def statistics(self) -> EngineStatistics:
        """What was done so far, and how much is held. Costs nothing that grows with the book."""
        book, tally = self._book, self._book.tally
        rms_move = float(self._policy[loop.VARIANCE]) ** 0.5
        return EngineStatistics(
            messages=self._messages,
            ticks=int(tally[b.TICKS]),
            hot_rows=int(tally[b.HOT_ROWS]),
            cold_exits=int(tally[b.COLD_EXITS]),
            stepped=int(tally[b.STEPPED]),
            evaluations=int(tally[b.EVALUATIONS]),
            exact_evaluations=self._exact_evaluations,
            ties_remembered=self._ties_remembered,
            invalid_prices=int(tally[b.INVALID]),
            crossings=self._crossings,
            accounts=len(book.accounts),
            pools=book.pools_used,
            legs=book.legs_used,
            columns=len(book.inputs),
            hot_pools=int(tally[b.HOT_POOLS]),
            exact_pools=book.exact_pools,
            promotions=int(tally[b.PROMOTIONS]),
            demotions=int(tally[b.DEMOTIONS]),
            rebanded=int(tally[b.REBANDED]),
            band_misses=int(tally[b.BAND_MISSES]),
            passes=self._passes,
            rms_move=rms_move,
            epsilon=self._hot_moves[0] * rms_move,
            epsilon_fresh=self._hot_moves[1] * rms_move,
        )

    # Background pass

    def pass_slice(self, budget: int = 500) -> list[Crossing]:
        """Goes on with the background pass over `budget` pools: well under a millisecond for 500. Meant to be called between messages, so that a
        whole pass takes about a second.

        Refreshes sums, lays bands that can be wider, lets hot pools go cold and cold ones hot, finds pools that a withdrawn price made unknown,
        and feeds the `gathered` figures.

        Returns:
            Changes of verdict, tick -1: pools made unknown or known again. Any other is a fault of the bands: it is counted in `band_misses`,
            which stays 0.
        """
        taken = self._pass(budget)
        if not taken and not self._book.tally[b.EVENTS]:
            return []
        found = [crossing._replace(tick=-1) for crossing in self._crossings_of(np.concatenate([*taken, self._take_events()]))]
        self._crossings += len(found)
        return found

    def settle_all(self) -> None:
        """A whole background pass at once, after `load` at prices that are there already: its pools become known without crossings."""
        self._cursor = 0
        while True:
            self._pass(SETTLED_AT_ONCE)
            self._take_events()
            if not self._cursor:
                return

    def _pass(self, budget: int) -> list[Array]:
        """The next pools of the background pass. Returns what the exact core found; the rest is in the event buffer."""
        book = self._book
        start = self._cursor
        if not start:
            rows = book.columns["colds"]
            self._policy[loop.VARIANCE] = max(float((book.columns["variance"] * rows).sum() / max(1, rows.sum())), 1e-30)
        end = min(start + budget, book.pools_end)
        if budget > len(self._events):
            self._events = np.zeros(budget, b.EVENT)
        g = self._gathering
        loop.run_pass(
            start,
            end,
            book.columns,
            book.y,
            book.pools,
            book.legs.data,
            book.assets.data,
            book.schedules.data,
            book.cold.bands,
            book.cold.blocks,
            book.hot.data,
            book.slots,
            book.free_slots,
            self._ladder,
            self._lines,
            self._lines32,
            self._policy,
            self._scratch,
            self._events,
            self._deferred,
            book.tally,
            g.histogram,
            self._edges,
            g.counts,
            g.worst,
            g.worst_pools,
        )
        taken = self._decide_deferred() if book.tally[b.DEFERRED] else []
        if book.tally[b.SHORT_OF_ROOM]:
            book.widen()
        self._cursor = end
        if end == book.pools_end:
            self._cursor = 0
            self._passes += 1
            self._since_refresh = self._since_pass
            self._since_pass = 0
            self._gathered, self._gathering = g, _Gathering(len(self._edges), len(g.worst))
        return taken

    def gathered(self) -> Gathered:
        """Counts, histogram and worst pools as the last whole background pass saw them: no work that grows with the book."""
        g = self._gathered
        counts: dict[Level | None, int] = {level: int(g.counts[level]) for level in Level}
        counts[None] = int(g.counts[5])
        chosen = g.worst_pools[g.worst_pools >= 0]
        here = chosen[self._book.pools["state"][chosen] == KNOWN]
        views = sorted(self._views(here), key=_badness, reverse=True)
        return Gathered(counts, [int(n) for n in g.histogram], views)

    def withdraw(self, columns: Array) -> None:
        """Says that these prices must not be relied on any more (stale). Their pools become unknown as the background pass, or a tick that makes
        them be looked at, comes to them: no loop over all holders here. The next price of such a column makes its pools known again at once."""
        self._book.price[columns] = self._book.y[columns] = np.nan

    def warm_up(self) -> None:
        """Compiles or loads every kernel, on small books of its own. Until it has returned, a first message could take seconds."""
        schedule = ((-1.0, 0.5, 0.0, 0.0, 0.0),)
        legs = tuple(Leg(kind=PriceKind.MARK, name=name, slope=1.0, schedule=schedule) for name in "xy")
        one = np.array([1.0])
        for hot_moves in (0.0, float("inf")):  # all cold, all hot
            practice = Evaluator(self.thresholds, exact=lambda *_: (Decimal(1), Decimal(0)), hot_moves=hot_moves)
            columns = np.array([practice.column("v", PriceKind.MARK, leg.name) for leg in legs], np.int32)
            many = LinearPools(
                name="p",
                accounts=["b"],
                constants=one,
                legs=np.ones(1, np.int64),
                slopes=one,
                columns=columns[:1],
                schedule=np.zeros(1, np.int64),
                schedules=[schedule],
            )
            practice.load(many)
            practice.put_terms("a", [PoolTerms(name="p", venue="v", legs=legs)])
            for price in (1.0, 2.0, 0.5):
                practice.apply(columns, np.array([price, price]))
            practice._rest(practice._book.pool("a", "p"))
            practice.put_terms("c", [PoolTerms(name="p", venue="v", legs=legs, exact_only="for practice")])
            practice.put_terms("tie", [PoolTerms(name="p", venue="v", constant=-1.0, legs=legs)])
            practice.apply(columns, np.array([0.25, 0.75]))
            practice.pass_slice()
            practice.worst(1)
            for account in "abc":
                practice.remove(account)

    # Inside

    def _insert(self, account: str, terms: PoolTerms, start: Level, *, unknown: bool) -> list[Crossing]:
        book = self._book
        pool = book.new_pool(account, terms)
        record = book.pools[pool]
        if terms.idle:
            if start is Level.HEALTHY and not unknown:
                return []
            return [Crossing(-1, account, terms.name, None if unknown else start, Level.HEALTHY)]
        if self._keep_sources or record["kind"] == EXACT:
            self._sources[pool] = terms.source
        if terms.bare:
            self._bare.add(pool)
        record["level"] = start
        record["state"] = UNKNOWN if unknown else KNOWN
        book.reserve_cold([pool])
        if record["kind"] == EXACT:
            book.reserve_hot(pool)
        self._room()
        kernels.place(book.pools, book.legs.data, book.columns, book.cold.owners, book.cold.bands, pool)
        sums = kernels.settle(
            book.pools,
            book.legs.data,
            book.assets.data,
            book.schedules.data,
            book.y,
            self._ladder,
            self._events,
            self._deferred,
            book.tally,
            pool,
            loop.GIVE_UP,
        )
        taken = self._decide_deferred() if book.tally[b.DEFERRED] else []
        if not taken:
            self._rest(pool, sums)
        if book.tally[b.SHORT_OF_ROOM]:
            book.widen()
            self._rest(pool)
        return [crossing._replace(tick=-1) for crossing in self._crossings_of(np.concatenate([*taken, self._take_events()]))]

    def _room(self) -> None:
        """Buffers as large as the book may need between two calls."""
        book = self._book
        if len(self._exits) < 2 * len(book.pools):
            self._exits = np.zeros(
                2 * len(book.pools), np.int32
            )  # those that left, and behind them one column's rows before they are told apart
            self._deferred = np.zeros((len(book.pools), 2), np.int32)
        if len(self._dirty) < len(book.cold.blocks):
            self._dirty = np.zeros((len(book.cold.blocks), 2), np.int32)
        if len(self._scratch) < book.most_legs:
            self._scratch = np.zeros((book.most_legs, SCRATCH))

    def _rest(self, pool: int, sums: tuple[float, float, float, float] | None = None) -> None:
        """Hot, cold with a band, or open: where a pool that was decided belongs."""
        book = self._book
        if sums is None:
            sums = kernels.evaluate(book.pools, book.legs.data, book.assets.data, book.schedules.data, book.y, pool)
        loop.rest(
            book.pools,
            book.legs.data,
            book.assets.data,
            book.schedules.data,
            book.y,
            book.columns,
            book.cold.bands,
            book.cold.blocks,
            book.hot.data,
            book.slots,
            book.free_slots,
            self._lines,
            self._lines32,
            self._policy,
            self._scratch,
            book.tally,
            pool,
            *sums,
        )
        assert book.pools[pool]["kind"] != EXACT or book.pools[pool]["slot"] >= 0

    def _refresh(self) -> None:
        """Fresh sums for all pools: the error of incremental sums is bounded for `kernels.UPDATES` ticks."""
        for pool in np.flatnonzero(self._book.pools["slot"][: self._book.pools_end] >= 0).tolist():
            if self._book.pools[pool]["state"] != FREE:
                self._rest(pool)
        self._since_refresh = 0

    def _decide_deferred(self) -> list[Array]:
        """Runs each deferred pool through the rest of the message: exactly where floats cannot tell, else in floats again. Returns events."""
        book, tally = self._book, self._book.tally
        waiting = self._deferred[: tally[b.DEFERRED]].tolist()
        tally[b.DEFERRED] = 0
        found: list[Array] = [self._take_events()]
        for pool, first in waiting:
            tick: int | None = first
            while tick is not None:
                found.append(self._decide_exactly(pool, tick))
                book.pools[pool]["deferred"] = -1
                tick = self._after(pool, tick)
                if tick is not None and book.pools[pool]["kind"] != EXACT:
                    if tally[b.EVENTS] + book.pools[pool]["legs"] > len(self._events):
                        found.append(self._take_events(room=book.most_legs))
                    loop.run_pool(
                        pool,
                        tick,
                        self._last,
                        book.position,
                        book.y,
                        book.y_before,
                        self._y_after,
                        book.pools,
                        book.legs.data,
                        book.assets.data,
                        book.schedules.data,
                        self._ladder,
                        self._events,
                        self._deferred,
                        tally,
                    )
                    tick = int(self._deferred[0, 1]) if tally[b.DEFERRED] else None
                    tally[b.DEFERRED] = 0
            self._rest(pool)
        return found

    def _after(self, pool: int, tick: int) -> int | None:
        """The next tick of the last message that touches the pool."""
        positions = self._book.position[self._book.columns_of_pool(pool)]
        later = positions[positions > tick]
        return int(later.min()) if len(later) else None

    def _decide_exactly(self, pool: int, tick: int) -> Array:
        """Settles one pool by the exact core at the prices of `tick`. A verdict is remembered until a price of the pool changes."""
        book = self._book
        key = self._prices_key(pool, tick)
        remembered = self._ties.get(pool)
        if remembered is not None and remembered[0] == key:
            verdict = remembered[1]
            self._ties_remembered += 1
        else:
            verdict = self._exact(book.account_of[pool], book.name_of[pool], self._sources.get(pool), self._prices(pool, tick))
            self._exact_evaluations += 1
            self._ties[pool] = (key, verdict)
        record = book.pools[pool]
        before = int(record["level"]) if record["state"] == KNOWN else -1
        if isinstance(verdict, str):
            self._reasons[pool] = verdict
            self._exact_values.pop(pool, None)
            record["state"] = UNKNOWN
            return _one_event(tick, pool, before, -1)
        if record["kind"] == EXACT:
            self._exact_values[pool] = verdict
        if pool in self._bare and not any(verdict):
            after = Level.HEALTHY
        else:
            after = next_level(Level(int(record["level"])), *verdict, self.thresholds)
        record["state"], record["level"] = KNOWN, after
        return _one_event(tick, pool, before, int(after))

    def _prices_key(self, pool: int, tick: int) -> bytes:
        book = self._book
        columns = book.columns_of_pool(pool)
        return np.where(book.position[columns] > tick, book.price_before[columns], book.price[columns]).tobytes()

    def _prices(self, pool: int, tick: int) -> Prices:
        book = self._book
        tables: dict[str, dict[str, Decimal]] = {}
        for column in book.columns_of_pool(pool).tolist():
            price = float(book.price_before[column] if book.position[column] > tick else book.price[column])
            if price == price:
                _, kind, name = book.inputs[column]
                tables.setdefault(kind.value, {})[name] = exact_of_float(price)
        return Prices(**tables)

    def first_missing(self, account: str, pool: str) -> tuple[str, PriceKind, str] | None:
        """The first input of a pool that has no price; None when all have one, or the pool is unknown for a reason of its own."""
        number = self._book.pool(account, pool)
        return None if number in self._reasons else self._first_missing(number, len(self._last))

    def _first_missing(self, pool: int, tick: int) -> tuple[str, PriceKind, str] | None:
        book = self._book
        for column in book.columns_of_pool(pool).tolist():
            price = float(book.price_before[column] if book.position[column] > tick else book.price[column])
            if price != price:
                venue, kind, name = book.inputs[column]
                return venue, kind, name
        return None

    def _missing(self, pool: int, tick: int) -> str:
        """Which input of a pool has no price at `tick`."""
        missing = self._first_missing(pool, tick)
        return "not a number" if missing is None else f"no {missing[1].value} of {missing[2]}"

    def _verdict(self, pool: int) -> tuple[Level, str | None]:
        record = self._book.pools[pool]
        reason = None
        if record["state"] == UNKNOWN:
            reason = self._reasons.get(pool) or self._missing(pool, len(self._last))
        return Level(int(record["level"])), reason

    def _take_events(self, *, room: int = 0) -> Array:
        """Empties the event buffer, and makes it larger where `room` asks for it."""
        taken = self._events[: self._book.tally[b.EVENTS]].copy()
        self._book.tally[b.EVENTS] = 0
        if room > len(self._events):
            self._events = np.zeros(room * 2, b.EVENT)
        return taken

    def _crossings_of(self, events: Array) -> list[Crossing]:
        book, found = self._book, []
        for tick, pool, before, after in events.tolist():
            reason = None
            if after < 0:
                reason = (self._reasons.get(pool) if book.pools[pool]["kind"] == EXACT else None) or self._missing(pool, tick)
            level = None if before < 0 else LEVELS[before]
            found.append(Crossing(tick, book.account_of[pool], book.name_of[pool], level, None if after < 0 else LEVELS[after], reason))
        return found

    def _views(self, chosen: Array) -> Iterator[PoolView]:
        book = self._book
        equity, requirement = np.empty(len(chosen)), np.empty(len(chosen))
        kernels.view(chosen, book.pools, book.legs.data, book.assets.data, book.schedules.data, book.y, equity, requirement)
        for index, pool in enumerate(chosen.tolist()):
            level, reason = self._verdict(pool)
            exact = self._exact_values.get(pool)
            values = (equity[index], requirement[index]) if exact is None else exact
            known = reason is None and values[0] == values[0]
            yield PoolView(
                book.account_of[pool],
                book.name_of[pool],
                None if reason else level,
                float(values[0]) if known else None,
                float(values[1]) if known else None,
            )


def _order(crossing: Crossing) -> tuple[int, str, str]:
    return crossing.tick, crossing.account, crossing.pool


def _badness(view: PoolView) -> tuple[int, float]:
    level = -1 if view.level is None else int(view.level)
    return level, -(view.equity or 0.0) if view.ratio is None else view.ratio


def _one_event(tick: int, pool: int, before: int, after: int) -> Array:
    return np.array([(tick, pool, before, after)], b.EVENT) if before != after else NO_EVENTS


def _per_moves(moves: float) -> float:
    """Expected exits per tick of a row whose band is this many moves wide."""
    return float("inf") if moves == 0 else 1 / moves**2


def _ladders(thresholds: Thresholds) -> tuple[Array, Array, Array]:
    """(enter and leave by level; au, bu, av, bv by level; the lines of a hot slot by level: up, down, and the factor of its tolerance)."""
    ladder = np.zeros((2, 5))
    for level, threshold in enumerate(thresholds.ladder(), start=1):
        ladder[0, level], ladder[1, level] = float(threshold.enter), float(threshold.leave)
    lines = np.zeros((4, 5))
    lines[:, 3] = (1, 0, ladder[1, 3], 1)
    lines[:, 4] = (0, 0, 1, 0)
    lines32 = np.zeros((3, 5), np.float32)
    lines32[:, 4] = (-kernels.SIGN, kernels.SIGN, 1 + kernels.SIGN)
    for level in range(4):
        up, down = np.float32(ladder[0, level + 1] if level < 3 else kernels.FAR), np.float32(ladder[1, level])
        lines32[0, level] = np.nextafter(up, np.float32(0)) if level < 3 else up
        lines32[1, level] = np.nextafter(down, np.float32(np.inf)) if level else -kernels.FAR
        lines32[2, level] = 1 + max(float(up), float(down))
        if level < 3:
            lines[:, level] = (ladder[0, level + 1], 1, ladder[1, level], 1 if level else 0)
    return ladder, lines, lines32
