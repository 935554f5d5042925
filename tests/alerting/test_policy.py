"""The alert policy, one behaviour at a time."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from monitor.alerting.digests import Notice
from monitor.alerting.policy import Notifier, Silence
from monitor.alerting.readings import Mark, PoolReadings
from monitor.alerting.routes import DEFAULT_TIMING, HOUR, MINUTE, NEVER, SECOND, AlertPolicy, QuietHours, Route
from monitor.alerting.rules import Limits, RuleReading
from monitor.margin.levels import Level
from tests.support.events import TOKEN, event

DESK = Route(name="desk", sinks=("chat",))
PAGER = Route(name="pager", sinks=("pager",), min_level=Level.MARGIN_CALL, after=(0, 15 * MINUTE, 0, 0), send_resolved=False)


class Scene:
    """A notifier and a clock."""

    def __init__(self, *routes: Route, **policy: Any) -> None:
        self.policy = AlertPolicy(routes=routes or (DESK,), **policy)
        self.notifier = Notifier(self.policy)
        self.now = TOKEN
        self.seq = 0

    def see(self, level: str, account: str = "acme-1", **changes: Any) -> None:
        """An event now."""
        self.seq += 1
        body = event(seq=self.seq, account=account, level=level, decided_at_ns=self.now * 1_000_000, **changes)
        self.notifier.observe(body, self.now)

    def wait(self, milliseconds: int) -> list[Notice]:
        """Time passes, with every timer at its time."""
        until, notices = self.now + milliseconds, []
        while (due := self.notifier.next_due_ms()) is not None and due <= until:
            self.now = max(due, self.now)
            notices += self.notifier.advance(self.now)
        self.now = until
        return notices + self.notifier.advance(until)

    def titles(self, milliseconds: int) -> list[str]:
        """Titles of the messages sent meanwhile."""
        return [notice.title for notice in self.wait(milliseconds)]


def test_a_margin_call_is_told_within_a_second() -> None:
    """No dwell, no grouping beyond urgent_wait."""
    scene = Scene()
    scene.see("margin_call")

    assert scene.titles(999) == []
    assert scene.titles(1) == ["MARGIN CALL acme-1 cross:USDT"]


def test_numbers_that_follow_are_in_the_message() -> None:
    """A level told without its numbers is not called bankrupt; its notice has them when they came in time, and says so when not."""
    missing = dict.fromkeys(("equity", "maintenance_margin", "fees", "margin_ratio", "headroom", "positions", "cure"))
    for came in (False, True):
        scene = Scene()
        bare = {key: value for key, value in event(level="margin_call").items() if key not in missing}
        scene.notifier.observe({**bare, "numbers": "follow", "decided_at_ns": scene.now * 1_000_000}, scene.now)
        if came:
            scene.notifier.observe(event(seq=8, kind="numbers", level="margin_call"), scene.now)
            scene.notifier.observe(event(seq=9, kind="numbers", level="margin_call", rev=2, margin_ratio="0.1"), scene.now)
        (notice,) = scene.wait(6 * SECOND)
        assert notice.title == "MARGIN CALL acme-1 cross:USDT"
        assert ("82.16%" in notice.text, "numbers follow" in notice.text) == (came, not came)


def test_a_watch_must_stand_for_a_minute() -> None:
    """`for`: a level that leaves before its time is not told; one that stays is, after group_wait."""
    scene = Scene()
    scene.see("watch")
    assert scene.titles(59 * SECOND) == []
    scene.see("healthy")
    assert scene.titles(HOUR) == []
    scene.see("watch")
    assert scene.titles(MINUTE + 10 * SECOND - 1) == []

    assert scene.titles(1) == ["WATCH acme-1 cross:USDT"]


def test_only_worse_is_told_at_once() -> None:
    """A level that falls and rises again below what was told says nothing; a worse one does."""
    scene = Scene()
    scene.see("liquidation")
    assert len(scene.wait(MINUTE)) == 1
    scene.see("margin_call")
    scene.see("liquidation")
    scene.see("watch")
    scene.see("liquidation")
    assert scene.titles(MINUTE) == []
    scene.see("bankrupt", margin_ratio=None)

    assert scene.titles(SECOND) == ["BANKRUPT acme-1 cross:USDT"]


def test_better_is_told_after_it_has_lasted() -> None:
    """`keep_firing_for`: better for five minutes without a break, then it is said, with the level that holds."""
    scene = Scene()
    scene.see("margin_call")
    scene.wait(MINUTE)
    scene.see("watch")
    scene.wait(4 * MINUTE)
    scene.see("margin_call")
    scene.see("watch")
    assert scene.titles(5 * MINUTE - 1) == []

    assert scene.titles(6 * MINUTE) == ["BETTER acme-1 cross:USDT: watch, was margin call"]


def test_the_floor_holds_a_second_notice_but_does_not_lose_it() -> None:
    """After a recovery the same level is told again only when the floor has passed; if it then still stands, it is."""
    scene = Scene(replace(DESK, send_resolved=False))
    scene.see("margin_call")
    scene.wait(MINUTE)
    scene.see("healthy")
    assert scene.titles(6 * MINUTE) == []
    scene.see("margin_call")
    assert scene.titles(8 * MINUTE - 1) == []

    assert scene.titles(2 * SECOND) == ["MARGIN CALL acme-1 cross:USDT"]


def test_what_is_worse_than_the_last_notice_breaks_the_floor() -> None:
    """The floor is per severity: a liquidation a second after a margin call is told at once."""
    scene = Scene()
    scene.see("margin_call")
    scene.wait(SECOND)
    scene.see("liquidation")

    assert scene.titles(SECOND) == ["LIQUIDATION acme-1 cross:USDT"]


def test_it_is_repeated_while_it_lasts() -> None:
    """`repeat_interval`, with the time since when."""
    scene = Scene()
    scene.see("margin_call")
    scene.wait(MINUTE)

    assert scene.titles(2 * HOUR) == [
        "STILL MARGIN CALL acme-1 cross:USDT, since 22:47Z",
        "STILL MARGIN CALL acme-1 cross:USDT, since 22:47Z",
    ]


def test_never_repeats_never() -> None:
    """A repeat interval of never."""
    scene = Scene(timing=replace(DEFAULT_TIMING, repeat=(NEVER,) * 4))
    scene.see("margin_call")

    assert len(scene.wait(48 * HOUR)) == 1


def test_unknown_is_told_and_says_nothing_of_the_level() -> None:
    """While a pool is unknown its level is neither worse nor better; the notice says unknown, and later what it is again."""
    scene = Scene(timing=replace(DEFAULT_TIMING, repeat=(NEVER,) * 4))
    scene.see("margin_call")
    scene.wait(MINUTE)
    scene.see("margin_call", unknown="mark BTCUSDT is stale")
    assert scene.titles(9 * SECOND) == []
    assert scene.titles(2 * SECOND) == ["UNKNOWN acme-1 cross:USDT: mark BTCUSDT is stale"]
    assert scene.titles(HOUR) == []
    scene.see("healthy", previous_unknown="mark BTCUSDT is stale", previous="margin_call")
    titles = [notice.title for notice in scene.wait(HOUR)]

    assert len(titles) == 1
    assert titles[0].startswith("2 changes on 1 account: 2 better")


def test_better_is_not_said_while_it_is_unknown_again() -> None:
    """A recovery that waits for its message is held back when the pool becomes unknown, and the time of not knowing does not count."""
    scene = Scene()
    scene.see("margin_call")
    scene.wait(MINUTE)
    scene.see("healthy")
    scene.wait(5 * MINUTE + SECOND)
    scene.see("healthy", unknown="stale")
    titles = scene.titles(2 * HOUR)
    scene.see("healthy", previous_unknown="stale")
    after = scene.titles(6 * MINUTE)

    assert titles == ["UNKNOWN acme-1 cross:USDT: stale", "STILL UNKNOWN acme-1 cross:USDT: stale, since 22:53Z"]
    assert not any("healthy" in title for title in titles)
    assert any("better" in title.lower() for title in after)


def test_the_time_of_not_knowing_is_no_time_of_being_better() -> None:
    """Better for four minutes, unknown for two, better again: the five minutes begin anew."""
    scene = Scene()
    scene.see("margin_call")
    scene.wait(MINUTE)
    scene.see("healthy")
    scene.wait(4 * MINUTE)
    scene.see("healthy", unknown="stale")
    scene.wait(5 * SECOND)
    scene.see("healthy", previous_unknown="stale")
    assert scene.titles(5 * MINUTE - 1) == []

    assert scene.titles(6 * MINUTE) == ["BETTER acme-1 cross:USDT: healthy, was margin call"]


def test_nothing_worse_is_said_of_a_level_that_is_only_the_last_one_known() -> None:
    """A watch that becomes unknown before its minute is over is not told as a watch; known again it is, by its whole time."""
    scene = Scene()
    scene.see("watch")
    scene.wait(30 * SECOND)
    scene.see("watch", unknown="stale")
    unknown = scene.titles(HOUR // 2)
    scene.see("watch", previous_unknown="stale")
    known = scene.titles(11 * MINUTE)

    assert unknown == ["UNKNOWN acme-1 cross:USDT: stale"]
    assert any("WATCH acme-1 cross:USDT" in text for text in known) or any("1 watch" in text for text in known)


def test_saying_the_same_level_again_does_not_start_its_time_anew() -> None:
    """A second event of the same level, after another price or document, leaves `for` running."""
    scene = Scene()
    scene.see("watch")
    scene.wait(30 * SECOND)
    scene.see("watch")

    assert scene.titles(41 * SECOND) == ["WATCH acme-1 cross:USDT"]


def test_recoveries_have_a_floor_too() -> None:
    """A second recovery is not decided sooner than the floor of what was told, however short `keep_firing_for` is."""
    scene = Scene(replace(DESK, group_wait=SECOND, group_interval=SECOND), timing=replace(DEFAULT_TIMING, keep_firing=MINUTE))
    scene.see("margin_call")
    scene.wait(SECOND)
    scene.see("healthy")
    first = scene.wait(MINUTE + SECOND)
    scene.see("liquidation")
    scene.wait(SECOND)
    scene.see("healthy")
    second = scene.wait(HOUR // 2)

    assert [notice.title for notice in first] == ["BETTER acme-1 cross:USDT: healthy, was margin call"]
    assert [notice.title for notice in second] == ["BETTER acme-1 cross:USDT: healthy, was liquidation"]
    assert second[0].items[0]["at_ms"] - first[0].items[0]["at_ms"] == DEFAULT_TIMING.floor[2]


def test_what_nobody_heard_leaves_no_floor() -> None:
    """A watch that came and went before its message does not hold back the next one."""
    scene = Scene(replace(DESK, group_wait=5 * MINUTE), timing=replace(DEFAULT_TIMING, keep_firing=10 * SECOND))
    scene.see("watch")
    scene.wait(70 * SECOND)
    scene.see("healthy")
    scene.wait(20 * SECOND)
    scene.see("watch")

    assert scene.titles(10 * MINUTE) == ["WATCH acme-1 cross:USDT"]


def test_escalation_comes_when_nobody_acknowledges() -> None:
    """`after`: the pager gets a margin call that has lasted a quarter of an hour, and a liquidation at once."""
    scene = Scene(DESK, PAGER)
    scene.see("margin_call")
    first = scene.wait(15 * MINUTE)
    later = scene.wait(SECOND)
    scene.see("liquidation", "other")
    urgent = scene.wait(SECOND)

    assert [notice.route for notice in first] == ["desk"]
    assert [(notice.route, notice.title) for notice in later] == [("pager", "MARGIN CALL acme-1 cross:USDT")]
    assert {notice.route for notice in urgent} == {"desk", "pager"}


def test_an_acknowledgement_stops_repeats_and_escalation_until_it_gets_worse() -> None:
    """Acknowledged: quiet; worse: told to everybody at once."""
    scene = Scene(DESK, PAGER)
    scene.see("margin_call")
    scene.wait(5 * MINUTE)
    assert scene.notifier.acknowledge(scene.now, account="acme-1") == 1
    assert scene.titles(3 * HOUR) == []
    scene.see("liquidation")

    assert {notice.route for notice in scene.wait(SECOND)} == {"desk", "pager"}


def test_what_got_worse_is_no_longer_acknowledged() -> None:
    """Margin call acknowledged, liquidation, margin call again: the old acknowledgement does not count, it is repeated."""
    scene = Scene()
    scene.see("margin_call")
    scene.wait(MINUTE)
    scene.notifier.acknowledge(scene.now, account="acme-1")
    scene.see("liquidation")
    scene.wait(SECOND)
    scene.see("margin_call")

    assert any(title.startswith("STILL MARGIN CALL") for title in scene.titles(2 * HOUR))


def test_an_acknowledgement_runs_out() -> None:
    """After acknowledged_for the repeats and the escalation come back."""
    scene = Scene(DESK, PAGER)
    scene.see("margin_call")
    scene.wait(5 * MINUTE)
    scene.notifier.acknowledge(scene.now, account="acme-*", about="level")
    assert scene.titles(4 * HOUR - 1) == []

    assert {notice.route for notice in scene.wait(2 * SECOND)} == {"desk", "pager"}


def test_an_acknowledgement_ends_with_what_was_acknowledged() -> None:
    """Once it is over, the next time is told and escalated as if nobody had ever seen it."""
    scene = Scene(DESK, PAGER)
    scene.see("margin_call")
    scene.wait(MINUTE)
    scene.notifier.acknowledge(scene.now, account="acme-1")
    scene.see("healthy")
    scene.wait(20 * MINUTE)
    scene.see("margin_call")

    assert {notice.route for notice in scene.wait(16 * MINUTE)} == {"desk", "pager"}


def silence(scene: Scene, minutes: int = 60, **changes: Any) -> Silence:
    """A silence from now on."""
    values: dict[str, Any] = {
        "id": "s1",
        "reason": "maintenance",
        "author": "desk",
        "from_ms": scene.now,
        "until_ms": scene.now + minutes * MINUTE,
    }
    return Silence(**{**values, **changes})


def test_a_silence_holds_back_and_then_tells_what_is_still_there() -> None:
    """Nothing is lost by a silence: what stands when it ends is told."""
    scene = Scene()
    scene.notifier.silence(silence(scene, account="acme-*"), scene.now)
    scene.see("margin_call")
    scene.see("margin_call", "acme-gone")
    scene.wait(MINUTE)
    scene.see("healthy", "acme-gone")
    assert scene.titles(58 * MINUTE) == []

    assert scene.titles(2 * MINUTE) == ["MARGIN CALL acme-1 cross:USDT"]


def test_a_silence_does_not_hold_back_what_is_worse_than_it_says() -> None:
    """By default a silence covers margin calls, not liquidations."""
    scene = Scene()
    scene.notifier.silence(silence(scene, account="acme-1"), scene.now)
    scene.see("margin_call")
    assert scene.titles(MINUTE) == []
    scene.see("liquidation")

    assert scene.titles(SECOND) == ["LIQUIDATION acme-1 cross:USDT"]


@pytest.mark.parametrize(
    "pattern", [{"group": "desk-b"}, {"venue": "okx"}, {"pool": "isolated:*"}, {"about": "unknown"}, {"account": "acme-2"}]
)
def test_a_silence_is_for_what_it_names(pattern: dict[str, Any]) -> None:
    """A silence of something else holds nothing back."""
    scene = Scene()
    scene.notifier.silence(silence(scene, up_to=Level.BANKRUPT, **pattern), scene.now)
    scene.see("margin_call")

    assert len(scene.wait(SECOND)) == 1


def test_a_silence_can_be_ended_early() -> None:
    """`unsilence` tells at once what was held back; an unknown id is no error."""
    scene = Scene()
    scene.notifier.silence(silence(scene), scene.now)
    scene.see("margin_call")
    assert scene.titles(MINUTE) == []
    assert scene.notifier.unsilence("s1", scene.now)
    assert not scene.notifier.unsilence("s1", scene.now)

    assert scene.titles(SECOND) == ["MARGIN CALL acme-1 cross:USDT"]
    assert scene.notifier.silences == ()


@pytest.mark.parametrize("wrong", [{"reason": " "}, {"author": ""}, {"id": ""}, {"until_ms": 0}, {"until_ms": TOKEN + 31 * 24 * HOUR}])
def test_a_silence_needs_a_reason_an_author_and_an_end(wrong: dict[str, Any]) -> None:
    """No silence for ever, none without a name on it."""
    with pytest.raises(ValueError, match="silence"):
        silence(Scene(), **wrong)


def test_a_silence_survives_its_record() -> None:
    """What is stored is what comes back; anything else is refused."""
    original = silence(Scene(), group="desk-*")

    assert Silence.of_json(original.to_json()) == original
    for data in (b"{}", b"[]", b"x", b'{"up_to": "what"}'):
        with pytest.raises(ValueError, match=r"silence|JSON|char|line"):
            Silence.of_json(data)


NIGHT = QuietHours(frozenset(range(7)), 22 * 60, 7 * 60, ZoneInfo("Europe/Berlin"))  # the events are at 23:47 in Berlin


def test_quiet_hours_hold_back_a_watch_but_never_a_margin_call() -> None:
    """In the night only margin calls and worse are said; the rest in the morning, as one message."""
    scene = Scene(replace(DESK, quiet=(NIGHT,)), timing=replace(DEFAULT_TIMING, repeat=(NEVER,) * 4))
    for account in ("a", "b"):
        scene.see("watch", account)
    scene.see("margin_call", "c")
    night = scene.titles(7 * HOUR)
    morning = scene.titles(HOUR)

    assert night == ["MARGIN CALL c cross:USDT"]
    assert morning == ["2 alerts on 2 accounts: 2 watch"]


def test_what_came_and_went_in_the_night_is_not_said_in_the_morning() -> None:
    """A watch that nobody heard and that is over leaves nothing to say."""
    scene = Scene(replace(DESK, quiet=(NIGHT,)))
    scene.see("watch")
    scene.wait(HOUR)
    scene.see("healthy")

    assert scene.titles(12 * HOUR) == []
    assert scene.notifier.next_due_ms() is None


def test_a_margin_call_that_is_over_before_its_message_is_told_with_what_holds_now() -> None:
    """A margin call that lasted less than urgent_wait is not swallowed."""
    scene = Scene()
    scene.see("margin_call")
    scene.now += 500
    scene.see("healthy", margin_ratio="0.3")

    assert scene.titles(SECOND) == ["MARGIN CALL acme-1 cross:USDT; healthy now"]


def test_quiet_hours_across_midnight_and_weekends() -> None:
    """A stretch that starts on a listed day may end on another one."""
    hours = QuietHours(frozenset({4}), 22 * 60, 7 * 60, ZoneInfo("UTC"))
    friday_night, saturday = 1_795_214_857_062, 1_795_214_857_062 + 6 * HOUR  # Friday 22:47, Saturday 04:47

    assert hours.ends_at(friday_night) == hours.ends_at(saturday) == 1_795_244_400_000
    assert hours.ends_at(friday_night - HOUR) is None
    assert hours.ends_at(saturday + 3 * HOUR) is None
    assert hours.ends_at(friday_night + 24 * HOUR) is None


def test_a_burst_is_one_message_a_route() -> None:
    """11,279 liquidations in one instant: one digest for each route, with the worst named and the rest counted."""
    scene = Scene(DESK, PAGER)
    for number in range(11_279):
        scene.see("liquidation", f"a{number}", group=f"desk-{number % 7}", margin_ratio=f"1.{number:05d}")
    notices = scene.wait(MINUTE)

    assert [notice.route for notice in notices] == ["desk", "pager"]
    for notice in notices:
        assert notice.title == "11,279 alerts on 11,279 accounts: 11,279 liquidation"
        assert notice.count == 11_279
        assert len(notice.text) < 2000
        assert notice.text.splitlines()[0].startswith("- LIQUIDATION a11278 cross:USDT, 111.28%")
        assert "and 11,269 more" in notice.text
        body = orjson.loads(notice.to_json("0/1-1"))
        assert (len(body["items"]), body["more"], body["sinks"]) == (50, 11_229, list(notice.sinks))


def test_less_urgent_notices_are_collected() -> None:
    """group_wait before the first message, group_interval between messages."""
    scene = Scene()
    scene.see("watch", "a")
    scene.wait(MINUTE)
    scene.see("watch", "b")
    scene.wait(5 * SECOND)
    first = scene.wait(5 * SECOND)
    scene.see("watch", "c")
    between = scene.wait(4 * MINUTE + 59 * SECOND)
    second = scene.wait(6 * SECOND)

    assert [notice.count for notice in first] == [1]
    assert between == []
    assert [notice.count for notice in second] == [2]


def test_an_urgent_notice_takes_the_waiting_ones_along() -> None:
    """A margin call brings the message forward, and what was waiting is in it."""
    scene = Scene()
    scene.see("watch", "a")
    scene.wait(MINUTE + SECOND)
    scene.see("margin_call", "b")
    notices = scene.wait(SECOND)

    assert [notice.title for notice in notices] == ["2 alerts on 2 accounts: 1 margin call, 1 watch"]
    assert notices[0].level is Level.MARGIN_CALL


def test_the_rate_of_a_route_merges_and_never_drops() -> None:
    """A storm of margin calls of ever new accounts: no more messages than the rate allows, and everybody is in one of them."""
    scene = Scene(replace(DESK, per_hour=6, burst=3))
    notices: list[Notice] = []
    for number in range(1800):
        scene.see("margin_call", f"a{number}")
        notices += scene.wait(2 * SECOND)
    notices += scene.wait(11 * MINUTE)
    told = sum(notice.count for notice in notices)

    assert len(notices) <= 3 + 6 + 2
    assert told >= 1800


def test_watches_leave_room_for_margin_calls() -> None:
    """Half of the burst is kept for what is urgent."""
    scene = Scene(replace(DESK, per_hour=1, burst=4, group_wait=SECOND, group_interval=SECOND))
    for number in range(20):
        scene.see("watch", f"a{number}")
        scene.wait(10 * SECOND)
    scene.see("margin_call", "b")

    assert any("margin call" in title.lower() for title in scene.titles(2 * SECOND))


def test_overrides_apply_from_venue_to_group_to_account() -> None:
    """The most particular wins, key by key."""
    scene = Scene(
        venues={"binance_usdm": {"hold": {0: 2 * MINUTE}}},
        groups={"desk-a": {"hold": {0: 3 * MINUTE}, "floor": {0: 2 * HOUR}}},
        accounts={"acme-1": {"hold": {0: 0}}},
    )
    for account, group in (("acme-1", "desk-a"), ("x", "desk-a"), ("y", "desk-b")):
        scene.see("watch", account, group=group)
    told = {item["account"]: item["at_ms"] - TOKEN for notice in scene.wait(15 * MINUTE) for item in notice.items}

    assert told == {"acme-1": 0, "y": 2 * MINUTE, "x": 3 * MINUTE}
    assert scene.policy.timing_of(account="acme-1", group="desk-a", venue="binance_usdm").floor[0] == 2 * HOUR
    assert scene.policy.timing_of(account="y", group="desk-b", venue="binance_usdm").hold[0] == 2 * MINUTE


@pytest.mark.parametrize(
    ("route", "is_told"),
    [
        ({"accounts": ("acme-*",)}, True),
        ({"accounts": ("other",)}, False),
        ({"groups": ("desk-?",)}, True),
        ({"groups": ("desk-b",)}, False),
        ({"venues": ("okx", "binance_*")}, True),
        ({"about": ("unknown",)}, False),
        ({"min_level": Level.LIQUIDATION}, False),
    ],
)
def test_routes_choose(route: dict[str, Any], *, is_told: bool) -> None:
    """By account, group, venue, kind and severity."""
    scene = Scene(replace(DESK, **route))
    scene.see("margin_call")

    assert bool(scene.wait(HOUR // 2)) is is_told


def test_a_blind_row_is_told_once() -> None:
    """A stretch that nobody has seen is told, every one of them, and there is no all-clear for it."""
    scene = Scene()
    for seq in (1, 2):
        scene.notifier.observe({"id": f"3/{seq}-5", "kind": "blind", "from": [1, 2, 3], "to": [1, 9, 0], "reason": "trimmed"}, scene.now)
    notices = scene.wait(24 * HOUR)

    assert [(notice.count, notice.title) for notice in notices] == [(2, "2 alerts on 0 accounts: 2 blind")]
    assert "BLIND partition 3" in notices[0].text
    assert scene.notifier.next_due_ms() is None


LIMITS = Limits((None, Decimal("0.2"), Decimal("0.1"), None))


def told(at_ms: int, *readings: RuleReading, account: str = "acme-1", unknown: str | None = None) -> PoolReadings:
    """What the rules say of a pool."""
    return PoolReadings(account, "cross", "desk-a", "okx", at_ms, unknown, readings)


def test_rule_readings_take_the_same_way() -> None:
    """A rule's warning is told, worse at once, unknown held, better after its time."""
    scene = Scene(rules={"distance": LIMITS})

    def read(severity: Level, text: str, unknown: str | None = None) -> None:
        scene.notifier.read(told(scene.now, RuleReading("distance", severity, None, text, unknown)), scene.now)

    read(Level.HEALTHY, "far")
    read(Level.MARGIN_CALL, "BTCUSDT is 19% from its liquidation price")
    read(Level.MARGIN_CALL, "BTCUSDT is 18% from its liquidation price")
    first = scene.titles(SECOND)
    read(Level.MARGIN_CALL, "not known", "mark")
    held = scene.titles(20 * MINUTE)
    read(Level.LIQUIDATION, "BTCUSDT is 9% from its liquidation price")
    worse = scene.titles(SECOND)
    read(Level.HEALTHY, "BTCUSDT is 40% from its liquidation price")

    assert first == ["DISTANCE acme-1 cross: BTCUSDT is 18% from its liquidation price"]
    assert held == []
    assert worse == ["DISTANCE acme-1 cross: BTCUSDT is 9% from its liquidation price"]
    assert scene.titles(11 * MINUTE) == ["OVER acme-1 cross: distance warning"]


