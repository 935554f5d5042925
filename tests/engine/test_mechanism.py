"""Parts of the engine that a comparison of events does not show: unknown pools, exact ones, sums that went stale, growth, views."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.engine import bands, kernels, loop
from monitor.engine.book import LinearPools
from monitor.engine.compiled import SOURCES
from monitor.engine.evaluator import Crossing, Evaluator
from monitor.engine.terms import Leg, PoolTerms, Schedule
from monitor.margin.levels import Level, Threshold, Thresholds
from monitor.margin.prices import PriceKind, Prices
from tests.support.band_attack import KINDS, attack
from tests.support.exact_pools import ExactPool, evaluate_source, random_pool, random_tiers

FLAT: Schedule = ((-1.0, 0.01, 0.0, 0.0, 0.0),)
ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"S{number}" for number in range(12)]


def no_core(_account: str, _pool: str, _source: object, _prices: Prices) -> str:
    """An exact core that is not expected to be asked."""
    return "not expected"


def pool_of(name: str, constant: float, *slopes: tuple[str, float], schedule: Schedule = FLAT) -> PoolTerms:
    """A single-asset pool."""
    legs = tuple(Leg(kind=PriceKind.MARK, name=instrument, slope=slope, schedule=schedule) for instrument, slope in slopes)
    return PoolTerms(name=name, venue="v", constant=constant, legs=legs)


def tick(engine: Evaluator, **prices: float) -> list[Crossing]:
    """One message of marks."""
    columns = np.array([engine.column("v", PriceKind.MARK, name) for name in prices], np.int32)
    return engine.apply(columns, np.array(list(prices.values())))


def random_engine(seed: str, count: int, **options: Any) -> tuple[Evaluator, list[PoolTerms], dict[str, float]]:
    """An engine with many small pools near all thresholds, at marks of about 100."""
    rng = random.Random(seed)
    engine = Evaluator(exact=no_core, **options)
    marks = dict.fromkeys(NAMES, 100.0)
    tick(engine, **marks)
    pools = []
    for _ in range(count):
        legs = [(name, rng.uniform(-10, 10)) for name in rng.sample(NAMES, rng.randint(1, 6))]
        size = sum(abs(slope) * 100.0 for _, slope in legs)
        wanted = 0.01 * size / rng.choice([0.1, 0.3, 0.6, 0.64, 0.66, 0.79, 0.9, 1.1])
        pools.append(pool_of("p", wanted - sum(slope * 100.0 for _, slope in legs), *legs))
    return engine, pools, marks


def test_withdrawn_prices_make_unknown_without_a_loop_over_holders() -> None:
    """A stale price is withdrawn: the pass finds the pools it matters to, and the next price brings them back at once."""
    engine = Evaluator(exact=no_core)
    tick(engine, A=100.0, B=100.0)
    engine.put_terms("a", [pool_of("p", 10.0, ("A", 1.0))])
    engine.put_terms("b", [pool_of("p", 10.0, ("B", 1.0))])
    engine.withdraw(np.array([engine.column("v", PriceKind.MARK, "A")]))

    assert engine.verdict("a", "p") == (Level.HEALTHY, None)
    assert engine.pass_slice() == [Crossing(-1, "a", "p", Level.HEALTHY, None, "no mark of A")]
    assert engine.verdict("a", "p") == (Level.HEALTHY, "no mark of A")
    assert engine.unknown(10) == [("a", "p", "no mark of A")]
    assert tick(engine, B=101.0) == []
    assert tick(engine, B=100.0, A=1.0) == [Crossing(1, "a", "p", None, Level.HEALTHY)]
    assert engine.statistics().band_misses == 0


def test_a_known_pool_that_meets_a_withdrawn_price_is_unknown() -> None:
    """A pool that leaves its band while another of its prices is withdrawn is not decided on the old one."""
    engine = Evaluator(exact=no_core, hot_moves=0.0)
    tick(engine, A=100.0, B=100.0)
    engine.put_terms("a", [pool_of("p", -90.0, ("A", 1.0), ("B", 0.1))])
    engine.withdraw(np.array([engine.column("v", PriceKind.MARK, "B")]))

    assert tick(engine, A=20.0) == [Crossing(0, "a", "p", Level.HEALTHY, None, "no mark of B")]
    assert tick(engine, B=100.0) == [Crossing(0, "a", "p", None, Level.BANKRUPT)]


def test_pass_finds_and_reports_a_wrong_level() -> None:
    """A level that is not what it should be is counted as a missed band, put right, and reported."""
    engine, pools, _ = random_engine("miss", 50)
    for number, terms in enumerate(pools):
        engine.put_terms(f"a{number}", [terms])
    right = {number: engine.verdict(f"a{number}", "p")[0] for number in range(50)}
    engine._book.pools["level"][7] = (right[7] + 1) % 4

    found = [crossing for _ in range(10) for crossing in engine.pass_slice(5)]
    assert [(crossing.account, crossing.after) for crossing in found] == [("a7", right[7])]
    assert engine.statistics().band_misses == 1
    assert engine.statistics().passes == 1


def stale_sums(engine: Evaluator) -> None:
    """Sums of hot pools are off by a thousandth."""
    engine._book.slots["equity"] *= 1.001


def promotion_skipped(engine: Evaluator) -> None:
    """A pool that should have been made hot has open bands instead."""
    engine._book.slots["tolerance"] = -np.inf


def edge_never_found(engine: Evaluator) -> None:
    """Summaries that are looser than the bands below them."""
    engine._book.columns["lo"] = engine._book.columns["minus_hi"] = -np.inf


@pytest.mark.parametrize("fault", [None, stale_sums, promotion_skipped, edge_never_found])
def test_planted_faults_change_events(fault: Callable[[Evaluator], None] | None) -> None:
    """Two engines, one exhaustive, agree on every event of a walk; with a fault planted in the other one they do not."""
    rng = random.Random("planted")
    engine, pools, marks = random_engine("planted", 150, hot_moves=2.0)
    every, _, _ = random_engine("planted", 0, hot_moves=float("inf"))
    for number, terms in enumerate(pools):
        engine.put_terms(f"a{number}", [terms])
        every.put_terms(f"a{number}", [terms])
    same = True
    for _ in range(60):
        if fault is not None:
            fault(engine)
        for name in rng.sample(NAMES, 8):
            marks[name] *= 1 + rng.gauss(0, 0.004)
        same = same and tick(engine, **marks) == tick(every, **marks)

    assert every.statistics().crossings > 30
    assert same == (fault is None)


def test_exact_only_pools_are_decided_by_the_core_at_every_tick() -> None:
    """A pool without an additive form is put to the exact core at each tick of its inputs, with the prices of that tick, and counted."""
    asked: list[dict[str, str]] = []

    def core(account: str, pool: str, source: object, prices: Prices) -> tuple[Decimal, Decimal] | str:
        assert (account, pool, source) == ("a", "p", "the pool")
        asked.append({name: str(price) for name, price in (*prices.mark.items(), *prices.funding_rate.items())})
        if len(prices.mark) < 2:
            return "mark price of B is missing"
        return prices.mark["A"], prices.mark["B"]

    engine = Evaluator(exact=core)
    legs = tuple(
        Leg(kind=kind, name=name, slope=0.0) for kind, name in ((PriceKind.MARK, "A"), (PriceKind.MARK, "B"), (PriceKind.FUNDING_RATE, "F"))
    )
    engine.put_terms("a", [PoolTerms(name="p", venue="v", legs=legs, exact_only="options", source="the pool")])
    assert engine.verdict("a", "p") == (Level.HEALTHY, "mark price of B is missing")
    assert tick(engine, A=10.0, B=1.0) == [Crossing(1, "a", "p", None, Level.HEALTHY)]
    assert tick(engine, C=1.0) == []
    assert tick(engine, B=9.0, A=9.0) == [
        Crossing(0, "a", "p", Level.HEALTHY, Level.MARGIN_CALL),
        Crossing(1, "a", "p", Level.MARGIN_CALL, Level.LIQUIDATION),
    ]
    engine.apply(np.array([engine.column("v", PriceKind.FUNDING_RATE, "F")], np.int32), np.array([-0.01]))

    assert asked[-3:] == [{"A": "10.0", "B": "9.0"}, {"A": "9.0", "B": "9.0"}, {"A": "9.0", "B": "9.0", "F": "-0.01"}]
    assert engine.statistics().exact_pools == 1
    assert engine.worst(3)[0].ratio == 1.0


def test_a_tie_is_remembered_until_a_price_changes() -> None:
    """A pool that sits on a threshold asks the exact core once, however often the background pass comes by."""
    thresholds = Thresholds(liquidation=Threshold(Decimal(1), Decimal(1)))
    engine = Evaluator(thresholds, exact=lambda _a, _p, _s, prices: (prices.mark["A"] - 99, Decimal("0.01") * prices.mark["A"]))
    tick(engine, A=100.0)
    (crossing,) = engine.put_terms("a", [pool_of("p", -99.0, ("A", 1.0))])
    assert crossing.after is Level.LIQUIDATION
    for _ in range(10):
        assert engine.pass_slice() == []

    assert engine.statistics().exact_evaluations == 1
    assert engine.statistics().ties_remembered >= 10


def test_linear_here_and_inverse_elsewhere_is_left_to_the_core() -> None:
    """Two accounts that hold a price the other way round cannot share a column: the second one is decided exactly."""
    engine = Evaluator(exact=lambda _a, _p, _s, _prices: (Decimal(1), Decimal(0)))
    tick(engine, A=100.0)
    engine.put_terms("a", [pool_of("p", 10.0, ("A", 1.0))])
    inverse = Leg(kind=PriceKind.MARK, name="A", slope=-1.0, inverse=True, schedule=FLAT)
    engine.put_terms("b", [PoolTerms(name="p", venue="v", constant=10.0, legs=(inverse,))])

    assert engine.statistics().exact_pools == 1
    assert engine.verdict("b", "p") == (Level.HEALTHY, None)


def test_idle_pools_are_healthy_without_prices() -> None:
    """No positions and no debts: healthy, whatever prices are missing; a pool that is gone from its account counts as healthy too."""
    engine = Evaluator(exact=no_core)
    tick(engine, A=1.0)
    assert engine.put_terms("a", [PoolTerms(name="p", venue="v", idle=True)], {"p": Level.WATCH}) == [
        Crossing(-1, "a", "p", Level.WATCH, Level.HEALTHY)
    ]
    (sunk,) = engine.put_terms("a", [pool_of("p", -50.0, ("A", 1.0))])
    assert sunk.after is Level.BANKRUPT
    assert engine.put_terms("a", [PoolTerms(name="q", venue="v", idle=True)]) == [Crossing(-1, "a", "p", Level.BANKRUPT, Level.HEALTHY)]
    assert engine.counts()[Level.HEALTHY] == 1


def test_levels_come_with_an_account() -> None:
    """Hysteresis starts from the committed level: between leave and enter a pool stays where it was."""
    engine = Evaluator(exact=no_core)
    tick(engine, A=100.0)
    between = pool_of("p", 1 / 0.62 - 100.0, ("A", 1.0))

    assert engine.put_terms("a", [between]) == []
    assert engine.put_terms("a", [between], {"p": Level.WATCH}) == []
    assert engine.verdict("a", "p") == (Level.WATCH, None)
    assert engine.put_terms("a", [between]) == []
    assert engine.verdict("a", "p") == (Level.WATCH, None)


def test_bulk_load_is_many_puts() -> None:
    """Loading arrays gives the book that putting the same accounts one by one gives."""
    one_by_one, pools, marks = random_engine("bulk", 120)
    at_once, _, _ = random_engine("bulk", 0, pools=1)
    legs = [sorted(terms.legs, key=lambda leg: leg.name) for terms in pools]
    numbers = {name: at_once.column("v", PriceKind.MARK, name) for name in NAMES}
    for number, terms in enumerate(pools):
        one_by_one.put_terms(f"a{number}", [terms])
    at_once.load(
        LinearPools(
            name="p",
            accounts=[f"a{number}" for number in range(120)],
            constants=np.array([terms.constant for terms in pools]),
            legs=np.array([len(rows) for rows in legs], np.int32),
            slopes=np.array([leg.slope for rows in legs for leg in rows]),
            columns=np.array([numbers[leg.name] for rows in legs for leg in rows], np.int32),
            schedule=np.zeros(sum(len(rows) for rows in legs), np.int64),
            schedules=[FLAT],
        )
    )
    marks = {name: mark * 1.01 for name, mark in marks.items()}
    tick(one_by_one, **marks)
    at_once.withdraw(np.arange(len(NAMES)))
    tick(at_once, **marks)

    for number in range(120):
        assert at_once.verdict(f"a{number}", "p")[1] is None
        assert at_once.views(f"a{number}")[0].equity == pytest.approx(one_by_one.views(f"a{number}")[0].equity)


def test_schedules_are_shared_and_forgotten() -> None:
    """Equal tables of different accounts are stored once, and forgotten with their last user."""
    engine = Evaluator(exact=no_core)
    tables: list[Schedule] = [((-1.0, 0.01 * rate, 0.0, 0.0, 0.0), (100.0, 0.02 * rate, -1.0 * rate, 0.0, 0.0)) for rate in (1, 2, 3)]
    for number in range(30):
        engine.put_terms(f"a{number}", [pool_of("p", 1.0, ("A", 1.0), ("B", 2.0), schedule=tables[number % 3])])
    assert len(engine._book.schedules._of) == 1 + 3
    size = len(engine._book.schedules.data)
    for _ in range(20):
        for number in range(30):
            engine.put_terms(f"a{number}", [pool_of("p", 1.0, ("A", 1.0), ("B", 2.0), schedule=tables[number % 3])])
    for number in range(30):
        engine.remove(f"a{number}")

    assert len(engine._book.schedules._of) == 1
    assert len(engine._book.schedules.data) == size


def test_sums_are_refreshed_before_they_could_drift() -> None:
    """After as many ticks as the error bound allows, all sums are made anew, with or without a background pass."""
    engine, pools, marks = random_engine("drift", 40, hot_moves=float("inf"))
    for number, terms in enumerate(pools):
        engine.put_terms(f"a{number}", [terms])
    engine._book.slots["equity"] += 1e-9
    engine._since_refresh = kernels.UPDATES
    tick(engine, **marks)
    fresh = {number: engine._book.slots["equity"][engine._book.pools["slot"][number]] for number in range(40)}

    for number, terms in enumerate(pools):
        assert fresh[number] == pytest.approx(terms.constant + sum(leg.slope * 100.0 for leg in terms.legs), abs=1e-10)


def test_views_agree_with_the_verdicts() -> None:
    """Counts, histogram and the worst pools are what the single pools say."""
    engine, pools, _ = random_engine("views", 80)
    for number, terms in enumerate(pools):
        engine.put_terms(f"a{number}", [terms])
    engine.put_terms("u", [pool_of("p", 1.0, ("nobody quotes this", 1.0))])
    views = [engine.views(f"a{number}")[0] for number in range(80)]
    ratios = sorted((view.ratio for view in views if view.ratio is not None), reverse=True)

    assert engine.counts() == {level: sum(view.level is level for view in views) for level in Level} | {None: 1}
    assert engine.histogram([0.5, 0.65])[0] == sum(ratio <= 0.5 for ratio in ratios)
    assert sum(engine.histogram([0.5, 0.65])) == 80
    assert [view.ratio for view in engine.worst(5)] == ratios[:5]
    assert engine.views("u")[0] == ("u", "p", None, None, None)
    assert engine.views("nobody") == []


def test_pass_gathers_what_the_views_say() -> None:
    """The figures that a background pass gathers are those worked out at once."""
    engine, pools, _ = random_engine("gather", 80, ratio_edges=(0.5, 0.65), worst=5)
    for number, terms in enumerate(pools):
        engine.put_terms(f"a{number}", [terms])
    for _ in range(8):
        engine.pass_slice(10)
    gathered = engine.gathered()

    assert gathered.histogram == engine.histogram([0.5, 0.65])
    assert gathered.counts == engine.counts()
    assert [(view.account, view.ratio) for view in gathered.worst] == [(view.account, view.ratio) for view in engine.worst(5)]


def test_growth_keeps_everything() -> None:
    """A book made far too small grows in every direction, also while hot rows have no room, and its verdicts stay right."""
    rng = random.Random("growth")
    engine = Evaluator(exact=evaluate_source, pools=1, legs=1, columns=1)
    marks = {f"G{number}": Fraction(100 + number) for number in range(40)}
    tiers = {name: random_tiers(rng) for name in marks}
    tick(engine, **{name: float(mark) for name, mark in marks.items()})
    pools: dict[str, ExactPool] = {}
    for number in range(300):
        pool = random_pool(rng, f"a{number}", marks, {}, tiers, kind="hedge", ratio=rng.choice([0.3, 0.64, 0.7, 1.05]))
        pools[pool.account] = pool
        engine.put_terms(pool.account, [pool.terms()])
    for name in marks:
        marks[name] *= Fraction(1001, 1000)
        tick(engine, **{name: float(marks[name])})

    assert engine.statistics().hot_pools > 50
    for account, pool in pools.items():
        level, unknown = engine.verdict(account, "cross")
        assert unknown is None
        assert level == pool.level(level, {name: Fraction(repr(float(mark))) for name, mark in marks.items()}, {})


def test_kernels_on_disk_belong_to_these_sources() -> None:
    """The stamp of every compiled kernel covers all sources of the package, so that no other file's change is missed."""
    stamp = kernels.evaluate._cache._cache_file._source_stamp  # type: ignore[attr-defined]

    assert stamp[1] == SOURCES


