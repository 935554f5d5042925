"""Levels: entered at one ratio, left at a lower one, decided without dividing."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.margin.levels import DEFAULT_THRESHOLDS, Level, Threshold, Thresholds, next_level, worst

amounts = st.decimals(min_value=0, max_value=10**9, places=4, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("requirement", "level"),
    [("64.99", 0), ("65", 1), ("79.99", 1), ("80", 2), ("99.99", 2), ("100", 3), ("1000", 3)],
)
def test_a_level_is_entered_at_its_ratio(requirement: str, level: int) -> None:
    """From healthy, a level begins exactly where requirement / equity reaches its enter value."""
    assert next_level(Level.HEALTHY, Decimal(100), Decimal(requirement)) == Level(level)


@pytest.mark.parametrize(("requirement", "level"), [("95", 3), ("94.99", 2), ("75", 2), ("74.99", 1), ("60", 1), ("59.99", 0)])
def test_a_level_is_left_below_its_leave_value(requirement: str, level: int) -> None:
    """From liquidation, a level holds until the ratio is below its leave value."""
    assert next_level(Level.LIQUIDATION, Decimal(100), Decimal(requirement)) == Level(level)


@pytest.mark.parametrize("equity", ["0", "-1", "-0.00000001"])
def test_no_equity_is_bankrupt(equity: str) -> None:
    """Zero and negative equity need no ratio."""
    assert next_level(Level.HEALTHY, Decimal(equity), Decimal(0)) is Level.BANKRUPT


@given(st.sampled_from(Level), amounts, amounts)
def test_a_second_look_changes_nothing(current: Level, equity: Decimal, requirement: Decimal) -> None:
    """The rule is idempotent: evaluating again at the level found gives that level."""
    found = next_level(current, equity, requirement)

    assert next_level(found, equity, requirement) is found


@given(amounts, amounts, st.sampled_from(Level), st.sampled_from(Level))
def test_a_higher_level_held_never_gives_a_lower_one(equity: Decimal, requirement: Decimal, first: Level, second: Level) -> None:
    """Hysteresis is monotone in what is held."""
    low, high = sorted((first, second))

    assert next_level(low, equity, requirement) <= next_level(high, equity, requirement)


def test_thresholds_must_rise() -> None:
    """A leave value above its enter value, or a level below the one before it, is refused."""
    with pytest.raises(ValueError, match="leave value"):
        Thresholds(watch=Threshold(Decimal("0.5"), Decimal("0.6")))
    with pytest.raises(ValueError, match="rise"):
        Thresholds(watch=Threshold(Decimal("0.9"), Decimal("0.85")))


def test_words_and_the_worst() -> None:
    """Words come back as levels, and one unknown pool makes the account unknown."""
    assert [Level.of(level.word) for level in Level] == list(Level)
    assert worst([Level.WATCH, Level.HEALTHY]) is Level.WATCH
    assert worst([Level.BANKRUPT, None]) is None
    assert worst([]) is None
    assert DEFAULT_THRESHOLDS.ladder()[2].enter == 1
