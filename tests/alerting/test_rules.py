"""Rules beside the levels: the number by its formula, the severity by its limits, and no number where an input is missing."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.alerting.rules import (
    RULES,
    Limits,
    PoolMemory,
    PoolSnapshot,
    PositionSnapshot,
    Protection,
    RuleReading,
    evaluate_rules,
    snapshot_of,
)
from monitor.margin.levels import Level

D = Decimal
NOON = 20_777 * 86_400_000 + 12 * 3_600_000

LONG = PositionSnapshot(
    instrument="BTCUSDT",
    underlying="BTC",
    quantity=D(2),
    mark_price=D(60000),
    notional=D(120000),
    liquidation_price=D(51000),
    delta=D(120000),
    stops=(),
    targets=(),
)
SHORT = PositionSnapshot(
    instrument="ETHUSDT",
    underlying="ETH",
    quantity=D(-10),
    mark_price=D(3000),
    notional=D(30000),
    liquidation_price=D(3300),
    delta=D(-30000),
    stops=(),
    targets=(),
)


def pool(**changes: Any) -> PoolSnapshot:
    """A pool with a long and a short."""
    values: dict[str, Any] = {
        "account": "acme-1",
        "group": "desk-a",
        "venue": "okx",
        "pool": "cross",
        "currency": "USD",
        "at_ms": NOON,
        "unknown": None,
        "equity": D(50000),
        "margin_ratio": D("0.5"),
        "leverage": D(3),
        "positions": (LONG, SHORT),
    }
    return PoolSnapshot(**{**values, **changes})


def limits(*bounds: str, window_s: int = 300) -> Limits:
    """Limits from the mildest severity on."""
    padded = [D(bound) for bound in bounds] + [None] * (4 - len(bounds))
    return Limits((padded[0], padded[1], padded[2], padded[3]), D(window_s))


def reading(rule: str, snapshot: PoolSnapshot, each: Limits | None = None, memory: PoolMemory | None = None) -> RuleReading:
    """One rule's reading."""
    readings, _ = evaluate_rules({rule: each or limits("1")}, snapshot, memory or PoolMemory())
    return readings[0]


@pytest.mark.parametrize(
    ("rule", "snapshot", "value"),
    [
        ("distance", pool(), D("0.1")),  # |3300 - 3000| / 3000; BTC: 9000 / 60000
        ("distance", pool(positions=(LONG,)), D("0.15")),
        ("distance", pool(positions=(replace(LONG, liquidation_price=None),)), None),
        ("leverage", pool(), D(3)),
        ("leverage", pool(positions=()), None),
        ("concentration", pool(), D("0.8")),  # 120000 / 150000
        ("concentration", pool(positions=()), None),
        ("net_delta", pool(), D("2.4")),  # 120000 / 50000
        ("net_delta", pool(positions=(LONG, replace(SHORT, underlying="BTC", delta=D(-110000)))), D("0.2")),
        ("without_stop", pool(), D(1)),
        ("without_stop", pool(positions=(replace(LONG, stops=(Protection(D("0.5"), D(55000)),)),)), D("0.75")),
        ("without_stop", pool(positions=(replace(LONG, stops=(Protection(D(2), D(50000)),)),)), D(1)),  # beyond the liquidation price
        ("without_stop", pool(positions=(replace(LONG, stops=(Protection(D(2), D(61000)),)),)), D(1)),  # on the winning side
        ("without_stop", pool(positions=(replace(SHORT, stops=(Protection(D(20), D(3200)),)),)), D(0)),
        ("without_stop", pool(positions=(replace(SHORT, stops=(Protection(D(10), D(3400)),)),)), D(1)),
        ("without_target", pool(positions=(replace(LONG, targets=(Protection(D(1), D(70000)),)),)), D("0.5")),
        ("without_target", pool(positions=(replace(SHORT, targets=(Protection(D(10), D(3100)),)),)), D(1)),
        ("time_to_liquidation", pool(margin_ratio=D("1.2")), D(0)),
        ("time_to_liquidation", pool(equity=D(-1), margin_ratio=None), D(0)),
        ("time_to_liquidation", pool(), None),
        ("unknown_time", pool(), None),
        ("drawdown", pool(), D(0)),
        ("equity_drop", pool(), D(0)),
    ],
)
def test_measures(rule: str, snapshot: PoolSnapshot, value: Decimal | None) -> None:
    """Each rule's number by hand."""
    assert reading(rule, snapshot).value == value


@pytest.mark.parametrize(
    ("rule", "snapshot", "missing"),
    [
        ("distance", pool(positions=(replace(LONG, mark_price=None),)), "mark of BTCUSDT"),
        ("leverage", pool(leverage=None), "leverage"),
        ("concentration", pool(positions=(replace(LONG, notional=None),)), "notional of BTCUSDT"),
        ("net_delta", pool(positions=(replace(LONG, delta=None),)), "delta of BTCUSDT"),
        ("net_delta", pool(equity=D(0)), "equity is used up"),
        ("without_stop", pool(positions=(replace(LONG, stops=None),)), "stops of BTCUSDT"),
        ("without_target", pool(positions=(replace(LONG, targets=None),)), "take-profit orders of BTCUSDT"),
        ("time_to_liquidation", pool(margin_ratio=None), "margin ratio"),
        ("drawdown", pool(equity=None), "equity"),
        ("drawdown", pool(unknown="mark BTCUSDT is stale"), "mark BTCUSDT is stale"),
    ],
)
def test_what_cannot_be_measured_is_unknown(rule: str, snapshot: PoolSnapshot, missing: str) -> None:
    """A missing input is named; the severity stays what it was, it is not healthy."""
    read = reading(rule, snapshot, memory=PoolMemory(severities={rule: 3}))

    assert read.unknown is not None
    assert missing in read.unknown
    assert (read.severity, read.value) == (Level.LIQUIDATION, None)


