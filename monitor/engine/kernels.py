"""The compiled loops: evaluate a pool, decide its level, run one message tick by tick.

Notation of docs/design.md: E equity, M requirement, y the price as it enters (mark, or 1/mark), G the gross size of everything that was
summed. A float decision is taken only outside its proven error bound; inside it the pool is *deferred*: from that tick of the message on, the
evaluator decides it with the exact core. Pools do not depend on each other, so the rest of the message goes on meanwhile.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import njit

from monitor.engine.book import (
    DEFERRED,
    EVALUATIONS,
    EVENTS,
    EXACT,
    FREE,
    FREE_SLOTS,
    HOT_ROWS,
    IDLE,
    INVALID,
    KNOWN,
    LINEAR,
    TICKS,
    UNKNOWN,
)

__all__ = [
    "AMBIGUOUS",
    "FAR",
    "UPDATES",
    "attach",
    "detach",
    "evaluate",
    "run_message",
    "run_pool",
    "settle",
    "view",
]

Array = npt.NDArray[Any]

AMBIGUOUS: Final = -2
NO_LEVEL: Final = -1
BANKRUPT: Final = 4

ULP: Final = 2.3e-16  # above 2^-52: twice the relative error of one rounding
DRIFT: Final = 1e-9  # of gross: bound on the error of 2^20 incremental updates while no price has more than doubled or halved
UPDATES: Final = 1 << 20  # ticks after which sums must have been refreshed for DRIFT to hold
FAR: Final = 1024.0  # stands for a threshold that does not exist


@njit(cache=True)
def find_segment(segments: Array, k: int, n: float) -> int:
    """The row of a schedule for size n, from any row of it."""
    while n > segments[k].upto:
        k += 1
    while n <= segments[k].above:
        k -= 1
    return k


@njit(cache=True)
def evaluate(pools: Array, legs: Array, assets: Array, segments: Array, y: Array, p: int) -> tuple[float, float, float, float]:
    """(E, M, G, jumps) of a pool from scratch, in the pool's own order. NaN when a price is missing.

    The error of E and of M against the exact evaluation is at most (legs + 8) * ULP * G + jumps: every term is rounded at most four times
    (its units, its price, 1/price, the product) and every addition once, each by half an ULP of something not above G. `jumps` is the sum of the
    discontinuities that rounding could have put on the wrong side.
    """
    pool = pools[p]
    first = pool.leg
    jumps = pool.slack
    if pool.assets == 0:
        E = pool.constant
        M = pool.floor
        G = abs(E) + M
        for i in range(first, first + pool.legs):
            leg = legs[i]
            x = leg.slope * y[leg.column]
            n = abs(x)
            s = segments[leg.segment]
            if not (n <= s.upto and n > s.above):
                if n != n:
                    return np.nan, np.nan, np.nan, 0.0
                k = find_segment(segments, leg.segment, n)
                leg.segment = k
                s = segments[k]
            if s.jump != 0.0 and n - s.above <= 1e-12 * n:
                jumps += s.jump
            if s.jump_upto != 0.0 and s.upto - n <= 1e-12 * n:
                jumps += s.jump_upto
            rn = (s.rate + s.curve * n) * n
            E += x
            M += rn + s.constant
            G += n + rn + abs(s.constant)
        return E, M, G, jumps
    E = pool.constant
    M = pool.floor
    G = abs(E) + M
    i = first
    for a in range(pool.asset, pool.asset + pool.assets):
        asset = assets[a]
        amount = asset.amount
        margin = asset.margin
        gross = abs(amount) + margin
        for j in range(i, i + asset.legs):
            leg = legs[j]
            if leg.slope == 0.0:
                continue
            x = leg.slope * y[leg.column]
            n = abs(x)
            if n != n:
                return np.nan, np.nan, np.nan, 0.0
            k = find_segment(segments, leg.segment, n)
            leg.segment = k
            s = segments[k]
            if (s.jump != 0.0 and n - s.above <= 1e-12 * n) or (s.jump_upto != 0.0 and s.upto - n <= 1e-12 * n):
                jumps += max(s.jump, s.jump_upto) * (1.0 if asset.column < 0 else y[asset.column]) * asset.ask
            rn = (s.rate + s.curve * n) * n
            amount += x
            margin += rn + s.constant
            gross += n + rn + abs(s.constant)
        i += asset.legs
        price = 1.0 if asset.column < 0 else y[asset.column]
        size = abs(amount)
        if size != size or price != price:
            return np.nan, np.nan, np.nan, 0.0
        # The error of a weighted amount is at most the highest weight times the error of the amount: rates of these schedules are <= 1, or dearer
        # for debts, which `dear` carries into G.
        dear = 1.0
        if amount >= 0.0:
            worth = size
            if asset.weights >= 0:
                s = segments[find_segment(segments, asset.weights, size)]
                worth = s.rate * size + s.constant
            E += price * worth
        else:
            worth = size
            if asset.debts >= 0:
                s = segments[find_segment(segments, asset.debts, size)]
                worth = s.rate * size + s.constant
                dear = s.highest
            if asset.debt_is_requirement != 0:
                M += price * worth
            else:
                E -= price * worth
            if asset.borrow >= 0:
                s = segments[find_segment(segments, asset.borrow, size)]
                if (s.jump != 0.0 and size - s.above <= 1e-12 * gross) or (s.jump_upto != 0.0 and s.upto - size <= 1e-12 * gross):
                    jumps += max(s.jump, s.jump_upto) * price
                M += price * ((s.rate + s.curve * size) * size + s.constant)
                dear += s.highest
        M += price * asset.ask * margin
        G += 2.0 * price * gross * max(dear, asset.ask)
    return E, M, G, jumps


@njit(cache=True)
def next_level(level: int, E: float, M: float, bound: float, ladder: Array) -> int:
    """`margin.levels.next_level` on floats; AMBIGUOUS inside the error bound, NO_LEVEL when E or M is not a number."""
    if E != E or M != M:
        return NO_LEVEL
    if abs(E) <= bound:
        return AMBIGUOUS
    if E < 0.0:
        return BANKRUPT
    for j in range(3, 0, -1):
        t = ladder[1, j] if j <= level else ladder[0, j]
        h = t * E - M
        b = (t + 1.0) * bound
        if h < -b:
            return j
        if h <= b:
            return AMBIGUOUS
    return 0


@njit(cache=True)
def defer(pools: Array, deferred: Array, tally: Array, p: int, tick: int) -> None:
    """Leaves a pool to the exact core from `tick` on."""
    pools[p].deferred = tick
    k = tally[DEFERRED]
    deferred[k, 0] = p
    deferred[k, 1] = tick
    tally[DEFERRED] = k + 1


@njit(cache=True)
def settle(
    pools: Array,
    legs: Array,
    assets: Array,
    segments: Array,
    y: Array,
    ladder: Array,
    events: Array,
    deferred: Array,
    tally: Array,
    p: int,
    tick: int,
) -> tuple[float, float, float, float]:
    """Evaluates a pool and decides it: an event when its verdict changes, a deferral when floats cannot tell."""
    pool = pools[p]
    if pool.deferred >= 0:
        return 0.0, 0.0, 0.0, 0.0
    if pool.kind == EXACT:
        defer(pools, deferred, tally, p, tick)
        return 0.0, 0.0, 0.0, 0.0
    E, M, G, jumps = evaluate(pools, legs, assets, segments, y, p)
    tally[EVALUATIONS] += 1
    after = next_level(pool.level, E, M, (pool.legs + 8) * ULP * G + jumps, ladder)
    if after == AMBIGUOUS:
        defer(pools, deferred, tally, p, tick)
        return E, M, G, jumps
    before = pool.level if pool.state == KNOWN else NO_LEVEL
    if after != before:
        k = tally[EVENTS]
        event = events[k]
        event.tick = tick
        event.pool = p
        event.before = before
        event.after = after
        tally[EVENTS] = k + 1
        if after == NO_LEVEL:
            pool.state = UNKNOWN
        else:
            pool.state = KNOWN
            pool.level = after
    return E, M, G, jumps


@njit(cache=True)
def arm(pools: Array, slots: Array, ladder32: Array, p: int, E: float, M: float, G: float, jumps: float) -> None:
    """Writes fresh sums into the pool's hot slot, with the lines that its level must not cross unnoticed.

    up and down are rounded so that with E > 0 the slot fires too early rather than too late. With E <= 0 it always fires.
    """
    pool = pools[p]
    slot = slots[pool.slot]
    slot.pool = p
    level = pool.level
    if pool.kind != LINEAR or pool.state != KNOWN or level == BANKRUPT or pool.deferred >= 0:
        slot.tolerance = np.inf
        slot.up = 0.0
        slot.down = 0.0
        return
    slot.equity = E
    slot.requirement = M
    slot.up = ladder32[0, level]
    slot.down = ladder32[1, level]
    slot.tolerance = 1.000001 * ladder32[2, level] * (DRIFT * G + jumps)


@njit(cache=True)
def arm_row(pools: Array, legs: Array, segments: Array, y: Array, hot: Array, r: int, i: int, last: int) -> None:
    """Writes the slopes of a hot row, and the interval of y where they hold. `i`: first leg of the column; `last`: end of the pool's legs."""
    column = legs[i].column
    here = y[column]
    net = 0.0
    margin = 0.0
    below = 0.5 * here
    above = 2.0 * here
    while i < last and legs[i].column == column:
        leg = legs[i]
        size = abs(leg.slope)
        k = find_segment(segments, leg.segment, size * here)
        leg.segment = k
        s = segments[k]
        net += leg.slope
        margin += size * s.rate
        if size > 0.0:
            below = max(below, s.above / size)
            above = min(above, s.upto / size)
        i += 1
    row = hot[r]
    row.net = net
    row.margin = margin
    row.below = below * (1.0 + 2e-7)
    row.above = above * (1.0 - 2e-7)


