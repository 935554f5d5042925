"""The worst-corner attack on bands: drive every price of a pool to the edges of its band, in every combination, and see whether its level moves.

Random prices are blunt: they hardly ever stand in a corner. Run as a script it attacks for as many rounds as asked and prints one JSON line.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

import numpy as np

from monitor.engine.evaluator import Evaluator
from monitor.margin.levels import Level
from monitor.margin.prices import PriceKind
from tests.support.exact_pools import evaluate_source, random_pool, random_tiers

__all__ = ["INDICES", "KINDS", "MARKS", "attack", "attacked_engine"]

KINDS = ("linear", "inverse", "quanto", "hedge", "fee", "isolated", "multi")
MARKS: Mapping[str, Fraction] = {
    "BTCUSDT": Fraction(30000),
    "ETHUSDT": Fraction(2000),
    "SOLUSDT": Fraction(50),
    "XRPUSDT": Fraction(1, 2),
    "BTCUSD:I": Fraction(30000),
    "ETHUSD:I": Fraction(2000),
}
INDICES: Mapping[str, Fraction] = {"USDT": Fraction(1), "BTC": Fraction(30000), "ETH": Fraction(2000), "BNB": Fraction(300)}

Fault = Callable[[Evaluator], None]
THRESHOLDS = (0.6, 0.65, 0.75, 0.8, 0.95, 1.0)


def attacked_engine() -> Evaluator:
    """An engine of bands alone, with all prices."""
    engine = Evaluator(exact=evaluate_source, hot_moves=0.0, hot_moves_fresh=0.0)
    for kind, prices in ((PriceKind.MARK, MARKS), (PriceKind.INDEX, INDICES)):
        columns = np.array([engine.column("v", kind, name) for name in prices], np.int32)
        engine.apply(columns, np.array([float(price) for price in prices.values()]))
    return engine


def attack(
    rng: random.Random, pools: int, fault: Fault | None = None, kinds: tuple[str, ...] = KINDS, *, enough: int | None = None
) -> list[str]:
    """Attacks that many pools, or until `enough` were broken. `fault` is applied to the engine after a pool was put; its bands are laid after that.

    Returns:
        A line for every pool whose level changed at a corner inside its bands.
    """
    broken = []
    engine = attacked_engine()
    for number in range(pools):
        tiers = {name: random_tiers(rng, whole=rng.random() < 0.3) for name in MARKS}
        kind = rng.choice(kinds)
        distance = rng.choice([-1, 1]) * 10 ** rng.uniform(-9, -0.5)
        pool = random_pool(rng, "a", MARKS, INDICES, tiers, kind=kind, ratio=rng.choice(THRESHOLDS) * (1 + distance))
        engine.put_terms("a", [pool.terms()], {"cross": Level(rng.randint(0, 4))})
        level, _ = engine.verdict("a", "cross")
        if fault is not None:
            fault(engine)
            engine._rest(engine._book.pool("a", "cross"))
        for corner in corners(engine, rng):
            marks = {name: price for (kind_, name), price in corner.items() if kind_ is PriceKind.MARK}
            indices = {name: price for (kind_, name), price in corner.items() if kind_ is PriceKind.INDEX}
            after = pool.level(level, marks, indices)
            if after != level:
                broken.append(f"{number} {kind}: {level.word} becomes {after} at { ({k: float(v) for k, v in corner.items()}) }")
                break
        engine.remove("a")
        if enough is not None and len(broken) >= enough:
            break
    return broken


def corners(engine: Evaluator, rng: random.Random) -> Iterator[dict[tuple[PriceKind, str], Fraction]]:
    """Prices at edges, just inside. A side without an edge is tried far out and half-way. At most 96 of all combinations."""
    book = engine._book
    pool = book.pool("a", "cross")
    record = book.pools[pool]
    choices: list[list[tuple[tuple[PriceKind, str], Fraction]]] = []
    for leg in book.legs.data[record["leg"] : record["leg"] + record["legs"]]:
        if leg["row"] < 0:
            continue
        column = int(leg["column"])
        _, kind, name = book.inputs[column]
        row = int(book.columns[column]["cold"]) + int(leg["row"])
        lo, hi = float(book.cold.bands[row, 0]), -float(book.cold.bands[row, 1])
        here = float(book.y[column])
        if not lo < here < hi:
            return  # no band: every tick looks at it
        edges = [lo * (1 + 1e-9)] if lo > 0 else [here * 1e-3, here * 0.4]
        edges += [hi * (1 - 1e-9)] if hi < float("inf") else [here * 2.5, here * 1e3]
        inverse = book.columns[column]["inverse"] == 1
        choices.append([((kind, name), Fraction(repr(1 / edge if inverse else edge))) for edge in edges])
    total = 1
    for choice in choices:
        total *= len(choice)
    if total <= 96:
        yield from (dict(corner) for corner in itertools.product(*choices))
        return
    sides = [(choice[0], choice[-1]) for choice in choices]
    for _ in range(96):
        yield dict(rng.choice(side) for side in sides)


if __name__ == "__main__":
    found = attack(random.Random(int(sys.argv[2])), int(sys.argv[1]), enough=3)
    print(json.dumps({"pools": int(sys.argv[1]), "broken": len(found), "first": found[:3]}))
    sys.exit(1 if found else 0)
