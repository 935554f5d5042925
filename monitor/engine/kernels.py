"""Compiled pieces that know one pool: its sums from scratch, its level, its hot and cold rows.

Notation of docs/design.md: E equity, M requirement, y a price as it enters (mark, or 1/mark), G the gross size of everything that was summed.
A float decision is taken only outside its proven error bound. Inside it the pool is *deferred*: from that tick of the message on the evaluator
decides it with the exact core. Pools do not depend on each other, so the rest of the message goes on meanwhile.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.engine.book import (
    BLOCK,
    DEFERRED,
    EVALUATIONS,
    EVENTS,
    EXACT,
    FREE,
    FREE_SLOTS,
    HOT_POOLS,
    IDLE,
    KNOWN,
    LINEAR,
    SHORT_OF_ROOM,
    UNKNOWN,
)
from monitor.engine.compiled import kernel

__all__ = [
    "AMBIGUOUS",
    "BANKRUPT",
    "DRIFT",
    "EDGE",
    "FAR",
    "NO_LEVEL",
    "SIGN",
    "ULP",
    "UPDATES",
    "arm",
    "arm_row",
    "bound_of",
    "defer",
    "demote",
    "displace",
    "evaluate",
    "find_segment",
    "next_level",
    "open_bands",
    "place",
    "place_many",
    "promote",
    "rearm",
    "record",
    "settle",
    "view",
    "write_band",
]

Array = npt.NDArray[Any]

AMBIGUOUS: Final = -2
NO_LEVEL: Final = -1
BANKRUPT: Final = 4

ULP: Final = 2.3e-16  # above 2^-52: twice the relative error of one rounding
DRIFT: Final = 1e-9  # of gross: bound on the error of UPDATES incremental steps while no price has more than doubled or halved
UPDATES: Final = 1 << 20
FAR: Final = 1024.0  # stands for a threshold that does not exist
SIGN: Final = 1e12  # so large a threshold that only the sign of E counts
EDGE: Final = 1e-12  # relative: how near to a discontinuity rounding could put a size on the wrong side


@kernel
def find_segment(segments: Array, k: int, n: float) -> int:
    """The row of a schedule for size n, from any row of it."""
    while n > segments[k].upto:
        k += 1
    while n <= segments[k].above:
        k -= 1
    return k


@kernel
def jump_near(segments: Array, k: int, n: float, reach: float) -> float:
    """Size of the discontinuities of row k's schedule within `reach` of n."""
    jump = 0.0
    if n - segments[k].above <= reach:
        jump += segments[k].jump
    if segments[k].upto - n <= reach:
        jump += segments[k + 1].jump
    return jump


@kernel
def bound_of(legs: int, G: float, jumps: float) -> float:
    """Bound on the error of E and of M from `evaluate` against the exact evaluation.

    Every term is rounded at most five times (its units, its price, 1/price, the product, its rate) and every addition once, each by half of 2^-52
    of something not above G; `jumps` is what discontinuities and the venue's own rounding add.
    """
    return (legs + 8) * ULP * G + jumps


@kernel
def evaluate(pools: Array, legs: Array, assets: Array, segments: Array, y: Array, p: int) -> tuple[float, float, float, float]:
    """(E, M, G, jumps) of a pool from scratch, in the pool's own order; NaN when a price is missing. For the error see `bound_of`."""
    pool = pools[p]
    jumps = pool.slack
    E = pool.constant
    M = pool.floor
    G = abs(E) + M
    i = pool.leg
    if pool.assets == 0:
        for i in range(pool.leg, pool.leg + pool.legs):
            leg = legs[i]
            x = leg.slope * y[leg.column]
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
            E += x
            M += rn + s.constant
            G += n + rn + abs(s.constant)
        return E, M, G, jumps
    for a in range(pool.asset, pool.asset + pool.assets):
        asset = assets[a]
        price = 1.0 if asset.column < 0 else y[asset.column]
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
            if s.jumps != 0.0:
                jumps += jump_near(segments, k, n, EDGE * n) * price * asset.ask
            rn = (s.rate + s.curve * n) * n
            amount += x
            margin += rn + s.constant
            gross += n + rn + abs(s.constant)
        i += asset.legs
        size = abs(amount)
        if size != size or price != price:
            return np.nan, np.nan, np.nan, 0.0
        # An error of the amount counts at most at the highest weight or rate, and the products with price and weight round too: hence the 4.
        dear = max(1.0, asset.ask)
        worth = size
        if amount >= 0.0:
            if asset.weights >= 0:
                s = segments[find_segment(segments, asset.weights, size)]
                worth = s.rate * size + s.constant
            E += price * worth
        else:
            if asset.debts >= 0:
                s = segments[find_segment(segments, asset.debts, size)]
                worth = s.rate * size + s.constant
                dear += s.highest
            if asset.debt_is_requirement != 0:
                M += price * worth
            else:
                E -= price * worth
            if asset.borrow >= 0:
                k = find_segment(segments, asset.borrow, size)
                s = segments[k]
                if s.jumps != 0.0:
                    jumps += jump_near(segments, k, size, EDGE * gross) * price
                M += price * ((s.rate + s.curve * size) * size + s.constant)
                dear += s.rate + s.curve * size * 2.0
        M += price * asset.ask * margin
        G += 4.0 * price * gross * dear
    return E, M, G, jumps


