"""The engine against fractions: every change of level, on every tick, and no other."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from monitor.engine.evaluator import Crossing, Evaluator
from monitor.margin.prices import PriceKind
from tests.support.exact_pools import ExactAsset, ExactLeg, ExactPool, Tape, evaluate_source, random_pool, random_tiers

MODES: dict[str, dict[str, Any]] = {
    "hot and cold": {},
    "everything hot": {"hot_moves": float("inf"), "hot_moves_fresh": float("inf")},
    "bands alone": {"hot_moves": 0.0, "hot_moves_fresh": 0.0},
}
KINDS = ("linear", "inverse", "quanto", "hedge", "fee", "isolated", "multi")
MARKS = {f"{name}USDT": Fraction(price) for name, price in (("BTC", 30000), ("ETH", 2000), ("SOL", 50), ("XRP", "0.5"), ("LTC", 90))} | {
    "BTCUSD:I": Fraction(30000),
    "ETHUSD:I": Fraction(2000),
}
INDICES = {"USDT": Fraction(1), "BTC": Fraction(30000), "ETH": Fraction(2000), "BNB": Fraction(300)}


def plain(crossings: list[Crossing]) -> list[tuple[int, str, str, int, int]]:
    """Crossings in the form of the fractions' side."""
    return [
        (c.tick, c.account, c.pool, -1 if c.before is None else int(c.before), -1 if c.after is None else int(c.after)) for c in crossings
    ]


class Pair:
    """The engine and the fractions, fed the same things; every answer compared."""

    def __init__(self, **options: Any) -> None:
        self.engine = Evaluator(exact=evaluate_source, **options)
        self.tape = Tape()
        self.events = 0

    def put(self, pool: ExactPool) -> None:
        """Inserts or replaces an account of one pool."""
        found = plain(self.engine.put_terms(pool.account, [pool.terms()]))
        assert found == self.tape.put(pool)
        self.events += len(found)

    def remove(self, account: str) -> None:
        """Removes an account."""
        self.engine.remove(account)
        for key in [key for key in self.tape.pools if key[0] == account]:
            self.tape.remove(key)

    def message(self, kind: PriceKind, prices: list[tuple[str, float]]) -> None:
        """Prices as floats; the fractions take the shortest decimal of each, as the exact core does."""
        columns = np.array([self.engine.column("v", kind, name) for name, _ in prices], np.int32)
        expected = []
        for number, (name, price) in enumerate(prices):
            expected += self.tape.tick(number, kind, name, Fraction(repr(price)))
        assert plain(self.engine.apply(columns, np.array([price for _, price in prices]))) == expected
        self.events += len(expected)

    def slices(self, budget: int) -> None:
        """A slice of the background pass changes no verdict."""
        assert self.engine.pass_slice(budget) == []
        assert self.engine.statistics().band_misses == 0


def book(rng: random.Random, count: int, kinds: tuple[str, ...] = KINDS) -> list[ExactPool]:
    """Pools with margin ratios from far to beyond the thresholds."""
    tiers = {name: random_tiers(rng, whole=name == "LTCUSDT") for name in MARKS}
    ratios = [0.1, 0.5, 0.63, 0.66, 0.79, 0.9, 0.99, 1.2]
    return [random_pool(rng, f"a{n:04d}", MARKS, INDICES, tiers, kind=rng.choice(kinds), ratio=rng.choice(ratios)) for n in range(count)]


def walk(rng: random.Random, prices: dict[str, float], step: float) -> list[tuple[str, float]]:
    """A message: some names in random order, each moved a little."""
    names = rng.sample(sorted(prices), rng.randint(1, len(prices)))
    for name in names:
        prices[name] = float(f"{prices[name] * (1 + rng.gauss(0, step)):.7g}")
    return [(name, prices[name]) for name in names]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [0.0005, 0.02])
