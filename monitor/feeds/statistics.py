"""Plain counters of one venue's feed. Hot code adds integers here; `service/metrics.py` reads them at scrape time."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from monitor.measures import Durations

__all__ = ["ClockSkew", "FeedStatistics"]


class ClockSkew:
    """The smallest delay (receive time minus venue time) of the last one to two minutes, seconds.

    A frame cannot arrive before it was sent: a negative value says that one of the two clocks is wrong by at least so much; a large
    positive one that either the path or a clock is slow.
    """

    __slots__ = ("_current", "_previous", "_started_at", "window_s")

    def __init__(self, window_s: float = 60.0) -> None:
        self.window_s = window_s
        self._current: float | None = None
        self._previous: float | None = None
        self._started_at: float | None = None

    def observe(self, delay_s: float, now: float) -> None:
        """Notes one delay at monotonic time `now`."""
        if self._started_at is None or now - self._started_at >= self.window_s:
            stale = self._started_at is not None and now - self._started_at >= 2 * self.window_s
            self._previous, self._current, self._started_at = (None if stale else self._current), None, now
        if self._current is None or delay_s < self._current:
            self._current = delay_s

    @property
    def seconds(self) -> float | None:
        """The estimate, or None before the first delay."""
        if self._current is None:
            return self._previous
        return self._current if self._previous is None else min(self._current, self._previous)


@dataclass(slots=True, kw_only=True)
class FeedStatistics:
    """What happened on one venue's feed since it started.

    Attributes:
        connected: Sessions open now. sessions: opened ever.
        messages, size_bytes: Frames received, and their bytes.
        prices: Numbers taken from frames, by kind. marks: those of kind mark.
        rejected: By reason, frames and items that could not be used.
        older: Numbers left out because a newer one of the name had come before; duplicates: because the same one had (two connections).
        reconnects: Connections opened again, by reason the one before ended.
        denied: Subscriptions the venue refused. subscribe_timeouts: not answered in time.
        symbols, stale: Names that have a number; names whose number must not be used.
        delay: Receive time minus venue time. skew: the smallest of late.
        conflated: Numbers overtaken in the publisher before they were written.
    """

    venue: str
    connected: int = 0
    sessions: int = 0
    messages: int = 0
    size_bytes: int = 0
    marks: int = 0
    prices: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    older: int = 0
    duplicates: int = 0
    reconnects: dict[str, int] = field(default_factory=dict)
    denied: int = 0
    subscribe_timeouts: int = 0
    symbols: int = 0
    stale: int = 0
    delay: Durations = field(default_factory=Durations)
    skew: ClockSkew = field(default_factory=ClockSkew)
    last_rejected: deque[tuple[str, bytes]] = field(default_factory=lambda: deque(maxlen=16))

    def reject(self, reason: str, count: int = 1) -> None:
        """Counts frames or items that could not be used."""
        self.rejected[reason] = self.rejected.get(reason, 0) + count

    def reconnect(self, reason: str) -> None:
        """Counts a connection that has to be opened again."""
        self.reconnects[reason] = self.reconnects.get(reason, 0) + 1
