"""Bands: how far each price of a pool may go, whatever the others do inside their own bands, before the pool's level can change.

**Which signs matter.** With levels 0..4 and thresholds enter_j, leave_j (`margin.levels.next_level`), M >= 0 and t rising with the level, the verdict of
a pool at level L changes only when one of two functionals becomes <= 0:

    L = 0, 1, 2:  u = enter_(L+1) * E - M      (u > 0 gives E > 0, and the higher levels' headroom is then larger still)
    L = 3:        u = E
    L = 4:        no u
    L = 1, 2, 3:  v = M - leave_L * E          (v >= 0: the level is still held)
    L = 4:        v = -E                       (bankrupt until equity is positive)
    L = 0:        no v

Written u = au*E - bu*M and v = bv*M - av*E; the coefficients by level are `lines`. **If neither changes sign in a box around the present prices,
no event of this pool lies in the box, in whatever order its prices move.**

**How much a price can take away.** Let y be a price as it enters (mark, or 1/mark for an inverse contract, so that |y - y0| <= r*y0 means the same for
both), S the net slope of the pool's legs in it, K the sum of |slope| * marginal rate (fee included), P the index price of the asset they settle in.

One asset at price 1: u is a sum of functions of one price each, so what the box can take away is the sum of what each price can take:
    a fall of r:  u loses at most  au*S*y0 * r  if S > 0, else nothing (K >= 0 works against it)
    a rise of r:  u loses at most  (bu*K_top - au*S)*y0 * r  if positive, else nothing; K_top: highest marginal rate up to y0*(1+R)
    v likewise with the signs turned.
Where the slope cannot turn anywhere on a side - S <= 0 below; au*S >= bu*K of the whole schedule above - that side has no edge at all.

Several assets, amount a, D = sum of |S|*y0 of its legs, w the highest worth of one unit anywhere in [a - D*R, a + D*R] (weight of a holding, weight
of a debt if the range reaches below 0), c = au*w + bu*(what a debt adds to M per unit): a move of the price of a leg takes at most
    P*(1+R) * (c*|S| + bu*ask*K_top) * y0 * r,
and a move of the index price at most
    P * (c*|a| + bu*ask*margin) * r,
by the product rule P'f(a') - P f(a) = P'(f(a') - f(a)) + (P' - P) f(a). Both sides, always: the direction depends on signs that may turn.

**The budget.** H = 0.998 * (u - error bound) is shared out: price i gets b_i, with sum b_i = H, and its edges are r = b_i / (what it takes per
unit), at most R. Then whatever the others do, u stays positive inside. With moves of variance s_i^2 a tick and r_i chosen freely, the expected
number of exits sum (s_i/r_i)^2 is least for r_i ~ (s_i^2/g_i)^(1/3), that is b_i ~ (g_i*s_i)^(2/3), and is then W^3/H^2 with W = sum (g_i*s_i)^(2/3). That
number decides between hot and cold, and between keeping a band and laying a new one. The cube root is a guess at a shape: it need not be exact.

**Jumps.** Where a schedule is discontinuous (the whole position takes the row's rate; printed deductions good to 0.01) the slopes say nothing across the
jump. If all jumps of a schedule together are below a 1000th of H per leg they are taken out of H (that is the second half of 0.998). Otherwise
the band ends at the jump, and no side is open.

**Edges.** Inside is lo < y < hi, strictly. Edges are float32, rounded inwards. Fills, deposits, parameters and time are not prices: each of them
replaces the pool, and with it the band.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.engine.book import NEAR
from monitor.engine.compiled import inlined, kernel
from monitor.engine.kernels import find_segment, write_band

__all__ = ["REACH", "SCRATCH", "headrooms", "lay", "measure"]

Array = npt.NDArray[Any]

REACH: Final = NEAR - 1.0
"""R: no bounded edge lies farther than this from the price."""

SHARE: Final = 0.999
JUMPS: Final = 0.001

# Columns of the scratch array, which has a row for each row of the pool. Code here avoids branches on the side of a position: half of them would
# be guessed wrong.
U_FALL: Final = 0  # what a fall takes from u, per unit of relative move, >= 0
U_RISE: Final = 1
V_FALL: Final = 2
V_RISE: Final = 3
U_WEIGHT: Final = 4
V_WEIGHT: Final = 5
FALL_CAP: Final = 6  # R; inf where that side has no edge
RISE_CAP: Final = 7
LOWEST: Final = 8  # jumps
HIGHEST: Final = 9
SCRATCH: Final = 10

THIRD_OF_ONE: Final = 3071306043645493248  # two thirds of the bits of 1.0, less what centres the error
NO_EDGE: Final = 1e300


@inlined
def cube_root(x: float) -> float:
    """Within 6% of the cube root of x >= 0, by dividing the exponent."""
    bits = np.float64(x).view(np.int64) // 3 + THIRD_OF_ONE
    root: float = np.int64(bits).view(np.float64)
    return root


@inlined
def headrooms(lines: Array, level: int, E: float, M: float, bound: float) -> tuple[float, float]:
    """(u, v) less their error bounds, times SHARE; NO_EDGE for one that does not matter at this level."""
    u = NO_EDGE
    if lines[0, level] != 0.0:
        u = SHARE * (lines[0, level] * E - lines[1, level] * M - (lines[0, level] + lines[1, level]) * bound)
    v = NO_EDGE
    if lines[2, level] != 0.0:
        v = SHARE * (lines[3, level] * M - lines[2, level] * E - (lines[2, level] + lines[3, level]) * bound)
    return u, v


@inlined
def top_rate(segments: Array, k: int, top: float) -> float:
    """Highest marginal rate of a schedule from row k up to size `top`, at most NEAR times where it is. One choice, not a search, but for curves."""
    s = segments[k]
    rate: float = s.rate if top <= s.upto else s.beyond
    if rate < 0.0 or s.curve != 0.0:
        rate = s.rate + 2.0 * s.curve * top
        while segments[k].upto < top:
            k += 1
            rate = max(rate, segments[k].rate + 2.0 * segments[k].curve * top)
    return rate


@kernel
def measure(
    pools: Array,
    legs: Array,
    assets: Array,
    segments: Array,
    y: Array,
    columns: Array,
    lines: Array,
    scratch: Array,
    p: int,
    E: float,
    M: float,
    bound: float,
) -> tuple[float, float, float]:
    """Slopes of a known pool at the present prices, into `scratch`. It has just been evaluated there: its legs know their schedule rows.

    Returns:
        (exits, cu, cv): expected exits per tick and row of the best band; budgets per unit of weight, inf for a functional that does not
        matter at this level. exits is inf where no band is possible: a functional lies within its error bound of 0.
    """
    pool = pools[p]
    Hu, Hv = headrooms(lines, pool.level, E, M, bound)
    pool.room = min(Hu, Hv)
    if not pool.room > 0.0:
        return np.inf, 0.0, 0.0
    if pool.assets == 0:
        rows, exits, Wu, Wv = look_linear(pools, legs, segments, y, columns, lines, scratch, p, min(Hu, Hv))
    else:
        rows, exits, Wu, Wv = look_assets(pools, legs, assets, segments, y, columns, lines, scratch, p, min(Hu, Hv), REACH)
        farthest = 0.0
        for row in range(rows):
            at = scratch[row]
            farthest = max(farthest, Hu * at[U_WEIGHT] / (Wu * at[U_FALL] + 1e-300) if Hu < NO_EDGE else 0.0)
            farthest = max(farthest, Hv * at[V_WEIGHT] / (Wv * at[V_FALL] + 1e-300) if Hv < NO_EDGE else 0.0)
        if 2.0 * farthest < REACH:
            # Slopes hold as far as they were looked for. The edges came out much nearer: a second look finds smaller slopes, and wider bands.
            rows, exits, Wu, Wv = look_assets(pools, legs, assets, segments, y, columns, lines, scratch, p, min(Hu, Hv), 2.0 * farthest)
    share = 1.0 - JUMPS  # what the jumps were allowed
    cu = np.inf
    cv = np.inf
    if Hu < NO_EDGE:
        exits += Wu * Wu * Wu / (Hu * Hu)
        cu = share * Hu / Wu
    if Hv < NO_EDGE:
        exits += Wv * Wv * Wv / (Hv * Hv)
        cv = share * Hv / Wv
    return exits / max(1, rows), cu, cv


@kernel
def look_linear(
    pools: Array, legs: Array, segments: Array, y: Array, columns: Array, lines: Array, scratch: Array, p: int, H: float
) -> tuple[int, float, float, float]:
    """`measure` for one asset at price 1. Returns (rows, 0, sum of the weights for u, for v)."""
    pool = pools[p]
    level = pool.level
    au = lines[0, level]
    bu = lines[1, level]
    av = lines[2, level]
    bv = lines[3, level]
    allowed = JUMPS * H / (max(1, pool.legs) * max(1.0, bu, bv))
    rows = 0
    Wu = 0.0
    Wv = 0.0
    i = pool.leg
    last = i + pool.legs
    while i < last:
        c = legs[i].column
        here = y[c]
        S = 0.0
        K = 0.0
        whole = 0.0
        lowest = -np.inf
        highest = np.inf
        while i < last and legs[i].column == c:
            slope = legs[i].slope
            size = abs(slope)
            k = legs[i].segment
            s = segments[k]
            S += slope
            K += size * top_rate(segments, k, size * here * NEAR)
            whole += size * s.highest
            if s.jumps > allowed:
                whole = np.inf
                if s.jump > 0.0:
                    lowest = max(lowest, s.above / size)
                if s.upto < np.inf and segments[k + 1].jump > 0.0:
                    highest = min(highest, s.upto / size)
            i += 1
        fall = max(au * S * here, 0.0)
        rise = max((bu * K - au * S) * here, 0.0)
        fall_open = ((S <= 0.0) & (whole < np.inf)) | (au == 0.0)
        rise_open = (au * S >= bu * whole) | (au == 0.0)
        variance = columns[c].variance
        g = max(fall, rise)
        w = cube_root(g * g * variance)
        Wu += w
        at = scratch[rows]
        at[U_FALL] = fall
        at[U_RISE] = rise
        at[U_WEIGHT] = w
        if av != 0.0:
            fall = max((bv * K - av * S) * here, 0.0)
            rise = max(av * S * here, 0.0)
            fall_open &= bv * whole <= av * S
            rise_open &= (S <= 0.0) & (whole < np.inf)
            g = max(fall, rise)
            w = cube_root(g * g * variance)
            Wv += w
            at[V_FALL] = fall
            at[V_RISE] = rise
            at[V_WEIGHT] = w
        at[FALL_CAP] = np.inf if fall_open else REACH
        at[RISE_CAP] = np.inf if rise_open else REACH
        at[LOWEST] = lowest
        at[HIGHEST] = highest
        rows += 1
    return rows, 0.0, Wu, Wv


@kernel
def look_assets(
    pools: Array,
    legs: Array,
    assets: Array,
    segments: Array,
    y: Array,
    columns: Array,
    lines: Array,
    scratch: Array,
    p: int,
    H: float,
    R: float,
) -> tuple[int, float, float, float]:
    """`measure` for several assets, for edges no farther than R. Returns (rows, exits by caps, sum of the weights for u, for v)."""
    pool = pools[p]
    level = pool.level
    au = lines[0, level]
    bu = lines[1, level]
    av = lines[2, level]
    bv = lines[3, level]
    allowed = JUMPS * H / ((pool.legs + pool.assets) * max(1.0, bu, bv))
    rows = 0
    exits = 0.0
    Wu = 0.0
    Wv = 0.0
    i = pool.leg
    for a in range(pool.asset, pool.asset + pool.assets):
        asset = assets[a]
        first = i
        i += asset.legs
        price = 1.0 if asset.column < 0 else y[asset.column]
        amount = asset.amount
        margin = asset.margin
        D = 0.0
        j = first
        while j < i:
            c = legs[j].column
            S = 0.0
            while j < i and legs[j].column == c:
                if legs[j].slope != 0.0:
                    x = legs[j].slope * y[c]
                    n = abs(x)
                    s = segments[legs[j].segment]
                    amount += x
                    margin += (s.rate + s.curve * n) * n + s.constant
                    S += legs[j].slope
                j += 1
            D += abs(S) * y[c]
        size = abs(amount)
        w_equity = 0.0
        w_requirement = 0.0
        cap = R
        if amount + D * R >= 0.0:
            w_equity = 1.0 if asset.weights < 0 else segments[asset.weights].highest
        if amount - D * R < 0.0:
            debt = 1.0 if asset.debts < 0 else segments[asset.debts].highest
            if asset.debt_is_requirement != 0:
                w_requirement = debt
            else:
                w_equity = max(w_equity, debt)
            if asset.borrow >= 0:
                w_requirement += segments[asset.borrow].highest
                s = segments[find_segment(segments, asset.borrow, size)]
                if s.jumps > allowed / max(price * (1.0 + R), 1e-300) and D > 0.0:
                    room = amount
                    if amount < 0.0:
                        room = min(s.upto - size, size - s.above if s.above > 0.0 else size)
                    cap = min(R, 0.999 * room / D)
        cu = au * w_equity + bu * w_requirement
        cv = av * w_equity + bv * w_requirement
        local = allowed / max(price * (1.0 + R) * asset.ask, 1e-300)
        j = first
        while j < i:
            c = legs[j].column
            variance = columns[c].variance
            lowest = -np.inf
            highest = np.inf
            if legs[j].slope == 0.0:
                gu = price * (cu * size + bu * asset.ask * margin)
                gv = price * (cv * size + bv * asset.ask * margin)
                j += 1
            else:
                here = y[c]
                S = 0.0
                K = 0.0
                while j < i and legs[j].column == c:
                    units = abs(legs[j].slope)
                    k = legs[j].segment
                    s = segments[k]
                    S += legs[j].slope
                    K += units * top_rate(segments, k, units * here * (1.0 + R))
                    if s.jumps > local:
                        if s.jump > 0.0:
                            lowest = max(lowest, s.above / units)
                        if s.upto < np.inf and segments[k + 1].jump > 0.0:
                            highest = min(highest, s.upto / units)
                    j += 1
                gu = price * (1.0 + R) * (cu * abs(S) + bu * asset.ask * K) * here
                gv = price * (1.0 + R) * (cv * abs(S) + bv * asset.ask * K) * here
            at = scratch[rows]
            at[U_FALL] = gu
            at[U_RISE] = gu
            at[V_FALL] = gv
            at[V_RISE] = gv
            w = cube_root(gu * gu * variance)
            at[U_WEIGHT] = w
            Wu += w
            w = cube_root(gv * gv * variance)
            at[V_WEIGHT] = w
            Wv += w
            at[FALL_CAP] = cap
            at[RISE_CAP] = cap
            at[LOWEST] = lowest
            at[HIGHEST] = highest
            if cap < R:
                exits += variance / max(cap * cap, 1e-300)
            rows += 1
    return rows, exits, Wu, Wv


@kernel
def lay(
    pools: Array,
    legs: Array,
    y: Array,
    columns: Array,
    bands: Array,
    blocks: Array,
    scratch: Array,
    p: int,
    exits: float,
    cu: float,
    cv: float,
) -> None:
    """Writes the bands that `measure` found. A pool without a band (exits inf) gets the one that every tick leaves."""
    pool = pools[p]
    row = 0
    for i in range(pool.leg, pool.leg + pool.legs):
        leg = legs[i]
        if leg.row < 0:
            continue
        if exits == np.inf:
            write_band(columns, bands, blocks, leg.column, leg.row, 0.0, 0.0, 0.0)
            continue
        here = y[leg.column]
        at = scratch[row]
        fall = at[FALL_CAP]
        rise = at[RISE_CAP]
        if cu != np.inf:  # a quotient by 0 is inf: no edge from there
            b = cu * at[U_WEIGHT]
            fall = min(fall, b / at[U_FALL])
            rise = min(rise, b / at[U_RISE])
        if cv != np.inf:
            b = cv * at[V_WEIGHT]
            fall = min(fall, b / at[V_FALL])
            rise = min(rise, b / at[V_RISE])
        lo = max(here * (1.0 - fall), at[LOWEST])
        hi = min(here * (1.0 + rise), at[HIGHEST])
        write_band(columns, bands, blocks, leg.column, leg.row, here, lo, hi)
        row += 1
