"""Decides what to say, to whom and when: a state machine over events, rule readings and the time.

    event or reading -> subject (account, pool, about) -> decision per route -> the route's open group -> one message when it is due

A *subject* is one thing that can be told: the level of a pool, that it is unknown, one rule. Per route it is decided whether the subject
is worse than what was told (said, unless the same was said within the floor), still there (repeated), or better (said after
`keep_firing_for`).
What is decided joins the route's open *group*; a group is one message, however many subjects are in it.

Laws, held by tests:
  - whatever stands confirmed is told: at once when it is worse than anything told within the floor, else when the floor has passed;
  - the messages about one subject are bounded by the floors, the messages of a route by its rate, whatever the input does;
  - nothing is called better, and no present level is named, while the subject is unknown;
  - asking more often for what is due changes nothing, and a restart from the stored records changes nothing.

Time is wall time in milliseconds and comes in as an argument. When it jumps back, all stored moments move with it, so that waiting goes on
from where it was; `advance` should be asked at least once a second, since what passed between its last call and the jump is not known.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import orjson

from monitor.alerting.digests import Change, Entry, Notice, compose, essence
from monitor.alerting.readings import Mark, PoolReadings
from monitor.alerting.routes import NEVER, AlertPolicy, Route, Timing
from monitor.margin.levels import Level

__all__ = ["Firing", "Notifier", "Silence"]

LONGEST_SILENCE_MS = 30 * 86_400_000
NUMBERS_WAIT_MS = 5_000
"""In a burst levels are told before their numbers. A message in full without them would be none that one can act on."""
NUMBERS_LOOK_MS = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Says nothing about what it matches, until it ends. Patterns with `*`; up to a severity: what is worse is said all the same.

    Raises ValueError unless it has a name, a reason, an author and an end that lies after its start by at most 30 days.
    """

    id: str
    reason: str
    author: str
    from_ms: int
    until_ms: int
    account: str = "*"
    pool: str = "*"
    group: str = "*"
    venue: str = "*"
    about: str = "*"
    up_to: Level = Level.MARGIN_CALL

    def __post_init__(self) -> None:
        if not (self.id and self.reason.strip() and self.author.strip()):
            raise ValueError("a silence needs an id, a reason and an author")
        if not 0 < self.until_ms - self.from_ms <= LONGEST_SILENCE_MS:
            raise ValueError("a silence ends after its start, and within 30 days")

    def to_json(self) -> bytes:
        """The record kept in the ledger."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return orjson.dumps({**values, "up_to": self.up_to.word})

    @classmethod
    def of_json(cls, data: bytes) -> Silence:
        """Reads what `to_json` wrote. Raises ValueError."""
        try:
            values = orjson.loads(data)
            return cls(**{**values, "up_to": Level.of(values["up_to"])})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a silence: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Firing:
    """A subject that stands above healthy, for people and the API."""

    account: str
    pool: str
    about: str
    severity: Level
    since_ms: int
    unknown: str | None
    acknowledged_until_ms: int | None
    silenced: bool
    told: Mapping[str, Level]


class Notifier:
    """The state machine. Feed it with `observe` and `read`, ask it with `advance`, store `take_changes` with what it said."""

    def __init__(self, policy: AlertPolicy) -> None:
        self._policy = policy
        self._subjects: dict[str, _Subject] = {}
        self._groups = {route.name: _Group(route) for route in policy.routes}
        self._silences: dict[str, Silence] = {}
        self._timers: list[tuple[int, str]] = []
        self._dirty: set[str] = set()
        self._unread: dict[int, set[str]] = {}
        self._done = 0  # everything up to this moment has been decided

    @classmethod
    def load(
        cls, policy: AlertPolicy, records: Mapping[str, bytes], now_ms: int, *, on_damaged: Callable[[str], None] | None = None
    ) -> Notifier:
        """Continues from stored records. Routes that no longer exist are forgotten; everything is decided anew by the present policy.

        A record that cannot be read is left out and told to `on_damaged`; without one it raises ValueError.
        """
        notifier = cls(policy)
        for name, data in records.items():
            try:
                notifier._take_record(name, data)
            except (ValueError, TypeError, KeyError) as error:
                if on_damaged is None:
                    raise ValueError(f"record {name!r} cannot be read: {error}") from None
                on_damaged(name)
        for key, subject in notifier._subjects.items():
            for route_name, channel in subject.channels.items():
                if channel.pending is not None:
                    notifier._groups[route_name].waiting[key] = None
        notifier._follow(now_ms)
        notifier._decide_all(notifier._done)
        return notifier

    def _take_record(self, name: str, data: bytes) -> None:
        kind, _, rest = name.partition(":")
        match kind:
            case "subject":
                subject = _Subject.of_json(rest, data)
                self._adopt(subject)
                self._subjects[rest] = subject
            case "route" if rest in self._groups:
                self._groups[rest].restore(orjson.loads(data))
            case "route":
                self._dirty.add(name)
            case "silence":
                self._silences[rest] = Silence.of_json(data)
            case "clock":
                self._done = int(data)
            case _:
                raise ValueError("no record of the alert policy")

    def observe(self, event: Mapping[str, Any], now_ms: int) -> None:
        """Takes one row of the event stream. Timers up to its own time run first, so a late reader decides as a prompt one."""
        decided = event.get("decided_at_ns")
        at = self._reach(decided // 1_000_000 if type(decided) is int else now_ms, now_ms)
        if event.get("kind") == "blind":
            subject = self._subject("", str(event.get("id", "?")), "blind", "", "")
            subject.facts = essence(event)
            subject.see(int(self._policy.unknown_severity), None, at)
            self._decide(subject.key, at)
            subject.see(0, None, at)
            self._decide(subject.key, at)
            return
        level, unknown = int(Level.of(str(event["level"]))), event.get("unknown")
        facts = essence(event)
        names = (str(event["account"]), str(event.get("pool") or ""))
        if event.get("kind") == "numbers":  # of a level that was told without them
            known = self._subjects.get(key := _key(*names, "level"))
            if known is not None and known.facts.get("rev") == event.get("rev"):
                known.facts = {**known.facts, **facts, "id": known.facts.get("id"), "kind": "level"}
                self._mark(key)
            return
        where = (str(event.get("group") or ""), str(event.get("venue") or ""))
        for about, severity in (("level", level), ("unknown", int(self._policy.unknown_severity) if unknown is not None else 0)):
            key = _key(*names, about)
            if severity == 0 and key not in self._subjects:
                continue
            subject = self._subject(*names, about, *where)
            subject.facts = facts
            subject.unknown = None if unknown is None else str(unknown)
            if about == "level" and unknown is not None:
                self._mark(key)  # the level is only the last one known: nothing new can be said of it
            else:
                subject.see(severity, subject.unknown, at)
            self._decide(key, at)

    def read(self, told: PoolReadings, now_ms: int) -> None:
        """Takes what the rules say of a pool: a rule that is not named has nothing to warn of."""
        at = self._reach(told.at_ms, now_ms)
        for reading in told.all(self._policy.rules):
            key = _key(told.account, told.pool, reading.rule)
            for unread in self._unread.values():
                unread.discard(key)
            if not reading.severity and key not in self._subjects:
                continue
            subject = self._subject(told.account, told.pool, reading.rule, told.group, told.venue)
            facts = {"text": reading.text}
            if subject.facts != facts or subject.unknown != reading.unknown or subject.severity != int(reading.severity):
                subject.facts, subject.unknown = facts, reading.unknown
                self._mark(key)
                if reading.unknown is None:
                    subject.see(int(reading.severity), None, at)
                self._decide(key, at)

    def mark_round(self, mark: Mark, name: int, covers: Callable[[str], bool], now_ms: int) -> None:
        """Begins or ends a round of readings.

        What was standing at the beginning and is not read until the end is over: the rule or the pool is gone, or has nothing to warn of.
        A round whose beginning was not seen ends nothing.

        Args:
            name: Of the round, for several that go side by side. covers: Whether an account belongs to it.
        """
        if mark is Mark.BEGIN:
            self._unread[name] = {key for key, subject in self._subjects.items() if subject.is_of_a_rule() and covers(subject.account)}
            return
        now = self._reach(now_ms, now_ms)
        for key in sorted(self._unread.pop(name, ())):
            subject = self._subjects.get(key)
            if subject is not None:
                subject.see(0, None, now)
                self._mark(key)
                self._decide(key, now)

    def advance(self, now_ms: int) -> list[Notice]:
        """Runs what is due and returns the messages to send, at most one a route. Store them together with `take_changes`."""
        now = self._reach(now_ms, now_ms)
        for silence in [each for each in self._silences.values() if each.until_ms <= now]:
            self._end_silence(silence.id, now)
        return [notice for group in self._groups.values() if (notice := self._flush(group, now)) is not None]

    def next_due_ms(self) -> int | None:
        """When `advance` has something to do next, if nothing is observed before; None: never."""
        times = [group.flush_at for group in self._groups.values() if group.flush_at is not None]
        times += [silence.until_ms for silence in self._silences.values()]
        while self._timers and not self._is_live(self._timers[0]):
            heapq.heappop(self._timers)
        if self._timers:
            times.append(self._timers[0][0])
        return min(times, default=None)

    def acknowledge(self, now_ms: int, *, account: str, pool: str = "*", about: str = "*") -> int:
        """Somebody has seen it: no repeats and no escalation of what matches until it gets worse, is over, or the time runs out.

        Returns the number of subjects acknowledged.
        """
        now, count = self._reach(now_ms, now_ms), 0
        for key, subject in self._subjects.items():
            if subject.severity and _is_like(subject, account, pool, about):
                subject.acknowledged, subject.acknowledged_until = subject.severity, now + subject.timing.acknowledged
                self._mark(key)
                self._decide(key, now)
                count += 1
        return count

    def silence(self, silence: Silence, now_ms: int) -> None:
        """Adds or replaces a silence."""
        now = self._reach(now_ms, now_ms)
        self._silences[silence.id] = silence
        self._dirty.add(f"silence:{silence.id}")
        self._decide_all(now)  # it may cover less than the one it replaces

    def unsilence(self, silence_id: str, now_ms: int) -> bool:
        """Ends a silence; what it held back and is still there is said now. False when there is none of this id."""
        if silence_id not in self._silences:
            return False
        self._end_silence(silence_id, self._reach(now_ms, now_ms))
        return True

    @property
    def silences(self) -> tuple[Silence, ...]:
        """The silences in force."""
        return tuple(self._silences.values())

    def firing(self) -> Iterator[Firing]:
        """Everything above healthy."""
        for subject in self._subjects.values():
            if subject.severity:
                yield Firing(
                    account=subject.account,
                    pool=subject.pool,
                    about=subject.about,
                    severity=Level(subject.severity),
                    since_ms=min(since for since in subject.since if since is not None),
                    unknown=subject.unknown,
                    acknowledged_until_ms=subject.acknowledged_until if subject.acknowledged else None,
                    silenced=self._is_silenced(subject, subject.severity, self._done),
                    told={name: Level(told) for name, told in subject.told()},
                )

    def take_changes(self) -> dict[str, bytes | None]:
        """Records changed since the last call: name -> bytes, None for one to delete. Together they are the whole state."""
        changes: dict[str, bytes | None] = {}
        for name in sorted(self._dirty):
            kind, _, rest = name.partition(":")
            if kind == "subject":
                subject = self._subjects.get(rest)
                changes[name] = None if subject is None else subject.to_json()
            elif kind == "route":
                changes[name] = orjson.dumps(self._groups[rest].stored()) if rest in self._groups else None
            else:
                changes[name] = self._silences[rest].to_json() if rest in self._silences else None
        if changes:
            changes["clock"] = str(self._done).encode()
        self._dirty.clear()
        return changes

    # -- time ----------------------------------------------------------------------------------------------------------------------

    def _reach(self, at_ms: int, now_ms: int) -> int:
        """Runs the timers up to a moment that is not before what has been done and not after now; returns that moment."""
        self._follow(now_ms)
        at = min(max(at_ms, self._done), now_ms)
        while self._timers and self._timers[0][0] <= at:
            timer = heapq.heappop(self._timers)
            if self._is_live(timer):
                self._decide(timer[1], timer[0])
        self._done = at
        return at

    def _follow(self, now_ms: int) -> None:
        """When the clock went back, takes all moments along."""
        back = self._done - now_ms
        if back <= 0:
            return
        self._done = now_ms
        for key, subject in self._subjects.items():
            subject.shift(-back)
            self._mark(key)
        for group in self._groups.values():
            group.shift(-back)
            self._dirty.add(f"route:{group.route.name}")
        self._timers = [(subject.due, key) for key, subject in self._subjects.items() if subject.due is not None]
        heapq.heapify(self._timers)

    def _is_live(self, timer: tuple[int, str]) -> bool:
        subject = self._subjects.get(timer[1])
        return subject is not None and subject.due == timer[0]

    # -- subjects ------------------------------------------------------------------------------------------------------------------

    def _subject(self, account: str, pool: str, about: str, group: str, venue: str) -> _Subject:
        key = _key(account, pool, about)
        subject = self._subjects.get(key)
        if subject is None:
            subject = self._subjects[key] = _Subject(account=account, pool=pool, about=about, group=group, venue=venue)
            self._adopt(subject)
        elif (subject.group, subject.venue) != (group, venue):
            subject.group, subject.venue = group, venue
            self._adopt(subject)
        self._mark(key)
        return subject

    def _adopt(self, subject: _Subject) -> None:
        """Looks up timing and routes of a subject in the policy."""
        names = {"account": subject.account, "group": subject.group, "venue": subject.venue}
        subject.timing = self._policy.timing_of(**names)
        subject.routes = tuple(route for route in self._policy.routes if route.matches(**names, about=subject.about))
        for name in subject.channels.keys() - {route.name for route in subject.routes}:
            del subject.channels[name]
            if name in self._groups:
                self._groups[name].waiting.pop(subject.key, None)

    def _mark(self, key: str) -> None:
        self._dirty.add(f"subject:{key}")

    def _decide(self, key: str, at: int) -> None:
        """Decides for every route, sets the next timer, forgets the subject when nothing is left of it."""
        subject = self._subjects[key]
        if subject.acknowledged and (subject.severity > subject.acknowledged or at >= subject.acknowledged_until or subject.is_over()):
            subject.acknowledged = 0
            self._mark(key)
        for route in subject.routes:
            self._decide_for(key, subject, route, at)
        subject.due = min((time for time in self._times(subject) if time > at), default=None)
        if subject.due is not None:
            heapq.heappush(self._timers, (subject.due, key))
        elif subject.is_over() and not subject.is_waiting():
            del self._subjects[key]
            self._mark(key)

    def _decide_for(self, key: str, subject: _Subject, route: Route, at: int) -> None:
        reached = subject.confirmed(route, at)
        channel = subject.channels.get(route.name)
        if channel is None:
            if not reached:
                return
            channel = subject.channels[route.name] = _Channel()
        timing = subject.timing
        if reached > channel.told:
            if subject.is_level_unknown() or self._is_silenced(subject, reached, at):
                return
            if route.after[reached - 1] and reached <= subject.acknowledged:
                return
            before = channel.at[reached - 1]
            if before is not None and at < before + timing.floor[reached - 1]:
                return
            channel.better_since = None
            self._say(key, route, channel, Change.ALERT, reached, at)
        elif reached == channel.told:
            if channel.better_since is not None:
                channel.better_since = None
                self._mark(key)
            before = channel.at[reached - 1] if reached else None
            every = timing.repeat[reached - 1] if reached else NEVER
            if before is None or every == NEVER or at < before + every:
                return
            if reached > subject.acknowledged and not self._is_silenced(subject, reached, at):
                self._say(key, route, channel, Change.REPEAT, reached, at)
        elif subject.is_level_unknown():
            channel.better_since = None  # nobody knows that it is better
        else:
            if channel.better_since is None:
                channel.better_since = at
                self._mark(key)
            if at < channel.better_since + timing.keep_firing:
                return
            is_said = route.send_resolved and subject.about != "blind" and not self._is_silenced(subject, channel.told, at)
            if is_said and channel.better_at is not None and at < channel.better_at + timing.floor[channel.told - 1]:
                return
            channel.better_since = None
            if is_said:
                self._say(key, route, channel, Change.BETTER, reached, at)
            channel.told = reached
            self._mark(key)

    def _say(self, key: str, route: Route, channel: _Channel, change: Change, severity: int, at: int) -> None:
        """Puts a decision into the route's open group, where it meets what was not sent yet."""
        self._mark(key)
        group, waiting = self._groups[route.name], channel.pending
        said = _Pending(change=change, severity=severity, was=channel.told, at=at, before=tuple(channel.at))
        if change is Change.BETTER:
            channel.better_at = at
            if waiting is not None and waiting.change is Change.ALERT:
                if waiting.severity < Level.MARGIN_CALL:  # came and went unheard: nothing to say
                    channel.at = list(waiting.before)
                    channel.pending = None
                    del group.waiting[key]
                return  # a margin call that went unheard is said all the same, with what holds now
            if waiting is not None and waiting.change is Change.BETTER:
                said = _Pending(change=change, severity=severity, was=waiting.was, at=at, before=waiting.before)
        else:
            channel.told = severity
            channel.at = [at if index < severity else moment for index, moment in enumerate(channel.at)]
            if waiting is not None and waiting.change is Change.ALERT:
                if change is Change.REPEAT:
                    return
                said = _Pending(change=change, severity=severity, was=waiting.was, at=waiting.at, before=waiting.before)
        channel.pending = said
        group.waiting[key] = None
        group.arm(at, is_urgent=said.is_urgent(route))
        self._dirty.add(f"route:{route.name}")

    def _times(self, subject: _Subject) -> Iterator[int]:
        """Every moment at which a decision about the subject could change by itself."""
        timing = subject.timing
        for route in subject.routes:
            for index in range(route.min_level - 1, 4):
                since = subject.since[index]
                if since is not None:
                    yield since + subject.hold(index) + route.after[index]
        for channel in subject.channels.values():
            for index, moment in enumerate(channel.at):
                if moment is not None:
                    yield moment + timing.floor[index]
            if channel.told and timing.repeat[channel.told - 1] != NEVER:
                yield (channel.at[channel.told - 1] or 0) + timing.repeat[channel.told - 1]
            if channel.better_since is not None:
                yield channel.better_since + timing.keep_firing
            if channel.better_at is not None:
                yield channel.better_at + timing.floor[(channel.told or 1) - 1]
        if subject.acknowledged:
            yield subject.acknowledged_until

    # -- silences ------------------------------------------------------------------------------------------------------------------

    def _is_silenced(self, subject: _Subject, severity: int, at: int) -> bool:
        return any(
            severity <= silence.up_to
            and silence.from_ms <= at < silence.until_ms
            and _is_like(subject, silence.account, silence.pool, silence.about)
            and fnmatchcase(subject.group, silence.group)
            and fnmatchcase(subject.venue, silence.venue)
            for silence in self._silences.values()
        )

    def _end_silence(self, silence_id: str, now: int) -> None:
        del self._silences[silence_id]
        self._dirty.add(f"silence:{silence_id}")
        self._decide_all(now)

    def _decide_all(self, now: int) -> None:
        for key in list(self._subjects):
            self._decide(key, now)

    # -- messages ------------------------------------------------------------------------------------------------------------------

    def _flush(self, group: _Group, now: int) -> Notice | None:
        """The group's message if it is due, there is something to say, and the route has room for one."""
        if group.flush_at is None or now < group.flush_at:
            return None
        route = group.route
        self._dirty.add(f"route:{route.name}")
        quiet_until = route.quiet_until(now)
        chosen = [key for key in group.waiting if self._can_be_said(key, route, is_quiet=quiet_until is not None)]
        if not chosen:
            group.flush_at, again = None, now + max(route.group_interval, 1000)
            if group.waiting:
                group.flush_at = min(quiet_until or again, again)
            return None
        pendings = [self._pending(key, route) for key in chosen]
        if len(chosen) == 1 and now < (ready := self._numbers_by(chosen[0], pendings[0])):
            group.flush_at = min(ready, now + NUMBERS_LOOK_MS)
            return None
        wait = group.take_room(now, is_urgent=any(pending.is_urgent(route) for pending in pendings))
        if wait:
            group.flush_at = now + wait
            return None
        entries = [self._entry(key, pending) for key, pending in zip(chosen, pendings, strict=True)]
        for key in chosen:
            self._subjects[key].channels[route.name].pending = None
            del group.waiting[key]
            self._mark(key)
        group.last_flush = now
        group.flush_at = now + max(route.group_interval, 1000) if group.waiting else None
        notice = compose(route.name, route.sinks, entries, now)
        for key in chosen:
            self._decide(key, now)
        return notice

    def _can_be_said(self, key: str, route: Route, *, is_quiet: bool) -> bool:
        subject, pending = self._subjects[key], self._pending(key, route)
        if pending.change is Change.BETTER:
            return not is_quiet and subject.unknown is None
        return not is_quiet or pending.severity >= Level.MARGIN_CALL

    def _numbers_by(self, key: str, pending: _Pending) -> int:
        """Until when a message about one thing alone waits for the numbers that follow its level; 0 where none do."""
        facts = self._subjects[key].facts
        return pending.at + NUMBERS_WAIT_MS if "numbers" in facts and "equity" not in facts else 0

    def _pending(self, key: str, route: Route) -> _Pending:
        pending = self._subjects[key].channels[route.name].pending
        assert pending is not None, "a subject waits in a group if and only if it has something to say"
        return pending

    def _entry(self, key: str, pending: _Pending) -> Entry:
        subject = self._subjects[key]
        return Entry(
            change=pending.change,
            account=subject.account,
            pool=subject.pool,
            about=subject.about,
            group=subject.group,
            venue=subject.venue,
            severity=Level(pending.severity),
            was=Level(pending.was),
            at_ms=pending.at,
            since_ms=subject.since[pending.severity - 1] if pending.severity else None,
            present=Level(subject.severity),
            unknown=subject.unknown,
            facts=subject.facts,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    """Decided and not yet sent. `before`: the channel's moments before it, to go back to when it is dropped."""

    change: Change
    severity: int
    was: int
    at: int
    before: tuple[int | None, ...]

    def is_urgent(self, route: Route) -> bool:
        return self.change is not Change.BETTER and self.severity >= route.urgent


@dataclass(slots=True)
class _Channel:
    """What one route was told of one subject.

    Attributes:
        told: Severity told; 0 when nothing is open.
        at: By severity, when something of it or worse was last told.
        better_since: Since when it is better than told. better_at: When that was last said.
    """

    told: int = 0
    at: list[int | None] = field(default_factory=lambda: [None] * 4)
    better_since: int | None = None
    better_at: int | None = None
    pending: _Pending | None = None


@dataclass(slots=True)
class _Subject:
    """One thing that can be told.

    Attributes:
        severity: As last seen. since: By severity, since when it has been that bad without a break.
        unknown: Why the pool's present level cannot be claimed.
        acknowledged: The severity that somebody has acknowledged, until `acknowledged_until`.
        due: Its timer.
    """

    account: str
    pool: str
    about: str
    group: str
    venue: str
    severity: int = 0
    since: list[int | None] = field(default_factory=lambda: [None] * 4)
    unknown: str | None = None
    acknowledged: int = 0
    acknowledged_until: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    channels: dict[str, _Channel] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    routes: tuple[Route, ...] = ()
    due: int | None = None

    @property
    def key(self) -> str:
        return _key(self.account, self.pool, self.about)

    def see(self, severity: int, unknown: str | None, at: int) -> None:
        self.severity, self.unknown = severity, unknown
        self.since = [(since if since is not None else at) if index < severity else None for index, since in enumerate(self.since)]

    def hold(self, index: int) -> int:
        """How long this severity must stand before it counts."""
        if self.about == "blind":
            return 0
        return self.timing.unknown_hold if self.about == "unknown" else self.timing.hold[index]

    def confirmed(self, route: Route, at: int) -> int:
        """The worst severity that has stood long enough for the route; 0 for none."""
        for severity in range(4, route.min_level - 1, -1):
            since = self.since[severity - 1]
            if since is not None and at - since >= self.hold(severity - 1) + route.after[severity - 1]:
                return severity
        return 0

    def is_level_unknown(self) -> bool:
        """Whether the severity is only the last one known. That a pool is unknown is known."""
        return self.unknown is not None and self.about != "unknown"

    def is_of_a_rule(self) -> bool:
        return self.about not in ("level", "unknown", "blind")

    def is_over(self) -> bool:
        return not self.severity and not any(channel.told for channel in self.channels.values())

    def told(self) -> list[tuple[str, int]]:
        channels = ((route.name, self.channels.get(route.name)) for route in self.routes)
        return [(name, channel.told) for name, channel in channels if channel is not None and channel.told]

    def is_waiting(self) -> bool:
        return any(channel.pending is not None for channel in self.channels.values())

    def shift(self, by: int) -> None:
        def moved(moment: int | None) -> int | None:
            return None if moment is None else moment + by

        self.since = [moved(moment) for moment in self.since]
        self.acknowledged_until += by
        self.due = moved(self.due)
        for channel in self.channels.values():
            channel.at = [moved(moment) for moment in channel.at]
            channel.better_since, channel.better_at = moved(channel.better_since), moved(channel.better_at)
            if (pending := channel.pending) is not None:
                before = tuple(moved(moment) for moment in pending.before)
                channel.pending = _Pending(
                    change=pending.change, severity=pending.severity, was=pending.was, at=pending.at + by, before=before
                )

    def to_json(self) -> bytes:
        channels = {}
        for name, channel in self.channels.items():
            p = channel.pending
            pending = None if p is None else (p.change.value, p.severity, p.was, p.at, p.before)
            channels[name] = (channel.told, channel.at, channel.better_since, channel.better_at, pending)
        return orjson.dumps(
            {
                "group": self.group,
                "venue": self.venue,
                "severity": self.severity,
                "since": self.since,
                "unknown": self.unknown,
                "acknowledged": (self.acknowledged, self.acknowledged_until),
                "facts": self.facts,
                "channels": channels,
            }
        )

    @classmethod
    def of_json(cls, key: str, data: bytes) -> _Subject:
        try:
            values = orjson.loads(data)
            account, _, rest = key.partition("/")
            pool, _, about = rest.rpartition("/")
            subject = cls(account=account, pool=pool, about=about, group=values["group"], venue=values["venue"])
            subject.severity, subject.since, subject.unknown = values["severity"], values["since"], values["unknown"]
            subject.acknowledged, subject.acknowledged_until = values["acknowledged"]
            subject.facts = values["facts"]
            for name, (told, at, better_since, better_at, pending) in values["channels"].items():
                subject.channels[name] = _Channel(told, at, better_since, better_at)
                if pending is not None:
                    change, severity, was, moment, before = pending
                    subject.channels[name].pending = _Pending(
                        change=Change(change), severity=severity, was=was, at=moment, before=tuple(before)
                    )
            return subject
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"record of {key!r} cannot be read: {error}") from None


