"""`margin-monitor bench engine`: how fast the engine is on a seeded book, and that being fast changed no event.

Two engines run the same messages: the hot-and-cold one, with its background pass at one pass a second of wall time, and the same code with
every pool hot, which is the exhaustive engine. Their events must be equal. Figures on a shared machine vary: quote ratios of one run.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from monitor.engine import kernels
from monitor.engine.book import KNOWN, LinearPools
from monitor.engine.evaluator import Evaluator
from monitor.engine.terms import Schedule
from monitor.margin.levels import DEFAULT_THRESHOLDS, Threshold, Thresholds
from monitor.margin.prices import PriceKind

__all__ = ["SIZES", "Workload", "bench_engine", "bench_gap", "bench_growth", "bench_leave", "bench_live", "engine_command"]

Array = npt.NDArray[Any]

SYMBOLS: Final = 400
TIERS: Final = 10
SIZES: Final = {"tiny": 100, "small": 1_000, "medium": 20_000, "large": 100_000, "xl": 1_000_000}
HOT_MOVES: Final = 5.0
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

        Each sweep visits the symbols once in random order, in steps of `step_bp`. After `sweeps` of them the way is gone back, step by
        step, so that the book stays what it is however long the run.
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
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def settled(engine: Evaluator, stream: Iterator[tuple[Array, Array]], messages: int = 60) -> list[tuple[Array, Array]]:
    """Runs some messages and a whole pass, so that variances are known and every pool is where it belongs. Returns the messages."""
    ran = [next(stream) for _ in range(messages)]
    for columns, prices in ran:
        engine.run(columns, prices)
    for _ in range(0, engine.statistics().pools, 500):
        engine.pass_slice(500)
    return ran


def bench_engine(size: str, *, step_bp: float, runs: int = 5, ticks: int = SYMBOLS) -> dict[str, Any]:
    """Measures the hot-and-cold and the exhaustive engine on one book, in turns. Rates are ticks per CPU second, medians of the runs."""
    accounts = SIZES[size]
    workload = Workload.make(accounts)
    built = time.process_time()
    engine = engine_of(workload, hot_moves=HOT_MOVES)
    built = time.process_time() - built
    stream = workload.messages(step_bp, ticks)
    before = settled(engine, stream)
    memory = rss_mb()
    probe = [next(stream) for _ in range(20)]
    rate = timed(engine, probe, background=True).ticks_per_second
    count = int(max(12, min(20_000, 0.5 * rate / ticks)))
    few = max(3, min(count, int(30_000_000 / accounts / ticks)))
    everything = engine_of(workload, hot_moves=float("inf"))
    for columns, prices in [*before, *probe]:
        everything.run(columns, prices)
    start = engine.statistics()
    hot_cold: list[Run] = []
    exhaustive: list[Run] = []
    equal = True
    for _ in range(runs):
        messages = [next(stream) for _ in range(count)]
        hot_cold.append(timed(engine, messages, background=True))
        exhaustive.append(timed(everything, messages[:few], background=False))
        equal = equal and hot_cold[-1].digest(few) == exhaustive[-1].digest(few)
        # Both at the same prices again; levels follow, since these thresholds are entered and left at the same ratio.
        for columns, prices in messages[max(few, count - SYMBOLS // ticks) :]:
            everything.run(columns, prices)
    stats = engine.statistics()
    latencies = np.concatenate([run.latencies for run in hot_cold]) * 1e3
    done = stats.ticks - start.ticks
    return {
        "size": size,
        "accounts": accounts,
        "positions": accounts * HELD,
        "step_bp": step_bp,
        "ticks_a_message": ticks,
        "runs": runs,
        "ticks_per_second": round(statistics.median(run.ticks_per_second for run in hot_cold)),
        "everything_hot_ticks_per_second": round(statistics.median(run.ticks_per_second for run in exhaustive)),
        "ratio": round(
            statistics.median(fast.ticks_per_second / slow.ticks_per_second for fast, slow in zip(hot_cold, exhaustive, strict=True)), 2
        ),
        "events_equal": equal,
        "events_per_tick": round(sum(len(events) for run in hot_cold for events in run.events) / done, 3),
        "p50_ms": round(float(np.percentile(latencies, 50)), 4),
        "p99_ms": round(float(np.percentile(latencies, 99)), 4),
        "max_ms": round(float(latencies.max()), 4),
        "pass_share": round(sum(run.pass_seconds for run in hot_cold) / sum(run.cpu_seconds for run in hot_cold), 4),
        "hot_pools": stats.hot_pools,
        "hot_rows_per_tick": round((stats.hot_rows - start.hot_rows) / done, 2),
        "cold_exits_per_tick": round((stats.cold_exits - start.cold_exits) / done, 4),
        "stepped_per_tick": round((stats.stepped - start.stepped) / done, 4),
        "promotions": stats.promotions - start.promotions,
        "demotions": stats.demotions - start.demotions,
        "rebanded": stats.rebanded - start.rebanded,
        "band_misses": stats.band_misses,
        "build_cpu_s": round(built, 2),
        "rss_mb": round(memory),
    }


def bench_leave(size: str, *, step_bp: float, dwell: int = 10) -> dict[str, Any]:
    """The same book with the shipped thresholds, which are left later than they are entered, and what a dwell would let through.

    Args:
        dwell: Messages that a pool must stay at a level above healthy before people would hear of it.
    """
    workload = Workload.make(SIZES[size])
    figures: dict[str, float] = {}
    for name, thresholds in (("plain", PLAIN), ("leave", DEFAULT_THRESHOLDS)):
        engine = engine_of(workload, hot_moves=HOT_MOVES, thresholds=thresholds)
        stream = workload.messages(step_bp)
        settled(engine, stream)
        run = timed(engine, [next(stream) for _ in range(50)], background=True)
        figures[f"{name}_ticks_per_second"] = round(run.ticks_per_second)
        figures[f"{name}_events_per_tick"] = round(sum(len(events) for events in run.events) / run.ticks, 3)
        since: dict[int, int] = {}
        told = 0
        for number, events in enumerate(run.events):
            for pool, after in zip(events["pool"].tolist(), events["after"].tolist(), strict=True):
                entered = since.pop(pool, None)
                told += entered is not None and number - entered >= dwell
                if after > 0:
                    since[pool] = number
        told += sum(len(run.events) - entered >= dwell for entered in since.values())
        figures[f"{name}_told_after_dwell_per_tick"] = round(told / run.ticks, 4)
    return {"size": size, "step_bp": step_bp, "dwell_messages": dwell, **figures}


def bench_gap(size: str, percent: float, *, rounds: int = 5) -> dict[str, Any]:
    """All marks jump by `percent` in one message after calm, and back: what that message costs, in milliseconds of CPU."""
    workload = Workload.make(SIZES[size])
    stream = workload.messages(1.5)
    engines = {"hot_cold": engine_of(workload, hot_moves=HOT_MOVES), "exhaustive": engine_of(workload, hot_moves=float("inf"))}
    columns = np.arange(SYMBOLS, dtype=np.int32)
    taken: dict[str, list[float]] = {name: [] for name in ("hot_cold", "exhaustive", "exhaustive_calm")}
    equal = True
    settled_messages = [next(stream) for _ in range(60)]
    for _ in range(rounds):
        for prices in (workload.marks * (1 + percent / 100), workload.marks):
            calm = settled_messages if not taken["hot_cold"] else [next(stream) for _ in range(10)]
            for engine in engines.values():
                for names, marks in calm:
                    started = time.process_time()
                    engine.run(names, marks)
                    if engine is engines["exhaustive"]:
                        taken["exhaustive_calm"].append(time.process_time() - started)
            for _ in range(0, workload.accounts, 500):
                engines["hot_cold"].pass_slice(500)
            found = {}
            for name, engine in engines.items():
                started = time.process_time()
                found[name] = engine.run(columns, prices)
                taken[name].append(time.process_time() - started)
            fast, slow = (np.sort(events, order=("tick", "pool")) for events in found.values())
            equal = equal and np.array_equal(fast, slow)
    return {
        "size": size,
        "gap_percent": percent,
        **{f"{name}_ms": round(statistics.median(times) * 1e3, 2) for name, times in taken.items()},
        "worst_ms": round(max(taken["hot_cold"]) * 1e3, 2),
        "events_equal": equal,
        "band_misses": engines["hot_cold"].statistics().band_misses,
    }


def bench_growth(*, step_bp: float = 1.5, danger: int = 500, few: int = 2_000, many: int = 1_000_000) -> dict[str, Any]:
    """The same danger in a small and in a large book: how much of the speed is left."""
    rates = {}
    for accounts in (few, many):
        workload = Workload.make(accounts, danger=danger)
        engine = engine_of(workload, hot_moves=HOT_MOVES)
        stream = workload.messages(step_bp)
        settled(engine, stream)
        timed(engine, [next(stream) for _ in range(50)], background=True)
        found = [timed(engine, [next(stream) for _ in range(400)], background=True).ticks_per_second for _ in range(5)]
        rates[accounts] = statistics.median(found)
        del engine, workload
        gc.collect()
    return {
        "danger": danger,
        "step_bp": step_bp,
        **{f"ticks_per_second_at_{accounts}": round(rate) for accounts, rate in rates.items()},
        "kept": round(rates[many] / rates[few], 3),
    }


def bench_live(size: str, *, step_bp: float, seconds: float, messages_hz: float = 10.0) -> dict[str, Any]:
    """At the pace of a market instead of flat out: hot pools, memory and missed bands over a while."""
    workload = Workload.make(SIZES[size])
    engine = engine_of(workload, hot_moves=HOT_MOVES)
    stream = workload.messages(step_bp)
    settled(engine, stream)
    start, memory = engine.statistics(), rss_mb()
    hot: list[int] = []
    latencies: list[float] = []
    cpu = pass_cpu = 0.0
    while len(hot) < max(1, round(seconds)):
        run = timed(engine, [next(stream) for _ in range(round(messages_hz))], background=True, pace_hz=messages_hz)
        cpu += run.cpu_seconds
        pass_cpu += run.pass_seconds
        latencies += run.latencies
        hot.append(engine.statistics().hot_pools)
    stats = engine.statistics()
    return {
        "size": size,
        "step_bp": step_bp,
        "seconds": len(hot),
        "messages_per_second": messages_hz,
        "passes": stats.passes - start.passes,
        "cpu_share": round(cpu / len(hot), 4),
        "pass_cpu_share": round(pass_cpu / len(hot), 4),
        "hot_pools_least": min(hot),
        "hot_pools_most": max(hot),
        "hot_pools_last": hot[-1],
        "p50_ms": round(float(np.percentile(latencies, 50)) * 1e3, 4),
        "p99_ms": round(float(np.percentile(latencies, 99)) * 1e3, 4),
        "max_ms": round(max(latencies) * 1e3, 4),
        "rss_grown_mb": round(rss_mb() - memory, 1),
        "sums_off": sums_off(engine),
        "band_misses": stats.band_misses,
    }


def sums_off(engine: Evaluator) -> float:
    """How far running sums of hot pools are from fresh ones, relative to the pool's size: the greatest. Rounding gives 1e-12."""
    book = engine._book  # noqa: SLF001  measured from inside
    hot = np.flatnonzero((book.pools["slot"] >= 0) & (book.pools["state"] == KNOWN)).astype(np.int32)
    equity, requirement = np.empty(len(hot)), np.empty(len(hot))
    kernels.view(hot, book.pools, book.legs.data, book.assets.data, book.schedules.data, book.y, equity, requirement)
    slots = book.slots[book.pools["slot"][hot]]
    off = np.maximum(np.abs(slots["equity"] - equity), np.abs(slots["requirement"] - requirement))
    return float((off / (np.abs(equity) + requirement + np.abs(book.pools["constant"][hot]))).max(initial=0.0))


