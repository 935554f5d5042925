"""`margin-monitor bench feeds`: from a venue's frame to the `ticks` stream, on one core.

A simulated venue in another process sends as fast as it is read; this process reads, decodes, orders and writes into a Redis of its own.
Rates are per second of this process's CPU time: Redis and the venue have cores of their own. What Redis cannot take in time is conflated,
as it is live: the later price of a name overtakes the earlier one. "Every number" waits for Redis instead, as a lossless replay does.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from pathlib import Path
from typing import Any

import orjson

from monitor.errors import ConfigError
from monitor.feeds.bench import FeedBench, Shape, bench_feed
from monitor.feeds.publisher import OnSlow
from monitor.ledger.cache import TicksWriter
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.server import CACHE_SETTINGS, EmbeddedServer
from monitor.service.logs import configure_logs

__all__ = ["feeds_command"]

CASES: dict[str, tuple[Shape, OnSlow, int]] = {
    "array": ("array", "conflate", 2_000),
    "array, every number": ("array", "wait", 1_000),
    "single": ("single", "conflate", 100_000),
}
"""Name -> the venue's channel, what happens when Redis is slower, frames of a run (a second or two)."""


def feeds_command(*, runs: int, symbols: int, as_json: bool) -> int:
    """Runs the benchmark and prints its figures. Returns the exit code."""
    configure_logs(form="text", level="warning")
    for name, value, highest in (("runs", runs, 100), ("symbols", symbols, 2_000)):
        if not 1 <= value <= highest:
            raise ConfigError(source=f"--{name}", key=name, value=str(value), expected=f"1 to {highest}")
    figures = asyncio.run(_figures(runs, symbols))
    if as_json:
        print(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode())
        return 0
    for case, found in figures.items():
        print(
            f"{case:<20} {found['messages_per_s']:>10,.0f} messages/s {found['marks_per_s']:>10,.0f} marks/s decoded, "
            f"{found['written_share']:.0%} of the numbers written, the others overtaken (median of {runs})"
        )
    return 0


async def _figures(runs: int, symbols: int) -> dict[str, dict[str, Any]]:
    found: dict[str, list[FeedBench]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="mm") as folder:
        async with EmbeddedServer(Path(folder), settings=CACHE_SETTINGS) as server:
            for _ in range(runs):
                for case, (shape, on_slow, count) in CASES.items():
                    writer = TicksWriter(Link(Endpoint.parse(server.url)))
                    found[case].append(await bench_feed(shape, writer.write, symbols=symbols, count=count, on_slow=on_slow))
                    writer.close()
    return {
        case: {
            "messages_per_s": statistics.median(result.messages_per_cpu_s for result in results),
            "marks_per_s": statistics.median(result.marks_per_cpu_s for result in results),
            "messages_per_wall_s": statistics.median(result.messages / result.wall_s for result in results),
            "written_share": statistics.median(min(1.0, result.written / result.marks) for result in results),
            "symbols": symbols,
            "runs": runs,
        }
        for case, results in found.items()
    }
