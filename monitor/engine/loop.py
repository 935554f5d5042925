"""The compiled loops: one message, and one slice of the background pass.

A message has three parts, in one call:

1. *Ticks*, in order. Hot rows follow the price and are decided at that tick. Cold rows are only compared: a pool whose band the price leaves is
   noted with its tick, once.
2. *Pools that left*, one after the other: each is run alone from its tick to the end of the message, at its own prices of each tick, decided at each
   of its own ticks, and given a new band at the last prices, or made hot. This is exact because pools do not depend on each other, and it is what makes
   a gap (all prices jump at once) cost one look at each pool instead of ten: no second mechanism is needed for it.
3. *Summaries* of the blocks where something left are made anew.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.engine.bands import headrooms, lay, measure
from monitor.engine.book import (
    BAND_MISSES,
    BLOCK,
    COLD_EXITS,
    DEMOTIONS,
    DIRTY,
    EVALUATIONS,
    EVENTS,
    EXACT,
    EXITS,
    FREE,
    HOT_ROWS,
    IDLE,
    INVALID,
    KNOWN,
    LINEAR,
    NEXT_EXIT,
    PROMOTIONS,
    REBANDED,
    STEPPED,
    TICKS,
)
from monitor.engine.compiled import kernel, prefetch
from monitor.engine.kernels import (
    AMBIGUOUS,
    EDGE,
    NO_LEVEL,
    arm,
    arm_row,
    bound_of,
    defer,
    demote,
    evaluate,
    find_segment,
    jump_near,
    next_level,
    open_bands,
    promote,
    rearm,
    record,
    settle,
)

__all__ = ["GIVE_UP", "open_message", "rest", "run_pass", "run_pool", "run_ticks"]

Array = npt.NDArray[Any]

MEMORY: Final = 1.0 / 32.0  # weight of the newest move in a column's variance
SURPRISE: Final = 16.0  # a single move counts at most this many times the variance there was: one gap is not a storm

# Places in the policy array.
PROMOTE_LINEAR: Final = 0  # expected exits per tick and row above which a pool is worth being hot
PROMOTE_FRESH: Final = 1
STAY_HOT: Final = 2  # a hot pool is let go below this part of it
WIDEN: Final = 3  # a band is laid anew by the pass when its expected exits fall below this part
VARIANCE: Final = 4  # of the book: mean over its rows, made anew for each pass

GIVE_UP: Final = 1 << 30  # a tick later than any


@kernel
def open_message(numbers: Array, last: Array, price: Array, y: Array, price_before: Array, y_before: Array, position: Array) -> bool:
    """Notes which tick of the message each column has, and its price before. False when a column comes twice."""
    for j in range(len(last)):
        if last[j] >= 0:
            position[last[j]] = -1
    for j in range(len(numbers)):
        c = int(numbers[j])
        if c < 0:
            continue
        if position[c] >= 0:
            for k in range(j):
                if numbers[k] >= 0:
                    position[numbers[k]] = -1
            return False
        position[c] = j
        price_before[c] = price[c]
        y_before[c] = y[c]
    return True


@kernel
def leave(pools: Array, exits: Array, tally: Array, start: int, tick: int) -> None:
    """Notes that the pools listed in `exits` from `start` on are to be looked at from `tick` on; drops those that were noted before, or are hot."""
    kept = start
    for k in range(start, tally[EXITS]):
        p = exits[k]
        if pools[p].left < 0 and pools[p].slot < 0:
            pools[p].left = tick
            exits[kept] = p
            kept += 1
    tally[EXITS] = kept


@kernel
def any_left(bands: Array, sides: Array) -> bool:
    """Whether a price has left any of at most BLOCK bands. Compiles to wide comparisons."""
    found = np.int32(0)
    for i in range(len(bands)):
        found += np.int32(bands[i] >= sides[i])
    return True if found else False


@kernel
def find_exits(
    columns: Array,
    owners: Array,
    bands: Array,
    blocks: Array,
    pools: Array,
    exits: Array,
    dirty: Array,
    sides: Array,
    tally: Array,
    c: int,
    now: float,
    tick: int,
) -> None:
    """Walks the blocks and rows of a column that a price has left."""
    column = columns[c]
    m = np.float32(now)  # rounding is monotone: what is outside an edge in float64 is not inside it in float32
    for i in range(0, 2 * BLOCK, 2):
        sides[i] = m
        sides[i + 1] = -m
    flat_blocks = blocks.ravel()
    flat_bands = bands.ravel()
    first = column.cold // BLOCK
    last = first + (column.colds + BLOCK - 1) // BLOCK
    noted = tally[EXITS]
    for group in range(first, last, BLOCK):
        end = min(group + BLOCK, last)
        if not any_left(flat_blocks[2 * group : 2 * end], sides):
            continue
        for b in range(group, end):
            if not (blocks[b, 0] >= m or blocks[b, 1] >= -m):
                continue
            k = tally[DIRTY]
            dirty[k, 0] = b
            dirty[k, 1] = c
            tally[DIRTY] = k + 1
            for part in range(b * BLOCK, (b + 1) * BLOCK, 16):
                if not any_left(flat_bands[2 * part : 2 * part + 32], sides):
                    continue
                for r in range(part, part + 16):
                    if bands[r, 0] >= m or bands[r, 1] >= -m:
                        p = owners[r]
                        prefetch(pools, p)
                        exits[tally[EXITS]] = p
                        tally[EXITS] += 1
    leave(pools, exits, tally, noted, tick)


@kernel
def highest(bands: Array, fold: Array) -> tuple[float, float]:
    """(highest lo, highest -hi) of some bands, flat. Compiles to wide maxima."""
    for i in range(2 * BLOCK):
        fold[i] = -np.inf
    for start in range(0, len(bands), 2 * BLOCK):
        part = bands[start : min(len(bands), start + 2 * BLOCK)]
        for i in range(len(part)):
            fold[i] = part[i] if part[i] > fold[i] else fold[i]
    width = BLOCK
    while width > 1:
        low = fold[:width]
        high = fold[width : 2 * width]
        for i in range(width):
            low[i] = high[i] if high[i] > low[i] else low[i]
        width //= 2
    return fold[0], fold[1]


@kernel
def summarise(columns: Array, bands: Array, blocks: Array, dirty: Array, fold: Array, tally: Array) -> None:
    """Makes the summaries of dirty blocks anew, and of their columns."""
    flat_blocks = blocks.ravel()
    flat_bands = bands.ravel()
    k = 0
    while k < tally[DIRTY]:
        c = dirty[k, 1]
        while k < tally[DIRTY] and dirty[k, 1] == c:
            b = dirty[k, 0]
            blocks[b, 0], blocks[b, 1] = highest(flat_bands[2 * b * BLOCK : 2 * (b + 1) * BLOCK], fold)
            k += 1
        column = columns[c]
        first = column.cold // BLOCK
        last = first + (column.colds + BLOCK - 1) // BLOCK
        column.lo, column.minus_hi = highest(flat_blocks[2 * first : 2 * last], fold)
    tally[DIRTY] = 0


@kernel
def rest(
    pools: Array,
    legs: Array,
    assets: Array,
    segments: Array,
    y: Array,
    columns: Array,
    bands: Array,
    blocks: Array,
    hot: Array,
    slots: Array,
    free_slots: Array,
    lines: Array,
    lines32: Array,
    policy: Array,
    scratch: Array,
    tally: Array,
    p: int,
    E: float,
    M: float,
    G: float,
    jumps: float,
) -> None:
    """Leaves a pool that was just decided: hot, with a band, or open because it is unknown. The sums are those of the present prices."""
    pool = pools[p]
    if pool.slot >= 0:
        rearm(pools, legs, segments, y, columns, hot, slots, lines32, p, E, M, G, jumps)
        return
    if pool.kind == EXACT:
        promote(pools, legs, segments, y, columns, bands, hot, slots, free_slots, lines32, tally, p, E, M, G, jumps)
        return
    if pool.state != KNOWN or E != E:
        open_bands(pools, legs, columns, bands, p)
        return
    exits, cu, cv = measure(pools, legs, assets, segments, y, columns, lines, scratch, p, E, M, bound_of(pool.legs, G, jumps))
    pool.exits = exits / policy[VARIANCE]
    if exits > policy[PROMOTE_LINEAR if pool.kind == LINEAR else PROMOTE_FRESH] and promote(
        pools, legs, segments, y, columns, bands, hot, slots, free_slots, lines32, tally, p, E, M, G, jumps
    ):
        tally[PROMOTIONS] += 1
        return
    lay(pools, legs, y, columns, bands, blocks, scratch, p, exits, cu, cv)


@kernel
def run_pool(
    p: int,
    start: int,
    numbers: Array,
    position: Array,
    y: Array,
    y_before: Array,
    y_after: Array,
    pools: Array,
    legs: Array,
    assets: Array,
    segments: Array,
    ladder: Array,
    events: Array,
    deferred: Array,
    tally: Array,
) -> tuple[float, float, float, float]:
    """Runs one pool alone through the message from tick `start` on, deciding it from scratch at each of its own ticks.

    y holds the prices at the end of the message, before and after; in between those of each tick. y_after is room for a copy.

    Returns:
        Its sums after its last tick; NaN when it was deferred on the way or when a price is missing.
    """
    pool = pools[p]
    last = pool.leg + pool.legs
    for i in range(pool.leg, last):
        c = legs[i].column
        if position[c] >= start:
            y_after[position[c]] = y[c]
    for i in range(pool.leg, last):
        c = legs[i].column
        if position[c] >= start:
            y[c] = y_before[c]
    E, M, G, jumps = np.nan, np.nan, np.nan, 0.0
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
        y[which] = y_after[tick]
        if pool.deferred < 0:
            E, M, G, jumps = settle(pools, legs, assets, segments, y, ladder, events, deferred, tally, p, tick)
    if pool.deferred >= 0:
        return np.nan, np.nan, np.nan, 0.0
    return E, M, G, jumps


@kernel
def run_linear(
    p: int,
    start: int,
    position: Array,
    y: Array,
    y_before: Array,
    columns: Array,
    bands: Array,
    pools: Array,
    legs: Array,
    segments: Array,
    ladder: Array,
    lines: Array,
    scratch: Array,
    events: Array,
    deferred: Array,
    tally: Array,
) -> tuple[float, float, float, float]:
    """`run_pool` for a known pool of one asset, in one look at its legs.

    First the short way: when u and v at tick `start` are above their error bounds, and stay there less everything that any later tick takes away,
    then no order of the later ticks changes the level. Else the steps are taken one by one, in order.

    Returns:
        Its sums at the end of the message, from scratch. NaN when it was deferred on the way, or when a price is missing: then nothing was done.
    """
    pool = pools[p]
    level = pool.level
    au = lines[0, level]
    bu = lines[1, level]
    av = lines[2, level]
    bv = lines[3, level]
    E = pool.constant
    M = pool.floor
    G = abs(E) + M
    jumps = pool.slack
    E_start = E
    M_start = M
    taken_u = 0.0
    taken_v = 0.0
    later = 0
    for i in range(pool.leg, pool.leg + pool.legs):
        leg = legs[i]
        c = leg.column
        prefetch(bands, columns[c].cold + leg.row)
        x = leg.slope * y[c]
        n = abs(x)
        k = leg.segment
        s = segments[k]
        if not (n <= s.upto and n > s.above):
            if n != n:
                return np.nan, np.nan, np.nan, 0.0
            k = find_segment(segments, k, n)
            leg.segment = k
            s = segments[k]
        if s.jumps != 0.0:
            jumps += jump_near(segments, k, n, EDGE * n)
        rn = (s.rate + s.curve * n) * n
        m = rn + s.constant
        E += x
        M += m
        G += n + rn + abs(s.constant)
        if position[c] > start:
            x0 = leg.slope * y_before[c]
            n0 = abs(x0)
            if not (n0 <= s.upto and n0 > s.above):
                if n0 != n0:
                    return np.nan, np.nan, np.nan, 0.0
                k = find_segment(segments, k, n0)
                s = segments[k]
            if s.jumps != 0.0:
                jumps += jump_near(segments, k, n0, EDGE * n0)
            rn = (s.rate + s.curve * n0) * n0
            m0 = rn + s.constant
            E_start += x0
            M_start += m0
            G += n0 + rn + abs(s.constant)
            scratch[later, 0] = position[c]
            scratch[later, 1] = x - x0
            scratch[later, 2] = m - m0
            later += 1
            taken_u += min(0.0, au * (x - x0) - bu * (m - m0))
            taken_v += min(0.0, bv * (m - m0) - av * (x - x0))
        else:
            E_start += x
            M_start += m
    # Twice as many terms as legs, and as many additions again on the way.
    bound = bound_of(4 * pool.legs, G, jumps)
    if (au == 0.0 or au * E_start - bu * M_start + taken_u > (au + bu) * bound) and (
        av == 0.0 or bv * M_start - av * E_start + taken_v > (av + bv) * bound
    ):
        return E, M, G, jumps
    tally[STEPPED] += 1
    for i in range(1, later):  # by tick; few, and nearly always fewer than twenty
        tick = scratch[i, 0]
        dE = scratch[i, 1]
        dM = scratch[i, 2]
        k = i
        while k > 0 and scratch[k - 1, 0] > tick:
            scratch[k, 0] = scratch[k - 1, 0]
            scratch[k, 1] = scratch[k - 1, 1]
            scratch[k, 2] = scratch[k - 1, 2]
            k -= 1
        scratch[k, 0] = tick
        scratch[k, 1] = dE
        scratch[k, 2] = dM
    here = start
    i = 0
    while True:
        after = next_level(pool.level, E_start, M_start, bound, ladder)
        if after == AMBIGUOUS:
            defer(pools, deferred, tally, p, here)
            return np.nan, np.nan, np.nan, 0.0
        if after != pool.level:
            record(pools, events, tally, p, here, after)
        if i == later:
            return E, M, G, jumps
        here = int(scratch[i, 0])
        while i < later and scratch[i, 0] == here:  # all rows of the pool in that instrument, then the decision
            E_start += scratch[i, 1]
            M_start += scratch[i, 2]
            i += 1


@kernel
def run_ticks(
    numbers: Array,
    prices: Array,
    start: int,
    columns: Array,
    price: Array,
    y: Array,
    y_before: Array,
    y_after: Array,
    position: Array,
    pools: Array,
    legs: Array,
    assets: Array,
    segments: Array,
    owners: Array,
    bands: Array,
    blocks: Array,
    hot: Array,
    slots: Array,
    free_slots: Array,
    ladder: Array,
    lines: Array,
    lines32: Array,
    policy: Array,
    scratch: Array,
    exits: Array,
    dirty: Array,
    sides: Array,
    events: Array,
    deferred: Array,
    tally: Array,
    pools_end: int,
) -> int:
    """Runs a message from tick `start` on.

    Returns:
        Where to go on once the event buffer was emptied: a tick, or the length of the message when all ticks are run but not all pools that
        left. One more than the length when all is done.
    """
    for j in range(start, len(numbers)):
        c = int(numbers[j])
        if c < 0:
            continue
        column = columns[c]
        if tally[EVENTS] + column.hots > len(events):
            return j
        tally[TICKS] += 1
        m = prices[j]
        if not (m > 0.0 and m < np.inf if column.positive else m == m and abs(m) < np.inf):
            tally[INVALID] += 1
            m = np.nan
        price[c] = m
        now = 1.0 / m if column.inverse == 1 else m
        before = y[c]
        d = now - before
        if d == 0.0:
            continue
        y[c] = now
        first = column.hot
        tally[HOT_ROWS] += column.hots
        if d != d:
            # The first price, or a price that went missing: sums cannot be carried over, bands say nothing, and unknown pools may wake.
            for r in range(first, first + column.hots):
                p = int(slots[hot[r].slot].pool)
                E, M, G, jumps = settle(pools, legs, assets, segments, y, ladder, events, deferred, tally, p, j)
                rearm(pools, legs, segments, y, columns, hot, slots, lines32, p, E, M, G, jumps)
            noted = tally[EXITS]
            for r in range(column.cold, column.cold + column.colds):
                exits[tally[EXITS]] = owners[r]
                tally[EXITS] += 1
            leave(pools, exits, tally, noted, j)
            continue
        x = d / before
        square = min(x * x, SURPRISE * column.variance)
        column.variance += (square - column.variance) * MEMORY
        fired = 0
        for r in range(first, first + column.hots):
            row = hot[r]
            slot = slots[row.slot]
            E = slot.equity + row.net * d
            M = slot.requirement + row.margin * d
            slot.equity = E
            slot.requirement = M
            calm = slot.up * E - M > slot.tolerance and M - slot.down * E > slot.tolerance
            if not (calm and now > row.below and now < row.above):
                prefetch(pools, slot.pool)
                prefetch(legs, row.leg)
                exits[tally[EXITS] + fired] = r
                fired += 1
        for k in range(tally[EXITS], tally[EXITS] + fired):
            r = int(exits[k])
            row = hot[r]
            p = int(slots[row.slot].pool)
            E, M, G, jumps = settle(pools, legs, assets, segments, y, ladder, events, deferred, tally, p, j)
            arm(pools, slots, lines32, p, E, M, G, jumps)
            if E == E and not (now > row.below and now < row.above):
                arm_row(legs, segments, y, hot, r, int(row.leg), pools[p].leg + pools[p].legs)
        if not (now > column.lo and -now > column.minus_hi):
            find_exits(columns, owners, bands, blocks, pools, exits, dirty, sides, tally, c, now, j)
    many = tally[EXITS] * 16 > pools_end
    end = pools_end if many else tally[EXITS]
    while tally[NEXT_EXIT] < end:
        k = tally[NEXT_EXIT]
        p = k if many else int(exits[k])
        tick = int(pools[p].left)
        if tick < 0:
            tally[NEXT_EXIT] += 1
            continue
        if not many:
            prefetch(pools, exits[min(k + 12, end - 1)])
            ahead = pools[exits[min(k + 6, end - 1)]].leg
            prefetch(legs, ahead)
            prefetch(legs, ahead + 3)
            prefetch(legs, ahead + 6)
            prefetch(legs, ahead + 9)
        if tally[EVENTS] + pools[p].legs > len(events):
            return len(numbers)
        tally[NEXT_EXIT] += 1
        tally[COLD_EXITS] += 1
        tally[EVALUATIONS] += 1
        pools[p].left = -1
        linear = pools[p].kind == LINEAR and pools[p].state == KNOWN
        if linear:
            E, M, G, jumps = run_linear(
                p,
                tick,
                position,
                y,
                y_before,
                columns,
                bands,
                pools,
                legs,
                segments,
                ladder,
                lines,
                scratch,
                events,
                deferred,
                tally,
            )
        if not linear or (E != E and pools[p].deferred < 0):
            tally[STEPPED] += 1
            E, M, G, jumps = run_pool(
                p, tick, numbers, position, y, y_before, y_after, pools, legs, assets, segments, ladder, events, deferred, tally
            )
        if pools[p].deferred < 0:
            rest(
                pools,
                legs,
                assets,
                segments,
                y,
                columns,
                bands,
                blocks,
                hot,
                slots,
                free_slots,
                lines,
                lines32,
                policy,
                scratch,
                tally,
                p,
                E,
                M,
                G,
                jumps,
            )
    tally[EXITS] = 0
    tally[NEXT_EXIT] = 0
    summarise(columns, bands, blocks, dirty, sides, tally)
    return len(numbers) + 1


@kernel
def run_pass(
    start: int,
    end: int,
    columns: Array,
    y: Array,
    pools: Array,
    legs: Array,
    assets: Array,
    segments: Array,
    bands: Array,
    blocks: Array,
    hot: Array,
    slots: Array,
    free_slots: Array,
    ladder: Array,
    lines: Array,
    lines32: Array,
    policy: Array,
    scratch: Array,
    events: Array,
    deferred: Array,
    tally: Array,
    histogram: Array,
    edges: Array,
    counts: Array,
    worst: Array,
    worst_pools: Array,
) -> None:
    """One slice of the background pass, over pools start..end: fresh sums, and each pool where it belongs now.

    Finds pools whose level is not what it should be (`BAND_MISSES`; an event comes of it all the same), and pools that a price taken away
    made unknown. Feeds the histogram of ratios, the counts by verdict and the worst pools.
    """
    widen = 1.0 / np.sqrt(policy[WIDEN])
    least = worst[len(worst) - 1]
    for p in range(start, end):
        pool = pools[p]
        if pool.state == FREE:
            continue
        if pool.state == IDLE:
            counts[0] += 1
            continue
        if pool.kind == EXACT:
            counts[pool.level if pool.state == KNOWN else 5] += 1
            continue
        E, M, G, jumps = evaluate(pools, legs, assets, segments, y, p)
        bound = bound_of(pool.legs, G, jumps)
        known = pool.state == KNOWN
        u, v = headrooms(lines, pool.level, E, M, bound)
        H = min(u, v)
        if not (known and H > 0.0):
            after = next_level(pool.level, E, M, bound, ladder)
            if after == AMBIGUOUS:
                defer(pools, deferred, tally, p, GIVE_UP)
                counts[pool.level if known else 5] += 1
                continue
            if known and after != NO_LEVEL and after != pool.level:
                tally[BAND_MISSES] += 1
            record(pools, events, tally, p, GIVE_UP, after)
            if after == NO_LEVEL:
                counts[5] += 1
                if pool.slot >= 0:
                    arm(pools, slots, lines32, p, E, M, G, jumps)
                elif known:
                    open_bands(pools, legs, columns, bands, p)
                continue
            u, v = headrooms(lines, pool.level, E, M, bound)
            H = min(u, v)
            pool.exits = np.inf
        counts[pool.level] += 1
        ratio = M / E if E > 0.0 else np.inf
        place_of = 0
        for k in range(len(edges)):
            place_of += 1 if ratio > edges[k] else 0
        histogram[place_of] += 1
        badness = ratio if E > 0.0 else 1e30 - E
        if badness > least:
            k = len(worst) - 1
            while k > 0 and worst[k - 1] < badness:
                worst[k] = worst[k - 1]
                worst_pools[k] = worst_pools[k - 1]
                k -= 1
            worst[k] = badness
            worst_pools[k] = p
            least = worst[len(worst) - 1]
        # Slopes change slowly: what is expected now follows from what was, by headroom and by the variance of the book. Only where that would
        # change something are they worked out.
        change = pool.room / H
        expected = pool.exits * policy[VARIANCE] * change * change
        promotes = policy[PROMOTE_LINEAR if pool.kind == LINEAR else PROMOTE_FRESH]
        if pool.slot >= 0:
            arm(pools, slots, lines32, p, E, M, G, jumps)
            if expected < promotes * policy[STAY_HOT] or pool.exits == np.inf:
                expected, cu, cv = measure(pools, legs, assets, segments, y, columns, lines, scratch, p, E, M, bound)
                pool.exits = expected / policy[VARIANCE]
                if expected < promotes * policy[STAY_HOT]:
                    demote(pools, legs, columns, hot, free_slots, tally, p)
                    tally[DEMOTIONS] += 1
                    lay(pools, legs, y, columns, bands, blocks, scratch, p, expected, cu, cv)
        elif pool.exits == np.inf or H > widen * pool.room or expected > promotes:
            expected, cu, cv = measure(pools, legs, assets, segments, y, columns, lines, scratch, p, E, M, bound)
            pool.exits = expected / policy[VARIANCE]
            if expected > promotes and promote(
                pools, legs, segments, y, columns, bands, hot, slots, free_slots, lines32, tally, p, E, M, G, jumps
            ):
                tally[PROMOTIONS] += 1
            else:
                lay(pools, legs, y, columns, bands, blocks, scratch, p, expected, cu, cv)
                tally[REBANDED] += 1
