"""When each number last came: refuses what is older than what is known, and tells which names must not be used because they are late.

Age is measured on the monotonic clock. The venue's own times only order its numbers, and tell a repeated tick from a new one: a name whose
messages go on with the same event time is as stale as a silent one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import repeat
from operator import gt

from monitor.margin.prices import PriceKind
from monitor.wire.prices import PriceBatch

__all__ = ["FLOOR_S", "GRACE_S", "Freshness", "Memory", "StaleChange", "StaleReason"]

GRACE_S = 10.0
"""A wanted name that has not come for so long after it was asked for is `never_seen`."""

FLOOR_S = 3.0
"""No name is stale before this age, whatever its nominal interval; while no session is open, none is fresh beyond it."""

_AHEAD_MS = 2_000


class StaleReason(StrEnum):
    """Why a name's number must not be used."""

    NEVER_SEEN = "never_seen"
    SILENT = "silent"
    FROZEN = "frozen"
    DISCONNECTED = "disconnected"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class StaleChange:
    """A name became stale, or (reason None) fresh again. `age_s`: since its last new number; None when there was none."""

    venue: str
    kind: PriceKind
    name: str
    reason: StaleReason | None
    age_s: float | None = None


@dataclass(slots=True)
class Memory:
    """What is known of a venue's names, whichever connection brought it and whether or not they are watched at the moment.

    A name that is given up and wanted again is as old as its last number, and stays stale until a new one comes.

    Attributes:
        seen: Monotonic seconds of the last new number. times: the highest event time. told: what the names are said to be.
    """

    seen: dict[PriceKind, dict[str, float]] = field(default_factory=dict)
    times: dict[PriceKind, dict[str, int]] = field(default_factory=dict)
    told: dict[tuple[PriceKind, str], StaleReason] = field(default_factory=dict)

    @property
    def symbols(self) -> int:
        """Marks that have a number."""
        return len(self.seen.get(PriceKind.MARK, ()))