def test_a_late_reader_decides_by_the_time_of_the_events() -> None:
    """Events read an hour late have their own dwell: a watch that stood long enough and still does is told, a flapping one is not."""
    scene = Scene()
    for account, level, seconds in (
        ("stands", "watch", 0),
        ("flaps", "watch", 0),
        ("call", "margin_call", 10),
        ("flaps", "healthy", 30),
        ("call", "healthy", 40),
        ("flaps", "watch", 3590),
    ):
        body = event(account=account, level=level, decided_at_ns=(TOKEN + seconds * SECOND) * 1_000_000)
        scene.notifier.observe(body, TOKEN + HOUR)
    scene.now = TOKEN + HOUR
    notices = scene.wait(SECOND)

    assert [item["text"] for notice in notices for item in notice.items] == [
        "MARGIN CALL call cross:USDT; healthy now",
        "WATCH stands cross:USDT",
    ]


def test_a_clock_that_goes_back_delays_nothing() -> None:
    """When the wall clock jumps back, waiting goes on from where it was."""
    scene = Scene()
    scene.see("margin_call")
    scene.now -= HOUR
    scene.notifier.advance(scene.now)
    told = scene.titles(SECOND)
    scene.now -= 24 * HOUR
    scene.notifier.advance(scene.now)
    repeated = scene.titles(HOUR)

    assert told == ["MARGIN CALL acme-1 cross:USDT"]
    assert len(repeated) == 1
    assert repeated[0].startswith("STILL MARGIN CALL")


