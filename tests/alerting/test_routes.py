"""The policy file: documented defaults are the defaults, and what is wrong is named with key, value and what was expected."""

from __future__ import annotations

import contextlib
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.alerting.routes import (
    DEFAULT_TIMING,
    HOUR,
    MINUTE,
    NEVER,
    PLAIN_TIMES,
    ROUTE_KEYS,
    SECOND,
    SEVERITY_TIMES,
    AlertPolicy,
    Route,
    duration_ms,
    parse_policy,
)
from monitor.alerting.rules import RULES, Limits
from monitor.errors import ConfigError
from monitor.margin.levels import Level

SHIPPED = Path(__file__).parents[2] / "config" / "alerts.toml"


def parse(text: str, **arguments: Any) -> AlertPolicy:
    """A policy from TOML text."""
    return parse_policy(tomllib.loads(text), source="alerts.toml", **arguments)


def test_the_shipped_file_shows_the_defaults() -> None:
    """What config/alerts.toml writes down is what holds without it; only the rule and the route are its own."""
    policy = parse(SHIPPED.read_text(), sinks=["console"])

    assert policy.timing == DEFAULT_TIMING
    assert policy.unknown_severity is AlertPolicy().unknown_severity
    assert policy.routes == (Route(name="desk", sinks=("console",)),)
    assert policy.rules == {"distance": Limits((Decimal("0.3"), Decimal("0.2"), Decimal("0.1"), None))}


def test_every_example_of_the_shipped_file_can_be_used() -> None:
    """With its comment signs taken away, every example is valid, and every rule has one."""
    text = SHIPPED.read_text()
    lines = []
    for line in text.splitlines():
        is_example = line.startswith("# ") and ("=" in line or line.startswith("# [")) and not line.startswith("# margin-monitor")
        lines.append(line[2:] if is_example else line)
    policy = parse("\n".join(lines), sinks=["console", "pager"])

    assert set(policy.rules) == set(RULES)
    assert [route.name for route in policy.routes] == ["desk", "pager"]
    assert policy.routes[1].after == (0, 15 * MINUTE, 0, 0)
    assert policy.timing_of(account="acme-1", group="market-makers", venue="hyperliquid").keep_firing == 15 * MINUTE
    assert policy.timing_of(account="x", group="market-makers", venue="hyperliquid").repeat[0] == NEVER
    assert policy.timing_of(account="x", group="y", venue="hyperliquid").hold[0] == 2 * MINUTE
    assert policy.sinks() == {"console", "pager"}


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("90s", 90 * SECOND),
        ("15m", 15 * MINUTE),
        ("1h30m", 90 * MINUTE),
        ("2d", 48 * HOUR),
        ("0s", 0),
        ("1d1h1m1s", 25 * HOUR + MINUTE + SECOND),
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    """Days, hours, minutes, seconds."""
    assert duration_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["5", "", "s", "1.5h", "-1s", "1 h", "5S", "１s", "1s1m", 5, None, True, "367d"])
def test_what_is_no_duration(text: Any) -> None:
    """No unit, no duration; more than a year is a slip."""
    assert duration_ms(text) is None


@given(st.integers(0, 300), st.integers(0, 500), st.integers(0, 500), st.integers(0, 5000))
def test_durations_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    """Every part counts."""
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds

    assert duration_ms(f"{days}d{hours}h{minutes}m{seconds}s") == (total * 1000 if total <= 366 * 86_400 else None)


ROUTE = '[[routes]]\nname = "a"\nsinks = ["chat"]\n'


