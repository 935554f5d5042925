"""The laws of the alert policy, against anything that can happen: no escalation missed, messages bounded, nothing healthy while unknown."""

from __future__ import annotations

import random
from collections import defaultdict
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from monitor.alerting.digests import Change, Notice
from monitor.alerting.policy import Notifier, Silence
from monitor.alerting.readings import PoolReadings
from monitor.alerting.routes import DEFAULT_TIMING, HOUR, MINUTE, SECOND, AlertPolicy, QuietHours, Route, Timing
from monitor.alerting.rules import Limits, RuleReading
from monitor.margin.levels import Level

START = 1_795_214_857_062

LIMITS = Limits((Decimal("0.3"), Decimal("0.2"), Decimal("0.1"), None))
TIMING = Timing(
    hold=(2 * MINUTE, 30 * SECOND, 0, 0),
    floor=(20 * MINUTE, 10 * MINUTE, 5 * MINUTE, 5 * MINUTE),
    repeat=(60 * MINUTE, 30 * MINUTE, 15 * MINUTE, 15 * MINUTE),
    keep_firing=3 * MINUTE,
    acknowledged=40 * MINUTE,
    unknown_hold=10 * SECOND,
)
DESK = Route(name="desk", sinks=("chat",), group_wait=10 * SECOND, group_interval=2 * MINUTE, per_hour=3600, burst=1000)
PAGER = Route(
    name="pager", sinks=("pager",), min_level=Level.MARGIN_CALL, after=(0, 8 * MINUTE, 0, 0), send_resolved=False, per_hour=6, burst=3
)
NIGHT = Route(
    name="night", sinks=("mail",), groups=("a*",), quiet=(QuietHours(frozenset(range(7)), 22 * 60, 6 * 60, ZoneInfo("Europe/Berlin")),)
)
WAIT = max(DESK.group_wait, DESK.group_interval)
SUBJECTS = 3
"""Of one account here: its level, that it is unknown, and one rule."""
MOST_AN_HOUR = SUBJECTS * 2 * sum(HOUR // floor + 1 for floor in TIMING.floor)
"""Alerts by the floor of their severity, and for each at most one that it is better."""


def level_event(account: str, level: Level, unknown: str | None, at_ms: int, seq: int, group: str = "a") -> dict[str, Any]:
    """A small event."""
    return {
        "id": f"0/{seq}-1",
        "kind": "level",
        "account": account,
        "pool": "cross",
        "venue": "okx",
        "group": group,
        "level": level.word,
        "previous": "healthy",
        "unknown": unknown,
        "margin_ratio": "0.9",
        "decided_at_ns": at_ms * 1_000_000,
    }


def run_until(notifier: Notifier, until: int) -> list[Notice]:
    """Advances through every due moment, as a timer loop does, and fails when it would spin."""
    notices: list[Notice] = []
    last = None
    while (due := notifier.next_due_ms()) is not None and due <= until:
        assert last is None or due > last, "the same moment is due again and again"
        last = due
        notices += notifier.advance(due)
    return notices + notifier.advance(until)


class Told:
    """What has been said, read from the notices as a person would."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], list[tuple[int, Level, str]]] = defaultdict(list)
        self.messages: dict[str, list[int]] = defaultdict(list)

    def add(self, notices: list[Notice]) -> None:
        """Takes notices."""
        for notice in notices:
            self.messages[notice.route].append(notice.at_ms)
            assert notice.count == len(notice.items)
            for item in notice.items:
                key = (notice.route, f"{item['account']}/{item['about']}")
                self.items[key].append((notice.at_ms, Level.of(item["severity"]), item["change"]))

    def last(self, route: str, subject: str, at_least: Level) -> int | None:
        """When something at least as bad was last said (not as better)."""
        times = [at for at, severity, change in self.items[route, subject] if severity >= at_least and change != "better"]
        return times[-1] if times else None


class Laws(RuleBasedStateMachine):
    """A few accounts do whatever they like."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.seq = 0
        self.told = Told()
        self.state: dict[str, tuple[Level, str | None]] = {}
        self.since: dict[tuple[str, Level], int] = {}
        self.unknown_since: dict[str, int] = {}
        self.rule_since: dict[tuple[str, Level], int] = {}
        self.read: dict[str, tuple[Level, str | None]] = {}
        self.notifier = self.make(AlertPolicy(timing=TIMING, routes=(DESK, PAGER), rules={"distance": LIMITS}))

    make = Notifier

    @rule(
        account=st.sampled_from(["x", "y", "z"]),
        level=st.sampled_from(Level),
        unknown=st.sampled_from([None, None, None, "mark is stale"]),
    )
    def event(self, account: str, level: Level, unknown: str | None) -> None:
        """The level or the knowledge of an account changes."""
        if unknown is not None:
            level = self.state.get(account, (Level.HEALTHY, None))[0]
        self.seq += 1
        self.state[account] = (level, unknown)
        for severity in list(Level)[1:]:
            if unknown is None and level >= severity:
                self.since.setdefault((account, severity), self.now)
            else:
                self.since.pop((account, severity), None)
        if unknown is None:
            self.unknown_since.pop(account, None)
        else:
            self.unknown_since.setdefault(account, self.now)
        self.notifier.observe(level_event(account, level, unknown, self.now, self.seq), self.now)

    @rule(
        account=st.sampled_from(["x", "y", "z"]),
        severity=st.sampled_from(Level),
        unknown=st.sampled_from([None, None, None, "mark is stale"]),
    )
    def reading(self, account: str, severity: Level, unknown: str | None) -> None:
        """A rule says something of an account, or cannot."""
        if unknown is not None:
            severity = self.read.get(account, (Level.HEALTHY, None))[0]
        self.read[account] = (severity, unknown)
        for each in list(Level)[1:]:
            if unknown is None and severity >= each:
                self.rule_since.setdefault((account, each), self.now)
            else:
                self.rule_since.pop((account, each), None)
        standing = (RuleReading("distance", severity, None, "near", unknown),)
        self.notifier.read(PoolReadings(account, "cross", "a", "okx", self.now, unknown, standing), self.now)

    @rule(seconds=st.one_of(st.integers(1, 20), st.integers(20, 400), st.integers(400, 6000)))
    def wait(self, seconds: int) -> None:
        """Time passes; every notice is checked when it is sent."""
        until = self.now + seconds * 1000
        while (due := self.notifier.next_due_ms()) is not None and due <= until:
            self.now = max(self.now, due)
            self._check(self.notifier.advance(self.now))
        self.now = until
        self._check(self.notifier.advance(until))

    def _check(self, notices: list[Notice]) -> None:
        """Law: nothing is called better or healthy, and no present level is named, while it is unknown."""
        self.told.add(notices)
        for notice in notices:
            for item in notice.items:
                known = self.read if item["about"] == "distance" else self.state
                unknown = known[item["account"]][1]
                assert item["unknown"] == unknown
                if unknown is not None:
                    assert item["present"] is None
                    assert item["margin_ratio"] is None
                    assert item["change"] != "better"
                    said = (item["text"], *((notice.title, notice.text, notice.markdown) if notice.count == 1 else ()))
                    assert not any(word in text for text in said for word in ("healthy now", "BETTER", "OVER", "KNOWN AGAIN")), said

    @invariant()
    def what_stands_is_told(self) -> None:
        """Law: a severity that stands is told in time, and told again within the repeat interval."""
        for (account, severity), since in self.since.items():
            index = severity - 1
            wait = DESK.urgent_wait if severity >= DESK.urgent else WAIT
            stood = self.now - since - TIMING.hold[index]
            last = self.told.last("desk", f"{account}/level", severity)
            if last is None:
                assert stood <= wait, f"{account} has stood at {severity.word} for {stood} ms more than `for`, and nobody was told"
            slack = TIMING.keep_firing + TIMING.floor[0] + wait
            if stood > slack:
                assert last is not None
                assert self.now - last <= TIMING.repeat[index] + slack, f"{account} stands at {severity.word}: last told {last}"

    @invariant()
    def a_long_margin_call_reaches_the_pager(self) -> None:
        """Law: escalation by time and by level; the pager's low rate may only delay."""
        for (account, severity), since in self.since.items():
            stood = self.now - since - TIMING.hold[severity - 1] - PAGER.after[severity - 1]
            if severity >= Level.MARGIN_CALL and stood > HOUR // PAGER.per_hour * 2 + WAIT:
                assert self.told.last("pager", f"{account}/level", severity) is not None

    @invariant()
    def what_is_unknown_is_told(self) -> None:
        """Law: an account that is unknown for long has been called unknown since, or within the floor before."""
        for account, since in self.unknown_since.items():
            stood = self.now - since - TIMING.unknown_hold
            if stood > DESK.urgent_wait:
                times = [at for at, _, change in self.told.items["desk", f"{account}/unknown"] if change != "better"]
                assert times, f"{account} has been unknown for {stood} ms more than `unknown_for`, and nobody was told"
                if stood > TIMING.floor[1] + TIMING.keep_firing + WAIT:
                    assert self.now - times[-1] <= TIMING.repeat[1] + TIMING.floor[1] + TIMING.keep_firing + WAIT

    @invariant()
    def what_a_rule_finds_is_told(self) -> None:
        """Law: a rule's warning that stands is told in time, like a level."""
        for (account, severity), since in self.rule_since.items():
            stood = self.now - since - TIMING.hold[severity - 1]
            if stood > (DESK.urgent_wait if severity >= DESK.urgent else WAIT):
                assert self.told.last("desk", f"{account}/distance", severity) is not None

    @invariant()
    def messages_about_an_account_are_bounded_by_the_hour(self) -> None:
        """Law: whatever an account does, an hour holds no more than the floors of its subjects allow."""
        for account in ("x", "y", "z"):
            times = sorted(
                at
                for (route, subject), said in self.told.items.items()
                if route == "desk" and subject.startswith(account)
                for at, *_ in said
            )
            for index, first in enumerate(times):
                assert sum(at < first + HOUR for at in times[index:]) <= MOST_AN_HOUR, account

    @invariant()
    def messages_are_bounded(self) -> None:
        """Law: the floors bound what is said of one subject, the rate bounds a route's messages."""
        for (route, subject), said in self.told.items.items():
            for severity in list(Level)[1:]:
                times = [at for at, each, change in said if each is severity and change != "better"]
                for earlier, later in zip(times, times[1:], strict=False):
                    # what was decided `floor` apart may be sent closer together by as long as a message may wait
                    slack = WAIT if route == "desk" else WAIT + HOUR // PAGER.per_hour * 2
                    assert later - earlier >= TIMING.floor[severity - 1] - slack, (route, subject, severity)
        pages = self.told.messages["pager"]
        for index, first in enumerate(pages):
            inside = [at for at in pages[index:] if at < first + HOUR]
            assert len(inside) <= PAGER.per_hour + PAGER.burst + 1


class Twins(RuleBasedStateMachine):
    """Two notifiers with the same input: one asked only when something is due, one asked at any time and restarted from its records."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.seq = 0
        self.policy = AlertPolicy(timing=TIMING, routes=(DESK, PAGER, NIGHT))
        self.one, self.other = Notifier(self.policy), Notifier(self.policy)
        self.records: dict[str, bytes] = {}

    def _both(self, action: str, *arguments: Any, **named: Any) -> None:
        answers = [getattr(each, action)(*arguments, **named) for each in (self.one, self.other)]
        assert answers[0] == answers[1]

    @initialize(hour=st.integers(0, 23))
    def begin(self, hour: int) -> None:
        """Starts at any hour, for the quiet ones."""
        self.now += hour * HOUR

    @rule(
        account=st.sampled_from(["x", "y"]),
        group=st.sampled_from(["a", "b"]),
        level=st.sampled_from(Level),
        unknown=st.sampled_from([None, None, "stale"]),
    )
    def event(self, account: str, group: str, level: Level, unknown: str | None) -> None:
        """Both see the event."""
        self.seq += 1
        self._both("observe", level_event(account, level, unknown, self.now, self.seq, group), self.now)

    @rule()
    def blind(self) -> None:
        """Both see a blind row."""
        self.seq += 1
        self._both("observe", {"id": f"0/{self.seq}-1", "kind": "blind"}, self.now)

    @rule(account=st.sampled_from(["x", "*"]))
    def acknowledge(self, account: str) -> None:
        """Somebody has seen it."""
        self._both("acknowledge", self.now, account=account)

    @rule(minutes=st.integers(1, 120), account=st.sampled_from(["x", "y", "*"]), up_to=st.sampled_from(list(Level)[1:]))
    def silence(self, minutes: int, account: str, up_to: Level) -> None:
        """Somebody wants quiet."""
        silence = Silence(
            id=f"s{account}",
            reason="maintenance",
            author="me",
            from_ms=self.now,
            until_ms=self.now + minutes * MINUTE,
            account=account,
            up_to=up_to,
        )
        self._both("silence", silence, self.now)

    @rule()
    def unsilence(self) -> None:
        """Somebody has had enough of it."""
        self._both("unsilence", "s*", self.now)

    @rule(seconds=st.one_of(st.integers(0, 30), st.integers(30, 8000)), extra=st.lists(st.floats(0, 1), max_size=4), restart=st.booleans())
    def wait(self, seconds: int, extra: list[float], restart: bool) -> None:
        """Time passes; the other one is asked in between as well, and may be restarted."""
        until = self.now + seconds * 1000
        expected = run_until(self.one, until)
        actual: list[Notice] = []
        for part in sorted(extra):
            actual += run_until(self.other, self.now + int(seconds * 1000 * part))
            if restart:
                self._restart(self.now + int(seconds * 1000 * part))
        actual += run_until(self.other, until)
        self.now = until

        assert actual == expected

    def _restart(self, now: int) -> None:
        for name, data in self.other.take_changes().items():
            if data is None:
                self.records.pop(name, None)
            else:
                self.records[name] = data
        self.other = Notifier.load(self.policy, self.records, now)

    @precondition(lambda self: self.seq)
    @rule()
    def restart(self) -> None:
        """The other one is restarted."""
        self._restart(self.now)

    @invariant()
    def both_know_the_same(self) -> None:
        """What stands, by whom it is silenced and when the next thing is due are the same."""
        assert sorted(map(str, self.one.firing())) == sorted(map(str, self.other.firing()))
        assert set(self.one.silences) == set(self.other.silences)


QUICK = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # without `explain`, which traces every line
)

TestLaws = Laws.TestCase
TestLaws.settings = QUICK
TestTwins = Twins.TestCase
TestTwins.settings = QUICK


class Deaf(Notifier):
    """Planted fault: an alert that is worse than what was told lately is swallowed."""

    def _say(self, key: str, route: Any, channel: Any, change: Any, severity: int, at: int) -> None:
        if not (change is Change.ALERT and channel.told and severity > channel.told):
            super()._say(key, route, channel, change, severity, at)


class Chatty(Notifier):
    """Planted fault: what was told before is forgotten, so that every rise is news."""

    def _say(self, key: str, route: Any, channel: Any, change: Any, severity: int, at: int) -> None:
        super()._say(key, route, channel, change, severity, at)
        channel.at = [None] * 4


class Soothing(Notifier):
    """Planted fault: a pool that was seen better stays so, though nobody can know it any more."""

    def _can_be_said(self, key: str, route: Any, *, is_quiet: bool) -> bool:
        del key, route
        return not is_quiet


class Mute(Notifier):
    """Planted fault: that an account is unknown is not told."""

    def _decide_for(self, key: str, subject: Any, route: Any, at: int) -> None:
        if subject.about != "unknown":
            super()._decide_for(key, subject, route, at)


@pytest.mark.parametrize("fault", [Deaf, Chatty, Soothing, Mute])
def test_the_laws_find_planted_faults(fault: type[Notifier]) -> None:
    """A law that cannot fail holds nothing: each of four faults is found."""

    class Faulty(Laws):
        make = fault

    hard = settings(QUICK, max_examples=4000, phases=[Phase.generate], database=None, derandomize=True, report_multiple_bugs=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Faulty, settings=hard)


@pytest.mark.parametrize("period_s", [1, 7, 61, 181, 299, 301, 601, 1801])
@pytest.mark.parametrize("kind", ["levels", "unknown", "random"])
def test_flapping_of_any_rhythm_is_bounded(period_s: int, kind: str) -> None:
    """Over six hours of flapping, whatever its rhythm, an account makes a bounded number of notices, and the liquidation is among them."""
    rng = random.Random(period_s)
    notifier = Notifier(AlertPolicy(routes=(Route(name="desk", sinks=("chat",), per_hour=3600, burst=1000),)))
    told = Told()
    now, seq, hours = START, 0, 6
    while now < START + hours * HOUR:
        seq += 1
        up = seq % 2 == 1
        level = Level.LIQUIDATION if up else Level.HEALTHY
        unknown = None
        if kind == "unknown":
            level, unknown = Level.HEALTHY, "stale" if up else None
        elif kind == "random":
            level = rng.choice(list(Level))
        notifier.observe(level_event("x", level, unknown, now, seq), now)
        now += period_s * 1000
        told.add(run_until(notifier, now))

    floor = DEFAULT_TIMING.floor
    most = sum(hours * HOUR // each + 1 for each in floor) + hours * HOUR // floor[3] + 1
    said = [item for items in told.items.values() for item in items]
    assert len(said) <= most
    assert said or (kind == "unknown" and period_s * SECOND < DEFAULT_TIMING.unknown_hold)
    per_severity = [sum(1 for _, severity, change in said if severity is level and change != "better") for level in list(Level)[1:]]
    for count, each in zip(per_severity, floor, strict=True):
        assert count <= hours * HOUR // each + 1
    if kind == "levels":
        assert per_severity[2] >= 1


def test_six_hours_of_flapping_by_the_second_are_few_messages() -> None:
    """An account that flaps every second between healthy and liquidation makes an alert and its repeats: no more than one in 15 minutes."""
    notifier = Notifier(AlertPolicy(routes=(Route(name="desk", sinks=("chat",)),)))
    told, now = Told(), START
    for seq in range(1, 6 * 3600):
        notifier.observe(level_event("x", Level.LIQUIDATION if seq % 2 else Level.HEALTHY, None, now, seq), now)
        now += 1000
        told.add(run_until(notifier, now))

    assert 1 <= len(told.messages["desk"]) <= 6 * 4 + 1
