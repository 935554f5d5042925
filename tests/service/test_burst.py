"""Very many level changes in one message: every level is told at once, every number follows, and all of them can be recomputed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.cursors import read_rows
from monitor.ledger.verify import verify_partition
from monitor.margin.levels import DEFAULT_THRESHOLDS
from monitor.margin.prices import PriceKind
from monitor.service import deciding
from monitor.service.local_rig import local_rig
from monitor.service.observing import Observer
from monitor.service.sample_book import sample_tables
from monitor.service.tables import VenueTables
from monitor.service.verify import recomputed
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from monitor.wire.rows import Row
from tests.support.waiting import until

PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0}
ACCOUNTS = 300


def documents() -> list[dict[str, Any]]:
    """Longs in both instruments, whose level changes when both fall by a tenth."""
    return [
        {
            "sequence": 1,
            "account": {
                "id": f"long-{index:03d}",
                "venue": "binance_usdm",
                "group": "desk",
                "balances": [{"asset": "USDT", "wallet": f"{3000 + index / 10:.1f}"}],
                "positions": [
                    {"instrument": "BTCUSDT", "quantity": "0.5", "entry_price": "30000"},
                    {"instrument": "ETHUSDT", "quantity": "8", "entry_price": "1800"},
                ],
            },
        }
        for index in range(ACCOUNTS)
    ]


def quotes(at_s: float, share: float) -> Moment:
    """Both marks at once."""
    marks = {name: f"{price * share:.2f}" for name, price in PRICES.items()}
    return at_s, Quotes(time_ms=1_700_000_000_000 + round(at_s * 1000), numbers={PriceKind.MARK: marks})


async def test_levels_go_ahead_and_their_numbers_follow(tmp_path: Path) -> None:
    """A message that moves every account gives one level row each, and one row of numbers each."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    simulator = Simulator(binance_usdm(), [quotes(0.0, 1.0), quotes(0.5, 0.9), quotes(1.0, 0.9001)])
    async with local_rig(tmp_path, simulator, documents(), tables=[tables], lossless=True) as rig:
        await rig.caught_up()
        assert rig.daemon.evaluator is not None
        await rig.daemon.evaluator.observer.follow_all()
        for committer in rig.daemon.committers.values():
            await committer.flush()
        bodies: list[dict[str, Any]] = []

        def on_row(_row: Row, body: dict[str, Any]) -> None:
            bodies.append(body)

        report = await verify_partition(Link(Endpoint.parse(rig.server.url)), 0, on_row=on_row)
        assert report.faults == []
    kinds = Counter((body["kind"], body.get("numbers")) for body in bodies if body["cause"]["kind"] == "mark")
    assert kinds == {("level", "follow"): ACCOUNTS, ("numbers", None): ACCOUNTS}
    known, stored = VenueTables([tables]), {body["account"]["id"]: orjson.dumps(body) for body in documents()}
    outcomes = Counter(recomputed(body, stored[body["account"]], known, DEFAULT_THRESHOLDS) for body in bodies)
    assert outcomes == {"recomputed": ACCOUNTS, "without numbers": ACCOUNTS}
    told = {body["account"]: body for body in bodies if body["kind"] == "level"}
    for body in bodies:
        if body["kind"] == "numbers":
            level = told[body["account"]]
            assert [body[key] for key in ("level", "rev", "at", "cause", "decided_at_ns")] == [
                level[key] for key in ("level", "rev", "at", "cause", "decided_at_ns")
            ]


async def test_a_stop_in_the_middle_of_a_message_loses_no_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor of the next message would go past what was not told: a message is decided to its end."""
    monkeypatch.setattr(deciding, "BURST", 1)
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    simulator = Simulator(binance_usdm(), [quotes(0.0, 1.0), quotes(0.5, 0.9), quotes(1.0, 0.9001)], speed=1.0)
    overrides = {"feeds.binance_usdm.stale_after_s": 600.0}
    async with local_rig(tmp_path, simulator, documents(), tables=[tables], overrides=overrides) as rig:
        assert rig.daemon.evaluator is not None
        observer, seen, observe = rig.daemon.evaluator.observer, 0, Observer.observe

        async def watched(self: Observer, *arguments: Any, **named: Any) -> None:
            nonlocal seen
            await observe(self, *arguments, **named)
            if named.get("moment") is not None:
                seen += 1
                if seen == ACCOUNTS // 3:
                    rig.daemon.stop()

        monkeypatch.setattr(Observer, "observe", watched)
        await until(lambda: seen == ACCOUNTS)
        committer = rig.daemon.committers[0]
        await until(lambda: observer.following == 0 and committer.depth == 0)
        wire = await Link(Endpoint.parse(rig.server.url)).open()
        rows = [orjson.loads(row.body) for row in await read_rows(wire, 0, "0-0", count=10_000)]
        wire.close()

    told = Counter(row["account"] for row in rows if row["kind"] == "level" and row["cause"]["kind"] == "mark")
    assert set(told) == {body["account"]["id"] for body in documents()}
