"""`margin-monitor bench engine`: how fast the engine is on a seeded book, and that being fast changed no event.

Two engines run the same messages: the hot-and-cold one, with its background pass at one pass a second of wall time, and the same code with
every pool hot, which is the exhaustive engine. Their events must be equal. Figures on a shared machine vary: quote ratios of one run.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.engine.book import LinearPools
from monitor.engine.evaluator import Evaluator
from monitor.engine.terms import Schedule
from monitor.margin.levels import Threshold, Thresholds
from monitor.margin.prices import PriceKind

__all__ = ["SIZES", "Workload", "bench_engine", "engine_command"]

Array = npt.NDArray[Any]

SYMBOLS: Final = 400
TIERS: Final = 10
SIZES: Final = {"tiny": 100, "small": 1_000, "medium": 20_000, "large": 100_000, "xl": 1_000_000}
HELD: Final = 10
"""Positions of an account, each in another symbol."""

PLAIN = Thresholds(
    watch=Threshold(Decimal("0.8"), Decimal("0.8")),
    margin_call=Threshold(Decimal(1), Decimal(1)),
    liquidation=Threshold(Decimal(64), Decimal(64)),
)
"""Two thresholds without a gap between enter and leave, as the exhaustive loops this is compared with have: 0.8 and 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A seeded book: log-normal marks, 1 to 10 tiers a symbol, Zipf popularity, 1 % of the accounts within 5 % of a threshold."""

    accounts: int
    marks: Array
    schedules: list[Schedule]
    symbols: Array
    quantities: Array
    wallets: Array
    costs: Array
    rng: np.random.Generator

    @classmethod
    def make(cls, accounts: int, *, seed: int = 7, danger: int | None = None) -> Workload:
        """Draws a book. `danger`: that many accounts near a threshold and the rest far from it, instead of 1 %."""
        rng = np.random.default_rng(seed)
        marks = np.exp(rng.normal(1.0, 3.0, SYMBOLS)).clip(1e-4, 1e5)
        tiers = rng.integers(1, TIERS + 1, SYMBOLS)
        above = np.full((SYMBOLS, TIERS), np.inf)
        rates, deductions = np.zeros((SYMBOLS, TIERS)), np.zeros((SYMBOLS, TIERS))
        for s, count in enumerate(tiers):
            above[s, 0] = 0.0
            if count > 1:
                first = 2_000.0 * rng.uniform(1, 5)
                above[s, 1:count] = first * np.cumprod(rng.uniform(2, 5, count - 1))
            lowest = 0.004 * rng.uniform(1, 2)
            rates[s, :count] = np.minimum(lowest * np.cumprod(np.concatenate([[1.0], rng.uniform(1.2, 1.9, count - 1)])), 0.5)
            for k in range(1, count):
                deductions[s, k] = deductions[s, k - 1] + above[s, k] * (rates[s, k] - rates[s, k - 1])
        popularity = -np.log(np.arange(1, SYMBOLS + 1))
        symbols = np.empty((accounts, HELD), np.int32)
        for start in range(0, accounts, 5_000):
            end = min(start + 5_000, accounts)
            drawn = popularity + rng.gumbel(size=(end - start, SYMBOLS))
            symbols[start:end] = np.argpartition(-drawn, HELD, axis=1)[:, :HELD]
        flat = symbols.ravel()
        notional = np.exp(rng.normal(np.log(5_000), 1.5, accounts * HELD))
        side = rng.choice([-1.0, 1.0], accounts * HELD)
        entries = marks[flat] * np.exp(rng.normal(0, 0.05, accounts * HELD))
        quantities = side * notional / marks[flat]
        profit = (quantities * (marks[flat] - entries)).reshape(-1, HELD).sum(axis=1)
        size = np.abs(quantities) * marks[flat]
        tier = (size[:, None] >= above[flat]).sum(axis=1) - 1 if accounts <= 200_000 else _tier_by_parts(size, above, flat)
        maintenance = (size * rates[flat, tier] - deductions[flat, tier]).reshape(-1, HELD).sum(axis=1)
        ratio = np.exp(rng.uniform(np.log(0.01), np.log(0.6), accounts))
        near = rng.random(accounts) < 0.01
        if danger is not None:
            near = np.zeros(accounts, np.bool_)
            near[rng.choice(accounts, danger, replace=False)] = True
            ratio = np.minimum(ratio, 0.1)
        ratio[near] = rng.choice([0.8, 1.0], near.sum()) * rng.uniform(0.95, 1.05, near.sum())
        schedules = [
            tuple((float(above[s, k]) if k else -1.0, float(rates[s, k]), -float(deductions[s, k]), 0.0, 0.0) for k in range(tiers[s]))
            for s in range(SYMBOLS)
        ]
        return cls(
            accounts=accounts,
            marks=marks,
            schedules=schedules,
            symbols=flat,
            quantities=quantities,
            wallets=maintenance / ratio - profit,
            costs=(quantities * entries).reshape(-1, HELD).sum(axis=1),
            rng=rng,
        )

    def pools(self) -> LinearPools:
        """The book as the engine loads it. Legs of an account by symbol."""
        order = np.lexsort((self.symbols, np.repeat(np.arange(self.accounts), HELD)))
        return LinearPools(
            name="cross:USDT",
            accounts=[f"a{number:07d}" for number in range(self.accounts)],
            constants=self.wallets - self.costs,
            legs=np.full(self.accounts, HELD, np.int32),
            slopes=self.quantities[order],
            columns=self.symbols[order],
            schedule=self.symbols[order],
            schedules=self.schedules,
        )

    def messages(self, step_bp: float, ticks: int = SYMBOLS, sweeps: int = 25) -> Iterator[tuple[Array, Array]]:
        """For ever: (columns, prices) of messages of `ticks` ticks.

        Each sweep visits the symbols once in random order, in steps of `step_bp`. After `sweeps` of them the way is gone back, step by step, so that
        the book stays what it is however long the run.
        """
        step = step_bp * 1e-4
        while True:
            orders = [self.rng.permutation(SYMBOLS).astype(np.int32) for _ in range(sweeps)]
            path = self.marks * np.exp(np.cumsum(step * self.rng.standard_normal((sweeps, SYMBOLS)), axis=0))
            for order, marks in zip([*orders, *reversed(orders)], [*path, *path[-2::-1], self.marks], strict=True):
                for start in range(0, SYMBOLS, ticks):
                    chosen = order[start : start + ticks]
                    yield chosen, marks[chosen]


def _tier_by_parts(size: Array, above: Array, symbols: Array) -> Array:
    tier = np.zeros(len(size), np.int64)
    for k in range(1, TIERS):
        tier += size >= above[symbols, k]
    return tier


def engine_of(workload: Workload, *, hot_moves: float, thresholds: Thresholds = PLAIN) -> Evaluator:
    """An engine with the whole book, every pool decided at the first marks."""
    engine = Evaluator(
        thresholds,
        exact=lambda _account, _pool, _source, _prices: "no exact core in a benchmark",
        pools=workload.accounts,
        legs=workload.accounts * HELD,
        columns=SYMBOLS,
        hot_moves=hot_moves,
        keep_sources=False,
    )
    columns = np.array([engine.column("bench", PriceKind.MARK, f"S{s}") for s in range(SYMBOLS)], np.int32)
    engine.load(workload.pools())
    engine.run(columns, workload.marks)
    found_room = False
    while not found_room:  # hot rows find their room between slices
        before = engine.statistics().promotions
        for _ in range(0, workload.accounts, 5_000):
            engine.pass_slice(5_000)
        found_room = engine.statistics().promotions == before
    return engine


@dataclass(slots=True)
class Run:
    """One timed run over some messages. Latencies are wall time, rates are by CPU time: on a shared machine the one waits for others."""

    cpu_seconds: float
    pass_seconds: float
    ticks: int
    latencies: list[float]
    events: list[Array]

    @property
    def ticks_per_second(self) -> float:
        """Ticks per CPU second, the background pass included."""
        return self.ticks / self.cpu_seconds

    def digest(self, messages: int) -> list[Any]:
        """Events of the first messages, in one order."""
        return [np.sort(events, order=("tick", "pool")).tolist() for events in self.events[:messages]]


def timed(engine: Evaluator, messages: list[tuple[Array, Array]], *, background: bool, pace_hz: float = 0.0) -> Run:
    """Runs messages. With `background` a whole pass takes one second of wall time, in slices of 500 pools between messages."""
    run = Run(0.0, 0.0, 0, [], [])
    pools = engine.statistics().pools
    owed = 0.0
    gc.collect()
    gc.disable()
    try:
        begun, cpu = time.perf_counter(), time.process_time()
        before = begun
        for number, (columns, prices) in enumerate(messages):
            if pace_hz:
                time.sleep(max(0.0, begun + number / pace_hz - time.perf_counter()))
            started = time.perf_counter()
            run.events.append(engine.run(columns, prices))
            ended = time.perf_counter()
            run.latencies.append(ended - started)
            run.ticks += len(columns)
            if background:
                owed += pools * (ended - before)
                before = ended
                while owed >= 500:
                    started = time.process_time()
                    engine.pass_slice(500)
                    run.pass_seconds += time.process_time() - started
                    owed -= 500
        run.cpu_seconds = time.process_time() - cpu
    finally:
        gc.enable()
    return run


def rss_mb() -> float:
    """Resident memory of this process now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def bench_engine(size: str, *, step_bp: float, runs: int = 5, ticks: int = SYMBOLS, thresholds: Thresholds = PLAIN) -> dict[str, Any]:
    """Measures both engines on one book. Keys of the result: see `engine_command`."""
    accounts = SIZES[size]
    workload = Workload.make(accounts)
    built = time.perf_counter()
    engine = engine_of(workload, hot_moves=7.0, thresholds=thresholds)
    built = time.perf_counter() - built
    stream = workload.messages(step_bp, ticks)
    # Enough messages for at least half a second of the faster engine; the exhaustive one runs the first of them.
    settle = [next(stream) for _ in range(60)]
    for columns, prices in settle:
        engine.run(columns, prices)
    for _ in range(0, accounts, 500):
        engine.pass_slice(500)
    rate = timed(engine, probe := [next(stream) for _ in range(20)], background=True).ticks_per_second
    count = int(max(20, min(20_000, 0.6 * rate / ticks)))
    compared = [next(stream) for _ in range(count)]
    hot_cold, stats_before = [], engine.statistics()
    everything = engine_of(workload, hot_moves=float("inf"), thresholds=thresholds) if accounts < 1_000_000 else None
    memory = rss_mb()
    if everything is None:
        everything = engine_of(workload, hot_moves=float("inf"), thresholds=thresholds)
    for columns, prices in [*settle, *probe]:
        everything.run(columns, prices)
    few = max(3, min(count, int(40_000_000 / accounts / ticks)))
    exhaustive: list[Run] = []
    equal = True
    for number in range(runs):
        messages = compared if not number else [next(stream) for _ in range(count)]
        run = timed(engine, messages, background=True)
        hot_cold.append(run)
        if number < 2 or accounts <= 20_000:
            short = timed(everything, messages[:few], background=False)
            exhaustive.append(short)
            equal = equal and run.digest(few) == short.digest(few)
            for columns, prices in messages[few:] if number + 1 < runs else ():
                everything.run(columns, prices)
    stats = engine.statistics()
    latencies = np.concatenate([run.latencies for run in hot_cold]) * 1e3
    done = stats.ticks - stats_before.ticks
    rate = statistics.median(run.ticks_per_second for run in hot_cold)
    base = statistics.median(run.ticks_per_second for run in exhaustive)
    return {
        "size": size,
        "accounts": accounts,
        "positions": accounts * HELD,
        "step_bp": step_bp,
        "ticks_a_message": ticks,
        "ticks_per_second": round(rate),
        "everything_hot_ticks_per_second": round(base),
        "ratio": round(rate / base, 2),
        "events_equal": equal,
        "events": sum(len(events) for run in hot_cold for events in run.events),
        "p50_ms": round(float(np.percentile(latencies, 50)), 4),
        "p99_ms": round(float(np.percentile(latencies, 99)), 4),
        "max_ms": round(float(latencies.max()), 4),
        "pass_share": round(sum(run.pass_seconds for run in hot_cold) / sum(run.cpu_seconds for run in hot_cold), 4),
        "hot_pools": stats.hot_pools,
        "hot_rows_per_tick": round((stats.hot_rows - stats_before.hot_rows) / done, 2),
        "cold_exits_per_tick": round((stats.cold_exits - stats_before.cold_exits) / done, 3),
        "stepped_per_tick": round((stats.stepped - stats_before.stepped) / done, 3),
        "promotions": stats.promotions - stats_before.promotions,
        "demotions": stats.demotions - stats_before.demotions,
        "rebanded": stats.rebanded - stats_before.rebanded,
        "band_misses": stats.band_misses,
        "build_s": round(built, 2),
        "rss_mb": round(memory),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def engine_command(size: str, *, step_bp: float, as_json: bool = False, runs: int = 5) -> int:
    """Prints the measured figures. Returns 0, or 1 when the events of the two engines differ."""
    result = bench_engine(size, step_bp=step_bp, runs=runs)
    if as_json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:34} {value}")
    return 0 if result["events_equal"] else 1
