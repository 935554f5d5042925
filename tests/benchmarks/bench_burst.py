"""How long a burst takes: `PYTHONPATH=. python tests/benchmarks/bench_burst.py [--accounts 10000]`.

One price message changes the level of every account of a book with two positions each. From the moment the message's frame was
received to the last level in Redis (a redis-server with the ledger's settings, `appendfsync always`), and to the last row of numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from monitor.feeds.simulator import Simulator
from monitor.margin.prices import PriceKind
from monitor.service.local_rig import local_rig
from monitor.service.logs import configure_logs
from monitor.service.sample_book import sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes

PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0}


def document(index: int) -> dict[str, Any]:
    """An account that is liquidated when both prices fall by a tenth."""
    positions = [
        {"instrument": "BTCUSDT", "quantity": "0.5", "entry_price": "30000"},
        {"instrument": "ETHUSDT", "quantity": "8", "entry_price": "1800"},
    ]
    balances = [{"asset": "USDT", "wallet": f"{3000 + index % 500 / 10:.1f}"}]
    return {"sequence": 1, "account": {"id": f"a{index:06d}", "venue": "binance_usdm", "balances": balances, "positions": positions}}


async def main(accounts: int) -> None:
    """Runs one burst and prints its times."""
    configure_logs(form="text", level="warning")
    tape = [
        (
            at_s,
            Quotes(
                time_ms=1_700_000_000_000 + round(at_s * 1000), numbers={PriceKind.MARK: {n: f"{p * x:.2f}" for n, p in PRICES.items()}}
            ),
        )
        for at_s, x in ((0.0, 1.0), (5.0, 0.9))
    ]
    with tempfile.TemporaryDirectory(prefix="margin-monitor-bench-") as name:
        tables = Path(name) / "tables.json"
        tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
        simulator = Simulator(binance_usdm(), tape, stamp="now")
        async with local_rig(
            Path(name), simulator, map(document, range(accounts)), tables=[tables], overrides={"feeds.binance_usdm.stale_after_s": 3600.0}
        ) as rig:
            evaluator, committer = rig.daemon.evaluator, rig.daemon.committers[0]
            assert evaluator is not None
            before, latency = committer.statistics.rows, evaluator.observer.latency
            while committer.statistics.rows == before:
                await asyncio.sleep(0.001)
            began = time.perf_counter()
            while committer.statistics.rows < before + 2 * accounts:
                await asyncio.sleep(0.01)
            took = time.perf_counter() - began
            print(
                f"{accounts} levels in one message: frame received to level in Redis p50 {latency.quantile(0.5) * 1e3:.0f} ms, "
                f"max {latency.maximum * 1e3:.0f} ms ({latency.count} levels); the last numbers {took:.2f} s after the first row"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=10_000)
    asyncio.run(main(parser.parse_args().accounts))