@njit(cache=True)
def rearm(
    pools: Array, legs: Array, assets: Array, segments: Array, y: Array, columns: Array, hot: Array, slots: Array, ladder32: Array, p: int
) -> None:
    """Fresh sums and slopes for a hot pool at the present prices, without deciding."""
    pool = pools[p]
    if pool.slot < 0:
        return
    E, M, G, jumps = evaluate(pools, legs, assets, segments, y, p)
    arm(pools, slots, ladder32, p, E, M, G, jumps)
    if pool.kind != LINEAR or E != E:
        return
    last = pool.leg + pool.legs
    for i in range(pool.leg, last):
        if legs[i].hot >= 0:
            arm_row(pools, legs, segments, y, hot, columns[legs[i].column].hot + legs[i].hot, i, last)


@njit(cache=True)
def attach(
    pools: Array,
    legs: Array,
    assets: Array,
    segments: Array,
    y: Array,
    columns: Array,
    hot: Array,
    slots: Array,
    free_slots: Array,
    ladder32: Array,
    tally: Array,
    p: int,
) -> bool:
    """Gives a pool a hot slot and hot rows. False, and nothing done, where there is no room."""
    pool = pools[p]
    last = pool.leg + pool.legs
    if tally[FREE_SLOTS] == 0:
        return False
    for i in range(pool.leg, last):
        column = columns[legs[i].column]
        if column.hots == column.hot_room:
            return False
    tally[FREE_SLOTS] -= 1
    pool.slot = free_slots[tally[FREE_SLOTS]]
    before = -1
    for i in range(pool.leg, last):
        leg = legs[i]
        if leg.column == before:
            continue
        before = leg.column
        column = columns[leg.column]
        leg.hot = column.hots
        column.hots += 1
        row = hot[column.hot + leg.hot]
        row.slot = pool.slot
        row.leg = i
        row.net = 0.0
        row.margin = 0.0
        row.below = -np.inf
        row.above = np.inf
    rearm(pools, legs, assets, segments, y, columns, hot, slots, ladder32, p)
    return True