def test_limits_give_the_severity_and_five_percent_of_slack_keeps_it() -> None:
    """Entered at the limit, left only 5% inside it, for rules that fall and for rules that rise."""
    memory = PoolMemory()
    severities = []
    for liquidation_price in (30000, 42000, 48000, 54000, 53900, 53600, 53300, 47700, 47300, 30000):
        position = replace(LONG, liquidation_price=D(liquidation_price))
        readings, memory = evaluate_rules({"distance": limits("0.3", "0.2", "0.1")}, pool(positions=(position,)), memory)
        severities.append(int(readings[0].severity))

    assert severities == [0, 1, 2, 3, 3, 2, 2, 2, 1, 0]  # distances .5 .3 .2 .1 .1017 .1067 .1117 .205 .2117 .5
    assert reading("leverage", pool(leverage=D("9.6")), limits("10"), PoolMemory(severities={"leverage": 1})).severity is Level.WATCH
    assert reading("leverage", pool(leverage=D("9.4")), limits("10"), PoolMemory(severities={"leverage": 1})).severity is Level.HEALTHY
    assert reading("leverage", pool(leverage=D("9.6")), limits("10")).severity is Level.HEALTHY


def walk(rule: str, each: Limits, *steps: tuple[int, str, str]) -> list[RuleReading]:
    """Readings over (seconds, equity, ratio)."""
    memory, readings = PoolMemory(), []
    for seconds, equity, ratio in steps:
        snapshot = pool(at_ms=NOON + seconds * 1000, equity=D(equity), margin_ratio=D(ratio))
        got, memory = evaluate_rules({rule: each}, snapshot, memory)
        readings.append(got[0])
    return readings


def test_drawdown_is_from_the_days_high() -> None:
    """1 - equity / highest equity of the UTC day; the next day starts anew."""
    readings = walk("drawdown", limits("0.2"), (0, "100", "0.5"), (60, "200", "0.5"), (120, "150", "0.5"), (43_200, "150", "0.5"))

    assert [read.value for read in readings] == [D(0), D(0), D("0.25"), D(0)]
    assert [int(read.severity) for read in readings] == [0, 0, 1, 0]
    assert readings[2].text == "equity 150 USD is 25.00% below today's high of 200"


def test_equity_drop_looks_back_over_its_window() -> None:
    """A fall inside the window counts, an older high does not."""
    readings = walk("equity_drop", limits("0.1", window_s=300), (0, "100", "0.5"), (100, "90", "0.5"), (401, "90", "0.5"))

    assert [read.value for read in readings] == [D(0), D("0.1"), D(0)]


def test_time_to_liquidation_at_the_pace_of_the_window() -> None:
    """The ratio rose by 0.1 in 100 s: 0.4 more take 400 s; while it falls there is nothing to warn of."""
    readings = walk("time_to_liquidation", limits("900", "300", window_s=300), (0, "100", "0.5"), (100, "90", "0.6"), (200, "95", "0.4"))

    assert [read.value for read in readings] == [None, D(400), None]
    assert readings[1].severity is Level.WATCH
    assert readings[1].text == "margin ratio 60.00%, liquidation in 6m40s at the pace of the last 5m"


def test_unknown_time_counts_from_the_first_unknown() -> None:
    """It speaks while all other rules are silent, and starts anew after the pool was known."""
    memory, values = PoolMemory(), []
    for seconds, unknown in ((0, "stale"), (40, "stale"), (50, None), (60, "stale"), (65, "stale")):
        readings, memory = evaluate_rules({"unknown_time": limits("30")}, pool(at_ms=NOON + seconds * 1000, unknown=unknown), memory)
        values.append((readings[0].value, int(readings[0].severity), readings[0].unknown))

    assert values == [(D(0), 0, None), (D(40), 1, None), (None, 0, None), (D(0), 0, None), (D(5), 0, None)]


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(-1000, 1000), st.integers(0, 300)), max_size=120))
def test_memory_is_bounded_and_measures_never_fail(steps: list[tuple[int, int, int]]) -> None:
    """Whatever happens, no rule raises and no more than a bounded number of samples is kept."""
    memory, at = PoolMemory(), NOON
    every = dict.fromkeys(RULES, Limits((D("0.3"), None, None, None)))
    every |= {name: Limits((D("0.1"), D("0.2"), None, None)) for name, rule in RULES.items() if not rule.falls}
    for wait, equity, ratio in steps:
        at += wait
        _, memory = evaluate_rules(every, pool(at_ms=at, equity=D(equity), margin_ratio=D(ratio) / 100 if equity > 0 else None), memory)

    assert len(memory.samples) <= 34


def test_a_snapshot_from_a_result_document() -> None:
    """The form of a result's pool: signed delta from the notional, none for an option."""
    account = {"id": "acme-1", "venue": "okx", "group": None}
    result = {
        "pool": "cross",
        "currency": "USD",
        "equity": "100",
        "margin_ratio": "0.5",
        "leverage": "2",
        "unknown": None,
        "positions": [
            {"instrument": "P", "quantity": "-2", "mark_price": "10", "notional": "20", "liquidation_price": "12", "option_value": None},
            {"instrument": "O", "quantity": "1", "mark_price": "3", "notional": "10", "liquidation_price": None, "option_value": "3"},
        ],
    }
    snapshot = snapshot_of(account, result, NOON, {"P": "BTC"}.get)

    assert [(each.underlying, each.delta) for each in snapshot.positions] == [("BTC", D(-20)), ("O", None)]
    assert (snapshot.equity, snapshot.margin_ratio, snapshot.group) == (D(100), D("0.5"), "")
