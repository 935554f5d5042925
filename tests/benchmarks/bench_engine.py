"""The engine against an exhaustive C loop called once per tick.

`PYTHONPATH=. python tests/benchmarks/bench_engine.py [size] [step_bp] [rounds]`: both follow the same messages in turns, on one core.
Rates are ticks per CPU second, the background pass included; the ratio is the median of the rounds. Needs gcc. Prints one JSON line.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from monitor.service.bench import HELD, HOT_MOVES, SIZES, SYMBOLS, TIERS, Workload, engine_of, settled, timed

SOURCE = Path(__file__).parent / "exhaustive.c"


class ExhaustiveLoop:
    """The C loop over a workload."""

    def __init__(self, workload: Workload, library: Any) -> None:
        self._step = library.step
        self._step.restype = ctypes.c_long
        symbols = workload.symbols
        holders = np.repeat(np.arange(workload.accounts, dtype=np.int32), HELD)
        order = np.lexsort((holders, symbols))
        self._holder, self._quantity = holders[order].copy(), workload.quantities[order].copy()
        first = np.searchsorted(symbols[order], np.arange(SYMBOLS + 1))
        rate, deduction = np.zeros((SYMBOLS, TIERS)), np.zeros((SYMBOLS, TIERS))
        for symbol, schedule in enumerate(workload.schedules):
            for tier, (_, tier_rate, constant, _, _) in enumerate(schedule):
                rate[symbol, tier], deduction[symbol, tier] = tier_rate, -constant
        size = np.abs(self._quantity) * workload.marks[symbols[order]]
        needed = np.zeros(len(size))
        for tier in range(TIERS):
            needed = np.maximum(needed, size * rate[symbols[order], tier] - deduction[symbols[order], tier])
        profit = np.bincount(self._holder, self._quantity * workload.marks[symbols[order]], minlength=workload.accounts)
        equity = workload.wallets - workload.costs + profit
        total = np.bincount(self._holder, needed, minlength=workload.accounts)
        self._state = np.stack([equity, total], axis=1).ravel().copy()
        self._level = np.where((equity <= 0) | (total >= equity), 2, np.where(total >= 0.8 * equity, 1, 0)).astype(np.int8)
        self._needed, self._changed = needed, np.zeros(workload.accounts + 1, np.int32)
        self._marks = workload.marks.tolist()
        self._kept = (rate, deduction)

        def at(array: Any, offset: int) -> ctypes.c_void_p:
            return ctypes.c_void_p(array.ctypes.data + array.itemsize * int(offset))

        self._rows = [
            (
                ctypes.c_long(int(first[s + 1] - first[s])),
                at(self._holder, first[s]),
                at(self._quantity, first[s]),
                at(self._needed, first[s]),
                at(rate, TIERS * s),
                at(deduction, TIERS * s),
                ctypes.c_long(len(workload.schedules[s])),
            )
            for s in range(SYMBOLS)
        ]
        self._fixed = (at(self._state, 0), at(self._level, 0), at(self._changed, 0), ctypes.c_double(0.8), ctypes.c_double(1.0))

    def run(self, messages: list[tuple[Any, Any]]) -> float:
        """Ticks per CPU second, one call a tick."""
        ticks = [tick for columns, prices in messages for tick in zip(columns.tolist(), prices.tolist(), strict=True)]
        marks, rows, fixed, step = self._marks, self._rows, self._fixed, self._step
        started = time.process_time()
        for symbol, price in ticks:
            count, holder, quantity, needed, rate, deduction, tiers = rows[symbol]
            move = ctypes.c_double(price - marks[symbol])
            step(count, holder, quantity, needed, move, ctypes.c_double(price), rate, deduction, tiers, *fixed)
            marks[symbol] = price
        return len(ticks) / (time.process_time() - started)


def main(size: str = "large", step_bp: float = 1.5, rounds: int = 5) -> None:
    """Prints the comparison."""
    workload = Workload.make(SIZES[size])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "exhaustive.so"
        subprocess.run(["gcc", "-O3", "-march=native", "-shared", "-fPIC", str(SOURCE), "-o", str(path)], check=True)
        loop = ExhaustiveLoop(workload, ctypes.CDLL(str(path)))
    engine = engine_of(workload, hot_moves=HOT_MOVES)
    stream = workload.messages(step_bp)
    settled(engine, stream)
    rate = timed(engine, [next(stream) for _ in range(20)], background=True).ticks_per_second
    count = int(max(12, min(5_000, 0.5 * rate / SYMBOLS)))
    few = max(1, min(count, 20_000_000 // workload.accounts // SYMBOLS))
    ours, theirs = [], []
    for _ in range(rounds):
        messages = [next(stream) for _ in range(count)]
        theirs.append(loop.run(messages[:few]))
        ours.append(timed(engine, messages, background=True).ticks_per_second)
        loop.run(messages[-1:])
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(
        json.dumps(
            {
                "size": size,
                "step_bp": step_bp,
                "ticks_per_second": round(statistics.median(ours)),
                "c_ticks_per_second": round(statistics.median(theirs)),
                "ratio": round(ratio, 2),
                "band_misses": engine.statistics().band_misses,
            }
        )
    )


if __name__ == "__main__":
    main(*(kind(text) for kind, text in zip((str, float, int), sys.argv[1:], strict=False)))
