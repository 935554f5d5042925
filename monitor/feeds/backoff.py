"""How long to wait before the next connection: longer each time, with jitter, also after a clean close, and as long as the venue asks."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from monitor.feeds.clock import Clock

__all__ = ["Backoff", "RateLimit", "retry_after_s"]


@dataclass(slots=True)
class Backoff:
    """Delays of one connection.

    Formula: delay = uniform(0.5, 1) * min(longest_s, first_s * factor^failures). A connection that lived for `settled_s` starts again at
    zero failures, but still waits: a venue that accepts and drops would else be asked in a hot loop, and ban us.

    Attributes:
        failures: Connections that ended since one lived for `settled_s`.
    """

    rng: random.Random
    first_s: float = 0.5
    factor: float = 1.7
    longest_s: float = 60.0
    settled_s: float = 60.0
    refused_s: float = 60.0
    failures: int = 0

    def next_s(self, lived_s: float, *, refused: bool = False, retry_after_s: float | None = None) -> float:
        """Seconds to wait now.

        Args:
            lived_s: How long the connection that ended had been open; 0 when it never was.
            refused: The venue refused by status (403, 418, 429): at least `refused_s`, doubled with every further refusal, up to an hour.
            retry_after_s: What the venue asked for. Obeyed in full, with a little on top, never shortened.
        """
        if lived_s >= self.settled_s:
            self.failures = 0
        jitter = self.rng.uniform(0.5, 1.0)
        delay = jitter * min(self.longest_s, self.first_s * self.factor ** min(self.failures, 50))
        if refused:
            delay = max(delay, min(3600.0, self.refused_s * 2 ** min(self.failures, 10)) * (0.5 + jitter))
        if retry_after_s is not None:
            delay = max(delay if not refused else 0.0, retry_after_s * 1.05 + jitter)
        self.failures += 1
        return delay


def retry_after_s(header: str | None, now_ns: int) -> float | None:
    """Seconds asked for by a Retry-After header (a number of seconds, or a date), at most a day; None when absent or unreadable.

    Source: RFC 9110, section 10.2.3.
    """
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdigit():
        return min(float(header), 86_400.0)
    try:
        moment = parsedate_to_datetime(header)
        return min(max(0.0, moment.timestamp() - now_ns / 1e9), 86_400.0)
    except (ValueError, TypeError, OverflowError):
        return None


class RateLimit:
    """At most `count` permits in any `period_s` seconds, in the order asked for. Shared by what the venue counts together.

    With `spread` half of them are given at once and the others evenly over the period: who has used up an hour's connections in ten bad
    minutes would be blind for the other fifty.
    """

    def __init__(self, count: int, period_s: float, clock: Clock, *, spread: bool = False) -> None:
        self._count, self._period_s, self._clock = count, period_s, clock
        self._at_once = count // 2 if spread else count
        self._apart_s = period_s / (count - self._at_once) if spread else 0.0
        self._given: deque[float] = deque()

    async def take(self) -> None:
        """Waits until one more is allowed. Cancelling is safe: a cancelled wait has taken nothing."""
        while True:
            now = self._clock.monotonic()
            while self._given and self._given[0] <= now - self._period_s:
                self._given.popleft()
            if len(self._given) >= self._count:
                at = self._given[0] + self._period_s
            elif len(self._given) >= max(self._at_once, 1):
                at = self._given[-1] + self._apart_s
            else:
                at = now
            if at <= now:
                self._given.append(now)
                return
            await self._clock.sleep(at - now)
