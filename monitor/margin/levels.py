"""Levels of danger, their enter and leave thresholds, and the one rule that picks the next level.

healthy < watch < margin_call < liquidation < bankrupt. *Unknown* is a verdict beside them, never a level.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum

__all__ = ["DEFAULT_THRESHOLDS", "Level", "Threshold", "Thresholds", "next_level", "worst"]


class Level(IntEnum):
    """How bad it is. Compare with < and >; print with `.word`."""

    HEALTHY = 0
    WATCH = 1
    MARGIN_CALL = 2
    LIQUIDATION = 3
    BANKRUPT = 4

    @property
    def word(self) -> str:
        """The word used in documents, events, metrics and logs."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Level:
        """The level of a word. Raises KeyError for any other text."""
        return cls[word.upper()]


@dataclass(frozen=True, slots=True)
class Threshold:
    """Margin ratios at which a level is entered (ratio >= enter) and left (ratio < leave <= enter)."""

    enter: Decimal
    leave: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Enter and leave margin ratios of watch, margin_call and liquidation. `bankrupt` is equity <= 0 and has none.

    Raises ValueError unless 0 < leave <= enter for each, and enter and leave rise with the level.
    """

    watch: Threshold = Threshold(Decimal("0.65"), Decimal("0.60"))
    margin_call: Threshold = Threshold(Decimal("0.80"), Decimal("0.75"))
    liquidation: Threshold = Threshold(Decimal(1), Decimal("0.95"))

    def __post_init__(self) -> None:
        ladder = self.ladder()
        for threshold in ladder:
            if not 0 < threshold.leave <= threshold.enter:
                raise ValueError(f"a leave value above 0 and at most its enter value, not enter {threshold.enter}, leave {threshold.leave}")
        for lower, upper in zip(ladder, ladder[1:], strict=False):
            if not (lower.enter < upper.enter and lower.leave < upper.leave):
                lower_text, upper_text = (f"enter {t.enter}, leave {t.leave}" for t in (lower, upper))
                raise ValueError(f"thresholds that rise with the level: {lower_text} is not below {upper_text}")

    def ladder(self) -> tuple[Threshold, Threshold, Threshold]:
        """Thresholds of levels 1, 2 and 3, in that order."""
        return (self.watch, self.margin_call, self.liquidation)


DEFAULT_THRESHOLDS = Thresholds()


def next_level(current: Level, equity: Decimal, requirement: Decimal, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> Level:
    """The level after an exact evaluation, with hysteresis.

    The greatest level j for which
        enter_j * equity - requirement <= 0                       (entered), or
        j <= current and leave_j * equity - requirement <= 0      (not yet left);
    `bankrupt` when equity <= 0; `healthy` when there is none. Never divides, so zero and negative equity need nothing special.

    Args:
        current: The level held now. `Level.HEALTHY` gives the level by enter thresholds alone.
        equity: In the pool's currency, signed.
        requirement: Maintenance margin plus fees, >= 0, same currency.

    A pool without positions and debts is healthy by definition; the caller does not ask for it (0 <= 0 would call it a liquidation).
    """
    if equity <= 0:
        return Level.BANKRUPT
    ladder = thresholds.ladder()
    for level in (3, 2, 1):
        threshold = ladder[level - 1]
        held = threshold.leave if level <= current else threshold.enter
        if held * equity <= requirement:
            return Level(level)
    return Level.HEALTHY


def worst(levels: Iterable[Level | None]) -> Level | None:
    """The worst of several pools; None (unknown) when any of them is, or when there is none."""
    worst_level: Level | None = None
    for level in levels:
        if level is None:
            return None
        worst_level = level if worst_level is None or level > worst_level else worst_level
    return worst_level
