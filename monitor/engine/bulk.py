"""Many single-asset pools put into an evaluator at once, from arrays, and what became of them, without an object each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.engine.book import UNKNOWN, LinearPools
from monitor.engine.evaluator import LEVELS, Crossing, Evaluator
from monitor.engine.terms import NO_MARGIN, PoolTerms, Schedule
from monitor.margin.levels import Level
from monitor.margin.prices import PriceKind

__all__ = ["load_pools", "make_room", "mark_column", "plain_schedule", "standing", "start_from"]

Array = npt.NDArray[Any]


def plain_schedule(terms: PoolTerms, quantity: float, entry: float) -> Schedule | None:
    """The schedule of a pool that holds one linear position at this entry price and nothing else; None when it is more than such a sum."""
    if terms.exact_only or terms.holdings or terms.idle or terms.floor or terms.slack or len(terms.legs) != 1:
        return None
    (leg,) = terms.legs
    curved = any(row[3] for row in leg.schedule)
    if curved or leg.inverse or leg.schedule is NO_MARGIN or (leg.slope, terms.constant) != (quantity, -quantity * entry):
        return None
    return leg.schedule


def mark_column(evaluator: Evaluator, venue: str, name: str) -> int:
    """Number of the mark price of a linear instrument; -1 when it is already held as 1/price."""
    return evaluator._book.column(venue, PriceKind.MARK, name, inverse=False)


def make_room(evaluator: Evaluator, pools: int, legs: int) -> None:
    """Makes room for so many pools and legs in all."""
    evaluator._book.reserve(pools, legs)


def load_pools(evaluator: Evaluator, pools: LinearPools, errors: Array) -> range:
    """Inserts accounts that are not there yet; all start from healthy and are unknown until every price of theirs has come in a message.

    Args:
        errors: By pool, a bound on how far the constant is from the exact one. What lies within it is decided exactly.

    Returns:
        Their numbers, in order.
    """
    first = evaluator._book.pools_end
    evaluator.load(pools)
    numbers = range(first, first + len(pools.accounts))
    evaluator._book.pools["slack"][numbers.start : numbers.stop] = errors
    return numbers


def start_from(evaluator: Evaluator, account: str, pool: str, level: Level) -> int:
    """Sets the level that a loaded pool starts from, before its prices come. Returns its number; raises KeyError."""
    number = evaluator._book.pool(account, pool)
    evaluator._book.pools["level"][number] = level
    return number


def standing(evaluator: Evaluator, numbers: range, started: dict[int, Level]) -> Iterator[Crossing]:
    """Pools among `numbers` that are unknown, or have another level than they started from (healthy where `started` does not say)."""
    book = evaluator._book
    part = book.pools[numbers.start : numbers.stop]
    before = np.zeros(len(part), np.int8)
    for number, level in started.items():
        if number in numbers:
            before[number - numbers.start] = level
    for offset in np.flatnonzero((part["state"] == UNKNOWN) | (part["level"] != before)).tolist():
        pool = numbers.start + offset
        level, reason = evaluator._verdict(pool)
        after = None if reason is not None else level
        yield Crossing(-1, book.account_of[pool], book.name_of[pool], LEVELS[before[offset]], after, reason)
