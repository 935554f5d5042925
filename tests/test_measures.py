"""Durations: quantiles against sorted values."""

from __future__ import annotations

import random

import pytest

from monitor.measures import Durations


def test_quantiles_are_right_to_ten_percent() -> None:
    """p50 and p99 of the buckets lie within 10% of the sorted values."""
    rng = random.Random(1)
    values = sorted(rng.lognormvariate(-6, 1.5) for _ in range(20_000))
    durations = Durations()
    for value in values:
        durations.observe(value)

    assert durations.quantile(0.5) == pytest.approx(values[10_000], rel=0.1)
    assert durations.quantile(0.99) == pytest.approx(values[19_800], rel=0.1)
    assert durations.maximum == values[-1]
    assert durations.total == pytest.approx(sum(values))


def test_cumulative_buckets_never_fall_and_end_with_all() -> None:
    """`at_most` is cumulative, and a bound above everything counts everything."""
    durations = Durations()
    for value in (0.0, -1.0, 1e-5, 0.004, 0.02, 3.0):
        durations.observe(value)

    assert durations.at_most([1e-4, 0.01, 0.1, 1e4]) == [3, 4, 5, 6]


def test_nothing_observed_is_zero() -> None:
    """An empty histogram has no quantile to show."""
    assert Durations().quantile(0.99) == 0.0
