"""A clock that stands still until a test moves it, so that hours of pings, limits and back-off pass in milliseconds."""

from __future__ import annotations

import asyncio
import heapq
import itertools

__all__ = ["FakeClock"]


class FakeClock:
    """Monotonic and wall time move together, only by `advance`. Sleepers wake in the order of their times."""

    def __init__(self, *, monotonic: float = 1_000.0, wall_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now, self._wall_offset_ns = monotonic, wall_ns - round(monotonic * 1e9)
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    def monotonic(self) -> float:
        """The present."""
        return self._now

    def wall_ns(self) -> int:
        """The present, as ns since 1970."""
        return self._wall_offset_ns + round(self._now * 1e9)

    def shift_wall(self, seconds: float) -> None:
        """Moves the wall clock alone, as an operator or a bad time server does."""
        self._wall_offset_ns += round(seconds * 1e9)

    async def sleep(self, seconds: float) -> None:
        """Waits until a test has moved the clock so far."""
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + max(0.0, seconds), next(self._numbers), future))
        await future

    async def advance(self, seconds: float) -> None:
        """Moves the clock, waking everyone on the way at their own moment."""
        until = self._now + seconds
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            self._now = max(self._now, self._sleepers[0][0])
            while self._sleepers and self._sleepers[0][0] <= self._now:
                future = heapq.heappop(self._sleepers)[2]
                if not future.done():
                    future.set_result(None)
            await self._settle()
        self._now = until
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        for _ in range(8):
            await asyncio.sleep(0)
