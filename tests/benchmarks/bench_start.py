"""How long a start takes with accounts already in Redis: `PYTHONPATH=. python tests/benchmarks/bench_start.py [--accounts 100000]`.

A redis-server of its own with the ledger's settings is filled with accounts of ten positions over 400 instruments and with the last
prices of a venue; then a new process takes the partition over, and another, and a third that finds no packed records beside the documents.
Seconds from the start of the process's daemon to ready, and its memory. The first start of the three tells the levels of the book as well.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from monitor.feeds.market import sample_symbols
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.keys import PartitionKeys, marks_key
from monitor.ledger.server import EmbeddedServer
from monitor.service.bench_book import bench_documents, fill_ledger
from monitor.service.logs import configure_logs
from monitor.service.progress import Progress
from monitor.service.sample_book import sample_tables
from monitor.service.settings import load_settings
from monitor.service.wiring import Daemon


async def fill(url: str, count: int) -> None:
    """Writes the accounts, and a price of every instrument."""
    prices = sample_symbols(400)
    await fill_ledger(url, bench_documents(count, prices))
    wire = await Link(Endpoint.parse(url)).open()
    now_ms = time.time_ns() // 1_000_000
    pairs = [part for name, price in prices.items() for part in (f"mark:{name}", f"{price!r}|{now_ms}|{now_ms * 1_000_000}")]
    await wire.call("HSET", marks_key("binance_usdm"), *pairs, timeout_s=10.0)
    wire.close()


async def start(folder: Path, url: str) -> None:
    """Runs the evaluator of a new process until it is ready, and prints what it took."""
    configure_logs(form="text", level="warning")
    settings = load_settings(
        None,
        environment={},
        overrides={
            "ledger.url": url,
            "ledger.data_dir": str(folder / "data"),
            "evaluator.tables": [str(folder / "tables.json")],
            "http.enabled": False,
            "sinks.console.enabled": False,
            "feeds.venues": ["binance_usdm"],
        },
    )
    daemon = Daemon(settings, stages=("evaluator",), on_loading=Progress())
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(daemon.run())
        await daemon.ready.wait()
        took = time.perf_counter() - began
        evaluator = daemon.evaluator
        assert evaluator is not None
        statistics, counts = evaluator.engine.statistics(), evaluator.engine.counts()
        print(
            orjson.dumps(
                {
                    "accounts": statistics.accounts,
                    "positions": statistics.legs,
                    "ready_s": round(took, 2),
                    "rss_mb": round(_resident_mb()),
                    "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                    "levels": {"unknown" if level is None else level.word: count for level, count in counts.items()},
                }
            ).decode()
        )
        daemon.stop()


def _resident_mb() -> float:
    """Memory of this process now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() / 2**20


async def main(accounts: int, *, profile: bool) -> None:
    """Fills a Redis, then starts a process beside it."""
    with tempfile.TemporaryDirectory(prefix="margin-monitor-bench-") as name:
        folder = Path(name)
        (folder / "tables.json").write_bytes(orjson.dumps(sample_tables(sample_symbols(400))))
        async with EmbeddedServer(folder / "redis") as server:
            began = time.perf_counter()
            await fill(server.url, accounts)
            print(f"{accounts} accounts written in {time.perf_counter() - began:.1f} s")
            for form in ("packed", "packed", "documents"):
                if form == "documents":
                    wire = await Link(Endpoint.parse(server.url)).open()
                    await wire.call("DEL", PartitionKeys.of(0).packed, timeout_s=60.0)
                    wire.close()
                print(f"from {form}:", end=" ", flush=True)
                command = [sys.executable, __file__, "--start", name, server.url, *(["--profile"] if profile else [])]
                await asyncio.to_thread(subprocess.run, command, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--start", nargs=2, metavar=("FOLDER", "URL"), help="used by itself")
    options = parser.parse_args()
    if options.start is None:
        asyncio.run(main(options.accounts, profile=options.profile))
    elif options.profile:
        with cProfile.Profile() as found:
            asyncio.run(start(Path(options.start[0]), options.start[1]))
        pstats.Stats(found).sort_stats("tottime").print_stats(30)
    else:
        asyncio.run(start(Path(options.start[0]), options.start[1]))
