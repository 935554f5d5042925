"""Eight kinds of silence through the whole daemon, in real time, in short; `tests/faults/campaign_silences.py` is the long form."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.support.silences import KINDS, LIMIT_S, Inject, calm, silences


async def test_every_silence_is_told_in_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One run of each kind: an event within the limit and half a second of the last number, and no healthy sample after it."""

    async def one(number: int, kind: Inject) -> None:
        seen = await silences(kind, tmp_path_factory.mktemp(kind.__name__), 1, random.Random(number))

        assert max(seen.told_s) < LIMIT_S, kind.__name__
        assert seen.samples > 30
        assert seen.false_healthy == 0, kind.__name__

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for number, kind in enumerate(KINDS):
            group.create_task(one(number, kind))


async def test_nothing_is_told_while_nothing_happens(tmp_path: Path) -> None:
    """Nine venues at their own pace: no name is told as stale, the account is never unknown."""
    async with asyncio.timeout(60):
        seen = await calm(tmp_path, 4.0)

    assert seen.prices > 100
    assert seen.samples > 10
    assert (seen.unknown, seen.stale, seen.events, seen.reconnects) == (0, 0, 0, 0)
