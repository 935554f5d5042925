"""Counting time without a metrics library: a histogram of durations in plain integers.

Hot code observes; `service/metrics.py` reads at scrape time. Buckets grow by 10%, so a quantile is right to 5%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Durations"]

_LOWEST = 1e-6
_GROWTH = math.log(1.1)
_BUCKETS = math.ceil(math.log(1e9) / _GROWTH) + 1  # 1 us to 1,000 s


class Durations:
    """Durations in seconds. `count`, `total` and `maximum` are exact; quantiles come from buckets that grow by 10%."""

    __slots__ = ("count", "counts", "maximum", "total")

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.count = 0
        self.total = 0.0
        self.maximum = 0.0

    def clear(self) -> None:
        """Forgets everything observed."""
        self.counts = [0] * _BUCKETS
        self.count = 0
        self.total = self.maximum = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one duration; a negative one (clocks of two machines) counts as 0."""
        if seconds > _LOWEST:
            index = min(int(math.log(seconds / _LOWEST) / _GROWTH) + 1, _BUCKETS - 1)
            self.total += seconds
            self.maximum = max(self.maximum, seconds)
        else:
            index = 0
        self.counts[index] += 1
        self.count += 1

    def quantile(self, share: float) -> float:
        """Seconds below which this share of the durations lies; 0 when there is none."""
        wanted = share * self.count
        seen = 0
        for index, count in enumerate(self.counts):
            seen += count
            if count and seen >= wanted:
                return min(_LOWEST * math.exp((index - 0.5) * _GROWTH), self.maximum) if index else 0.0
        return 0.0

    def at_most(self, bounds: Sequence[float]) -> list[int]:
        """How many durations were at most each bound (to 10%), for cumulative Prometheus buckets. Bounds ascend."""
        result, seen, index = [], 0, 0
        for bound in bounds:
            while index < _BUCKETS and _LOWEST * math.exp(index * _GROWTH) <= bound * 1.0001:
                seen += self.counts[index]
                index += 1
            result.append(seen)
        return result
