"""How long to wait before the next connection."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

from monitor.feeds.backoff import Backoff, RateLimit, retry_after_s
from tests.support.fake_clock import FakeClock

NOW_NS = 1_700_000_000_000_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


def test_delays_grow_with_jitter_up_to_the_longest() -> None:
    """Each delay lies between half of and the whole exponential step, and never beyond the longest."""
    backoff = Backoff(random.Random(1), first_s=0.5, factor=2.0, longest_s=8.0)
    delays = [backoff.next_s(0.0) for _ in range(10)]

    for index, delay in enumerate(delays):
        step = min(8.0, 0.5 * 2.0**index)
        assert step / 2 <= delay <= step


def test_a_clean_close_waits_too() -> None:
    """A connection that lived long starts again at the first step, which is not zero."""
    backoff = Backoff(random.Random(1))
    for _ in range(8):
        backoff.next_s(0.0)

    assert 0.25 <= backoff.next_s(3600.0) <= 0.5


def test_a_refusal_by_status_waits_long_and_longer() -> None:
    """403, 418 and 429 without Retry-After wait a minute at least, and twice as long each time."""
    backoff = Backoff(random.Random(1))
    first, second = backoff.next_s(0.0, refused=True), backoff.next_s(0.0, refused=True)

    assert 60 <= first <= 90
    assert 120 <= second <= 180


def test_retry_after_is_obeyed_in_full() -> None:
    """The venue's own figure is never shortened, and replaces our minute."""
    backoff = Backoff(random.Random(1))

    assert 7 <= backoff.next_s(0.0, refused=True, retry_after_s=7.0) <= 9
    assert backoff.next_s(0.0, retry_after_s=3600.0) >= 3600


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("99999999999999", 86_400.0),
        ("soon", None),
        ("-5", None),
        ("１２", None),
    ],
)
def test_retry_after_headers(header: str | None, expected: float | None) -> None:
    """Seconds and dates are read, at most a day; anything else is none."""
    assert retry_after_s(header, NOW_NS) == expected


async def test_a_rate_limit_holds_over_every_period() -> None:
    """No window of the period has more permits than the count, and none is lost by a cancelled wait."""
    clock = FakeClock()
    limit = RateLimit(3, 1.0, clock)
    given: list[float] = []

    async def ask() -> None:
        await limit.take()
        given.append(clock.monotonic())

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask()) for _ in range(8)]
        await clock.advance(0.5)
        tasks[4].cancel()
        await clock.advance(5.0)

    assert len(given) == 7
    assert all(later - earlier >= 1.0 for earlier, later in zip(given, given[3:], strict=False))


async def test_a_spread_limit_keeps_some_for_later() -> None:
    """Half of the permits at once, the others evenly: nobody waits longer than their distance, and no period has more than the limit."""
    clock = FakeClock()
    limit = RateLimit(20, 3600.0, clock, spread=True)
    given: list[float] = []

    async def ask() -> None:
        while True:
            await limit.take()
            given.append(clock.monotonic())

    task = asyncio.create_task(ask())
    for _ in range(3 * 60):
        await clock.advance(60.0)
    task.cancel()

    assert given[9] == given[0]
    assert all(350 < later - earlier < 3700 for earlier, later in pairwise(given[9:]))
    assert given[10] - given[9] == pytest.approx(360, abs=1)
    assert all(len([one for one in given if start <= one < start + 3600]) <= 20 for start in given)
