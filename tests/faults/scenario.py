"""What a scenario is: a name, a coroutine that breaks something so many times and has the result checked, and how often that is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.daemon_checker import Found
from tests.support.daemon_rig import Stage

__all__ = ["SCENARIOS", "Outcome", "Scenario", "scenario"]


@dataclass(slots=True)
class Outcome:
    """What the checker found and what the scenario measured."""

    found: list[Found]
    facts: dict[str, Any] = field(default_factory=dict)


Run = Callable[[Stage, int], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: `run` does its worst `long` or `short` times (kills, seconds ...; 0: it has no short form here).

    `lacks` says what it needs and does not have on this machine; `is_alone`: it measures, and nothing may run beside it.
    """

    name: str
    run: Run
    short: int
    long: int
    lacks: str
    is_alone: bool


SCENARIOS: dict[str, Scenario] = {}


def scenario(*, short: int, long: int, needs: tuple[str, ...] = (), root: bool = False, alone: bool = False) -> Callable[[Run], Run]:
    """Puts a scenario on the list. `needs`: programs."""
    absent = [name for name in needs if shutil.which(name) is None] + (["root"] if root and os.geteuid() else [])

    def add(run: Run) -> Run:
        SCENARIOS[run.__name__] = Scenario(run.__name__, run, short, long, ", ".join(absent), alone)
        return run

    return add
