"""`margin-monitor bench pipeline`: from a WebSocket frame received to the event in Redis, through the whole daemon.

A seeded market over the venue's protocol, a seeded book of ten positions an account, a Redis each with the settings of ledger and cache.
Latency is wall time from the moment the frame was read to the moment its event's transaction was answered; memory is this whole
process: daemon, simulated venue and all.
"""

from __future__ import annotations

import asyncio
import platform
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from monitor.errors import ConfigError
from monitor.feeds.market import MarketShape, market, sample_symbols
from monitor.feeds.simulator import Simulator
from monitor.service.bench_book import bench_documents
from monitor.service.commands import run_until_signal
from monitor.service.local_rig import local_rig
from monitor.service.logs import configure_logs
from monitor.service.progress import Progress
from monitor.service.sample_book import sample_tables
from monitor.wire.dialects.binance import binance_usdm

__all__ = ["pipeline_command"]

SETTLE_S = 35.0
"""Before it is measured: the first prices, the levels of the book, what the daemon does once are a start and not the steady state."""
MOST_WAIT_S = 300.0


def pipeline_command(*, accounts: int, symbols: int, rate: float, step_bp: float, seconds: float, as_json: bool) -> int:
    """Runs the benchmark and prints its figures. Returns the exit code."""
    configure_logs(form="text", level="warning")
    for name, value, lowest, highest in (
        ("accounts", accounts, 1, 2_000_000),
        ("symbols", symbols, 1, 5_000),
        ("rate", rate, 0.1, 1_000),
        ("step-bp", step_bp, 0, 1_000),
        ("seconds", seconds, 1, 86_400),
    ):
        if not lowest <= value <= highest:
            raise ConfigError(source=f"--{name}", key=name, value=str(value), expected=f"{lowest} to {highest}")
    stop = asyncio.Event()
    figures: dict[str, Any] = {}

    async def work() -> None:
        figures.update(await _run(accounts, symbols, rate, step_bp, seconds, stop))

    code = run_until_signal(work, stop.set)
    if not figures:
        return code
    if as_json:
        print(orjson.dumps(figures).decode())
    else:
        for name, value in figures.items():
            print(f"{name:24} {value:,}" if isinstance(value, int | float) else f"{name:24} {value}")
    return code


async def _run(accounts: int, symbols: int, rate: float, step_bp: float, seconds: float, stop: asyncio.Event) -> dict[str, Any]:
    prices = sample_symbols(symbols)
    shape = MarketShape(step_s=1 / rate, volatility=step_bp * 1e-4)
    simulator = Simulator(binance_usdm(), market(prices, seed=7, shape=shape), stamp="now")
    with tempfile.TemporaryDirectory(prefix="margin-monitor-bench-") as name:
        folder = Path(name)
        tables = folder / "tables.json"
        tables.write_bytes(orjson.dumps(sample_tables(prices)))
        started = time.monotonic()
        stored = bench_documents(accounts, prices)
        async with local_rig(folder, simulator, (), stored=stored, tables=[tables], own_cache=True, on_loading=Progress()) as rig:
            ready_s = time.monotonic() - started
            evaluator, committer = rig.daemon.evaluator, rig.daemon.committers[0]
            assert evaluator is not None
            await asyncio.sleep(SETTLE_S)
            while evaluator.observer.following > accounts // 100 and time.monotonic() - started < MOST_WAIT_S and not stop.is_set():
                await asyncio.sleep(1.0)
            statistics = evaluator.statistics
            first_ticks, first_rows = statistics.ticks, committer.statistics.rows
            for durations in (evaluator.observer.latency, statistics.evaluate, committer.statistics.commit_seconds):
                durations.clear()
            try:
                async with asyncio.timeout(seconds):
                    await stop.wait()
            except TimeoutError:
                pass
            latency, evaluate = evaluator.observer.latency, statistics.evaluate
            return {
                "accounts": accounts,
                "symbols": symbols,
                "messages_per_second": rate,
                "step_bp": step_bp,
                "seconds": seconds,
                "ready_s": round(ready_s, 2),
                "ticks": statistics.ticks - first_ticks,
                "events": committer.statistics.rows - first_rows,
                "p50_ms": _ms(latency.quantile(0.5)),
                "p99_ms": _ms(latency.quantile(0.99)),
                "max_ms": _ms(latency.maximum),
                "message_p50_ms": _ms(evaluate.quantile(0.5)),
                "message_p99_ms": _ms(evaluate.quantile(0.99)),
                "commit_p99_ms": _ms(committer.statistics.commit_seconds.quantile(0.99)),
                "rss_mb": round(_rss_mb(), 1),
                "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
                "machine": f"{platform.machine()}, Python {platform.python_version()}",
            }


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _rss_mb() -> float:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20
