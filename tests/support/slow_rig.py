"""A venue at ten times the rate, in real processes, while Redis is slow, Redis stands still, or the deciding process stands still."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from monitor.feeds.market import MarketShape, market, sample_symbols
from monitor.feeds.simulator import Simulator
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.head import FIELDS, Head
from monitor.ledger.server import EmbeddedServer
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.wire.dialects.binance import binance_usdm

__all__ = ["TROUBLES", "Slow", "slowness"]

ROOT = Path(__file__).resolve().parents[2]
SYMBOLS = 400
TROUBLES = ("slow redis", "stopped redis", "stopped evaluator")
DELAY_S = 1.5
"""What a slow Redis takes for every answer."""

CONFIG = """
[ledger]
url = "{url}"
data_dir = "{folder}/known"
[feeds]
venues = ["binance_usdm"]
[feeds.binance_usdm]
url = "{venue}"
[evaluator]
tables = ["{folder}/tables.json"]
[sinks.console]
enabled = false
[http]
port = 0
"""


@dataclass(slots=True)
class Slow:
    """What was seen.

    Attributes:
        seconds: How long the trouble lasted. rate: marks a second from the venue.
        grown_mb: Most that each process grew during it and right after, resident memory, by process.
        conflated: Numbers overtaken before they were written. fresh_s: from the end of the trouble until the prices in Redis were at most
            a second old; decided_s: until the evaluator had decided everything but the last second.
    """

    seconds: float
    rate: float
    grown_mb: dict[str, float]
    conflated: int = 0
    fresh_s: float = 0.0
    decided_s: float = 0.0


class SlowProxy:
    """Stands between a client and redis-server; every piece of an answer takes `delay_s`."""

    def __init__(self, path: Path, target: str) -> None:
        self.url, self.delay_s = f"unix://{path}", 0.0
        self.over = asyncio.Event()
        self._path, self._target = path, target

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serves until the block ends."""
        server = await asyncio.start_unix_server(self._serve, str(self._path))
        try:
            yield
        finally:
            server.close()

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        server_in, server_out = await asyncio.open_unix_connection(self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(client_in, server_out, slow=False))
                group.create_task(self._pass(server_in, client_out, slow=True))
        except* (OSError, asyncio.CancelledError):
            pass  # either side has gone, or the end of the test
        server_out.close()
        client_out.close()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, slow: bool) -> None:
        while data := await source.read(1 << 16):
            if slow and self.delay_s:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.delay_s):
                        await self.over.wait()
            target.write(data)
            await target.drain()
        target.close()


