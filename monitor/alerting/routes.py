"""The alert policy as written down: who is told of what, when, how often; read from plain TOML values.

Parsing is pure: it takes the dictionary that a TOML reader made and names the key and the value of the first thing wrong.
Every key and its default: config/alerts.toml and docs/reference/alert-policy.md.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from monitor.alerting.rules import RULES, Limits
from monitor.errors import ConfigError
from monitor.margin.levels import Level

__all__ = ["DEFAULT_TIMING", "AlertPolicy", "QuietHours", "Route", "Timing", "duration_ms", "parse_policy"]

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NEVER: Final = 0
"""A repeat interval of 0: never repeated."""

SEVERITIES = (Level.WATCH, Level.MARGIN_CALL, Level.LIQUIDATION, Level.BANKRUPT)
DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
CLOCK = re.compile(r"([01]\d|2[0-4]):([0-5]\d)", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

LineOf = Callable[[Sequence[str]], int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long and how often, in milliseconds. Tuples are by severity: watch, margin_call, liquidation, bankrupt.

    Attributes:
        hold: `for`: the level must have stood so long without a break before anybody is told.
        floor: No second notice of the same severity (or a lower one) about the same thing within this time.
        repeat: `repeat_interval`: said again so often while it lasts and nobody has acknowledged; 0 never.
        keep_firing: `keep_firing_for`: it must have been better for so long before that is said, and before it can be said anew.
        acknowledged: `acknowledged_for`: an acknowledgement holds so long.
        unknown_hold: `unknown_for`: like `hold`, for unknown.
    """

    hold: tuple[int, int, int, int] = (MINUTE, 0, 0, 0)
    floor: tuple[int, int, int, int] = (HOUR, 15 * MINUTE, 5 * MINUTE, 5 * MINUTE)
    repeat: tuple[int, int, int, int] = (8 * HOUR, HOUR, 15 * MINUTE, 15 * MINUTE)
    keep_firing: int = 5 * MINUTE
    acknowledged: int = 4 * HOUR
    unknown_hold: int = 10 * SECOND


DEFAULT_TIMING = Timing()


