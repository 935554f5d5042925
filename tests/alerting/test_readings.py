"""Readings on their way: nothing changes, nothing but readings is taken, and who comes late hears of the present only."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.alerting.readings import Item, Mark, PoolReadings, caught_up, decode_readings, encode_readings
from monitor.alerting.rules import RuleReading
from monitor.margin.levels import Level

NEAR = RuleReading("distance", Level.MARGIN_CALL, None, "BTCUSDT is 19% away")

POOLS = st.builds(
    PoolReadings,
    account=st.text(max_size=5),
    pool=st.text(max_size=5),
    group=st.text(max_size=5),
    venue=st.text(max_size=5),
    at_ms=st.integers(0, 2**42),
    unknown=st.none() | st.text(max_size=5),
    standing=st.lists(
        st.builds(
            RuleReading,
            rule=st.text(max_size=5),
            severity=st.sampled_from(Level),
            value=st.none(),
            text=st.text(max_size=5),
            unknown=st.none() | st.text(max_size=5),
        ),
        max_size=3,
    ).map(tuple),
    day=st.integers(-1, 30_000),
    high=st.none() | st.decimals(allow_nan=False, allow_infinity=False, places=8, min_value=0, max_value=10**12),
    unknown_since=st.none() | st.integers(0, 2**42),
)


@given(st.lists(st.sampled_from(Mark) | POOLS, max_size=5))
def test_what_is_told_arrives(items: list[Item]) -> None:
    """Encoding and decoding changes nothing."""
    assert decode_readings(encode_readings(items)) == items


@given(st.binary(max_size=100) | st.just(b'[["a"]]') | st.just(b'["middle"]') | st.just(b"{}") | st.just(b"[1]"))
def test_anything_else_is_a_value_error(data: bytes) -> None:
    """Strange bytes are readings or a ValueError."""
    try:
        decode_readings(data)
    except ValueError:
        return


def pool(name: str, at_ms: int, *standing: RuleReading) -> PoolReadings:
    """One pool."""
    return PoolReadings(name, "cross", "", "okx", at_ms, None, standing)


def test_who_comes_late_hears_the_newest_of_each_pool_and_the_last_round() -> None:
    """Rises and falls of the past are not news; an end whose beginning is older than the last one ends nothing."""
    items: list[Item] = [
        *(Mark.END, pool("a", 1, NEAR), Mark.BEGIN, pool("a", 2, NEAR), pool("b", 2, NEAR), Mark.END),
        *(pool("a", 3), Mark.BEGIN, pool("a", 4, NEAR), Mark.END, pool("c", 5, NEAR)),
    ]

    assert caught_up(items) == [pool("b", 2, NEAR), Mark.BEGIN, pool("a", 4, NEAR), pool("c", 5, NEAR), Mark.END]
    assert caught_up([pool("a", 1, NEAR), pool("a", 2)]) == [pool("a", 2)]
    assert caught_up([pool("a", 1), Mark.END]) == [pool("a", 1), Mark.END]  # of a round whose beginning was taken before


def test_a_rule_that_is_not_named_has_nothing_to_warn_of() -> None:
    """Unless the pool is unknown: then nobody knows."""
    known, unknown = pool("a", 1, NEAR), pool("a", 1)._replace(unknown="stale")

    assert [(each.rule, each.severity, each.unknown) for each in known.all(["leverage", "distance"])] == [
        ("leverage", Level.HEALTHY, None),
        ("distance", Level.MARGIN_CALL, None),
    ]
    assert [each.unknown for each in unknown.all(["leverage"])] == ["stale"]
    assert known.memory().severities == {"distance": 2}


@pytest.mark.parametrize("high", [None, Decimal("12.5")])
def test_what_the_rules_remember_travels_along(high: Decimal | None) -> None:
    """The day's high and since when it is unknown."""
    told = pool("a", 1)._replace(day=20_000, high=high, unknown_since=7)
    (read,) = decode_readings(encode_readings([told]))

    assert isinstance(read, PoolReadings)
    assert (read.memory().day, read.memory().high, read.memory().unknown_since) == (20_000, high, 7)
