"""The command `demo`: the whole thing on this machine, on a made-up market that crashes.

A simulated venue serves the exchange's protocol over a real WebSocket; prices go through a real Redis; events come out on
the console, on MQTT where a broker can be had, and in the metrics. Everything lives in a temporary folder and is gone at
the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import orjson

from monitor.errors import ConfigError
from monitor.feeds.market import MarketShape, market, sample_symbols
from monitor.feeds.simulator import Simulator
from monitor.service.commands import run_until_signal
from monitor.service.local_rig import LocalRig, local_rig
from monitor.service.logs import configure_logs
from monitor.service.progress import Progress
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.sinks.base import SinkStatistics, read_body
from monitor.sinks.console import ConsoleSink
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.rows import Delivered, Delivery, Row

__all__ = ["demo_command", "find_mosquitto"]

STEP_S = 0.1
SHOWN_PER_LEVEL = 5


class _Screen:
    """Console lines of the first events of each level, so that a crash of thousands stays readable; all are counted."""

    name = "console"

    def __init__(self) -> None:
        self.statistics = SinkStatistics()
        self.levels: Counter[str] = Counter()
        self._console = ConsoleSink()

    async def open(self) -> None:
        """Nothing to do."""

    async def deliver(self, row: Row) -> Delivery:
        """Shows the row, or only counts it."""
        body = read_body(row)
        if body.get("kind") == "numbers":  # of a level that was counted when it was told
            return self.statistics.count(Delivered())
        word = str(body.get("level", body.get("kind")))
        self.levels[word] += 1
        if self.levels[word] <= SHOWN_PER_LEVEL:
            return self.statistics.count(await self._console.deliver(row))
        if self.levels[word] == SHOWN_PER_LEVEL + 1:
            print(f"... more {word} events follow; they are counted, and every one of them is in Redis and on MQTT", flush=True)
        return self.statistics.count(Delivered())

    async def close(self) -> None:
        """Nothing to do."""


def demo_command(*, seconds: float, accounts: int, symbols: int) -> int:
    """Runs the demo. Exit code 0 when at least one margin call and one liquidation came out, else 1."""
    configure_logs(form="text", level="warning")
    if not 5 <= seconds <= 86_400:
        raise ConfigError(source="DEMO_SECONDS", key="seconds", value=str(seconds), expected="5 to 86400")
    stop = asyncio.Event()
    levels: Counter[str] = Counter()

    async def work() -> None:
        levels.update(await _demo(seconds, accounts, symbols, stop))

    code = run_until_signal(work, stop.set)
    if not stop.is_set() and not (levels["margin_call"] and levels["liquidation"]):
        print("margin-monitor: the demo ended without a margin call and a liquidation", file=sys.stderr)
        return 1
    return code


async def _demo(seconds: float, accounts: int, symbols: int, stop: asyncio.Event) -> Counter[str]:
    prices = sample_symbols(symbols)
    steps = round(seconds / STEP_S)
    shape = MarketShape(
        steps=None,
        step_s=STEP_S,
        volatility=1.5e-4,
        crash_at=steps // 6,
        crash_steps=steps // 2,
        crash_depth=0.15,
        recovery_steps=steps // 4,
    )
    simulator = Simulator(binance_usdm(), market(prices, seed=7, shape=shape), stamp="now")
    screen = _Screen()
    print(f"margin-monitor demo: {accounts:,} accounts, {symbols} instruments, {seconds:g} s; a crash begins after {seconds / 6:.0f} s")
    with tempfile.TemporaryDirectory(prefix="margin-monitor-demo-") as name:
        folder = Path(name)
        tables = folder / "tables.json"
        tables.write_bytes(orjson.dumps(sample_tables(prices)))
        async with _broker(folder) as port:
            overrides = {} if port is None else {"sinks.mqtt.enabled": True, "sinks.mqtt.port": port}
            started = time.monotonic()
            async with local_rig(
                folder,
                simulator,
                sample_documents(accounts, prices),
                tables=[tables],
                overrides=overrides,
                sinks=[screen],
                on_loading=Progress(),
            ) as rig:
                assert rig.daemon.http is not None
                print(f"running after {time.monotonic() - started:.1f} s; metrics and API at {rig.daemon.http.address}")
                received: Counter[str] = Counter()
                listener = asyncio.create_task(_listen(port, received)) if port is not None else None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await stop.wait()
                await _settle(rig, received if port is not None else None)
                await _summary(rig, screen, received if port is not None else None)
                if listener is not None:
                    listener.cancel()
                    await asyncio.gather(listener, return_exceptions=True)
    return screen.levels


async def _settle(rig: LocalRig, received: Counter[str] | None) -> None:
    """Gives what is under way two seconds to arrive."""
    daemon = rig.daemon
    rows = {number: committer.partition.head.seq for number, committer in daemon.committers.items()}
    if daemon.alerts is not None:
        await daemon.alerts.finish(rows)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2.0):
            while received is not None and received["event"] < sum(rows.values()):
                await asyncio.sleep(0.02)


async def _summary(rig: LocalRig, screen: _Screen, received: Counter[str] | None) -> None:
    daemon, evaluator = rig.daemon, rig.daemon.evaluator
    assert evaluator is not None and daemon.http is not None
    statistics = evaluator.statistics
    metrics = await asyncio.to_thread(_scrape, f"{daemon.http.address}/metrics")
    print("from /metrics:")
    for line in metrics.splitlines():
        if line.startswith(("margin_monitor_pools{", "margin_monitor_events_total{", "margin_monitor_accounts")):
            print(f"  {line}")
    if received is None:
        print("MQTT was off: no mosquitto on the PATH; install one (Debian: apt install mosquitto) to see the events there too")
    else:
        print(f"MQTT: {received['event']:,} events received by a subscriber")
    rows = sum(committer.partition.head.seq for committer in daemon.committers.values())
    latency = evaluator.observer.latency
    print(
        f"{statistics.ticks:,} ticks, {len(evaluator.book):,} accounts, {rows:,} events "
        f"({screen.levels['margin_call']:,} margin calls, {screen.levels['liquidation']:,} liquidations), "
        f"tick received to event in Redis p50 {latency.quantile(0.5) * 1e3:.2f} ms, p99 {latency.quantile(0.99) * 1e3:.2f} ms",
        flush=True,
    )


def _scrape(address: str) -> str:
    with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - our own server on loopback
        text: bytes = answer.read()
    return text.decode()


def find_mosquitto() -> str | None:
    """A mosquitto on the PATH or where Debian puts it."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def _broker(folder: Path) -> AsyncIterator[int | None]:
    """A broker on a free loopback port while the demo runs; None when there is no mosquitto."""
    binary = find_mosquitto()
    if binary is None:
        print("MQTT is off: no mosquitto on the PATH")
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n")
    if os.geteuid() == 0:
        config.write_text(config.read_text() + "user root\n")
    process = await asyncio.create_subprocess_exec(
        binary, "-c", str(config), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _listen(port: int, received: Counter[str]) -> None:
    """A subscriber like a trader's: counts what arrives."""
    while True:
        try:
            async with aiomqtt.Client("127.0.0.1", port, identifier="demo-listener") as client:
                await client.subscribe("margin/#", qos=1)
                async for message in client.messages:
                    received[str(message.topic).rpartition("/")[2]] += 1
        except aiomqtt.MqttError:
            await asyncio.sleep(0.1)
