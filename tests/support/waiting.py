"""Waiting for a condition with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["until"]


async def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Returns as soon as the condition holds; TimeoutError when it does not in time."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)
