"""Crash points: nothing without the variable, the end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monitor.ledger.crashpoints import POINTS, armed, crash_at

_SOURCES = Path(__file__).parents[2] / "monitor" / "ledger"


def _run(setting: str, program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MARGIN_MONITOR_CRASH_AT": setting, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=30)


def test_without_the_variable_nothing_happens() -> None:
    """No point is armed."""
    for point in POINTS:
        crash_at(point)
        assert not armed(point)


def test_the_process_dies_at_the_pass_named() -> None:
    """By SIGKILL: nothing is cleaned up."""
    program = (
        "from monitor.ledger.crashpoints import armed, crash_at\n"
        "for n in range(1, 9):\n"
        "    crash_at('commit.start')\n"
        "    print(n, armed('commit.sent'), flush=True)\n"
        "    crash_at('commit.sent')\n"
    )

    result = _run("commit.sent:3", program)

    assert result.returncode == -signal.SIGKILL
    assert result.stdout == "1 False\n2 False\n3 True\n"


@pytest.mark.parametrize("setting", ["commit.sent", "commit.sent:x", "nowhere:1"])
def test_a_misspelt_point_is_told_at_once(setting: str) -> None:
    """A campaign that never kills proves nothing."""
    result = _run(setting, "import monitor.ledger.crashpoints")

    assert result.returncode == 1
    assert "MARGIN_MONITOR_CRASH_AT" in result.stderr


def test_every_point_stands_in_the_code() -> None:
    """And no other one does."""
    text = "".join(path.read_text() for path in _SOURCES.glob("*.py") if path.name != "crashpoints.py")
    transact = {f"{name}.{point}" for name in ("acquire", "commit") for point in ("half_sent", "sent", "answered")}

    assert {point for point in POINTS if f'"{point}"' in text} | transact == set(POINTS)
    assert all(f"{{name}}.{point}" in text for point in ("half_sent", "sent", "answered"))
