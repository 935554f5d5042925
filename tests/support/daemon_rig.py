"""A whole deployment to break.

A simulated venue -> a feeds process -> the cache -> an evaluator-and-alerts process (or two) -> the ledger -> mosquitto -> a subscriber.
Ledger and cache are servers of their own, each behind a proxy that can do what a network does.
`Stage.deployed` starts one; what is done to it is the scenario's; `DaemonRig.finish` lets it come to rest and has it checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import redis

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.ledger.server import CACHE_SETTINGS, LEDGER_SETTINGS, EmbeddedServer
from monitor.margin.prices import PriceKind
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.daemon_checker import Found, check_deployment, head_of
from tests.support.mosquitto import Mosquitto
from tests.support.nursery import Life, Nursery, connected
from tests.support.proxy import FaultProxy
from tests.support.tick_log import client_of, tick_entries

__all__ = ["LEASE_S", "DaemonRig", "Heard", "Stage"]

PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0, "SOLUSDT": 20.0}
ACCOUNTS = 300
STEP_S = 0.1
LEASE_S = 0.5
LONGEST_LIFE_S = 8.0

CONFIG = """
[ledger]
url = "{ledger}"
lease_s = {lease_s}
data_dir = "{folder}/known"
[cache]
url = "{cache}"
[feeds]
venues = ["binance_usdm"]
[feeds.binance_usdm]
url = "{venue}"
stale_after_s = 6000.0
[evaluator]
tables = ["{folder}/tables.json"]
[sinks.console]
enabled = false
[sinks.mqtt]
enabled = true
port = {mqtt}
[http]
port = 0
{more}
"""


def swings(seed: int) -> Sequence[Moment]:
    """Twenty minutes of prices that swing by a few percent, so that pools cross in both directions all the time."""
    rng = random.Random(seed)
    moments: list[Moment] = []
    share = dict.fromkeys(PRICES, 0.97)
    for index in range(int(1_200 / STEP_S)):
        for name in share:
            share[name] = min(1.0, max(0.94, share[name] + rng.gauss(0, 0.006)))
        marks = {name: f"{price * share[name]:.4f}" for name, price in PRICES.items()}
        moments.append((index * STEP_S, Quotes(time_ms=1_700_000_000_000 + index * 100, numbers={PriceKind.MARK: marks})))
    return moments


@dataclass(frozen=True, slots=True)
class Heard:
    """An event as the subscriber got it, and when (wall clock, ns)."""

    data: bytes
    body: dict[str, Any]
    at_ns: int


class DaemonRig:
    """A running deployment.

    Attributes:
        ledger, cache: Servers. ledger_proxy, cache_proxy: on the way to them.
        heard: Events that the broker handed out.
        deaths: How deciding processes ended: by crash point, `random`, or `elsewhere` (the point was not reached: killed from outside).
        feeds: The process that writes prices.
    """

    def __init__(
        self, folder: Path, nursery: Nursery, ledger: EmbeddedServer, cache: EmbeddedServer, documents: list[dict[str, Any]], seed: int
    ) -> None:
        self.folder, self.ledger, self.cache = folder, ledger, cache
        self.ledger_proxy = FaultProxy(folder / "l.sock", str(ledger.socket))
        self.cache_proxy = FaultProxy(folder / "c.sock", str(cache.socket))
        self.config = folder / "monitor.toml"
        self.heard: list[Heard] = []
        self.deaths: Counter[str] = Counter()
        self.draw = random.Random(seed)
        self.feeds: Life
        self._nursery, self._documents = nursery, documents
        self._ticks: list[tuple[str, dict[str, Any]]] = []
        self._round = itertools.count()

    # ------------------------------------------------------------------ processes

    async def decider(self, nursery: Nursery | None = None, **environment: str) -> Life:
        """A process that decides and tells, just started."""
        wanted = {"MARGIN_MONITOR_CRASH_AT": "", **environment}
        return await (nursery or self._nursery).start(
            "decider", "run", "--config", str(self.config), "--stage", "evaluator,alerts", **wanted
        )

    async def leader(self, nursery: Nursery | None = None, **environment: str) -> Life:
        """A process that decides and tells, at work."""
        life = await self.decider(nursery, **environment)
        await life.says(" ready ")
        return life

    async def start_feeds(self) -> None:
        """The process that writes prices."""
        self.feeds = await self._nursery.start("feeds", "run", "--config", str(self.config), "--stage", "feeds")

    async def die(self, point: str | None) -> None:
        """Starts the deciding process and has it killed at a crash point, or at a moment that nobody chose.

        The points of settling are passed only when commits are struck on their way; every other time the process takes over from one that
        is stopped, and so has to wait for its lease.
        """
        number = next(self._round)
        stopped: Life | None = None
        passes = self.draw.randint(1, 3)
        if point is not None and point.startswith(("settle", "acquire")) and (point.startswith("settle") or passes > 1):
            self.ledger_proxy.arm(("cut_reply", "drop_request")[number % 2], after=3, again=3)
        elif point is not None and point.startswith("takeover"):
            passes = 1
            if number % 2:
                stopped = await self.leader()
                stopped.signal(signal.SIGSTOP)
        life = await self.decider(MARGIN_MONITOR_CRASH_AT="" if point is None else f"{point}:{passes}")
        try:
            code = await life.ended(LONGEST_LIFE_S if point is not None else self.draw.uniform(0.2, 1.5))
            assert code == -signal.SIGKILL, life.text()[-2_000:]
            self.deaths[str(point)] += 1
        except TimeoutError:
            await life.kill()
            self.deaths["random" if point is None else "elsewhere"] += 1
        self.ledger_proxy.disarm()
        if stopped is not None:
            stopped.signal(signal.SIGCONT)
            await stopped.kill()
            self.deaths["random"] += 1

    # ------------------------------------------------------------------ what can be seen

    def head(self) -> dict[str, Any]:
        """The head of the ledger."""
        return head_of(self.ledger.url)

    def newest_tick(self) -> str:
        """The last id of the log of ticks."""
        with client_of(self.cache.url) as client:
            entries = client.xrevrange("ticks", count=1)
        return str(entries[0][0].decode()) if entries else "0-0"

    async def until(self, condition: Callable[[], bool], *, within_s: float = 60.0) -> None:
        """Returns when it holds; a Redis that does not answer is asked again."""
        async with asyncio.timeout(within_s):
            while True:
                with contextlib.suppress(redis.ConnectionError):
                    if condition():
                        return
                await asyncio.sleep(0.02)

    async def until_decided(self, tick: str) -> float:
        """Returns when the ledger's cursor is at this tick or behind it; how long that took, seconds."""
        began = time.monotonic()
        await self.until(lambda: _order(self.head()["ticks"]) >= _order(tick))
        return time.monotonic() - began

    async def until_told(self) -> None:
        """Returns when the subscriber has the ledger's last row."""
        await self.until(self._is_told)

    def _is_told(self) -> bool:
        with client_of(self.ledger.url) as client:
            last = client.xrevrange("{0}:events", count=1)
            place = client.hget("{0}:sinks", "mqtt")
        return not last or (place == last[0][0] and any(last[0][1][b"e"] == heard.data for heard in reversed(self.heard)))

    def another_leader(self) -> Awaitable[None]:
        """Done when somebody else leads than when this was called."""
        token = self.head()["token"]
        return self.until(lambda: self.head()["token"] != token)

    def another_event(self) -> Awaitable[None]:
        """Done when the subscriber has heard more than when this was called."""
        count = len(self.heard)
        return self.until(lambda: len(self.heard) > count)

    async def more_rows(self, count: int) -> None:
        """Returns when so many rows were written from now on."""
        seq = self.head()["seq"]
        await self.until(lambda: self.head()["seq"] >= seq + count)

    # ------------------------------------------------------------------ the end

    async def end_feeds(self) -> None:
        """Ends the prices, and keeps the log of ticks as it then is: whatever becomes of the cache, the checker has it."""
        await self.feeds.kill()
        self._ticks += tick_entries(self.cache.url)

    async def finish(self, life: Life | None = None) -> Found:
        """Ends the prices, lets a deciding process (a new one when none is given) catch up and end in order, and checks everything."""
        await self.end_feeds()
        life = life or await self.leader()
        await self.until_decided(self._ticks[-1][0])
        await self.until_told()
        life.signal(signal.SIGTERM)
        assert await life.ended() == 0, life.text()[-2_000:]
        return check_deployment(self.ledger.url, self._ticks, self._documents, sample_tables(PRICES), [heard.data for heard in self.heard])

    async def listen(self, port: int) -> None:
        """Keeps every event that the broker hands out, until cancelled."""
        async with aiomqtt.Client("127.0.0.1", port, identifier="checker") as client:
            await client.subscribe("margin/+/+/event", qos=1)
            async for message in client.messages:
                assert isinstance(message.payload, bytes)
                self.heard.append(Heard(message.payload, orjson.loads(message.payload), time.time_ns()))


