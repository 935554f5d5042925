"""Time as the feeds see it: monotonic for durations, wall time for display, a way to wait. Injected, so that tests do not sleep."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "first_of"]


class Clock(Protocol):
    """Where the feeds get the time from."""

    def monotonic(self) -> float:
        """Seconds that never go back; durations and deadlines come from here alone."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970: for receive times, display and latency."""

    async def sleep(self, seconds: float) -> None:
        """Waits by the monotonic clock. Cancelling is safe."""


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall_ns = staticmethod(time.time_ns)

    @staticmethod
    async def sleep(seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


async def first_of(*events: asyncio.Event, clock: Clock | None = None, seconds: float | None = None) -> None:
    """Returns when any of the events is set, or after `seconds` of the clock. Cancelling is safe; nothing is left running."""
    if any(event.is_set() for event in events):
        return
    async with asyncio.TaskGroup() as group:
        waiting: list[asyncio.Task[object]] = [group.create_task(_wait(event), name="first_of") for event in events]
        if clock is not None and seconds is not None:
            waiting.append(group.create_task(_sleep(clock, seconds), name="first_of"))
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()


async def _wait(event: asyncio.Event) -> object:
    return await event.wait()


async def _sleep(clock: Clock, seconds: float) -> object:
    await clock.sleep(seconds)
    return None
