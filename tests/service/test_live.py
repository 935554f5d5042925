"""What the live page is told of accounts that cannot be judged, and of an account over time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.keys import PartitionKeys
from monitor.margin.prices import PriceKind
from monitor.page.what_if import changes_of
from monitor.service.http_query import AccountQuery
from monitor.service.local_rig import local_rig
from monitor.service.sample_book import sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.waiting import until


def document(account: str, sequence: int, instrument: str = "BTCUSDT") -> dict[str, Any]:
    """A long position in one coin, with more than twice what it needs at 30,000."""
    body = {
        "id": account,
        "venue": "binance_usdm",
        "positions": [{"instrument": instrument, "quantity": "1", "entry_price": "30000"}],
        "balances": [{"asset": "USDT", "wallet": "300"}],
    }
    return {"version": 1, "sequence": sequence, "account": body}


async def test_a_refused_document_makes_its_account_unknown_on_the_page_and_in_the_metrics(tmp_path: Path) -> None:
    """It is no more healthy than it can be known to be; its neighbour is not touched; both can still be looked at."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables({"BTCUSDT": 30_000.0})))
    tape: list[Moment] = [
        (index * 0.1, Quotes(time_ms=1_700_000_000_000 + index * 100, numbers={PriceKind.MARK: {"BTCUSDT": "30000.0"}}))
        for index in range(600)
    ]
    documents = [document("good", 1), document("bad", 1)]
    async with asyncio.timeout(60), local_rig(tmp_path, Simulator(binance_usdm(), tape), documents, tables=[tables]) as rig:
        readings = rig.daemon.readings

        def level(account: str) -> object:
            page = readings.page(AccountQuery({"search": account}))
            return page is not None and page["accounts"] and page["accounts"][0]["level"]

        await until(lambda: level("good") == "healthy" and level("bad") == "healthy")
        wire = await Link(Endpoint.parse(rig.server.url)).open()
        try:
            await wire.call("XADD", PartitionKeys.of(0).updates, "*", "u", orjson.dumps(document("bad", 2, "NOPEUSDT")), timeout_s=5.0)
        finally:
            wire.close()
        await until(lambda: readings.accounts(AccountQuery({"level": "unknown"}))["total"] == 1)  # type: ignore[index]

        page = readings.accounts(AccountQuery({}))
        assert page is not None
        first, second = page["accounts"]
        assert (first["id"], first["level"], second["id"], second["level"]) == ("bad", None, "good", "healthy")
        assert "NOPEUSDT" in first["unknown"]
        status = readings.status()
        assert (status["levels"]["unknown"], status["levels"]["healthy"]) == (1, 1)
        assert 'margin_monitor_pools_unknown{reason="held"} 1.0' in readings.metrics("")[0].decode()

        shown = await readings.account_live("bad")
        assert shown is not None and shown["hold"] == first["unknown"]
        assert [pool["level"] for pool in shown["pools"]] == [None]
        answer = await readings.what_if("good", changes_of([("close", "BTCUSDT")]))
        assert answer is not None and answer["account"]["pools"][0]["equity"] == "300"
        assert await readings.what_if("nobody", changes_of([])) is None
        await until(lambda: len(readings.history("good")) > 0, within_s=15)
        assert readings.history("good")[-1][1] is not None