class Rig:
    """A running deployment: Redis, a feeds process behind a proxy, an evaluator process."""

    def __init__(self, folder: Path, server: EmbeddedServer, proxy: SlowProxy) -> None:
        self._folder, self._server, self._proxy = folder, server, proxy
        self._link = Link(Endpoint.parse(server.url))
        self.processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, stages: str, config: Path) -> None:
        """One process of the monitor; returns when it says that it is there."""
        log = self._folder / f"{stages}.log"
        with log.open("ab") as file:
            self.processes[stages] = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "monitor", "run", "--config", str(config), "--stage", stages), cwd=ROOT, stdout=file, stderr=file
            )
        said = b" ready " if stages == "evaluator" else b" feed_connected "
        async with asyncio.timeout(120):
            while said not in log.read_bytes():
                assert self.processes[stages].returncode is None, log.read_text()[-2_000:]
                await asyncio.sleep(0.1)

    def resident(self) -> dict[str, float]:
        """MB of each process."""
        pids = {name: process.pid for name, process in self.processes.items()} | {"redis": self._redis_pid}
        return {
            name: int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 for name, pid in pids.items()
        }

    async def conflated(self) -> int:
        """What the feeds process counts as overtaken."""
        address = (self._folder / "feeds.log").read_text().split("address=http://")[1].split()[0]
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{address}/metrics", timeout=10).read().decode())
        lines = [line for line in text.splitlines() if line.startswith("margin_monitor_feed_conflated_total")]
        return round(sum(float(line.split()[-1]) for line in lines))

    async def find_redis(self) -> None:
        """Asks Redis for its process id, so that it can be stopped."""
        info = await self._link.run(lambda wire: wire.call("INFO", "server", timeout_s=5.0))
        self._redis_pid = int(info.decode().split("process_id:")[1].split()[0])

    async def price_age_s(self) -> float:
        """How old the price of the first symbol in Redis is."""
        value = await self._link.run(lambda wire: wire.call("HGET", "marks:binance_usdm", "mark:BTCUSDT", timeout_s=5.0))
        return float("inf") if value is None else time.time() - int(value.split(b"|")[2]) / 1e9

    async def undecided_s(self) -> float:
        """How far the evaluator's committed place is behind the end of the stream, by the stream's own clock."""
        [[last, _]] = await self._link.run(lambda wire: wire.call("XREVRANGE", "ticks", "+", "-", "COUNT", 1, timeout_s=5.0))
        head = Head.read(await self._link.run(lambda wire: wire.call("HMGET", "{0}:head", *FIELDS, timeout_s=5.0)), 0)
        assert head is not None
        return (int(last.split(b"-")[0]) - int(head.ticks.split("-")[0])) / 1000 if head.ticks else float("inf")

    @contextlib.contextmanager
    def trouble(self, kind: str) -> Iterator[None]:
        """Lasts as long as the block."""
        if kind == "slow redis":
            self._proxy.delay_s = DELAY_S
        pid = {"stopped redis": self._redis_pid, "stopped evaluator": self.processes["evaluator"].pid}.get(kind)
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            self._proxy.delay_s = 0.0
            self._proxy.over.set()
            if pid is not None:
                os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def _rig_of(folder: Path, *, rate: float) -> AsyncIterator[Rig]:
    prices = sample_symbols(SYMBOLS)
    held = dict(list(prices.items())[:6])
    (folder / "tables.json").write_bytes(orjson.dumps(sample_tables(prices)))
    (folder / "accounts.jsonl").write_bytes(b"\n".join(map(orjson.dumps, sample_documents(50, held, seed=1))))
    simulator = Simulator(binance_usdm(), market(prices, seed=1, shape=MarketShape(step_s=1 / rate)), stamp="now")
    async with EmbeddedServer(folder / "redis") as server, simulator.running():
        proxy = SlowProxy(folder / "slow.sock", server.url.removeprefix("unix://"))
        async with proxy.running():
            rig = Rig(folder, server, proxy)
            await rig.find_redis()
            configs = {}
            for stages, url in (("feeds", proxy.url), ("evaluator", server.url)):
                configs[stages] = folder / f"{stages}.toml"
                configs[stages].write_text(CONFIG.format(url=url, folder=folder, venue=simulator.url))
            imported = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "monitor", "accounts", "import", "--config", str(configs["evaluator"])),
                str(folder / "accounts.jsonl"),
                cwd=ROOT,
                stdout=asyncio.subprocess.DEVNULL,
            )
            assert await imported.wait() == 0
            try:
                await rig.start("evaluator", configs["evaluator"])
                await rig.start("feeds", configs["feeds"])
                yield rig
            finally:
                for process in rig.processes.values():
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()


async def slowness(kind: str, folder: Path, seconds: float, *, rate: float = 10.0) -> Slow:
    """One trouble of so many seconds, at `rate` frames of 400 marks a second. Asserts nothing."""
    async with _rig_of(folder, rate=rate) as rig:
        async with asyncio.timeout(60):
            while await rig.price_age_s() > 1.0 or await rig.undecided_s() > 1.0:
                await asyncio.sleep(0.1)
        await asyncio.sleep(min(20.0, seconds / 2))  # until its memory stands
        before, most = rig.resident(), rig.resident()

        def look() -> None:
            for name, now in rig.resident().items():
                most[name] = max(most[name], now)

        with rig.trouble(kind):
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                look()
                await asyncio.sleep(0.25)
        over_at = time.monotonic()
        seen = Slow(seconds=seconds, rate=rate * SYMBOLS, grown_mb={})
        async with asyncio.timeout(120):
            while await rig.price_age_s() > 1.0:
                look()
                await asyncio.sleep(0.05)
            seen.fresh_s = time.monotonic() - over_at
            while await rig.undecided_s() > 1.0:
                look()
                await asyncio.sleep(0.05)
            seen.decided_s = time.monotonic() - over_at
        look()
        seen.grown_mb = {name: round(most[name] - before[name], 1) for name in most}
        seen.conflated = await rig.conflated()
    return seen