def test_the_state_is_its_records() -> None:
    """A restart between decision and message loses neither; records of routes that are gone are deleted."""
    scene = Scene(DESK, PAGER)
    scene.notifier.silence(silence(scene, account="nobody"), scene.now)
    scene.see("margin_call")
    records = {name: data for name, data in scene.notifier.take_changes().items() if data is not None}
    assert scene.notifier.take_changes() == {}
    restarted = Notifier.load(AlertPolicy(routes=(DESK,)), records, scene.now)

    assert sorted(records) == ["clock", "route:desk", "silence:s1", "subject:acme-1/cross:USDT/level"]
    assert restarted.silences == scene.notifier.silences
    assert [notice.title for notice in restarted.advance(scene.now + SECOND)] == ["MARGIN CALL acme-1 cross:USDT"]


def test_a_restart_with_another_policy_decides_by_it() -> None:
    """A route that is new hears of what still stands; one that has gone is forgotten."""
    scene = Scene(DESK)
    scene.see("margin_call")
    scene.wait(SECOND)
    records = {name: data for name, data in scene.notifier.take_changes().items() if data is not None}
    scene.notifier = Notifier.load(AlertPolicy(routes=(replace(DESK, name="new"),)), records, scene.now)

    assert [notice.route for notice in scene.wait(2 * SECOND)] == ["new"]
    assert scene.notifier.take_changes()["route:desk"] is None