def engine_command(
    size: str,
    *,
    step_bp: float,
    as_json: bool = False,
    runs: int = 5,
    gap: float | None = None,
    live: float | None = None,
    growth: bool = False,
) -> int:
    """Prints measured figures, one JSON object or table per part. Returns 0, or 1 when events differed or a band was missed.

    Args:
        gap: Measure a jump of all marks by this many percent instead.
        live: Run at 10 messages a second for this many seconds instead.
        growth: Compare 2,000 with 1,000,000 accounts, 500 of them in danger, instead.
    """
    if size not in SIZES:
        print(f"--size: {size}: expected one of {', '.join(SIZES)}", file=sys.stderr)
        return 2
    if gap is not None:
        results = [bench_gap(size, gap)]
    elif live is not None:
        results = [bench_live(size, step_bp=step_bp, seconds=live)]
    elif growth:
        results = [bench_growth(step_bp=step_bp)]
    else:
        results = [bench_engine(size, step_bp=step_bp, runs=runs), bench_leave(size, step_bp=step_bp)]
    if as_json:
        print(json.dumps(results[0] if len(results) == 1 else {**results[0], "with_leave": results[1]}))
    else:
        for result in results:
            for key, value in result.items():
                print(f"{key:34} {value}")
    return int(any(not result.get("events_equal", True) or result.get("band_misses", 0) for result in results))