@dataclass(frozen=True, slots=True)
class Stage:
    """Where deployments are put up: the nursery's socket, and the seed of the tape."""

    nursery: Path
    seed: int = 1

    @asynccontextmanager
    async def deployed(
        self,
        *,
        lease_s: float = LEASE_S,
        program: Path | None = None,
        ledger_folder: Path | None = None,
        settings: Mapping[str, str] = LEDGER_SETTINGS,
        more: str = "",
    ) -> AsyncIterator[DaemonRig]:
        """A deployment, its accounts imported, prices flowing, the first rows written, no deciding process at work.

        Args:
            program: The program of both servers. ledger_folder: where the ledger's file is. settings: the ledger's.
            more: Added to the settings of the monitor.
        """
        documents = list(sample_documents(ACCOUNTS, PRICES, seed=self.seed))
        simulator = Simulator(binance_usdm(), swings(self.seed), speed=1.0)
        async with contextlib.AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mm-")))
            broker = Mosquitto(folder / "mosquitto", "persistence false")
            broker.start()
            stack.callback(broker.kill)
            ledger = EmbeddedServer(ledger_folder or folder / "ledger", settings=settings, binary=program)
            cache = EmbeddedServer(folder / "cache", settings=CACHE_SETTINGS, binary=program)
            for server in (ledger, cache):
                stack.push_async_callback(server.stop)
                await server.start()
            await stack.enter_async_context(simulator.running())
            nursery = await stack.enter_async_context(connected(self.nursery, folder))
            rig = DaemonRig(folder, nursery, ledger, cache, documents, self.seed)
            for proxy in (rig.ledger_proxy, rig.cache_proxy):
                await stack.enter_async_context(proxy.running())
            (folder / "tables.json").write_bytes(orjson.dumps(sample_tables(PRICES)))
            (folder / "accounts.jsonl").write_bytes(b"\n".join(map(orjson.dumps, documents)))
            urls = {"ledger": f"unix://{rig.ledger_proxy.endpoint.path}", "cache": f"unix://{rig.cache_proxy.endpoint.path}"}
            rig.config.write_text(CONFIG.format(**urls, folder=folder, venue=simulator.url, mqtt=broker.port, lease_s=lease_s, more=more))
            imported = await nursery.start("import", "accounts", "import", "--config", str(rig.config), str(folder / "accounts.jsonl"))
            assert await imported.ended() == 0, imported.text()
            listening = asyncio.create_task(rig.listen(broker.port))
            stack.push_async_callback(_cancelled, listening)
            first = await rig.leader()  # takes the accounts in before the first price
            await rig.start_feeds()
            await rig.until(lambda: rig.head()["seq"] > 0)
            first.signal(signal.SIGTERM)
            assert await first.ended() == 0, first.text()
            yield rig


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _order(stream_id: str) -> tuple[int, int]:
    left, _, right = stream_id.partition("-")
    return int(left), int(right)
