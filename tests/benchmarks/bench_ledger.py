"""How fast the ledger writes and loads: `PYTHONPATH=. python tests/benchmarks/bench_ledger.py [--accounts 100000]`.

A redis-server of its own with the ledger's settings (`appendfsync always`) in a temporary folder; event bodies of about 500 bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import time

from monitor.ledger.changes import Change, DocumentChange, Observation, UpdatesRead
from monitor.ledger.committer import Committer
from monitor.ledger.identity import identify
from monitor.ledger.keys import partitions
from monitor.ledger.partition import Partition
from monitor.margin.levels import Level
from monitor.measures import Durations
from monitor.wire.events import TickPosition
from tests.support.redis import Redis, redis_server

FACTS = b'{"equity":"5","padding":"' + b"x" * 240 + b'"}'
DOCUMENT = b'{"epoch":1,"sequence":1,"account":{"id":"a","venue":"binance_usdm","positions":[' + b"1," * 200 + b"1]}}"


async def hold(redis: Redis, ledger: str, number: int, count: int) -> Partition:
    """A partition, held and empty."""
    partition = Partition(redis.link(), number, holder=f"bench:{time.monotonic_ns()}", ledger=ledger, partitions=count)
    await partition.lead(60.0)
    await partition.load(lambda _account, _document, _hold: None)
    return partition


def rows(n: int, count: int) -> list[Change]:
    """So many changes of level."""
    return [Observation(f"a{index}", "cross", Level(1 + n % 4), None, TickPosition(1, n, index), FACTS) for index in range(count)]


async def commits(redis: Redis, ledger: str) -> None:
    """Commits one after the other, of 1 to 1,000 rows each."""
    for size, times in ((1, 3000), (10, 1000), (100, 200), (1000, 40)):
        partition = await hold(redis, ledger, 0, 64)
        await partition.commit(rows(0, size))
        batches = [rows(n, size) for n in range(1, times + 1)]
        seconds = Durations()
        began = time.perf_counter()
        for batch in batches:
            start = time.perf_counter()
            await partition.commit(batch)
            seconds.observe(time.perf_counter() - start)
        took = time.perf_counter() - began
        await partition.release()
        print(
            f"{size:5} rows per EXEC: {times / took:7.0f} EXEC/s  {times * size / took:8.0f} rows/s  "
            f"p50 {seconds.quantile(0.5) * 1e3:.2f} ms  p99 {seconds.quantile(0.99) * 1e3:.2f} ms"
        )


async def burst(redis: Redis, ledger: str, size: int, count: int) -> None:
    """One message that changes the level of so many pools, through the committers of `count` partitions."""
    held = [await hold(redis, ledger, number, 64) for number in partitions(count)]
    committers = [Committer(partition, lease_s=60.0) for partition in held]
    tasks = [asyncio.ensure_future(committer.run()) for committer in committers]
    for committer in committers:
        committer.put_nowait(rows(0, size // count))
        await committer.flush()
    batch = rows(1, size // count)
    began = time.perf_counter()
    for committer in committers:
        committer.put_nowait(batch)
    await asyncio.gather(*(committer.flush() for committer in committers))
    took = time.perf_counter() - began
    print(f"burst of {size} rows over {count} partitions: {took * 1e3:.0f} ms, {size / took:.0f} rows/s")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for partition in held:
        await partition.release()


async def loading(redis: Redis, ledger: str, accounts: int) -> None:
    """Storing and loading so many accounts, a tenth of them above healthy."""
    partition = await hold(redis, ledger, 0, 64)
    began = time.perf_counter()
    for start in range(0, accounts, 1000):
        changes: list[Change] = [DocumentChange(f"acct-{index}", 1, 1, DOCUMENT) for index in range(start, min(start + 1000, accounts))]
        await partition.commit([*changes, UpdatesRead("1-1")])
    stored = time.perf_counter() - began
    await partition.commit(rows(9, accounts // 10))
    await partition.release()
    again = Partition(redis.link(), 0, holder="bench:again", ledger=ledger, partitions=64)
    await again.lead(60.0)
    began = time.perf_counter()
    loaded = await again.load(lambda _account, _document, _hold: None)
    took = time.perf_counter() - began
    assert loaded.complaint is None
    print(f"{accounts} accounts of {len(DOCUMENT)} bytes: stored in {stored:.1f} s, loaded and checked in {took:.2f} s")
    await again.release()


async def main() -> None:
    """Prints all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=100_000)
    options = parser.parse_args()
    async with redis_server() as redis:
        ledger = await identify(redis.link(), 64)
        await commits(redis, ledger)
        for size, count in ((11_279, 1), (100_000, 1), (11_264, 64), (100_032, 64)):
            await burst(redis, ledger, size, count)
        await loading(redis, ledger, options.accounts)


if __name__ == "__main__":
    asyncio.run(main())