@dataclass(frozen=True, slots=True)
class QuietHours:
    """A stretch of the day in which only margin calls and worse are said at once. Across midnight when `end` <= `start`.

    Attributes:
        days: Weekdays on which it starts, Monday 0.
        start, end: Minutes of the day, local time; `end` up to 1440.
    """

    days: frozenset[int]
    start: int
    end: int
    zone: ZoneInfo

    def ends_at(self, now_ms: int) -> int | None:
        """When the quiet stretch that `now_ms` lies in ends, in ms since 1970; None when there is none."""
        local = datetime.fromtimestamp(now_ms / 1000, self.zone)
        for back in (0, 1):
            day = (local - timedelta(days=back)).date()
            if day.weekday() not in self.days:
                continue
            midnight = datetime(day.year, day.month, day.day, tzinfo=self.zone)
            end = self.end if self.end > self.start else self.end + 1440
            # wall-clock arithmetic inside one zone: a night with a clock change ends at the named hour all the same
            if midnight + timedelta(minutes=self.start) <= local < (last := midnight + timedelta(minutes=end)):
                return int(last.timestamp() * 1000)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Who is told of what. Every route that matches gets the notice.

    Attributes:
        name: Unique. sinks: Names of the sinks that its notices go to.
        accounts, groups, venues, about: Patterns with `*`; empty matches everything. `about`: level, unknown, blind or the name of a rule.
        min_level: Least severity.
        after: By severity, ms: told only when it has lasted so much longer than `for` and nobody has acknowledged: this is escalation.
        send_resolved: Also told when it is better.
        group_wait: Time that notices are collected before the first message. group_interval: Least time between messages.
        urgent: From this severity on only `urgent_wait` counts.
        per_hour, burst: Messages an hour in the long run, and at once. What finds no room waits and joins the next message.
        quiet: Stretches in which only margin calls and worse are said.
    """

    name: str
    sinks: tuple[str, ...]
    accounts: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    venues: tuple[str, ...] = ()
    about: tuple[str, ...] = ()
    min_level: Level = Level.WATCH
    after: tuple[int, int, int, int] = (0, 0, 0, 0)
    send_resolved: bool = True
    group_wait: int = 10 * SECOND
    group_interval: int = 5 * MINUTE
    urgent: Level = Level.MARGIN_CALL
    urgent_wait: int = SECOND
    per_hour: int = 60
    burst: int = 10
    quiet: tuple[QuietHours, ...] = ()

    def matches(self, *, account: str, group: str, venue: str, about: str) -> bool:
        """Whether the route is for this account and this kind of thing, whatever its severity."""
        wanted = ((self.accounts, account), (self.groups, group), (self.venues, venue), (self.about, about))
        return all(not patterns or any(fnmatchcase(name, pattern) for pattern in patterns) for patterns, name in wanted)

    def quiet_until(self, now_ms: int) -> int | None:
        """When the present quiet stretch ends; None outside of all."""
        return max((end for hours in self.quiet if (end := hours.ends_at(now_ms)) is not None), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertPolicy:
    """The whole policy. Overrides are applied in the order venue, group, account: the most particular wins, key by key."""

    timing: Timing = DEFAULT_TIMING
    venues: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    accounts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unknown_severity: Level = Level.MARGIN_CALL
    routes: tuple[Route, ...] = ()
    rules: Mapping[str, Limits] = field(default_factory=dict)

    def timing_of(self, *, account: str, group: str, venue: str) -> Timing:
        """The timing in force for an account."""
        timing = self.timing
        for table, name in ((self.venues, venue), (self.groups, group), (self.accounts, account)):
            if name in table:
                timing = _overridden(timing, table[name])
        return timing

    def sinks(self) -> frozenset[str]:
        """Every sink that a route names."""
        return frozenset(sink for route in self.routes for sink in route.sinks)


def duration_ms(text: object) -> int | None:
    """`90s`, `15m`, `1h30m`, `2d` in milliseconds; None for anything else: a bare number has no unit."""
    found = DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if found is None or not any(found.groups()):
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = days * DAY + hours * HOUR + minutes * MINUTE + seconds * SECOND
    return total if total <= 366 * DAY else None


def parse_policy(raw: Mapping[str, Any], *, source: str, sinks: Sequence[str] | None = None, line_of: LineOf | None = None) -> AlertPolicy:
    """Reads a policy from what a TOML reader returned.

    Args:
        source: Name of the file, for errors.
        sinks: Names of the sinks there are; a route to another one is an error. None: not checked.
        line_of: Finds the line of a dotted key, for errors.

    Raises:
        ConfigError: The first thing wrong, with key, value and what was expected.
    """
    reader = _Reader(source, line_of or (lambda _keys: None), frozenset(sinks) if sinks is not None else None)
    top = reader.table(raw, (), {"defaults", "venues", "groups", "accounts", "routes", "rules"})
    defaults = reader.table(top.get("defaults", {}), ("defaults",), TIMING_KEYS | {"unknown_severity"})
    timing = _overridden(DEFAULT_TIMING, reader.timing({k: v for k, v in defaults.items() if k != "unknown_severity"}, ("defaults",)))
    reader.check_floors(timing, ("defaults",))
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in ("venues", "groups", "accounts"):
        named = reader.mapping(top.get(kind, {}), (kind,))
        tables[kind] = {name: reader.timing(reader.table(value, (kind, name), TIMING_KEYS), (kind, name)) for name, value in named.items()}
        for name, override in tables[kind].items():
            reader.check_floors(_overridden(timing, override), (kind, name))
    return AlertPolicy(
        timing=timing,
        **tables,
        unknown_severity=reader.severity(defaults.get("unknown_severity", "margin_call"), ("defaults", "unknown_severity")),
        routes=reader.routes(top.get("routes", [])),
        rules=reader.rules(top.get("rules", {})),
    )


SEVERITY_KEYS = {level.word for level in SEVERITIES}
PLAIN_TIMES = {"keep_firing_for": "keep_firing", "acknowledged_for": "acknowledged", "unknown_for": "unknown_hold"}
SEVERITY_TIMES = {"for": "hold", "floor": "floor", "repeat_interval": "repeat"}
TIMING_KEYS = SEVERITY_KEYS | set(PLAIN_TIMES)
# fmt: off
ROUTE_KEYS = {
    "name", "sinks", "accounts", "groups", "venues", "about", "min_level", "after", "send_resolved", "group_wait", "group_interval",
    "urgent", "urgent_wait", "per_hour", "burst", "quiet_hours",
}
# fmt: on
ABOUT = ("level", "unknown", "blind", *RULES)
"""What a notice can be about."""


def _overridden(timing: Timing, override: Mapping[str, Any]) -> Timing:
    """`override`: field -> value, or field -> {severity index: value} for the fields that are by severity."""
    changes: dict[str, Any] = {}
    for name, value in override.items():
        if isinstance(value, Mapping):
            present = getattr(timing, name)
            changes[name] = tuple(value.get(index, present[index]) for index in range(4))
        else:
            changes[name] = value
    return replace(timing, **changes)


class _Reader:
    """Checks values and names what is wrong with them."""

    def __init__(self, source: str, line_of: LineOf, sinks: frozenset[str] | None) -> None:
        self._source, self._line_of, self._sinks = source, line_of, sinks

    def wrong(self, keys: Sequence[str], value: object, expected: str) -> ConfigError:
        return ConfigError(source=self._source, line=self._line_of(keys), key=".".join(keys), value=repr(value)[:120], expected=expected)

    def mapping(self, value: object, keys: Sequence[str]) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self.wrong(keys, value, "a table")
        return value

    def table(self, value: object, keys: Sequence[str], known: set[str]) -> Mapping[str, Any]:
        table = self.mapping(value, keys)
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                expected = f"a known key, perhaps {near[0]!r}" if near else f"one of {', '.join(sorted(known))}"
                raise self.wrong((*keys, key), table[key], expected)
        return table

    def duration(self, value: object, keys: Sequence[str], *, may_be_never: bool = False) -> int:
        if may_be_never and value == "never":
            return NEVER
        milliseconds = duration_ms(value)
        if milliseconds is None or (may_be_never and milliseconds == NEVER):
            raise self.wrong(
                keys, value, 'a duration with its unit such as "90s", "15m" or "1h30m"' + (' or "never"' if may_be_never else "")
            )
        return milliseconds

    def severity(self, value: object, keys: Sequence[str]) -> Level:
        if not isinstance(value, str) or value not in SEVERITY_KEYS:
            raise self.wrong(keys, value, "watch, margin_call, liquidation or bankrupt")
        return Level.of(value)

    def whole(self, value: object, keys: Sequence[str], low: int, high: int) -> int:
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(keys, value, f"a whole number from {low} to {high}")
        return value

    def texts(self, value: object, keys: Sequence[str]) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.wrong(keys, value, "a list of texts")
        return tuple(value)

    def timing(self, table: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
        """Timing keys as an override: field -> value or {severity index: value}."""
        override: dict[str, Any] = {}
        for key, value in table.items():
            if key in PLAIN_TIMES:
                override[PLAIN_TIMES[key]] = self.duration(value, (*keys, key))
                continue
            index = int(Level.of(key)) - 1
            for inner, inner_value in self.table(value, (*keys, key), set(SEVERITY_TIMES)).items():
                time = self.duration(inner_value, (*keys, key, inner), may_be_never=inner == "repeat_interval")
                override.setdefault(SEVERITY_TIMES[inner], {})[index] = time
        return override

    def check_floors(self, timing: Timing, keys: Sequence[str]) -> None:
        """A floor above zero bounds the messages; a worse level must not be held longer than a lesser one."""
        for index, severity in enumerate(SEVERITIES):
            if timing.floor[index] < MINUTE:
                raise self.wrong((*keys, severity.word, "floor"), f"{timing.floor[index] // 1000}s", 'at least "1m"')
            if index and timing.floor[index] > timing.floor[index - 1]:
                expected = f"at most the floor of {SEVERITIES[index - 1].word} ({timing.floor[index - 1] // 1000}s)"
                raise self.wrong((*keys, severity.word, "floor"), f"{timing.floor[index] // 1000}s", expected)
            if timing.repeat[index] != NEVER and timing.repeat[index] < timing.floor[index]:
                expected = f"at least the floor ({timing.floor[index] // 1000}s) or never"
                raise self.wrong((*keys, severity.word, "repeat_interval"), f"{timing.repeat[index] // 1000}s", expected)
            if index and timing.hold[index] > timing.hold[index - 1]:
                expected = f"at most that of {SEVERITIES[index - 1].word} ({timing.hold[index - 1] // 1000}s): worse is told sooner"
                raise self.wrong((*keys, severity.word, "for"), f"{timing.hold[index] // 1000}s", expected)

    def routes(self, value: object) -> tuple[Route, ...]:
        if not isinstance(value, list):
            raise self.wrong(("routes",), value, "[[routes]] tables")
        routes: list[Route] = []
        for number, item in enumerate(value):
            keys = ("routes", str(number))
            table = self.table(item, keys, ROUTE_KEYS)
            name = table.get("name")
            if not isinstance(name, str) or not NAME.fullmatch(name):
                raise self.wrong((*keys, "name"), name, "a name of letters, digits, . _ and -")
            if any(route.name == name for route in routes):
                raise self.wrong((*keys, "name"), name, "a name that no other route has")
            routes.append(self._route(name, table, keys))
        return tuple(routes)

    def _route(self, name: str, table: Mapping[str, Any], keys: Sequence[str]) -> Route:
        values: dict[str, Any] = {"name": name, "sinks": self.texts(table.get("sinks"), (*keys, "sinks"))}
        if not values["sinks"]:
            raise self.wrong((*keys, "sinks"), [], "at least one sink")
        for sink in values["sinks"]:
            if self._sinks is not None and sink not in self._sinks:
                near = difflib.get_close_matches(sink, self._sinks, n=1)
                expected = f"a sink that is set up, perhaps {near[0]!r}" if near else f"one of {', '.join(sorted(self._sinks)) or '(none)'}"
                raise self.wrong((*keys, "sinks"), sink, expected)
        for key in ("accounts", "groups", "venues", "about"):
            if key in table:
                values[key] = self.texts(table[key], (*keys, key))
        for about in values.get("about", ()):
            if not any(fnmatchcase(known, about) for known in ABOUT):
                raise self.wrong((*keys, "about"), about, f"one of {', '.join(ABOUT)}")
        for key in ("min_level", "urgent"):
            if key in table:
                values[key] = self.severity(table[key], (*keys, key))
        for key in ("group_wait", "group_interval", "urgent_wait"):
            if key in table:
                values[key] = self.duration(table[key], (*keys, key))
        if not isinstance(table.get("send_resolved", True), bool):
            raise self.wrong((*keys, "send_resolved"), table["send_resolved"], "true or false")
        values["send_resolved"] = table.get("send_resolved", True)
        if "after" in table:
            values["after"] = self._after(table["after"], (*keys, "after"))
        if "per_hour" in table:
            values["per_hour"] = self.whole(table["per_hour"], (*keys, "per_hour"), 1, 3600)
        if "burst" in table:
            values["burst"] = self.whole(table["burst"], (*keys, "burst"), 2, 1000)
        quiet = table.get("quiet_hours", [])
        if not isinstance(quiet, list):
            raise self.wrong((*keys, "quiet_hours"), quiet, "a list of tables")
        values["quiet"] = tuple(self._quiet(item, (*keys, "quiet_hours", str(number))) for number, item in enumerate(quiet))
        route = Route(**values)
        if route.urgent_wait > route.group_wait:
            raise self.wrong((*keys, "urgent_wait"), table.get("urgent_wait"), f"at most group_wait ({route.group_wait // 1000}s)")
        return route

    def _after(self, value: object, keys: Sequence[str]) -> tuple[int, ...]:
        if isinstance(value, str):
            return (self.duration(value, keys),) * 4
        table = self.table(value, keys, SEVERITY_KEYS)
        return tuple(self.duration(table.get(level.word, "0s"), (*keys, level.word)) for level in SEVERITIES)

    def _quiet(self, value: object, keys: Sequence[str]) -> QuietHours:
        table = self.table(value, keys, {"days", "from", "to", "timezone"})
        days = self.texts(table.get("days", list(DAYS)), (*keys, "days"))
        for day in days:
            if day not in DAYS:
                raise self.wrong((*keys, "days"), day, f"one of {', '.join(DAYS)}")
        times: list[int] = []
        for key in ("from", "to"):
            found = CLOCK.fullmatch(str(table.get(key, "")))
            minutes = int(found[1]) * 60 + int(found[2]) if found else 9999
            if minutes > 1440:
                raise self.wrong((*keys, key), table.get(key), 'a time of day such as "22:00"')
            times.append(minutes)
        zone = table.get("timezone", "UTC")
        try:
            return QuietHours(frozenset(DAYS.index(day) for day in days), times[0] % 1440, times[1], ZoneInfo(str(zone)))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise self.wrong((*keys, "timezone"), zone, 'a time zone such as "Europe/Berlin"') from None

    def rules(self, value: object) -> dict[str, Limits]:
        settings: dict[str, Limits] = {}
        for name, item in self.table(value, ("rules",), set(RULES)).items():
            rule, keys = RULES[name], ("rules", name)
            table = self.table(item, keys, SEVERITY_KEYS | ({"window"} if rule.has_window else set()))
            bounds = tuple(
                self._limit(table[level.word], rule.unit, (*keys, level.word)) if level.word in table else None for level in SEVERITIES
            )
            given = [bound for bound in bounds if bound is not None]
            if not given:
                raise self.wrong(keys, dict(table), "at least one of watch, margin_call, liquidation, bankrupt")
            if any(a <= b if rule.falls else a >= b for a, b in pairwise(given)):
                raise self.wrong(keys, dict(table), f"limits that {'fall' if rule.falls else 'rise'} with the severity")
            window = Decimal(self.duration(table.get("window", "5m"), (*keys, "window"))) / 1000
            settings[name] = Limits((bounds[0], bounds[1], bounds[2], bounds[3]), window)
        return settings

    def _limit(self, value: object, unit: str, keys: Sequence[str]) -> Decimal:
        if unit == "duration":
            return Decimal(self.duration(value, keys)) / 1000
        if unit == "fraction" and isinstance(value, str) and re.fullmatch(r"\d{1,4}(\.\d{1,6})?%", value, re.ASCII):
            return Decimal(value[:-1]) / 100
        if unit == "number" and type(value) in (int, float) and 0 < float(str(value)) < float("inf"):
            return Decimal(str(value))
        expected = {"fraction": 'a percentage such as "20%"', "number": "a number above 0"}[unit]
        raise self.wrong(keys, value, expected)