def compiled() -> dict[str, set[str]]:
    """The signatures that each kernel has been compiled for in this process."""
    found = [getattr(module, name) for module in (bands, kernels, loop) for name in dir(module)]
    return {f"{f.__module__}.{f.__name__}": {str(s) for s in f.signatures} for f in found if hasattr(f, "signatures")}


def busy_life() -> None:
    """What a daemon makes the engine do: accounts come, go, are replaced and loaded in bulk; ties, withdrawn prices, gaps, passes."""
    for kind in KINDS:
        attack(random.Random(f"busy {kind}"), 6, kinds=(kind,))
    for hot_moves in (0.0, 2.0, float("inf")):
        engine, pools, marks = random_engine("busy", 40, hot_moves=hot_moves, keep_sources=False)
        for number, pool in enumerate(pools):
            engine.put_terms(f"a{number}", [pool])
        for factor in (1.0001, 1.001, 1.1, 0.5, float("nan"), 2.0):
            tick(engine, **{name: mark * factor for name, mark in marks.items()})
            engine.pass_slice(7)
        engine.withdraw(np.array([0, 1], np.int32))
        while engine.statistics().passes < 3:
            engine.pass_slice()
        engine.gathered()
        engine.put_terms("a1", [])
        engine.remove("a2")


def test_nothing_is_compiled_after_the_warm_up() -> None:
    """After `warm_up`, in a process of its own, a busy life of the engine needs no kernel that is not there: no message waits for a compiler."""
    code = (
        "from tests.engine import test_mechanism as t; t.Evaluator(exact=t.no_core).warm_up(); before = t.compiled();"
        "t.busy_life(); after = t.compiled(); print({n: s - before.get(n, set()) for n, s in after.items() if s - before.get(n, set())})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{}"


def test_epsilon_follows_the_measured_moves() -> None:
    """The width below which a pool is kept hot is chosen from the moves that were seen: ten times the moves, ten times the width."""
    found = []
    for step in (1e-4, 1e-3):
        rng = random.Random("epsilon")
        engine, pools, marks = random_engine("epsilon", 20, hot_moves=5.0, hot_moves_fresh=2.0)
        for number, pool in enumerate(pools):
            engine.put_terms(f"a{number}", [pool])
        for _ in range(2_000):
            marks = {name: mark * (1 + rng.gauss(0, step)) for name, mark in marks.items()}
            tick(engine, **marks)
        engine.pass_slice()
        engine.pass_slice()
        counted = engine.statistics()
        assert counted.epsilon == 5 * counted.rms_move
        assert counted.epsilon_fresh == 2 * counted.rms_move
        assert 0.5 * step < counted.rms_move < 2 * step
        found.append(counted.epsilon)

    assert 5 < found[1] / found[0] < 20
