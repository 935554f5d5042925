"""Named places where a test lets the process die by kill -9.

    MARGIN_MONITOR_CRASH_AT=commit.sent:3     dies at the third pass of that point

Without the variable every point is one comparison.
"""

from __future__ import annotations

import os
import signal

__all__ = ["POINTS", "armed", "crash_at"]

POINTS = (
    "acquire.start",
    "acquire.watched",
    "acquire.half_sent",
    "acquire.sent",
    "acquire.answered",
    "takeover.start",
    "takeover.acquired",
    "takeover.loaded",
    "commit.start",
    "commit.half_sent",
    "commit.sent",
    "commit.answered",
    "settle.start",
    "settle.acquired",
    "settle.known",
    "sink.read",
    "sink.sending",
    "sink.delivered",
    "sink.moved",
)
"""All points. `half_sent`: MULTI and the writes are out, EXEC is not; `sent`: EXEC is out, the answer is not read."""


def _parse(text: str) -> tuple[str, int]:
    name, _, count = text.partition(":")
    if not text:
        return "", 0
    if name not in POINTS or not count.isdecimal():
        raise ValueError(f"MARGIN_MONITOR_CRASH_AT: {text}: expected NAME:COUNT with one of {', '.join(POINTS)}")
    return name, int(count)


_name, _left = _parse(os.environ.get("MARGIN_MONITOR_CRASH_AT", ""))


def armed(name: str) -> bool:
    """True when the next pass of this point is the last thing the process does."""
    return name == _name and _left == 1


def crash_at(name: str) -> None:
    """Does nothing, or is the end."""
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
