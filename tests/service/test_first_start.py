"""An evaluator's very first start, beside a log of prices that has been growing without it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.feeds.market import sample_symbols
from monitor.ledger.cache import TicksWriter
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.cursors import read_rows
from monitor.ledger.server import EmbeddedServer
from monitor.ledger.updates import UpdatesProducer
from monitor.margin.prices import PriceKind
from monitor.service.account_book import AccountBook, Held
from monitor.service.bench_book import bench_documents, fill_ledger
from monitor.service.sample_book import sample_tables
from monitor.service.settings import load_settings
from monitor.service.wiring import Daemon
from monitor.wire.prices import PriceBatch
from tests.support.waiting import until

LOG = (("ETHUSDT", 1_800.0), ("BTCUSDT", 30_000.0), ("BTCUSDT", 24_000.0), ("BTCUSDT", 30_000.0), ("BTCUSDT", 24_000.0))


async def test_the_log_is_decided_from_its_beginning(tmp_path: Path) -> None:
    """Five prices stand there: each change of level is told once, in the order of the prices, whatever the last one is."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables({"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0})))
    positions = [{"instrument": "BTCUSDT", "quantity": "1", "entry_price": "30000"}]
    body = {"id": "a", "venue": "binance_usdm", "positions": positions, "balances": [{"asset": "USDT", "wallet": "6000"}]}
    async with asyncio.timeout(60), EmbeddedServer(tmp_path / "redis") as server:
        producer = UpdatesProducer(lambda _partition: Link(Endpoint.parse(server.url)), 1)
        await producer.import_documents([("a", orjson.dumps({"sequence": 1, "account": body}))])
        producer.close()
        writer = TicksWriter(Link(Endpoint.parse(server.url)))
        for index, (name, mark) in enumerate(LOG):
            time_ms = 1_700_000_000_000 + index * 1000
            batch = PriceBatch(
                venue="binance_usdm",
                kind=PriceKind.MARK,
                names=[name],
                prices=[mark],
                venue_times_ms=[time_ms],
                received_at_ns=time_ms * 1_000_000,
            )
            await writer.write([batch])
        writer.close()
        overrides = {
            "ledger.url": server.url,
            "ledger.data_dir": str(tmp_path / "ledger"),
            "evaluator.tables": [str(tables)],
            "http.port": 0,
        }
        daemon = Daemon(load_settings(None, environment={}, overrides=overrides), stages=["evaluator"])
        async with asyncio.TaskGroup() as group:
            group.create_task(daemon.run())
            await daemon.ready.wait()
            evaluator = daemon.evaluator
            assert evaluator is not None
            await until(lambda: evaluator.statistics.messages == len(LOG))
            for committer in daemon.committers.values():
                await committer.flush()
            daemon.stop()
        wire = await Link(Endpoint.parse(server.url)).open()
        rows = [orjson.loads(row.body) for row in await read_rows(wire, 0, "0-0", count=100)]
        wire.close()

    assert [(row["previous"], row["level"], row["cause"]["price"]) for row in rows if row["kind"] == "level"] == [
        ("healthy", "bankrupt", "24000"),
        ("bankrupt", "healthy", "30000"),
        ("healthy", "bankrupt", "24000"),
    ]


async def test_without_prices_no_document_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts that lack nothing but a first price are unknown, without a look into each: a large start would be busy for minutes."""
    prices = sample_symbols(20)
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(prices)))
    parsed: list[bytes] = []
    parse = AccountBook.parse

    def watched(self: AccountBook, data: bytes, *arguments: Any, **named: Any) -> Held:
        parsed.append(data)
        return parse(self, data, *arguments, **named)

    monkeypatch.setattr(AccountBook, "parse", watched)
    async with asyncio.timeout(60), EmbeddedServer(tmp_path / "redis") as server:
        await fill_ledger(server.url, bench_documents(50, prices))
        overrides = {
            "ledger.url": server.url,
            "ledger.data_dir": str(tmp_path / "ledger"),
            "evaluator.tables": [str(tables)],
            "http.port": 0,
        }
        daemon = Daemon(load_settings(None, environment={}, overrides=overrides), stages=["evaluator"])
        async with asyncio.TaskGroup() as group:
            group.create_task(daemon.run())
            await daemon.ready.wait()
            assert daemon.evaluator is not None
            counts = daemon.evaluator.engine.counts()
            read = len(parsed)
            daemon.stop()

    assert counts[None] == 50
    assert read == 0