@pytest.mark.parametrize("records", [{"subject:a/b/level": b"{}"}, {"subject:a/b/level": b"x"}, {"strange:x": b"1"}])
def test_a_record_that_cannot_be_read_is_an_error(records: dict[str, bytes]) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=r"record|silence|unknown"):
        Notifier.load(AlertPolicy(), records, 0)


def test_a_group_change_takes_the_account_to_the_other_routes() -> None:
    """When an account moves to another group, its new desk is told, and the old one's waiting notice is withdrawn."""
    scene = Scene(replace(DESK, name="a", groups=("desk-a",)), replace(DESK, name="b", groups=("desk-b",)))
    scene.see("margin_call")
    scene.see("margin_call", group="desk-b")

    assert [notice.route for notice in scene.wait(MINUTE)] == ["b"]


def test_what_is_over_is_forgotten() -> None:
    """After recovery and floors nothing is left: no subject, no timer, no record."""
    scene = Scene()
    scene.see("margin_call")
    scene.wait(MINUTE)
    scene.see("healthy")
    scene.wait(3 * HOUR)

    assert list(scene.notifier.firing()) == []
    assert scene.notifier.next_due_ms() is None
    assert scene.notifier.take_changes()["subject:acme-1/cross:USDT/level"] is None


def test_firing_tells_people_what_stands() -> None:
    """For the API: since when, acknowledged, silenced, told to whom."""
    scene = Scene()
    scene.see("margin_call")
    scene.wait(SECOND)
    scene.notifier.acknowledge(scene.now, account="acme-1")
    scene.notifier.silence(silence(scene), scene.now)
    firing = list(scene.notifier.firing())

    assert [(each.account, each.about, each.severity, each.since_ms, each.silenced) for each in firing] == [
        ("acme-1", "level", Level.MARGIN_CALL, TOKEN, True)
    ]
    assert firing[0].acknowledged_until_ms == scene.now + 4 * HOUR
    assert firing[0].told == {"desk": Level.MARGIN_CALL}