@pytest.mark.parametrize("mode", MODES)
def test_same_changes_as_fractions(kind: str, step: float, mode: str) -> None:
    """Random books of one kind, random walks, the background pass in between: the engine's changes are those of the fractions, tick by tick."""
    rng = random.Random(f"{kind} {step} {mode}")
    pair = Pair(**MODES[mode])
    marks = {name: float(mark) for name, mark in MARKS.items()}
    indices = {name: float(price) for name, price in INDICES.items()}
    pair.message(PriceKind.MARK, list(marks.items()))
    pair.message(PriceKind.INDEX, list(indices.items()))
    for pool in book(rng, 30, (kind,)):
        pair.put(pool)
    for _ in range(25):
        pair.message(PriceKind.MARK, walk(rng, marks, step))
        if kind == "multi":
            pair.message(PriceKind.INDEX, walk(rng, indices, step))
        pair.slices(rng.choice([1, 7, 40]))

    assert pair.events > 5
    assert pair.engine.statistics().crossings == pair.events


@pytest.mark.parametrize("mode", MODES)
def test_accounts_come_and_go(mode: str) -> None:
    """Pools are put, replaced and removed between messages, before and after the first prices; unknown pools become known by themselves."""
    rng = random.Random(f"come and go {mode}")
    pair = Pair(pools=4, legs=4, columns=2, **MODES[mode])
    marks = {name: float(mark) for name, mark in MARKS.items()}
    indices = {name: float(price) for name, price in INDICES.items()}
    waiting = book(rng, 150)
    for pool in waiting[:20]:
        pair.put(pool)
    assert pair.engine.counts()[None] == 20
    pair.message(PriceKind.MARK, list(marks.items())[:4])
    pair.slices(5)
    pair.message(PriceKind.MARK, list(marks.items()))
    pair.message(PriceKind.INDEX, list(indices.items()))
    assert pair.engine.counts()[None] == 0
    for number in range(100):
        for _ in range(3):
            pool = rng.choice(waiting)
            if rng.random() < 0.3:
                pair.remove(pool.account)
            else:
                other = rng.choice(waiting)
                pair.put(ExactPool(pool.account, "cross", other.assets, other.multi))
        pair.message(PriceKind.MARK, walk(rng, marks, 0.004))
        if number % 3 == 0:
            pair.message(PriceKind.INDEX, walk(rng, indices, 0.004))
        pair.slices(rng.choice([1, 10, 30]))

    assert pair.events > 200
    assert sum(pair.engine.counts().values()) == len(pair.tape.pools)
    for account in [key[0] for key in pair.tape.pools]:
        pair.remove(account)
    assert pair.engine.statistics().pools == pair.engine.statistics().legs == pair.engine.statistics().hot_pools == 0


def test_a_gap() -> None:
    """All prices jump far in one message, from calm: no change is lost and none is added, and the pools that left are run one by one."""
    rng = random.Random("gap")
    pair = Pair()
    marks = {name: float(mark) for name, mark in MARKS.items()}
    pair.message(PriceKind.MARK, list(marks.items()))
    pair.message(PriceKind.INDEX, [(name, float(price)) for name, price in INDICES.items()])
    for pool in book(rng, 150):
        pair.put(pool)
    for size in (-0.02, 0.1, -0.4, 0.5, 1.5, -0.01):
        for _ in range(5):
            pair.message(PriceKind.MARK, walk(rng, marks, 1e-5))
        for name in marks:
            marks[name] = float(f"{marks[name] * (1 + size * rng.uniform(0.8, 1.2)):.7g}")
        pair.message(PriceKind.MARK, rng.sample(list(marks.items()), len(marks)))
        pair.slices(60)

    statistics = pair.engine.statistics()
    assert pair.events > 400
    assert statistics.cold_exits > 100
    assert statistics.stepped < statistics.cold_exits


