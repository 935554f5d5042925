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

from monitor.engine import kernels
from monitor.engine.book import DEFERRED, EVALUATIONS, EVENT, EVENTS, EXACT, FREE, HOT_ROWS, IDLE, INVALID, KNOWN, TICKS, UNKNOWN, Book
from monitor.engine.terms import ExactEvaluation, Leg, PoolTerms, Verdict, terms_of
from monitor.margin.levels import DEFAULT_THRESHOLDS, Level, Thresholds, next_level
from monitor.margin.numbers import exact_of_float
from monitor.margin.pools import MarginPool
from monitor.margin.prices import PriceKind, Prices

__all__ = ["Crossing", "EngineStatistics", "Evaluator", "PoolView"]

Array = npt.NDArray[Any]

NO_NUMBERS: Final[Array] = np.zeros(0, np.int32)


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
    """What the engine did since it was made. Plain integers."""

    messages: int = 0
    ticks: int = 0
    hot_rows: int = 0
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
    ) -> None:
        """Makes an empty book.

        Args:
            thresholds: Enter and leave ratios of the levels.
            exact: The exact evaluation of one pool, asked where floats cannot tell.
            pools, legs, columns: Expected sizes; the book grows past them.
        """
        self.thresholds = thresholds
        self._exact = exact
        self._book = Book(pools=pools, legs=legs, columns=columns)
        self._sources: dict[int, object] = {}
        self._reasons: dict[int, str] = {}
        self._exact_values: dict[int, tuple[Decimal, Decimal]] = {}
        self._ties: dict[int, tuple[tuple[float, ...], Verdict]] = {}
        self._events: Array = np.zeros(4096, EVENT)
        self._deferred: Array = np.zeros((len(self._book.pools), 2), np.int32)
        self._ladder, self._ladder32 = _ladders(thresholds)
        self._last: Array = NO_NUMBERS
        self._last_prices: Array = np.zeros(0)
        self._names: dict[tuple[str, PriceKind, str], Array] = {}
        self._names_made_at = 0
        self._since_refresh = 0
        self._messages = self._exact_evaluations = self._ties_remembered = self._crossings = 0

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
        book = self._book
        numbers = np.ascontiguousarray(columns, np.int32)
        prices = np.ascontiguousarray(prices, np.float64)
        if not kernels.open_message(numbers, prices, self._last, book.columns, book.price, book.previous, book.position):
            self._last = NO_NUMBERS
            raise ValueError("a price input comes twice in one message")
        self._last, self._last_prices = numbers, prices
        self._messages += 1
        self._since_refresh += len(numbers)
        if self._since_refresh > kernels.UPDATES:
            self._refresh()
        found: list[Crossing] = []
        tick = 0
        while tick < len(numbers):
            tick = kernels.run_message(
                numbers,
                prices,
                tick,
                book.columns,
                book.price,
                book.y,
                book.pools,
                book.legs.data,
                book.assets.data,
                book.schedules.data,
                book.hot.data,
                book.slots,
                self._ladder,
                self._ladder32,
                self._events,
                self._deferred,
                book.tally,
            )
            if tick < len(numbers):
                found.extend(self._take_events(room=int(book.columns["hots"].max())))
        if book.tally[DEFERRED]:
            found.extend(self._decide_deferred())
        if book.tally[EVENTS]:
            found.extend(self._take_events())
        found.sort(key=_order)
        self._crossings += len(found)
        return found

    def prices_at(self, account: str, pool: str, tick: int) -> Prices:
        """The exact prices of a pool's inputs as they stood right after `tick` of the last message (-1: before it), without missing ones."""
        return self._prices(self._book.accounts[account][pool], tick)

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
        book = self._book
        present = {name: self._verdict(pool) for name, pool in book.accounts.get(account, {}).items()}
        self.remove(account)
        found: list[Crossing] = []
        for terms in pools:
            unknown = present.get(terms.name, (Level.HEALTHY, None))[1] is not None
            start = present.pop(terms.name, (Level.HEALTHY, None))[0]
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

    def remove(self, account: str) -> None:
        """Forgets an account. An unknown one is no error."""
        for pool in list(self._book.accounts.get(account, {}).values()):
            book = self._book
            kernels.detach(book.pools, book.legs.data, book.columns, book.hot.data, book.free_slots, book.tally, pool)
            book.free_pool(pool)
            for memory in (self._sources, self._reasons, self._exact_values, self._ties):
                memory.pop(pool, None)

    def verdict(self, account: str, pool: str) -> tuple[Level, str | None]:
        """(level, unknown): the reason when the level cannot be claimed, and then the level is the last one known. Raises KeyError."""
        return self._verdict(self._book.accounts[account][pool])

    def verdicts(self, account: str) -> dict[str, tuple[Level, str | None]]:
        """Verdicts of an account's pools by name; empty for an account that is not here."""
        return {name: self._verdict(pool) for name, pool in self._book.accounts.get(account, {}).items()}

    # Views

    def views(self, account: str) -> list[PoolView]:
        """The pools of one account."""
        return list(self._views(np.array(sorted(self._book.accounts.get(account, {}).values()), np.int32)))

    def worst(self, count: int) -> list[PoolView]:
        """The pools nearest to or deepest in trouble: by level, then by ratio; bankrupt ones by equity. Without unknown and idle ones."""
        chosen, equity, requirement = self.columns_now()
        levels = self._book.pools["level"][chosen]
        with np.errstate(divide="ignore", invalid="ignore"):
            badness = np.where(equity > 0, requirement / equity, np.inf)
        known = np.flatnonzero((self._book.pools["state"][chosen] == KNOWN) & ~np.isnan(equity))
        order = np.lexsort((equity[known], -badness[known], -levels[known].astype(np.int32)))[:count]
        return list(self._views(chosen[known[order]]))

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
        """What was done so far, and how much is held."""
        book, tally = self._book, self._book.tally
        used = book.pools["state"] != FREE
        return EngineStatistics(
            messages=self._messages,
            ticks=int(tally[TICKS]),
            hot_rows=int(tally[HOT_ROWS]),
            evaluations=int(tally[EVALUATIONS]),
            exact_evaluations=self._exact_evaluations,
            ties_remembered=self._ties_remembered,
            invalid_prices=int(tally[INVALID]),
            crossings=self._crossings,
            accounts=len(book.accounts),
            pools=int(used.sum()),
            legs=int(book.pools["legs"][used].sum()),
            columns=len(book.inputs),
            hot_pools=int((book.pools["slot"][used] >= 0).sum()),
            exact_pools=int((book.pools["kind"][used] == EXACT).sum()),
        )

    def warm_up(self) -> None:
        """Compiles or loads every kernel, on a small book of its own. Until it has returned, a first message could take seconds."""
        practice = Evaluator(self.thresholds, exact=lambda _account, _pool, _source, _prices: (Decimal(1), Decimal(0)))
        leg = Leg(kind=PriceKind.MARK, name="x", slope=1.0, schedule=((-1.0, 0.5, 0.0, 0.0, 0.0),))
        practice.put_terms("a", [PoolTerms(name="p", venue="v", constant=0.0, legs=(leg,), source=None)])
        column = practice.columns_of("v", PriceKind.MARK, ["x"])
        for price in (1.0, 2.0, 2.1):
            practice.apply(column, np.array([price]))
        practice.put_terms("a", [PoolTerms(name="p", venue="v", constant=-0.5, legs=(leg,), source=None)])
        practice.apply(column, np.array([1.0]))
        practice.worst(1)
        practice.remove("a")

    # Inside

    def _insert(self, account: str, terms: PoolTerms, start: Level, *, unknown: bool) -> list[Crossing]:
        book = self._book
        pool = book.new_pool(account, terms)
        if len(self._deferred) < len(book.pools):
            self._deferred = np.zeros((len(book.pools), 2), np.int32)
        record = book.pools[pool]
        if terms.idle:
            if start is Level.HEALTHY and not unknown:
                return []
            return [Crossing(-1, account, terms.name, None if unknown else start, Level.HEALTHY)]
        self._sources[pool] = terms.source
        record["level"] = start
        record["state"] = UNKNOWN if unknown else KNOWN
        book.reserve_hot([pool])
        attached = kernels.attach(
            book.pools,
            book.legs.data,
            book.assets.data,
            book.schedules.data,
            book.y,
            book.columns,
            book.hot.data,
            book.slots,
            book.free_slots,
            self._ladder32,
            book.tally,
            pool,
        )
        assert attached
        kernels.settle(
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
            -1,
        )
        if book.tally[DEFERRED]:  # settled with tick -1 would not be told from "not deferred"
            book.pools[pool]["deferred"] = -1
            book.tally[DEFERRED] = 0
            found = self._decide_exactly(pool, len(self._last))
            found = [crossing._replace(tick=-1) for crossing in found]
        else:
            found = []
        found.extend(self._take_events(now=True))
        self._rearm(pool)
        return found

    def _rearm(self, pool: int) -> None:
        book = self._book
        kernels.rearm(
            book.pools,
            book.legs.data,
            book.assets.data,
            book.schedules.data,
            book.y,
            book.columns,
            book.hot.data,
            book.slots,
            self._ladder32,
            pool,
        )

    def _refresh(self) -> None:
        """Fresh sums for all hot pools: the error of incremental sums is bounded for `kernels.UPDATES` ticks."""
        for pool in np.flatnonzero((self._book.pools["state"] != FREE) & (self._book.pools["slot"] >= 0)):
            self._rearm(int(pool))
        self._since_refresh = 0

    def _decide_deferred(self) -> list[Crossing]:
        """Runs each deferred pool through the rest of the message: exactly where floats cannot tell, else in floats again."""
        book, tally = self._book, self._book.tally
        waiting = self._deferred[: tally[DEFERRED]].tolist()
        tally[DEFERRED] = 0
        found: list[Crossing] = []
        for pool, first in waiting:
            tick: int | None = first
            while tick is not None:
                found.extend(self._decide_exactly(pool, tick))
                book.pools[pool]["deferred"] = -1
                tick = self._after(pool, tick)
                if tick is not None and book.pools[pool]["kind"] != EXACT:
                    if tally[EVENTS] + book.pools[pool]["legs"] > len(self._events):
                        found.extend(self._take_events(room=int(book.pools[pool]["legs"])))
                    kernels.run_pool(
                        pool,
                        tick,
                        self._last,
                        self._last_prices,
                        book.columns,
                        book.price,
                        book.previous,
                        book.position,
                        book.y,
                        book.pools,
                        book.legs.data,
                        book.assets.data,
                        book.schedules.data,
                        self._ladder,
                        self._events,
                        self._deferred,
                        tally,
                    )
                    tick = int(self._deferred[0, 1]) if tally[DEFERRED] else None
                    tally[DEFERRED] = 0
            self._rearm(pool)
        return found

    def _after(self, pool: int, tick: int) -> int | None:
        """The next tick of the last message that touches the pool."""
        positions = self._book.position[self._columns_of_pool(pool)]
        later = positions[positions > tick]
        return int(later.min()) if len(later) else None

    def _columns_of_pool(self, pool: int) -> Array:
        record = self._book.pools[pool]
        columns: Array = self._book.legs.data["column"][record["leg"] : record["leg"] + record["legs"]]
        return columns

    def _decide_exactly(self, pool: int, tick: int) -> list[Crossing]:
        """Settles one pool by the exact core at the prices of `tick`. A verdict is remembered until a price of the pool changes."""
        book = self._book
        names = book.names[pool]
        assert names is not None
        columns = self._columns_of_pool(pool)
        key = tuple(np.where(book.position[columns] > tick, book.previous[columns], book.price[columns]).tolist())
        remembered = self._ties.get(pool)
        if remembered is not None and repr(remembered[0]) == repr(key):
            verdict = remembered[1]
            self._ties_remembered += 1
        else:
            verdict = self._exact(*names, self._sources[pool], self._prices(pool, tick))
            self._exact_evaluations += 1
            self._ties[pool] = (key, verdict)
        record = book.pools[pool]
        before = Level(int(record["level"])) if record["state"] == KNOWN else None
        if isinstance(verdict, str):
            changed = before is not None or self._reasons.get(pool) != verdict
            self._reasons[pool] = verdict
            self._exact_values.pop(pool, None)
            record["state"] = UNKNOWN
            return [Crossing(tick, *names, before, None, verdict)] if changed else []
        if record["kind"] == EXACT:
            self._exact_values[pool] = verdict
        self._reasons.pop(pool, None)
        after = next_level(Level(int(record["level"])), *verdict, self.thresholds)
        record["state"], record["level"] = KNOWN, after
        return [Crossing(tick, *names, before, after)] if after is not before else []

    def _prices(self, pool: int, tick: int) -> Prices:
        book = self._book
        tables: dict[str, dict[str, Decimal]] = {}
        for column in self._columns_of_pool(pool).tolist():
            price = float(book.previous[column] if book.position[column] > tick else book.price[column])
            if price == price:
                _, kind, name = book.inputs[column]
                tables.setdefault(kind.value, {})[name] = exact_of_float(price)
        return Prices(**tables)

    def _missing(self, pool: int, tick: int) -> str:
        """The first input of a pool that has no price at `tick`."""
        book = self._book
        for column in self._columns_of_pool(pool).tolist():
            price = float(book.previous[column] if book.position[column] > tick else book.price[column])
            if price != price:
                _, kind, name = book.inputs[column]
                return f"no {kind.value} of {name}"
        return "not a number"

    def _verdict(self, pool: int) -> tuple[Level, str | None]:
        record = self._book.pools[pool]
        reason = None
        if record["state"] == UNKNOWN:
            reason = self._reasons.get(pool) or self._missing(pool, len(self._last))
        return Level(int(record["level"])), reason

    def _take_events(self, *, room: int = 0, now: bool = False) -> list[Crossing]:
        """Empties the event buffer, and makes it larger where `room` asks for it."""
        book = self._book
        taken = self._events[: book.tally[EVENTS]]
        found: list[Crossing] = []
        for tick, pool, before, after in taken.tolist():
            account, name = book.names[pool] or ("", "")
            reason = self._missing(pool, len(self._last) if now else tick) if after < 0 else None
            self._reasons.pop(pool, None)
            found.append(Crossing(tick, account, name, None if before < 0 else Level(before), None if after < 0 else Level(after), reason))
        book.tally[EVENTS] = 0
        if room > len(self._events):
            self._events = np.zeros(room * 2, EVENT)
        return found

    def _views(self, chosen: Array) -> Iterator[PoolView]:
        book = self._book
        equity, requirement = np.empty(len(chosen)), np.empty(len(chosen))
        kernels.view(chosen, book.pools, book.legs.data, book.assets.data, book.schedules.data, book.y, equity, requirement)
        for index, pool in enumerate(chosen.tolist()):
            account, name = book.names[pool] or ("", "")
            level, reason = self._verdict(pool)
            exact = self._exact_values.get(pool)
            values = (equity[index], requirement[index]) if exact is None else exact
            known = reason is None and values[0] == values[0]
            yield PoolView(
                account, name, None if reason else level, float(values[0]) if known else None, float(values[1]) if known else None
            )


def _order(crossing: Crossing) -> tuple[int, str, str]:
    return crossing.tick, crossing.account, crossing.pool


def _ladders(thresholds: Thresholds) -> tuple[Array, Array]:
    """(enter and leave by level; the lines of a hot slot by level: up, down, and the factor of its tolerance)."""
    ladder = np.zeros((2, 5))
    for level, threshold in enumerate(thresholds.ladder(), start=1):
        ladder[0, level], ladder[1, level] = float(threshold.enter), float(threshold.leave)
    lines = np.zeros((3, 5), np.float32)
    for level in range(4):
        up = np.float32(ladder[0, level + 1] if level < 3 else kernels.FAR)
        lines[0, level] = np.nextafter(up, np.float32(0)) if level < 3 else up
        down = np.float32(ladder[1, level])
        lines[1, level] = np.nextafter(down, np.float32(np.inf)) if level else -kernels.FAR
        lines[2, level] = 1 + max(float(up), float(down))
    return ladder, lines