def test_a_warning_that_a_whole_round_does_not_repeat_is_over() -> None:
    """A pool or a rule that is gone cannot say that it is better: the round that passes it over says so, one seen in part does not."""
    scene = Scene(rules={"distance": LIMITS})
    near = RuleReading("distance", Level.LIQUIDATION, None, "9% from its liquidation price")

    def mark(mark: Mark, name: int = 0) -> None:
        scene.notifier.mark_round(mark, name, lambda account: account.startswith("acme") is (name == 0), scene.now)

    for account in ("acme-1", "acme-2", "other"):
        scene.notifier.read(told(scene.now, near, account=account), scene.now)
    scene.wait(SECOND)
    mark(Mark.END)  # its beginning was not seen
    mark(Mark.END, 1)
    half = scene.titles(6 * MINUTE)
    mark(Mark.BEGIN)
    scene.notifier.read(told(scene.now, near, account="acme-2"), scene.now)
    mark(Mark.END)
    after = scene.titles(6 * MINUTE)

    assert half == []
    assert after == ["OVER acme-1 cross: distance warning"]


def test_a_rule_is_not_better_while_its_pool_is_unknown() -> None:
    """A rule that is not named has nothing to warn of, unless the pool is unknown: then nobody can say so."""
    scene = Scene(rules={"distance": LIMITS})
    scene.notifier.read(told(scene.now, RuleReading("distance", Level.MARGIN_CALL, None, "19%")), scene.now)
    scene.wait(SECOND)
    scene.notifier.read(told(scene.now), scene.now)
    scene.notifier.read(told(scene.now, unknown="mark is stale"), scene.now)
    unknown = scene.titles(10 * MINUTE)
    scene.notifier.read(told(scene.now), scene.now)

    assert unknown == []
    assert scene.titles(10 * MINUTE) == ["OVER acme-1 cross: distance warning"]