class Freshness:
    """The names of one set of topics (one or more sessions that carry the same)."""

    def __init__(
        self,
        venue: str,
        *,
        memory: Memory | None = None,
        grace_s: float = GRACE_S,
        floor_s: float = FLOOR_S,
        stale_after_s: float | None = None,
    ) -> None:
        """`memory`: shared by all sets of a venue. `stale_after_s`: one limit for every name, not max(3 nominal intervals, floor)."""
        memory = memory if memory is not None else Memory()
        self.venue = venue
        self._grace_s, self._floor_s, self._stale_after_s = grace_s, floor_s, stale_after_s
        self._limit: dict[PriceKind, dict[str, float]] = {}
        self._asked: dict[PriceKind, dict[str, float]] = {}
        self._seen, self._time, self._told = memory.seen, memory.times, memory.told
        self._repeated: dict[tuple[PriceKind, str], float] = {}
        self._refused: set[tuple[PriceKind, str]] = set()
        self._open: dict[PriceKind, float] = {}
        self.down_since: float | None = None
        self.older = 0
        self.duplicates = 0

    def expect(self, kind: PriceKind, names: Iterable[str], interval_s: float, now: float) -> None:
        """Watches these names from now on."""
        limit = self._limit_of(interval_s)
        for name in names:
            self._limit.setdefault(kind, {})[name] = limit
            self._asked.setdefault(kind, {}).setdefault(name, now)

    def expect_whatever_comes(self, kind: PriceKind, interval_s: float) -> None:
        """Also watches every other name of this kind, from its first number on."""
        self._open[kind] = self._limit_of(interval_s)

    def _limit_of(self, interval_s: float) -> float:
        return self._stale_after_s if self._stale_after_s is not None else max(3 * interval_s, self._floor_s)

    def forget(self, kind: PriceKind, names: Iterable[str]) -> None:
        """Stops watching. What was said of the names stands until they are watched again."""
        for name in names:
            self._limit.get(kind, {}).pop(name, None)
            self._asked.get(kind, {}).pop(name, None)
            self._refused.discard((kind, name))

    def refuse(self, kind: PriceKind, names: Iterable[str], *, refused: bool) -> None:
        """Notes that the venue refuses to send these names, or no longer does."""
        for name in names:
            (self._refused.add if refused else self._refused.discard)((kind, name))

    def admit(self, batch: PriceBatch, now: float, *, strict: bool = False) -> PriceBatch | None:
        """The batch without what is older than known, or None when nothing is left; notes what is new.

        Args:
            batch: Of this venue.
            now: Monotonic seconds.
            strict: Also leave out what has the same event time: another connection has brought it before. So it is for a name that is told
                as stale: readers take every number for a new one.
        """
        names, times = batch.names, batch.venue_times_ms
        known = self._time.setdefault(batch.kind, {})
        seen = self._seen.setdefault(batch.kind, {})
        if len(names) == 1:
            name, time = names[0], times[0]
            if known.get(name, -1) < time <= batch.received_at_ns // 1_000_000 + _AHEAD_MS and time:
                known[name] = time
                seen[name] = now
                return batch
        if not times[0] and not any(times):  # the venue gives no times: what comes is new
            seen.update(zip(names, repeat(now)))
            return batch
        ceiling = batch.received_at_ns // 1_000_000 + _AHEAD_MS
        if max(times) <= ceiling and all(map(gt, times, map(known.get, names, repeat(-1)))):
            known.update(zip(names, times, strict=True))
            seen.update(zip(names, repeat(now)))
            return batch
        return self._admit_slowly(batch, now, ceiling, strict=strict)

    def _admit_slowly(self, batch: PriceBatch, now: float, ceiling: int, *, strict: bool) -> PriceBatch | None:
        """Item by item. A time ahead of our clock is remembered as at most 2 s ahead: one wrong stamp must not shut a name out."""
        known, seen = self._time[batch.kind], self._seen[batch.kind]
        kept = []
        for index, (name, time) in enumerate(zip(batch.names, batch.venue_times_ms, strict=True)):
            last = known.get(name, -1)
            if time > last or time == 0:
                known[name] = max(last, min(time, ceiling))
                seen[name] = now
                kept.append(index)
                continue
            self._repeated[batch.kind, name] = now
            if time < last:
                self.older += 1
            elif strict or (batch.kind, name) in self._told:
                self.duplicates += 1
            else:
                kept.append(index)
        if len(kept) == len(batch.names):
            return batch
        if not kept:
            return None
        return PriceBatch(
            venue=batch.venue,
            kind=batch.kind,
            names=[batch.names[index] for index in kept],
            prices=[batch.prices[index] for index in kept],
            venue_times_ms=[batch.venue_times_ms[index] for index in kept],
            received_at_ns=batch.received_at_ns,
        )

    def sweep(self, now: float) -> list[StaleChange]:
        """What became stale or fresh since the last sweep. Cost follows the number of watched names; call it every quarter of a second."""
        for kind, limit in self._open.items():
            limits = self._limit.setdefault(kind, {})
            if len(limits) != len(self._seen.get(kind, ())):
                for name in self._seen.get(kind, ()):
                    limits.setdefault(name, limit)
        changes = []
        down = self.down_since is not None and now - self.down_since > self._floor_s
        for kind, limits in self._limit.items():
            seen, asked = self._seen.get(kind, {}), self._asked.get(kind, {})
            for name, limit in limits.items():
                at = seen.get(name)
                if at is not None and now - at <= limit and not (down and now - at > self._floor_s):
                    reason = None
                elif at is None:
                    reason = None if now - asked.get(name, now) <= self._grace_s else StaleReason.NEVER_SEEN
                elif self.down_since is not None:
                    reason = StaleReason.DISCONNECTED
                else:
                    reason = StaleReason.FROZEN if self._repeated.get((kind, name), at) > at else StaleReason.SILENT
                if (reason is not None or at is None) and (kind, name) in self._refused:
                    reason = StaleReason.REFUSED
                if reason is None and at is None and (kind, name) in self._told:
                    continue  # wanted again, nothing new yet
                if reason is not self._told.get((kind, name)):
                    if reason is None:
                        del self._told[kind, name]
                    else:
                        self._told[kind, name] = reason
                    changes.append(StaleChange(self.venue, kind, name, reason, None if at is None else now - at))
        return changes

    def missing(self) -> list[tuple[PriceKind, str]]:
        """Wanted names without any number so far."""
        return [(kind, name) for kind, limits in self._limit.items() for name in limits if name not in self._seen.get(kind, ())]

    @property
    def stale(self) -> dict[tuple[PriceKind, str], StaleReason]:
        """What the last sweep found stale of the names watched."""
        return {item: reason for item, reason in self._told.items() if item[1] in self._limit.get(item[0], ())}