@kernel
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


@kernel
def defer(pools: Array, deferred: Array, tally: Array, p: int, tick: int) -> None:
    """Leaves a pool to the exact core from `tick` on."""
    pools[p].deferred = tick
    k = tally[DEFERRED]
    deferred[k, 0] = p
    deferred[k, 1] = tick
    tally[DEFERRED] = k + 1


@kernel
def record(pools: Array, events: Array, tally: Array, p: int, tick: int, after: int) -> None:
    """Takes over a verdict; an event when it differs from the one before."""
    pool = pools[p]
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


@kernel
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
    """Evaluates a pool at the prices in y and decides it: an event when its verdict changes, a deferral when floats cannot tell."""
    pool = pools[p]
    if pool.deferred >= 0:
        return 0.0, 0.0, 0.0, 0.0
    if pool.kind == EXACT:
        defer(pools, deferred, tally, p, tick)
        return 0.0, 0.0, 0.0, 0.0
    E, M, G, jumps = evaluate(pools, legs, assets, segments, y, p)
    tally[EVALUATIONS] += 1
    after = next_level(pool.level, E, M, bound_of(pool.legs, G, jumps), ladder)
    if after == AMBIGUOUS:
        defer(pools, deferred, tally, p, tick)
    else:
        record(pools, events, tally, p, tick, after)
    return E, M, G, jumps


# Hot rows


@kernel
def arm(pools: Array, slots: Array, lines32: Array, p: int, E: float, M: float, G: float, jumps: float) -> None:
    """Writes fresh sums into the pool's hot slot, with the lines that its level must not cross unnoticed.

    up and down are rounded so that with E > 0 the slot fires too early rather than too late; with E <= 0 it always fires below bankrupt, and
    at bankrupt (up = -SIGN, down = SIGN) it fires unless E is negative beyond its error.
    """
    pool = pools[p]
    slot = slots[pool.slot]
    slot.pool = p
    level = pool.level
    if pool.kind != LINEAR or pool.state != KNOWN or pool.deferred >= 0:
        slot.tolerance = np.inf
        slot.up = 0.0
        slot.down = 0.0
        return
    slot.equity = E
    slot.requirement = M
    slot.up = lines32[0, level]
    slot.down = lines32[1, level]
    slot.tolerance = 1.000001 * lines32[2, level] * (DRIFT * G + jumps)


@kernel
def arm_row(legs: Array, segments: Array, y: Array, hot: Array, r: int, i: int, last: int) -> None:
    """Writes the slopes of a hot row and the interval of y where they hold. i: its first leg; last: end of the pool's legs."""
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


@kernel
def rearm(
    pools: Array,
    legs: Array,
    segments: Array,
    y: Array,
    columns: Array,
    hot: Array,
    slots: Array,
    lines32: Array,
    p: int,
    E: float,
    M: float,
    G: float,
    jumps: float,
) -> None:
    """Fresh sums and slopes for a hot pool at the present prices."""
    pool = pools[p]
    arm(pools, slots, lines32, p, E, M, G, jumps)
    if pool.kind != LINEAR or E != E:
        return
    last = pool.leg + pool.legs
    for i in range(pool.leg, last):
        if legs[i].hot >= 0:
            arm_row(legs, segments, y, hot, columns[legs[i].column].hot + legs[i].hot, i, last)


@kernel
def promote(
    pools: Array,
    legs: Array,
    segments: Array,
    y: Array,
    columns: Array,
    bands: Array,
    hot: Array,
    slots: Array,
    free_slots: Array,
    lines32: Array,
    tally: Array,
    p: int,
    E: float,
    M: float,
    G: float,
    jumps: float,
) -> bool:
    """Gives a pool a hot slot and hot rows and opens its cold bands. False, and nothing done, where there is no room."""
    pool = pools[p]
    last = pool.leg + pool.legs
    room = tally[FREE_SLOTS] > 0
    for i in range(pool.leg, last):
        column = columns[legs[i].column]
        if column.hots == column.hot_room:
            column.short = 1
            room = False
    if not room:
        tally[SHORT_OF_ROOM] += 1
        return False
    tally[FREE_SLOTS] -= 1
    tally[HOT_POOLS] += 1
    pool.slot = free_slots[tally[FREE_SLOTS]]
    for i in range(pool.leg, last):
        leg = legs[i]
        if leg.row < 0:
            continue
        column = columns[leg.column]
        cold = column.cold + leg.row
        bands[cold, 0] = -np.inf
        bands[cold, 1] = -np.inf
        leg.hot = column.hots
        column.hots += 1
        row = hot[column.hot + leg.hot]
        row.slot = pool.slot
        row.leg = i
        row.net = 0.0
        row.margin = 0.0
        row.below = -np.inf
        row.above = np.inf
    rearm(pools, legs, segments, y, columns, hot, slots, lines32, p, E, M, G, jumps)
    return True


