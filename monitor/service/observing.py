"""From a change of verdict to an observation in the ledger's queue: when it is told, with which numbers, and how long it took.

A pool that is unknown only because its first price is still on its way is not told for a while; every other change is told at once.
When one message changes more than one level, the levels go ahead and their numbers follow in rows of their own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from monitor.engine.evaluator import Crossing, Evaluator
from monitor.ledger.changes import Change, Numbers, Observation
from monitor.ledger.committer import Committer, QueueDropped
from monitor.ledger.keys import partition_of
from monitor.margin.levels import Level, Thresholds
from monitor.margin.pools import MarginPool
from monitor.margin.prices import PriceKind
from monitor.measures import Durations
from monitor.service.account_book import AccountBook
from monitor.service.facts import Facts
from monitor.service.price_store import Moment, PriceStore
from monitor.wire.events import TickPosition
from monitor.wire.suspicion import SuspicionWatch

__all__ = ["NUMBERS_AT_ONCE", "Observer", "RestartNeeded", "price_inputs"]

Cause = Mapping[str, Any]

PRICE_CAUSES = frozenset({"stale", *(kind.value for kind in PriceKind)})


NUMBERS_AT_ONCE = 1
"""A message that changes more levels than this tells them all before it works their numbers out (0.6 ms each, 1 ms with ten positions): who
waits for a level must not wait for the numbers of others."""

FOLLOWING_S = 0.0005
"""How long numbers that follow are worked out without a break: one pool, as a rule."""

LOOK_S = 0.002
QUIET_LOOKS = 3
"""Numbers that follow begin when the event loop was on time so often: until then levels are on their way to Redis and to receivers."""
QUIET_S = 2.0
"""They wait no longer than this for it."""
COMMIT_S = 0.05
"""Nor longer than this, between two pools, for a price message on its way through the process and for its levels on theirs to Redis."""


@dataclass(frozen=True, slots=True)
class _Following:
    """A level that was told without its numbers, and all that they are made of."""

    account: str
    pool: str
    level: Level
    place: TickPosition
    cause: Cause
    decided_at_ns: int
    stored: bytes
    moment: Moment


class RestartNeeded(Exception):
    """What is in memory has run ahead of the ledger and was given up: load again from its cursors."""


class Observer:
    """Hands the verdicts of one engine to the committers of its partitions.

    Attributes:
        events: Observations handed over, by (level, level or unknown).
        changed: Accounts with a change of verdict since somebody looked and cleared it.
        latency: Tick received to event proven in Redis.
        yields_to: Says whether a price message is on its way: numbers that follow wait for it.
    """

    def __init__(
        self,
        committers: Mapping[int, Committer],
        partitions: int,
        engine: Evaluator,
        book: AccountBook,
        store: PriceStore,
        facts: Facts,
        thresholds: Thresholds,
        *,
        watch: SuspicionWatch,
        unknown_after_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.events: dict[tuple[str, str], int] = {}
        self.changed: set[str] = set()
        self.latency = Durations()
        self.yields_to: Callable[[], bool] = lambda: False
        self._committers, self._partitions = committers, partitions
        self._engine, self._book, self._store = engine, book, store
        self._facts, self._thresholds, self._watch = facts, thresholds, watch
        self._unknown_after_s = unknown_after_s
        self._clock, self._wall_ns = clock, wall_ns
        self._due: dict[tuple[str, str], float] = {}
        self._following: dict[tuple[str, str], _Following] = {}
        self._follow_now = asyncio.Event()
        self._waiting: dict[int, list[tuple[int, int]]] = {number: [] for number in committers}

    async def put(self, number: int, changes: Sequence[Change]) -> None:
        """Queues changes of one partition, in order. Raises RestartNeeded when the queue was dropped while the ledger was away."""
        if changes:
            try:
                await self._committers[number].put(changes)
            except QueueDropped as dropped:
                raise RestartNeeded from dropped

    async def observe(
        self,
        crossings: Iterable[Crossing],
        place: TickPosition,
        cause: Cause,
        *,
        received_at_ns: int | None = None,
        moment: Moment | None = None,
    ) -> None:
        """Hands over changes of verdict.

        Args:
            received_at_ns: When the tick that caused them was received, for the latency.
            moment: The prices of that tick: levels are told at once, their numbers follow. None: with their numbers.
        """
        for crossing in crossings:
            account, pool = crossing.account, crossing.pool
            number = partition_of(account, self._partitions)
            if crossing.after is None:
                if not self._is_final(crossing, cause):
                    self._due.setdefault((account, pool), self._clock() + self._unknown_after_s)
                    continue
                level, _ = self._engine.verdict(account, pool)
                reason = crossing.reason or "unknown"
                if self._is_told(number, account, pool, level, reason):
                    continue
                change = self.observation(account, pool, level, reason, place, cause)
            elif pool not in self._engine.verdicts(account):
                change = self.closing(account, pool, place, cause)
            else:
                self._due.pop((account, pool), None)
                if self._is_told(number, account, pool, crossing.after, None):
                    continue
                if moment is None:
                    change = self.observation(account, pool, crossing.after, None, place, cause)
                else:
                    change = self._level_first(account, pool, crossing.after, place, cause, moment)
            await self.put(number, [change])
            if received_at_ns is not None:
                self._waiting[number].append((self._committers[number].accepted, received_at_ns))

    def _is_told(self, number: int, account: str, pool: str, level: Level, unknown: str | None) -> bool:
        """Whether the ledger says so anyway, as of nearly every account at its first prices: then no numbers are worked out."""
        if self._committers[number].verdict(account, pool) != (level, unknown):
            return False
        self.changed.add(account)
        return True

    async def tell_unknown(self, place: TickPosition) -> None:
        """Tells what has been waiting for a first price for too long."""
        now = self._clock()
        for (account, pool), due in list(self._due.items()):
            if now < due:
                continue
            del self._due[account, pool]
            if account not in self._book or pool not in (verdicts := self._engine.verdicts(account)):
                continue
            level, reason = verdicts[pool]
            if reason is not None:
                cause = {"kind": "never_seen", "waited_s": self._unknown_after_s}
                change = self.observation(account, pool, level, reason, place, cause)
                await self.put(partition_of(account, self._partitions), [change])

    def observation(self, account: str, pool: str, level: Level, unknown: str | None, place: TickPosition, cause: Cause) -> Observation:
        """The verdict of a pool with its numbers, from an exact evaluation at the prices in the store."""
        self._count(account, level, "level" if unknown is None else "unknown")
        self._following.pop((account, pool), None)
        now_ns = self._wall_ns()
        as_of = _as_of(cause, now_ns)
        facts = self._facts.of(
            self._book.held(account, as_of),
            self._book.document_hash(account),
            self._store.prices(self._book.venue_and_group(account)[0]),
            pool,
            level,
            self._thresholds,
            cause=cause,
            as_of=as_of,
            decided_at_ns=now_ns,
            watch=self._watch,
        )
        return Observation(account, pool, level, unknown, place, facts)

    def closing(self, account: str, pool: str, place: TickPosition, cause: Cause) -> Observation:
        """A pool that is no more: healthy, without numbers."""
        self._count(account, Level.HEALTHY, "level")
        return Observation(account, pool, Level.HEALTHY, None, place, orjson.dumps({"cause": cause, "closed": True}))

    def _level_first(self, account: str, pool: str, level: Level, place: TickPosition, cause: Cause, moment: Moment) -> Observation:
        """A level without its numbers, which are put down to be worked out."""
        self._count(account, level, "level")
        now_ns = self._wall_ns()
        self._following.pop((account, pool), None)
        book = self._book
        self._following[account, pool] = _Following(account, pool, level, place, cause, now_ns, book.stored(account), moment)
        self._follow_now.set()
        venue, group = book.venue_and_group(account)
        facts = {"venue": venue, "group": group or None, "cause": cause, "numbers": "follow", "decided_at_ns": now_ns}
        return Observation(account, pool, level, None, place, orjson.dumps(facts))

    @property
    def following(self) -> int:
        """How many numbers are still to follow."""
        return len(self._following)

    async def follow(self) -> None:
        """Works out the numbers that follow, between messages, until cancelled."""
        while True:
            await self._follow_now.wait()
            try:
                for committer in self._committers.values():  # the levels come first
                    await committer.flush()
            except QueueDropped as dropped:
                raise RestartNeeded from dropped
            await self._quiet()
            await self.follow_all(gives_way=True)

    async def _quiet(self) -> None:
        """Returns when nothing keeps the event loop busy, or has kept it so for too long."""
        until = self._clock() + QUIET_S
        calm = 0
        while calm < QUIET_LOOKS and (began := self._clock()) < until:
            await asyncio.sleep(LOOK_S)
            calm = calm + 1 if self._clock() - began < 2 * LOOK_S else 0

    async def _give_way(self) -> None:
        """Returns when no price message is on its way, and no level on its way to Redis; or when that takes too long."""
        until = self._clock() + COMMIT_S
        while (self.yields_to() or any(self._waiting.values())) and self._clock() < until:
            await asyncio.sleep(LOOK_S / 4)

    async def follow_all(self, *, gives_way: bool = False) -> None:
        """Works out all numbers that are still to follow. `gives_way`: to prices and levels on their way."""
        book = self._book
        until = self._clock() + FOLLOWING_S
        while self._following:
            f = self._following.pop(next(iter(self._following)))
            as_of = _as_of(f.cause, f.decided_at_ns)
            facts = self._facts.of(
                book.held_of(f.account, f.stored, as_of),
                book.hash_of(f.stored),
                f.moment.at(f.place.tick),
                f.pool,
                f.level,
                self._thresholds,
                cause=f.cause,
                as_of=as_of,
                decided_at_ns=f.decided_at_ns,
                watch=self._watch,
            )
            await self.put(partition_of(f.account, self._partitions), [Numbers(f.account, f.pool, f.place, facts)])
            if self._clock() >= until:
                await asyncio.sleep(0)
                if gives_way:
                    await self._give_way()
                until = self._clock() + FOLLOWING_S
        self._follow_now.clear()

    async def measure(self, number: int) -> None:
        """Feeds `latency` from what is proven to be committed in one partition, until cancelled."""
        committer, proven = self._committers[number], asyncio.Event()
        committer.listen(proven)
        try:
            while True:
                await proven.wait()
                proven.clear()
                now_ns = self._wall_ns()
                waiting, done = self._waiting[number], committer.done
                passed = 0
                for accepted, received_ns in waiting:
                    if accepted > done:
                        break
                    self.latency.observe((now_ns - received_ns) / 1e9)
                    passed += 1
                del waiting[:passed]
        finally:
            committer.unlisten(proven)

    def _count(self, account: str, level: Level, kind: str) -> None:
        self.changed.add(account)
        self.events[level.word, kind] = self.events.get((level.word, kind), 0) + 1

    def _is_final(self, crossing: Crossing, cause: Cause) -> bool:
        """Whether an unknown verdict is told at once: unless all it lacks is a first price."""
        if cause["kind"] in PRICE_CAUSES:
            return True
        missing = self._engine.first_missing(crossing.account, crossing.pool)
        if missing is not None and self._store.price(*missing) is None:
            return False
        pool = self._book.held(crossing.account, datetime.fromtimestamp(self._wall_ns() / 1e9, UTC)).pools[crossing.pool]
        return pool.unknown is not None or all(self._store.price(venue, kind, name) is not None for venue, kind, name in price_inputs(pool))


def price_inputs(pool: MarginPool) -> Iterator[tuple[str, PriceKind, str]]:
    """Prices without which a pool is unknown: marks of its instruments; index prices of its assets where several are valued."""
    venue = pool.account.venue
    for name in (*(leg.name for leg in pool.legs), *(instrument.name for instrument in pool.order_instruments)):
        yield venue, PriceKind.MARK, name
    if pool.multi:
        for holding in pool.holdings:
            if holding.name != pool.currency:
                yield venue, PriceKind.INDEX, holding.name


def _as_of(cause: Cause, now_ns: int) -> datetime:
    """The moment an event describes: the venue's time of its tick, else ours."""
    venue_ms = cause.get("venue_time_ms") or 0
    return datetime.fromtimestamp(venue_ms / 1e3 if venue_ms else now_ns / 1e9, UTC)
