"""A whole deployment whose deciding process dies again and again, and a checker that works everything out anew from the log of ticks.

A simulated venue -> a feeds process -> Redis with the ledger's settings -> an evaluator-and-alerts process, which is killed -> mosquitto
-> a subscriber. The checker shares no code with the product but the decoding of a batch of prices: it replays the `ticks` stream through
the exact oracle.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import aiomqtt
import orjson

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.cursors import read_rows
from monitor.ledger.head import FIELDS, Head
from monitor.ledger.server import EmbeddedServer
from monitor.margin.prices import PriceKind
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.prices import decode_batch
from monitor.wire.quotes import Quotes
from tests.support.mosquitto import Mosquitto
from tests.support.oracle import Oracle

__all__ = ["DaemonRig", "Deaths", "Found", "daemon_rig"]

ROOT = Path(__file__).resolve().parents[2]
PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0, "SOLUSDT": 20.0}
LEVELS = {"healthy": 0, "watch": 1, "margin_call": 2, "liquidation": 3, "bankrupt": 4}
ACCOUNTS = 120
STEP_S = 0.1

CONFIG = """
[ledger]
url = "{url}"
lease_s = 0.5
data_dir = "{folder}/known"
[feeds]
venues = ["binance_usdm"]
[feeds.binance_usdm]
url = "{venue}"
stale_after_s = 600.0
[evaluator]
tables = ["{folder}/tables.json"]
[sinks.console]
enabled = false
[sinks.mqtt]
enabled = true
port = {mqtt}
[http]
port = 0
"""


def swings(seed: int) -> list[Moment]:
    """Twenty minutes of prices that swing by a few percent, so that pools cross in both directions all the time."""
    rng = random.Random(seed)
    moments: list[Moment] = []
    share = dict.fromkeys(PRICES, 0.97)
    for index in range(int(1_200 / STEP_S)):
        for name in share:
            share[name] = min(1.0, max(0.94, share[name] + rng.gauss(0, 0.002)))
        marks = {name: f"{price * share[name]:.4f}" for name, price in PRICES.items()}
        moments.append((index * STEP_S, Quotes(time_ms=1_700_000_000_000 + index * 100, numbers={PriceKind.MARK: marks})))
    return moments


@dataclass(slots=True)
class Deaths:
    """How the deciding process ended: by crash point, or `random`; `unreached` points were ended by a kill instead."""

    by: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Found:
    """What the checker found. All but `events` and `received` must be 0."""

    events: int = 0
    received: int = 0
    lost: int = 0
    duplicated: int = 0
    misordered: int = 0
    wrong: int = 0
    not_delivered: int = 0
    delivered_out_of_order: int = 0


class DaemonRig:
    """A running deployment; `die` and `end` are what happens to its deciding process."""

    def __init__(self, folder: Path, server: EmbeddedServer, config: Path, documents: Sequence[dict[str, Any]], seed: int) -> None:
        self.deaths = Deaths()
        self.received: list[dict[str, Any]] = []
        self.feeds: asyncio.subprocess.Process | None = None
        self._folder, self._server, self._config, self._documents = folder, server, config, documents
        self._rng = random.Random(seed)

    async def start(self, stages: str, **environment: str) -> asyncio.subprocess.Process:
        """One process of the monitor."""
        with (self._folder / f"{stages}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "monitor", "run", "--config", str(self._config), "--stage", stages),
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )

    async def die(self, point: str | None) -> None:
        """Starts the deciding process and has it killed at a crash point, or at a moment that nobody chose."""
        armed = {} if point is None else {"MARGIN_MONITOR_CRASH_AT": f"{point}:{self._rng.randint(1, 3)}"}
        process = await self.start("evaluator,alerts", **armed)
        try:
            async with asyncio.timeout(self._rng.uniform(1.0, 3.0) if point is None else 6.0):
                await process.wait()
            assert process.returncode == -9, (self._folder / "evaluator,alerts.log").read_text()[-2_000:]
            self.deaths.by[str(point)] += 1
        except TimeoutError:
            process.kill()
            await process.wait()
            self.deaths.by["random" if point is None else f"unreached {point}"] += 1

    async def end(self) -> None:
        """Ends the feeds; starts the deciding process once more, lets it catch up, and ends it in order."""
        assert self.feeds is not None
        self.feeds.kill()
        await self.feeds.wait()
        process = await self.start("evaluator,alerts")
        seen = (-1, -1)
        while (now := (len(await self.rows()), len(self.received))) != seen or not all(now):
            seen = now
            await asyncio.sleep(2.5)
        process.terminate()
        await process.wait()
        assert process.returncode == 0, (self._folder / "evaluator,alerts.log").read_text()[-2_000:]

    async def rows(self) -> list[dict[str, Any]]:
        """Every row of the ledger, in order."""
        wire = await Link(Endpoint.parse(self._server.url)).open()
        bodies: list[dict[str, Any]] = []
        after = "0-0"
        try:
            while rows := await read_rows(wire, 0, after, count=1000):
                after = rows[-1].stream_id
                bodies += [orjson.loads(row.body) for row in rows]
        finally:
            wire.close()
        return bodies

    async def ticks(self, upto: str) -> list[tuple[str, float]]:
        """Every mark of the log up to a stream id."""
        wire = await Link(Endpoint.parse(self._server.url)).open()
        try:
            entries = await wire.call("XRANGE", "ticks", "-", upto, timeout_s=30.0)
        finally:
            wire.close()
        marks = []
        for _, pairs in entries:
            batch = decode_batch(dict(zip(pairs[::2], pairs[1::2], strict=True))[b"b"])
            if batch.kind is PriceKind.MARK:
                marks += list(zip(batch.names, batch.prices, strict=True))
        return marks

    async def check(self) -> Found:
        """Compares every row with the replay, one by one, and what the subscriber heard with the rows."""
        wire = await Link(Endpoint.parse(self._server.url)).open()
        try:
            head = Head.read(await wire.call("HMGET", "{0}:head", *FIELDS, timeout_s=5.0), 0)
        finally:
            wire.close()
        assert head is not None
        rows = [row for row in await self.rows() if row["kind"] == "level"]
        oracle = Oracle(self._documents, {name: entry["tiers"] for name, entry in sample_tables(PRICES)["instruments"].items()})
        wanted: dict[str, list[tuple[int, int]]] = {}
        for name, price in await self.ticks(head.ticks):
            for account, pool, before, after in oracle.tick(name, Fraction(repr(price))):
                if before >= 0 or after > 0:
                    wanted.setdefault(f"{account}/{pool}", []).append((max(before, 0), after))
        had: dict[str, list[tuple[int, int]]] = {}
        for row in rows:
            had.setdefault(f"{row['account']}/{row['pool']}", []).append((LEVELS[row["previous"]], LEVELS[row["level"]]))
        found = Found(events=len(rows), received=len(self.received))
        for pool in wanted.keys() | had.keys():
            _compare(wanted.get(pool, []), had.get(pool, []), found)
        heard: dict[str, int] = {}
        last: Counter[str] = Counter()
        for body in self.received:
            if body["id"] not in heard:
                seq = heard[body["id"]] = int(body["id"].partition("/")[2].partition("-")[0])
                found.delivered_out_of_order += seq < last[body["account"]]
                last[body["account"]] = seq
        found.not_delivered = sum(row["id"] not in heard for row in rows)
        return found


def _compare(wanted: list[tuple[int, int]], had: list[tuple[int, int]], found: Found) -> None:
    """Counts what is missing, there twice, in another order, or another level, of one pool."""
    if wanted == had:
        return
    missing, extra = Counter(wanted) - Counter(had), Counter(had) - Counter(wanted)
    known = set(wanted)
    found.lost += missing.total()
    found.duplicated += sum(count for change, count in extra.items() if change in known)
    found.wrong += sum(count for change, count in extra.items() if change not in known)
    found.misordered += not missing and not extra


@asynccontextmanager
async def daemon_rig(folder: Path, *, seed: int = 1) -> AsyncIterator[DaemonRig]:
    """The deployment, its accounts imported, its feeds process and its subscriber at work."""
    documents = list(sample_documents(ACCOUNTS, PRICES, seed=seed))
    (folder / "tables.json").write_bytes(orjson.dumps(sample_tables(PRICES)))
    (folder / "accounts.jsonl").write_bytes(b"\n".join(map(orjson.dumps, documents)))
    simulator = Simulator(binance_usdm(), swings(seed), speed=1.0)
    broker = Mosquitto(folder / "mosquitto")
    broker.start()
    async with EmbeddedServer(folder / "redis") as server, simulator.running():
        config = folder / "monitor.toml"
        config.write_text(CONFIG.format(url=server.url, folder=folder, venue=simulator.url, mqtt=broker.port))
        rig = DaemonRig(folder, server, config, documents, seed)
        imported = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "monitor", "accounts", "import", "--config", str(config), str(folder / "accounts.jsonl")),
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await imported.wait() == 0
        listening = asyncio.create_task(_listen(broker.port, rig.received))
        first = await rig.start("evaluator,alerts")  # takes the accounts in before the first price
        while b" ready " not in (folder / "evaluator,alerts.log").read_bytes():
            await asyncio.sleep(0.05)
        rig.feeds = await rig.start("feeds")
        while not await rig.rows():
            await asyncio.sleep(0.2)
        first.terminate()
        await first.wait()
        try:
            yield rig
        finally:
            listening.cancel()
            with contextlib.suppress(ProcessLookupError):
                rig.feeds.kill()
            await rig.feeds.wait()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
            broker.kill()


async def _listen(port: int, received: list[dict[str, Any]]) -> None:
    """Keeps every level event that the broker hands out."""
    async with aiomqtt.Client("127.0.0.1", port, identifier="checker") as client:
        await client.subscribe("margin/+/+/event", qos=1)
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            body = orjson.loads(message.payload)
            if body["kind"] == "level":
                received.append(body)