@kernel
def demote(pools: Array, legs: Array, columns: Array, hot: Array, free_slots: Array, tally: Array, p: int) -> None:
    """Takes a pool out of the hot rows. The last hot row of each column moves into the hole. Its cold bands are still open."""
    pool = pools[p]
    for i in range(pool.leg, pool.leg + pool.legs):
        leg = legs[i]
        if leg.hot < 0:
            continue
        column = columns[leg.column]
        column.hots -= 1
        hole = column.hot + leg.hot
        final = column.hot + column.hots
        if final != hole:
            hot[hole] = hot[final]
            legs[hot[hole].leg].hot = leg.hot
        leg.hot = -1
    free_slots[tally[FREE_SLOTS]] = pool.slot
    tally[FREE_SLOTS] += 1
    tally[HOT_POOLS] -= 1
    pool.slot = -1


# Cold rows


@kernel
def write_band(columns: Array, bands: Array, blocks: Array, c: int, row: int, here: float, lo: float, hi: float) -> None:
    """Writes a band around the price `here`, rounded inwards to float32, and makes the summaries above it at least as strict.

    -inf and inf are no edge. A price too small or too large for float32 gets the band that it always leaves.
    """
    column = columns[c]
    lo32 = np.float32(lo * (1.0 + 1.2e-7))
    minus_hi32 = np.float32(-hi * (1.0 - 1.2e-7))
    if not 1e-25 < here < 1e25:
        lo32 = np.float32(np.inf)
    r = column.cold + row
    bands[r, 0] = lo32
    bands[r, 1] = minus_hi32
    b = r // BLOCK
    if lo32 > blocks[b, 0]:
        blocks[b, 0] = lo32
        if lo32 > column.lo:
            column.lo = lo32
    if minus_hi32 > blocks[b, 1]:
        blocks[b, 1] = minus_hi32
        if minus_hi32 > column.minus_hi:
            column.minus_hi = minus_hi32


@kernel
def open_bands(pools: Array, legs: Array, columns: Array, bands: Array, p: int) -> None:
    """Bands that no price leaves: for pools that are unknown (whose prices wake them) and, in `promote`, for hot ones."""
    pool = pools[p]
    pool.exits = np.inf
    for i in range(pool.leg, pool.leg + pool.legs):
        leg = legs[i]
        if leg.row >= 0:
            cold = columns[leg.column].cold + leg.row
            bands[cold, 0] = -np.inf
            bands[cold, 1] = -np.inf


@kernel
def place(pools: Array, legs: Array, columns: Array, owners: Array, bands: Array, p: int) -> None:
    """Gives a new pool its cold rows, open. There is room."""
    pool = pools[p]
    before = -1
    for i in range(pool.leg, pool.leg + pool.legs):
        leg = legs[i]
        if leg.column == before:
            continue
        before = leg.column
        column = columns[leg.column]
        leg.row = column.colds
        column.colds += 1
        r = column.cold + leg.row
        owners[r] = p
        bands[r, 0] = -np.inf
        bands[r, 1] = -np.inf


@kernel
def place_many(pools: Array, legs: Array, columns: Array, owners: Array, bands: Array, start: int, end: int) -> None:
    """`place` for pools start..end."""
    for p in range(start, end):
        place(pools, legs, columns, owners, bands, p)


@kernel
def displace(pools: Array, legs: Array, columns: Array, owners: Array, bands: Array, blocks: Array, p: int) -> None:
    """Takes a pool's cold rows away. The last row of each column moves into the hole."""
    pool = pools[p]
    for i in range(pool.leg, pool.leg + pool.legs):
        leg = legs[i]
        if leg.row < 0:
            continue
        column = columns[leg.column]
        column.colds -= 1
        hole = column.cold + leg.row
        final = column.cold + column.colds
        if final != hole:
            q = owners[final]
            owners[hole] = q
            bands[hole, 0] = bands[final, 0]
            bands[hole, 1] = bands[final, 1]
            b = hole // BLOCK
            blocks[b, 0] = max(blocks[b, 0], bands[hole, 0])
            blocks[b, 1] = max(blocks[b, 1], bands[hole, 1])
            for j in range(pools[q].leg, pools[q].leg + pools[q].legs):
                if legs[j].column == leg.column and legs[j].row >= 0:
                    legs[j].row = leg.row
        owners[final] = -1
        bands[final, 0] = -np.inf
        bands[final, 1] = -np.inf
        leg.row = -1


@kernel
def view(chosen: Array, pools: Array, legs: Array, assets: Array, segments: Array, y: Array, equity: Array, requirement: Array) -> None:
    """Writes equity and requirement of the chosen pools; NaN where they are unknown, idle or exact."""
    for i in range(len(chosen)):
        p = int(chosen[i])
        if pools[p].kind == EXACT or pools[p].state == FREE or pools[p].state == IDLE:
            equity[i] = np.nan
            requirement[i] = np.nan
        else:
            equity[i], requirement[i], _, _ = evaluate(pools, legs, assets, segments, y, p)