@pytest.mark.parametrize(
    ("text", "key", "value", "expected"),
    [
        ("[default]", "default", "{}", "perhaps 'defaults'"),
        ("routes = 5", "routes", "5", "[[routes]] tables"),
        ("[defaults]\nkeep_firing_for = 5", "defaults.keep_firing_for", "5", "a duration with its unit"),
        ("[defaults]\nkeep_firing_for = '5 minutes'", "defaults.keep_firing_for", "'5 minutes'", "a duration with its unit"),
        ("[defaults.watch]\nfor = 'never'", "defaults.watch.for", "'never'", "a duration"),
        ("[defaults.watch]\nrepeat_interval = 'often'", "defaults.watch.repeat_interval", "'often'", 'or "never"'),
        ("[defaults.watch]\nrepeat = '1h'", "defaults.watch.repeat", "'1h'", "perhaps 'repeat_interval'"),
        ("[defaults.watch]\nfloor = '1s'", "defaults.watch.floor", "'1s'", 'at least "1m"'),
        ("[defaults.margin_call]\nfloor = '2h'", "defaults.margin_call.floor", "'7200s'", "at most the floor of watch"),
        ("[defaults.margin_call]\nrepeat_interval = '5m'", "defaults.margin_call.repeat_interval", "'300s'", "at least the floor"),
        ("[defaults.liquidation]\nfor = '5m'", "defaults.liquidation.for", "'300s'", "worse is told sooner"),
        ("[defaults]\nunknown_severity = 'healthy'", "defaults.unknown_severity", "'healthy'", "watch, margin_call"),
        ("[accounts.x]\nunknown_severity = 'watch'", "accounts.x.unknown_severity", "'watch'", "a known key"),
        ("[groups.x.watch]\nfloor = '10s'", "groups.x.watch.floor", "'10s'", "at least"),
        ("accounts = 5", "accounts", "5", "a table"),
        ("[[routes]]\nsinks = ['chat']", "routes.0.name", "None", "a name"),
        ("[[routes]]\nname = 'a b'\nsinks = ['chat']", "routes.0.name", "'a b'", "a name of letters"),
        ("[[routes]]\nname = 'a'", "routes.0.sinks", "None", "a list of texts"),
        ("[[routes]]\nname = 'a'\nsinks = []", "routes.0.sinks", "[]", "at least one sink"),
        ("[[routes]]\nname = 'a'\nsinks = ['chad']", "routes.0.sinks", "'chad'", "perhaps 'chat'"),
        ("[[routes]]\nname = 'a'\nsinks = ['xyz']", "routes.0.sinks", "'xyz'", "one of chat"),
        (ROUTE + ROUTE, "routes.1.name", "'a'", "no other route"),
        (ROUTE + "min_level = 'call'", "routes.0.min_level", "'call'", "margin_call"),
        (ROUTE + "about = ['levels']", "routes.0.about", "'levels'", "one of level"),
        (ROUTE + "accounts = 'x'", "routes.0.accounts", "'x'", "a list of texts"),
        (ROUTE + "send_resolved = 'yes'", "routes.0.send_resolved", "'yes'", "true or false"),
        (ROUTE + "per_hour = 0", "routes.0.per_hour", "0", "from 1 to 3600"),
        (ROUTE + "burst = 1", "routes.0.burst", "1", "from 2"),
        (ROUTE + "burst = true", "routes.0.burst", "True", "a whole number"),
        (ROUTE + "after = 5", "routes.0.after", "5", "a table"),
        (ROUTE + "after = { call = '1m' }", "routes.0.after.call", "'1m'", "margin_call"),
        (ROUTE + "after = 'soon'", "routes.0.after", "'soon'", "a duration"),
        (ROUTE + "urgent_wait = '1m'", "routes.0.urgent_wait", "'1m'", "at most group_wait"),
        (ROUTE + "quiet_hours = 'night'", "routes.0.quiet_hours", "'night'", "a list of tables"),
        (ROUTE + "quiet_hours = [{ from = '22:00' }]", "routes.0.quiet_hours.0.to", "None", "a time of day"),
        (ROUTE + "quiet_hours = [{ from = '22:00', to = '24:30' }]", "routes.0.quiet_hours.0.to", "'24:30'", "a time of day"),
        (ROUTE + "quiet_hours = [{ from = '22:00', to = '7:00' }]", "routes.0.quiet_hours.0.to", "'7:00'", "a time of day"),
        (ROUTE + "quiet_hours = [{ from = '22:00', to = '07:00', days = ['sunday'] }]", "routes.0.quiet_hours.0.days", "'sunday'", "mon"),
        (
            ROUTE + "quiet_hours = [{ from = '22:00', to = '07:00', timezone = 'Mars' }]",
            "routes.0.quiet_hours.0.timezone",
            "'Mars'",
            "Europe/",
        ),
        ("[rules.distant]", "rules.distant", "{}", "perhaps 'distance'"),
        ("[rules.distance]", "rules.distance", "{}", "at least one"),
        ("[rules.distance]\nwatch = 30", "rules.distance.watch", "30", "a percentage"),
        ("[rules.distance]\nwatch = '10%'\nmargin_call = '20%'", "rules.distance", "", "limits that fall"),
        ("[rules.leverage]\nwatch = 10\nmargin_call = 5", "rules.leverage", "", "limits that rise"),
        ("[rules.leverage]\nwatch = '10'", "rules.leverage.watch", "'10'", "a number above 0"),
        ("[rules.leverage]\nwatch = nan", "rules.leverage.watch", "nan", "a number above 0"),
        ("[rules.leverage]\nwatch = 10\nwindow = '5m'", "rules.leverage.window", "'5m'", "one of"),
        ("[rules.time_to_liquidation]\nwatch = '4'", "rules.time_to_liquidation.watch", "'4'", "a duration"),
    ],
)
def test_what_is_wrong_is_named(text: str, key: str, value: str, expected: str) -> None:
    """File, key, value and what was expected, in one line."""
    with pytest.raises(ConfigError) as caught:
        parse(text, sinks=["chat"], line_of=len)
    error = caught.value

    assert (error.source, error.key) == ("alerts.toml", key)
    assert value in error.value
    assert expected in error.expected
    assert "\n" not in str(error)
    assert error.line == len(key.split("."))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["defaults", "routes", "rules", "watch", "for", "name", "sinks", "distance", "quiet_hours", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_nothing_but_a_config_error_comes_out(raw: Any) -> None:
    """Whatever a file holds, it is a policy or an error that names something."""
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_policy(raw if isinstance(raw, dict) else {"routes": raw}, source="f"), AlertPolicy)