def test_a_digest_names_suspicious_prices() -> None:
    """Which price, why to doubt it, and behind how many."""
    scene = Scene()
    strange = {**event()["cause"], "suspicious": [{"reason": "jump", "reference": "30000", "deviation": "-0.12"}]}
    for account in ("a", "b"):
        scene.see("liquidation", account, cause=strange)
    scene.see("liquidation", "c")
    (notice,) = scene.wait(SECOND)

    assert notice.text.splitlines()[-1] == "Suspicious prices: BTCUSDT (jump) behind 2. Check at the venue first."
    assert "BTCUSDT" in notice.markdown.splitlines()[-1]


def test_a_message_about_one_thing_waits_for_its_numbers_but_not_for_ever() -> None:
    """In a burst a level comes first: one account's message has ratio and cure, or after five seconds goes without."""
    scene = Scene()
    whole = event(level="liquidation", rev=9)
    short = {
        key: value
        for key, value in whole.items()
        if key in ("id", "kind", "account", "pool", "level", "previous", "unknown", "rev", "cause")
    }
    for account in ("acme-1", "acme-2"):
        scene.notifier.observe({**short, "account": account, "numbers": "follow", "decided_at_ns": scene.now * 1_000_000}, scene.now)
        early = scene.wait(2 * SECOND)
        if account == "acme-1":
            scene.notifier.observe({**whole, "kind": "numbers", "decided_at_ns": scene.now * 1_000_000}, scene.now)
            (told,) = scene.wait(250)
        else:
            nothing = scene.wait(2 * SECOND)
            (late,) = scene.wait(SECOND)

        assert early == []
    assert nothing == []
    assert "Margin ratio 82.16%" in told.text
    assert "level before: watch" in told.text
    assert "Cure: deposit" in told.text
    assert "Its numbers follow" in late.text