@njit(cache=True)
def detach(pools: Array, legs: Array, columns: Array, hot: Array, free_slots: Array, tally: Array, p: int) -> None:
    """Takes a pool out of the hot rows. The last row of each column moves into the hole."""
    pool = pools[p]
    if pool.slot < 0:
        return
    for i in range(pool.leg, pool.leg + pool.legs):
        leg = legs[i]
        if leg.hot < 0:
            continue
        column = columns[leg.column]
        column.hots -= 1
        last = column.hot + column.hots
        hole = column.hot + leg.hot
        if last != hole:
            hot[hole] = hot[last]
            legs[hot[hole].leg].hot = leg.hot
        leg.hot = -1
    free_slots[tally[FREE_SLOTS]] = pool.slot
    tally[FREE_SLOTS] += 1
    pool.slot = -1


@njit(cache=True)
def open_message(numbers: Array, prices: Array, last: Array, columns: Array, price: Array, previous: Array, position: Array) -> bool:
    """Notes which tick of the message each column has, and its price before. False when a column comes twice."""
    for j in range(len(last)):
        if last[j] >= 0:
            position[last[j]] = -1
    for j in range(len(numbers)):
        c = numbers[j]
        if c < 0:
            continue
        if position[c] >= 0:
            for k in range(j):
                if numbers[k] >= 0:
                    position[numbers[k]] = -1
            return False
        position[c] = j
        previous[c] = price[c]
    return True


