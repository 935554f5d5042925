"""Rules over the book: the near ones are found, the far ones cost little, and the whole daemon tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import orjson
import pytest

from monitor.alerting.rules import Limits, PoolSnapshot, RuleReading, evaluate_rules
from monitor.alerting.rules import PoolMemory as Memory
from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.margin.levels import Level
from monitor.margin.liquidation import report
from monitor.margin.prices import PriceKind
from monitor.service.local_rig import local_rig
from monitor.service.rule_rounds import RuleRounds
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.http_server import answering, receiver
from tests.support.waiting import until

PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0}
DISTANCE = Limits((Decimal("0.3"), Decimal("0.2"), Decimal("0.1"), None))


class Heard:
    """Keeps the readings."""

    def __init__(self) -> None:
        self.readings: dict[tuple[str, str], dict[str, RuleReading]] = {}

    async def read(self, snapshot: PoolSnapshot, readings: Sequence[RuleReading]) -> None:
        """The latest of each pool."""
        self.readings[snapshot.account, snapshot.pool] = {reading.rule: reading for reading in readings}


def still() -> list[Moment]:
    """A price of each, once."""
    return [(0.0, Quotes(time_ms=1_700_000_000_000, numbers={PriceKind.MARK: {name: f"{price}" for name, price in PRICES.items()}}))]


async def test_every_near_pool_is_found_and_few_are_solved(tmp_path: Path) -> None:
    """The screen leaves out no pool whose liquidation price lies within the limits, and the readings are those of the solver."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    heard = Heard()
    overrides = {"feeds.binance_usdm.stale_after_s": 600.0}
    documents = list(sample_documents(120, PRICES))
    async with asyncio.timeout(60):
        async with local_rig(
            tmp_path, Simulator(binance_usdm(), still(), speed=1.0), documents, tables=[tables], overrides=overrides
        ) as rig:
            await rig.caught_up()
            evaluator = rig.daemon.evaluator
            assert evaluator is not None
            limits = {
                "distance": DISTANCE,
                "leverage": Limits((Decimal(5), None, None, None)),
                "net_delta": Limits((Decimal(3), None, None, None)),
            }
            rounds = RuleRounds(evaluator, limits, heard, interval_s=0.0, doze=lambda _seconds: asyncio.sleep(0))
            task = asyncio.create_task(rounds.run())
            await until(lambda: rounds.round_s > 0, within_s=30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            prices = evaluator.store.prices("binance_usdm")
            nearest: dict[tuple[str, str], Decimal] = {}
            for document in documents:
                account = document["account"]["id"]
                for name, pool in evaluator.book.held(account, evaluator.now()).pools.items():
                    for position in report(pool, prices, evaluator.now()).health.positions:
                        if position.liquidation_price is not None and position.mark_price:
                            distance = abs(position.liquidation_price / position.mark_price - 1)
                            nearest[account, name] = min(nearest.get((account, name), Decimal(9)), distance)

    assert len(heard.readings) >= 120
    for key, readings in heard.readings.items():
        distance = nearest.get(key, Decimal(9))
        wanted = Level(sum(distance <= bound for bound in (Decimal("0.3"), Decimal("0.2"), Decimal("0.1"))))
        assert readings["distance"].severity is wanted, (key, distance, readings["distance"])
    assert any(readings["leverage"].severity for readings in heard.readings.values())
    assert all(readings["net_delta"].unknown is None for readings in heard.readings.values())
    assert 0 < rounds.solved <= rounds.readings


async def test_the_daemon_tells_what_its_rules_find(tmp_path: Path) -> None:
    """A rule of the policy file warns people of accounts near liquidation, in one digest."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    route = '[[routes]]\nname = "desk"\nsinks = ["people"]\nabout = ["distance"]\nmin_level = "liquidation"\n'
    (tmp_path / "alerts.toml").write_text(route + '[rules.distance]\nliquidation = "10%"\n')
    async with asyncio.timeout(60), receiver(answering("HTTP/1.1 200 OK\nContent-Length: 0\n\n")) as people:
        overrides = {
            "feeds.binance_usdm.stale_after_s": 600.0,
            "alerts.policy": str(tmp_path / "alerts.toml"),
            "sinks.webhook.people.url": f"http://127.0.0.1:{people.port}/",
            "sinks.webhook.people.allow": ["127.0.0.1"],
            "sinks.webhook.people.password": "0123456789abcdef",
            "sinks.webhook.people.events": False,
        }
        documents = list(sample_documents(60, PRICES))
        async with local_rig(
            tmp_path, Simulator(binance_usdm(), still(), speed=1.0), documents, tables=[tables], overrides=overrides
        ) as rig:
            await rig.caught_up()
            await until(lambda: bool(people.requests), within_s=30)
    notice = orjson.loads(people.requests[0].body)

    assert notice["kind"] == "notice"
    assert {item["about"] for item in notice["items"]} == {"distance"}
    assert "from its liquidation price" in notice["text"]


def test_unused_limits_are_no_work() -> None:
    """Without rules nothing is read."""
    assert evaluate_rules({}, _pool(), Memory()) == ([], Memory(day=0))


def _pool() -> PoolSnapshot:
    return PoolSnapshot(
        account="a",
        group="",
        venue="okx",
        pool="cross",
        currency="USD",
        at_ms=0,
        unknown=None,
        equity=None,
        margin_ratio=None,
        leverage=None,
    )