def test_ties_on_a_grid() -> None:
    """Prices on a grid of 0.1 and wallets that put headroom at exactly 0 on it: floats cannot tell, the answer is exact all the same."""
    rng = random.Random(11)
    tiers = ((Fraction(0), Fraction(1, 100), Fraction(0)), (Fraction(3000), Fraction(1, 50), Fraction(30)))
    pair = Pair()
    pair.message(PriceKind.MARK, [("A", 100.0), ("B", 10.0)])
    for number in range(60):
        quantities = [Fraction(rng.choice([-3, -1, 1, 7, 33]), rng.choice([1, 10, 3 * 10])) for _ in "AB"]
        quantities = [Fraction(round(q * 1000), 1000) for q in quantities]
        legs = tuple(ExactLeg(name, q, Fraction(price), tiers) for name, q, price in zip("AB", quantities, (100, 10), strict=True))
        at = {"A": Fraction(1000 + rng.randint(-9, 9), 10), "B": Fraction(100 + rng.randint(-3, 3), 10)}
        bare = ExactPool("", "", (ExactAsset("USDT", Fraction(0), legs),))
        result = bare.evaluate(at, {})
        assert result is not None
        threshold = rng.choice([Fraction(80, 100), Fraction(1), Fraction(95, 100), Fraction(0)])
        wallet = (result[1] / threshold if threshold else Fraction(0)) - result[0]
        pair.put(ExactPool(f"a{number:02d}", "cross", (ExactAsset("USDT", wallet, legs),)))
    for _ in range(400):
        prices = [("A", round(100 + rng.randint(-9, 9) / 10, 1)), ("B", round(10 + rng.randint(-3, 3) / 10, 1))]
        rng.shuffle(prices)
        pair.message(PriceKind.MARK, prices)

    statistics = pair.engine.statistics()
    assert statistics.exact_evaluations > 150
    assert pair.events > 500


def test_a_price_that_is_none_makes_unknown() -> None:
    """NaN, 0 and a negative mark are missing prices: the pool is unknown with the name of the price, and known again with the next one."""
    pair = Pair()
    rng = random.Random(3)
    pool = random_pool(rng, "a", MARKS, INDICES, {name: random_tiers(rng) for name in MARKS}, kind="isolated", ratio=0.9)
    (name,) = pool.instruments
    column = np.array([pair.engine.column("v", PriceKind.MARK, name)], np.int32)
    pair.put(pool)
    pair.message(PriceKind.MARK, [(name, float(MARKS[name]))])
    for bad in (float("nan"), 0.0, -1.0, float("inf")):
        (gone,) = pair.engine.apply(column, np.array([bad]))
        (back,) = pair.engine.apply(column, np.array([float(MARKS[name])]))

        assert (gone.after, gone.reason) == (None, f"no mark of {name}")
        assert (back.before, back.after) == (None, gone.before)


def test_prices_at_a_tick() -> None:
    """Prices inside the last message can be had as they stood after each tick of it, as the decimals that came."""
    pair = Pair()
    tiers = ((Fraction(0), Fraction(1, 100), Fraction(0)),)
    legs = (ExactLeg("A", Fraction(1), Fraction(1), tiers), ExactLeg("B", Fraction(1), Fraction(1), tiers))
    pair.put(ExactPool("a", "cross", (ExactAsset("USDT", Fraction(1), legs),)))
    pair.message(PriceKind.MARK, [("A", 0.1)])
    pair.message(PriceKind.MARK, [("B", 0.7), ("A", 0.3)])

    seen = [{name: str(price) for name, price in pair.engine.prices_at("a", "cross", tick).mark.items()} for tick in (-1, 0, 1)]
    assert seen == [{"A": "0.1"}, {"A": "0.1", "B": "0.7"}, {"A": "0.3", "B": "0.7"}]


def test_a_column_twice_is_refused() -> None:
    """A message with one input twice is refused, and the next one is run as if it had not come."""
    pair = Pair()
    column = pair.engine.column("v", PriceKind.MARK, "A")
    with pytest.raises(ValueError, match="twice"):
        pair.engine.apply(np.array([column, column], np.int32), np.array([1.0, 2.0]))
    pair.message(PriceKind.MARK, [("A", 3.0)])

    assert pair.engine.columns_of("v", PriceKind.MARK, ["A", "B"]).tolist() == [column, -1]