def test_many_kinds_in_one_digest() -> None:
    """A digest counts what it holds by kind, worst first, in text and Markdown."""
    scene = Scene(rules={"leverage": LIMITS})
    scene.see("liquidation", "a")
    scene.see("margin_call", "b_*x*")
    scene.see("watch", "c", unknown="stale")
    scene.notifier.read(told(scene.now, RuleReading("leverage", Level.BANKRUPT, Decimal(90), "leverage 90")), scene.now)
    notices = scene.wait(SECOND)

    assert [notice.title for notice in notices] == ["3 alerts on 3 accounts: 1 leverage, 1 liquidation, 1 margin call"]
    assert notices[0].text.splitlines()[:3] == [
        "- LEVERAGE acme-1 cross: leverage 90",
        "- LIQUIDATION a cross:USDT, 82.16%, deposit 27,723.31 USDT",
        "- MARGIN CALL b_*x* cross:USDT, 82.16%, deposit 27,723.31 USDT",
    ]
    assert r"b\_\*x\*" in notices[0].markdown


def test_no_route_no_notice() -> None:
    """Without routes nothing is kept and nothing is due."""
    scene = Scene()
    scene.notifier = Notifier(AlertPolicy())
    scene.see("liquidation")

    assert scene.wait(HOUR) == []
    assert scene.notifier.next_due_ms() is None
