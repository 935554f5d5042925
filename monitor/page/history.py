"""Margin ratios over time, for the accounts that somebody may ask about: the worst ones and those looked at. Bounded in both directions."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

__all__ = ["History"]

ACCOUNTS = 512
POINTS = 900


class History:
    """The last points of a few hundred accounts. Whoever was not noted for longest makes room."""

    def __init__(self, *, accounts: int = ACCOUNTS, points: int = POINTS) -> None:
        self._most, self._points = accounts, points
        self._series: OrderedDict[str, deque[tuple[float, float | None]]] = OrderedDict()

    def note(self, at: float, ratios: Iterable[tuple[str, float | None]]) -> None:
        """Adds a point to each account. `at`: wall time in s; a ratio of None is unknown and is a gap in the line."""
        for account, ratio in ratios:
            series = self._series.get(account)
            if series is None:
                series = self._series[account] = deque(maxlen=self._points)
                if len(self._series) > self._most:
                    self._series.popitem(last=False)
            self._series.move_to_end(account)
            series.append((at, ratio))

    def points(self, account: str) -> list[tuple[float, float | None]]:
        """What is known of an account, oldest first."""
        return list(self._series.get(account, ()))