def test_a_route_without_known_sinks_is_not_checked() -> None:
    """check-config may not know the sinks yet."""
    assert parse(ROUTE).routes[0].sinks == ("chat",)
    assert parse(ROUTE).routes[0].min_level is Level.WATCH


def test_the_reference_page_names_every_key_and_its_default() -> None:
    """docs/reference/alert-policy.md holds every key of a route, every time and every rule; defaults are those of the code."""
    page = (SHIPPED.parents[1] / "docs" / "reference" / "alert-policy.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")]
    keys = {key.strip("`") for cells in rows for key in cells[0].split(", ")}
    route = Route(name="a", sinks=("b",))

    assert keys >= ROUTE_KEYS
    assert set(RULES) <= keys
    assert {*PLAIN_TIMES, "unknown_severity", *(f"SEVERITY.{key}" for key in SEVERITY_TIMES)} <= keys
    defaults = {key.strip("`"): cells[1].replace("`", "") for cells in rows for key in cells[0].split(", ")[:1] if len(cells) == 3}
    for key in ("group_wait", "group_interval", "after"):
        expected = getattr(route, key)
        assert duration_ms(defaults[key]) == (expected[0] if isinstance(expected, tuple) else expected)
    assert defaults["per_hour"] == f"{route.per_hour}, {route.burst}"
    assert defaults["urgent"] == f"{route.urgent.word}, {route.urgent_wait // 1000}s"
    for key, field in (("keep_firing_for", "keep_firing"), ("acknowledged_for", "acknowledged"), ("unknown_for", "unknown_hold")):
        assert duration_ms(defaults[key]) == getattr(DEFAULT_TIMING, field)
    for key, field in (("SEVERITY.floor", "floor"), ("SEVERITY.repeat_interval", "repeat")):
        shown = [duration_ms(part.split(";")[0]) for part in defaults[key].split(", ")]
        assert tuple(shown) == getattr(DEFAULT_TIMING, field)


def test_the_examples_of_the_guide_can_be_used() -> None:
    """Policy and settings in docs/how-to/alerts.md are valid."""
    page = (SHIPPED.parents[1] / "docs" / "how-to" / "alerts.md").read_text()
    blocks = [tomllib.loads(block.split("```")[0]) for block in page.split("```toml\n")[1:]]
    policies = [block for block in blocks if "routes" in block]

    assert len(policies) == 1
    assert [route.name for route in parse_policy(policies[0], source="page", sinks=["desk_chat", "pager"]).routes] == ["desk", "escalation"]
    for block in blocks:
        assert "routes" in block or block.keys() <= {"sinks", "alerts"}