@njit(cache=True)
def run_message(
    numbers: Array,
    prices: Array,
    start: int,
    columns: Array,
    price: Array,
    y: Array,
    pools: Array,
    legs: Array,
    assets: Array,
    segments: Array,
    hot: Array,
    slots: Array,
    ladder: Array,
    ladder32: Array,
    events: Array,
    deferred: Array,
    tally: Array,
) -> int:
    """Runs the ticks from `start` on. Returns the next tick: the length of the message, or less when the event buffer must be emptied first."""
    for j in range(start, len(numbers)):
        c = numbers[j]
        if c < 0:
            continue
        column = columns[c]
        if tally[EVENTS] + column.hots > len(events):
            return j
        tally[TICKS] += 1
        m = prices[j]
        valid = m > 0.0 and m < np.inf if column.positive else m == m and abs(m) < np.inf
        if not valid:
            tally[INVALID] += 1
            m = np.nan
        price[c] = m
        now = 1.0 / m if column.inverse == 1 else m
        d = now - y[c]
        y[c] = now
        if d == 0.0:
            continue
        first = column.hot
        tally[HOT_ROWS] += column.hots
        if d != d:  # the first price, or a price that went missing: sums cannot be carried over
            for r in range(first, first + column.hots):
                p = slots[hot[r].slot].pool
                settle(pools, legs, assets, segments, y, ladder, events, deferred, tally, p, j)
                rearm(pools, legs, assets, segments, y, columns, hot, slots, ladder32, p)
            continue
        for r in range(first, first + column.hots):
            row = hot[r]
            slot = slots[row.slot]
            if now <= row.below or now >= row.above:
                p = slot.pool
                E, M, G, jumps = settle(pools, legs, assets, segments, y, ladder, events, deferred, tally, p, j)
                arm(pools, slots, ladder32, p, E, M, G, jumps)
                if E == E:
                    arm_row(pools, legs, segments, y, hot, r, row.leg, pools[p].leg + pools[p].legs)
                continue
            E = slot.equity + row.net * d
            M = slot.requirement + row.margin * d
            slot.equity = E
            slot.requirement = M
            if not (slot.up * E - M > slot.tolerance and M - slot.down * E > slot.tolerance):
                p = slot.pool
                E, M, G, jumps = settle(pools, legs, assets, segments, y, ladder, events, deferred, tally, p, j)
                arm(pools, slots, ladder32, p, E, M, G, jumps)
    return len(numbers)


@njit(cache=True)
def run_pool(
    p: int,
    start: int,
    numbers: Array,
    prices: Array,
    columns: Array,
    price: Array,
    previous: Array,
    position: Array,
    y: Array,
    pools: Array,
    legs: Array,
    assets: Array,
    segments: Array,
    ladder: Array,
    events: Array,
    deferred: Array,
    tally: Array,
) -> None:
    """Runs one pool alone through the ticks of the message from `start` on, deciding it from scratch at each of its own. The message has been run.

    While it runs, y holds the prices of that tick; afterwards those of the end of the message again.
    """
    pool = pools[p]
    last = pool.leg + pool.legs
    for i in range(pool.leg, last):
        c = legs[i].column
        if position[c] >= start:
            before = previous[c]
            y[c] = 1.0 / before if columns[c].inverse == 1 else before
    tick = start - 1
    while True:
        following = len(numbers)
        which = -1
        for i in range(pool.leg, last):
            c = legs[i].column
            if tick < position[c] < following:
                following = position[c]
                which = c
        if which < 0:
            break
        tick = following
        y[which] = 1.0 / price[which] if columns[which].inverse == 1 else price[which]
        if pool.deferred < 0:
            settle(pools, legs, assets, segments, y, ladder, events, deferred, tally, p, tick)


@njit(cache=True)
def view(chosen: Array, pools: Array, legs: Array, assets: Array, segments: Array, y: Array, equity: Array, requirement: Array) -> None:
    """Writes equity and requirement of the chosen pools; NaN where they are unknown, idle or exact."""
    for i in range(len(chosen)):
        p = chosen[i]
        if pools[p].kind == EXACT or pools[p].state == FREE or pools[p].state == IDLE:
            equity[i] = np.nan
            requirement[i] = np.nan
        else:
            equity[i], requirement[i], _, _ = evaluate(pools, legs, assets, segments, y, p)