class _Group:
    """What one route is about to say, and how much it may say.

    Attributes:
        waiting: Keys of subjects with something to say, in the order of their decisions.
        flush_at: When the message is due; None when nothing waits.
        room: Messages that may be sent at once, in thousandths; refilled by `per_hour`, at most `burst`.
    """

    def __init__(self, route: Route) -> None:
        self.route = route
        self.waiting: dict[str, None] = {}
        self.flush_at: int | None = None
        self.last_flush: int | None = None
        self._room = route.burst * 1000.0
        self._room_at: int | None = None

    def arm(self, at: int, *, is_urgent: bool) -> None:
        """Sets or brings forward the time of the message."""
        if is_urgent:
            due = at + self.route.urgent_wait
        else:
            due = at + self.route.group_wait
            if self.last_flush is not None:
                due = max(due, self.last_flush + self.route.group_interval)
        self.flush_at = due if self.flush_at is None else min(self.flush_at, due)

    def take_room(self, now: int, *, is_urgent: bool) -> int:
        """0 and one message less to send, or how long to wait for room. What is not urgent leaves half of the burst free."""
        if self._room_at is not None:
            earned = max(0, now - self._room_at) * self.route.per_hour / 3600
            self._room = min(self._room + earned, self.route.burst * 1000.0)
        self._room_at = now
        needed = 1000.0 if is_urgent else 1000.0 * (1 + self.route.burst // 2)
        if self._room >= needed:
            self._room -= 1000.0
            return 0
        return int((needed - self._room) * 3600 / self.route.per_hour) + 1

    def shift(self, by: int) -> None:
        self.flush_at, self.last_flush, self._room_at = (
            None if moment is None else moment + by for moment in (self.flush_at, self.last_flush, self._room_at)
        )

    def stored(self) -> list[Any]:
        return [self.flush_at, self.last_flush, self._room, self._room_at]

    def restore(self, values: list[Any]) -> None:
        self.flush_at, self.last_flush, self._room, self._room_at = values


def _key(account: str, pool: str, about: str) -> str:
    """An account has no slash and a name of a subject neither, so the pool may have some."""
    return f"{account}/{pool}/{about}"


def _is_like(subject: _Subject, account: str, pool: str, about: str) -> bool:
    patterns = ((subject.account, account), (subject.pool, pool), (subject.about, about))
    return all(fnmatchcase(name, pattern) for name, pattern in patterns)
