"""The policy's rules where evaluator and alerts are processes of their own: they meet in Redis only."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from monitor.feeds.simulator import Simulator
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.server import EmbeddedServer
from monitor.ledger.updates import UpdatesProducer
from monitor.margin.prices import PriceKind
from monitor.service.sample_book import sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.http_server import Receiver, answering, receiver
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PRICES = {"BTCUSDT": 30_000.0}

CONFIG = """
[ledger]
url = "{url}"
lease_s = 0.5
data_dir = "{folder}/ledger"
[feeds]
venues = ["binance_usdm"]
[feeds.binance_usdm]
url = "{venue}"
stale_after_s = 600.0
[evaluator]
tables = ["{folder}/tables.json"]
[alerts]
policy = "{folder}/alerts.toml"
[sinks.console]
enabled = false
[sinks.webhook.people]
url = "http://127.0.0.1:{port}/"
allow = ["127.0.0.1"]
password_file = "{folder}/secret"
events = false
[http]
port = 0
"""

POLICY = """
[defaults]
keep_firing_for = "1s"
[[routes]]
name = "desk"
sinks = ["people"]
about = ["distance", "without_stop"]
group_wait = "0s"
urgent_wait = "0s"
group_interval = "1s"
[rules.distance]
liquidation = "5%"
[rules.without_stop]
margin_call = "50%"
"""


def document(account: str, sequence: int, wallet: str, *orders: dict[str, str]) -> tuple[str, bytes]:
    """A long whose liquidation price lies about wallet / 0.5 below 30,000."""
    position = {"instrument": "BTCUSDT", "quantity": "0.5", "entry_price": "30000"}
    balances = [{"asset": "USDT", "wallet": wallet}]
    body = {"id": account, "venue": "binance_usdm", "balances": balances, "positions": [position], "orders": orders}
    return account, orjson.dumps({"sequence": sequence, "account": body})


@asynccontextmanager
async def process(config: Path, stages: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """One process of the monitor; killed at the end."""
    with (config.parent / f"{stages}.log").open("ab") as log:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "monitor", "run", "--config", str(config), "--stage", stages), cwd=ROOT, stdout=log, stderr=log
        )
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


def told(people: Receiver) -> set[tuple[str, str, str]]:
    """What people were told: account, rule, why."""
    items: list[dict[str, Any]] = [item for request in people.requests for item in orjson.loads(request.body)["items"]]
    return {(item["account"], item["about"], item["change"]) for item in items}


async def test_rules_are_told_by_a_process_that_only_alerts() -> None:
    """Warnings cross, better ones too, over a kill of either side; the standing ones are told once."""
    marks = {PriceKind.MARK: {name: f"{price}" for name, price in PRICES.items()}}
    tape = [(each / 2, Quotes(time_ms=1_700_000_000_000 + 500 * each, numbers=marks)) for each in range(300)]
    simulator = Simulator(binance_usdm(), tape, speed=1.0)
    stop = {"instrument": "BTCUSDT", "side": "sell", "quantity": "0.5", "price": "29800"}
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        folder = Path(name)
        (folder / "tables.json").write_bytes(orjson.dumps(sample_tables(PRICES)))
        (folder / "alerts.toml").write_text(POLICY)
        (folder / "secret").write_text("0123456789abcdef")
        (folder / "secret").chmod(0o600)
        async with (
            asyncio.timeout(90),
            receiver(answering("HTTP/1.1 200 OK\nContent-Length: 0\n\n")) as people,
            EmbeddedServer(folder / "redis") as server,
            simulator.running(),
        ):
            config = folder / "monitor.toml"
            config.write_text(CONFIG.format(url=server.url, folder=folder, venue=simulator.url, port=people.port))
            producer = UpdatesProducer(lambda _partition: Link(Endpoint.parse(server.url)), 1)
            try:
                await producer.import_documents(
                    [document("near", 1, "600"), document("stopped", 1, "600", stop), document("far", 1, "9000")]
                )
                async with process(config, "alerts"):
                    async with process(config, "feeds,evaluator"):
                        first = {("near", "distance", "alert"), ("near", "without_stop", "alert"), ("stopped", "distance", "alert")}
                        first |= {("far", "without_stop", "alert")}
                        await until(lambda: told(people) >= first, within_s=40)
                    before = len(people.requests)
                    async with process(config, "feeds,evaluator"):  # killed, and another one goes on
                        await producer.import_documents([document("near", 2, "9000", stop)])
                        better = {("near", "distance", "better"), ("near", "without_stop", "better")}
                        await until(lambda: told(people) >= first | better, within_s=40)
            finally:
                producer.close()
            again = {(item["account"], item["change"]) for each in people.requests[before:] for item in orjson.loads(each.body)["items"]}

    assert told(people) == first | better
    assert again == {("near", "better")}
