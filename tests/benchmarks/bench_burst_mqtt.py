"""How long a burst takes to everybody: `PYTHONPATH=. python tests/benchmarks/bench_burst_mqtt.py [--bursts 5] [--apart]`.

One price message changes the level of every account of a book with two positions each. From the moment the message's frame was received to
the last level in Redis (a redis-server with the ledger's settings), and to the last event in the hands of an MQTT subscriber, a process of
its own behind a real mosquitto. The whole monitor runs in one process, or its alerts in another (`--apart`), with an alert policy whose one
route is a webhook in place of a chat: the messages that it got are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from monitor.feeds.simulator import Simulator
from monitor.margin.prices import PriceKind
from monitor.service.local_rig import local_rig
from monitor.service.logs import configure_logs
from monitor.service.sample_book import sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.benchmarks.bench_burst import PRICES, document
from tests.support.http_server import answering, receiver
from tests.support.mosquitto import Mosquitto

BETWEEN_S = 20.0
POLICY = '[[routes]]\nname = "chat"\nsinks = ["people"]\nabout = ["level"]\nper_hour = 3600\nburst = 100\n'


def subscribe(port: int, accounts: int, bursts: int) -> None:
    """The subscriber: prints for each burst how long after its frame the last event came, and how many messages of each kind it got."""
    heard: dict[int, dict[str, set[str]]] = {}
    done = 0
    began = time.time_ns()

    def on_message(_client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        nonlocal done
        now_ns = time.time_ns()
        body = orjson.loads(message.payload)
        cause = body["cause"]
        if cause["kind"] != "mark" or cause["received_at_ns"] < began:
            return
        kinds = heard.setdefault(cause["received_at_ns"], {"level": set(), "numbers": set()})
        kinds[body["kind"]].add(body["account"])
        if body["kind"] == "level" and len(kinds["level"]) == accounts:
            print(orjson.dumps(["burst", (now_ns - cause["received_at_ns"]) / 1e9, len(kinds["numbers"])]).decode(), flush=True)
            done += 1
            if done == bursts:
                client.disconnect()

    client = paho.Client(CallbackAPIVersion.VERSION2, "subscriber", protocol=paho.MQTTv5)
    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe("margin/+/+/event", qos=1)
    print('["ready"]', flush=True)
    client.loop_forever()


def moment(at_s: float, share: float) -> tuple[float, Quotes]:
    """Both marks at once."""
    marks = {name: f"{price * share:.2f}" for name, price in PRICES.items()}
    return at_s, Quotes(time_ms=1_700_000_000_000 + round(at_s * 1000), numbers={PriceKind.MARK: marks})


@asynccontextmanager
async def alerts_apart(folder: Path, settings: dict[str, Any], is_apart: bool) -> AsyncIterator[None]:
    """The alerts stage in a process of its own, where that is asked for."""
    if not is_apart:
        yield
        return
    config = folder / "alerts-stage.toml"
    config.write_text("".join(f"{key} = {orjson.dumps(value).decode()}\n" for key, value in settings.items()) + "http.port = 0\n")
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "monitor", "run", "--config", str(config), "--stage", "alerts")
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def main(accounts: int, bursts: int, *, is_apart: bool) -> None:
    """Runs the bursts and prints their times."""
    configure_logs(form="text", level="warning")
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        folder = Path(name)
        broker = Mosquitto(folder / "mosquitto", "max_queued_messages 0", "max_inflight_messages 1000")
        broker.start()
        arguments = (sys.executable, __file__, "--subscriber", str(broker.port), "--accounts", str(accounts), "--bursts", str(bursts))
        subscriber = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
        assert subscriber.stdout is not None
        try:
            assert await subscriber.stdout.readline() == b'["ready"]\n'
            (folder / "tables.json").write_bytes(orjson.dumps(sample_tables(PRICES)))
            (folder / "alerts.toml").write_text(POLICY)
            (folder / "secret").write_text("0123456789abcdef")
            (folder / "secret").chmod(0o600)
            tape = [
                moment(BETWEEN_S * index + 2.0 * step, 1.0 if index % 2 == 0 else 0.9)
                for index in range(bursts + 1)
                for step in range(int(BETWEEN_S / 2))
            ]
            async with receiver(answering("HTTP/1.1 200 OK\nContent-Length: 0\n\n")) as people:
                chosen = {
                    "sinks.console.enabled": False,
                    "sinks.mqtt.enabled": True,
                    "sinks.mqtt.port": broker.port,
                    "alerts.policy": str(folder / "alerts.toml"),
                    "sinks.webhook.people.url": f"http://127.0.0.1:{people.port}/",
                    "sinks.webhook.people.allow": ["127.0.0.1"],
                    "sinks.webhook.people.password_file": str(folder / "secret"),
                    "sinks.webhook.people.events": False,
                }
                overrides = {"feeds.binance_usdm.stale_after_s": 3600.0, **({} if is_apart else chosen)}
                simulator = Simulator(binance_usdm(), tape, stamp="now")
                documents = map(document, range(accounts))
                async with (
                    local_rig(folder, simulator, documents, tables=[folder / "tables.json"], overrides=overrides) as rig,
                    alerts_apart(folder, {**chosen, "ledger.url": rig.server.url}, is_apart),
                ):
                    evaluator, committer = rig.daemon.evaluator, rig.daemon.committers[0]
                    assert evaluator is not None
                    times: list[float] = []
                    for _ in range(bursts):
                        told = len(people.requests)
                        answer = orjson.loads(await subscriber.stdout.readline())
                        times.append(answer[1])
                        await asyncio.sleep(BETWEEN_S / 2)
                        print(
                            f"the last of {accounts} events at the subscriber after {answer[1]:.2f} s, {answer[2]} rows of numbers "
                            f"before it; {len(people.requests) - told} messages to people",
                            flush=True,
                        )
                    latency = evaluator.observer.latency
                    print(
                        f"median of {bursts}: {statistics.median(times):.2f} s; frame to level in Redis p50 "
                        f"{latency.quantile(0.5) * 1e3:.0f} ms, max {latency.maximum * 1e3:.0f} ms ({committer.statistics.rows} rows)"
                    )
        finally:
            if subscriber.returncode is None:
                subscriber.kill()
                await subscriber.wait()
            broker.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=11_279)
    parser.add_argument("--bursts", type=int, default=5)
    parser.add_argument("--apart", action="store_true", help="the alerts stage in a process of its own")
    parser.add_argument("--subscriber", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.subscriber:
        subscribe(chosen.subscriber, chosen.accounts, chosen.bursts)
    else:
        asyncio.run(main(chosen.accounts, chosen.bursts, is_apart=chosen.apart))
