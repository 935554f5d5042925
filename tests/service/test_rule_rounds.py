"""Rules over the book: the near ones are found, the far ones cost little, and the whole daemon tells them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.alerting.readings import Item, Mark, PoolReadings
from monitor.alerting.rules import DAY_MS, Limits, PoolSnapshot, RuleReading, evaluate_rules
from monitor.alerting.rules import PoolMemory as Memory
from monitor.feeds.simulator import Simulator
from monitor.feeds.tape import Moment
from monitor.margin.levels import Level
from monitor.margin.liquidation import report
from monitor.margin.prices import PriceKind, Prices
from monitor.service.account_book import AccountBook
from monitor.service.local_rig import local_rig
from monitor.service.rule_rounds import RuleRounds
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.service.tables import VenueTables
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes
from tests.support.http_server import answering, receiver
from tests.support.waiting import until

PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0}
DISTANCE = Limits((Decimal("0.3"), Decimal("0.2"), Decimal("0.1"), None))


class Heard:
    """Keeps what is told."""

    def __init__(self, *remembered: PoolReadings) -> None:
        self.readings: dict[tuple[str, str], dict[str, RuleReading]] = {}
        self.items: list[Item] = []
        self._remembered = remembered

    async def remembered(self) -> Sequence[PoolReadings]:
        """What the test says."""
        return self._remembered

    async def tell(self, items: Mapping[int, Sequence[Item]]) -> None:
        """The latest of each pool."""
        self.items += items.get(0, ())
        for item in items.get(0, ()):
            if isinstance(item, PoolReadings):
                self.readings[item.account, item.pool] = {reading.rule: reading for reading in item.standing}


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
            rounds = RuleRounds(evaluator, limits, heard, lambda _account: 0, interval_s=0.0, doze=lambda _seconds: asyncio.sleep(0))
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

    assert heard.items[0] is Mark.BEGIN
    assert len(nearest) >= 120
    for key, distance in nearest.items():
        wanted = Level(sum(distance <= bound for bound in (Decimal("0.3"), Decimal("0.2"), Decimal("0.1"))))
        found = heard.readings.get(key, {}).get("distance")
        assert (found.severity if found is not None else Level.HEALTHY) is wanted, (key, distance, found)
    assert any("leverage" in readings for readings in heard.readings.values())
    assert all(each.unknown is None for readings in heard.readings.values() for each in readings.values())
    assert 0 < rounds.solved <= rounds.readings


@dataclass(frozen=True)
class Orders:
    """Open orders of an account with one long of 0.5 BTCUSDT, or a short, and how much of it no stop and no target closes."""

    orders: tuple[tuple[str, str, str], ...]
    quantity: str = "0.5"
    without_stop: str | None = "1"
    without_target: str | None = "1"


# fmt: off
CASES = {
    "none": Orders(()),
    "whole": Orders((("sell", "0.5", "29000"), ("sell", "0.5", "33000")), without_stop="0", without_target="0"),
    "half": Orders((("sell", "0.25", "29000"),), without_stop="0.5"),
    "late": Orders((("sell", "0.5", "20000"),)),  # beyond the liquidation price of about 27,100
    "at-it": Orders((("sell", "0.5", "LIQUIDATION"),)),
    "two": Orders((("sell", "0.2", "29000"), ("sell", "0.1", "28000"), ("sell", "0.2", "20000")), without_stop="0.4"),
    "more": Orders((("buy", "0.5", "29000"), ("buy", "0.5", "31000"))),  # add to the position
    "short": Orders((("buy", "0.5", "31000"), ("buy", "0.2", "28000")), "-0.5", without_stop="0", without_target="0.6"),
    "short-late": Orders((("buy", "0.5", "40000"),), "-0.5"),  # liquidated at about 32,900
}
# fmt: on


def case_document(name: str, case: Orders, liquidation: str = "27000") -> dict[str, Any]:
    """The account of one case."""
    return {
        "sequence": 1,
        "account": {
            "id": name,
            "venue": "binance_usdm",
            "balances": [{"asset": "USDT", "wallet": "1500"}],
            "positions": [{"instrument": "BTCUSDT", "quantity": case.quantity, "entry_price": "30000"}],
            "orders": [
                {"instrument": "BTCUSDT", "side": side, "quantity": quantity, "price": price.replace("LIQUIDATION", liquidation)}
                for side, quantity, price in case.orders
            ],
        },
    }


def uncovered(reading: RuleReading | None) -> Decimal:
    """The share that a reading names."""
    return Decimal(0) if reading is None else Decimal(reading.text.partition("%")[0]) / 100


async def test_stops_count_when_they_fire_before_the_liquidation_price(tmp_path: Path) -> None:
    """Orders of the document that close a position: stops before the liquidation price, not at or beyond it; targets on the other side."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    documents = [case_document(name, case) for name, case in CASES.items()]
    held = sample_document_prices(tables, documents[0])
    documents[list(CASES).index("at-it")] = case_document("at-it", CASES["at-it"], f"{held}")
    notional = case_document("notional", Orders(()))
    notional["account"]["orders"] = [{"instrument": "BTCUSDT", "side": "sell", "notional": "15000"}]
    heard = Heard()
    limits = {name: Limits((Decimal("0.01"), None, None, None)) for name in ("without_stop", "without_target")}
    overrides = {"feeds.binance_usdm.stale_after_s": 600.0}
    simulator = Simulator(binance_usdm(), still(), speed=1.0)
    async with asyncio.timeout(60), local_rig(tmp_path, simulator, [*documents, notional], tables=[tables], overrides=overrides) as rig:
        await rig.caught_up()
        evaluator = rig.daemon.evaluator
        assert evaluator is not None
        rounds = RuleRounds(evaluator, limits, heard, lambda _account: 0, interval_s=0.0, doze=lambda _seconds: asyncio.sleep(0))
        task = asyncio.create_task(rounds.run())
        await until(lambda: rounds.round_s > 0, within_s=30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for name, case in CASES.items():
        readings = heard.readings.get((name, "cross:USDT"), {})
        found = [uncovered(readings.get(rule)) for rule in ("without_stop", "without_target")]
        assert found == [Decimal(case.without_stop or 0), Decimal(case.without_target or 0)], (name, readings)
    assert {each.unknown for each in heard.readings["notional", "cross:USDT"].values()} == {
        "stops of BTCUSDT",
        "take-profit orders of BTCUSDT",
    }


def sample_document_prices(tables: Path, document: dict[str, Any]) -> Decimal:
    """The liquidation price of the position of a document at the still prices."""
    known = VenueTables([tables])
    known.load_all()
    held = AccountBook(known).parse(orjson.dumps(document), datetime.now(UTC))
    prices = Prices(mark={name: Decimal(repr(price)) for name, price in PRICES.items()})
    (position,) = report(held.pools["cross:USDT"], prices, datetime.now(UTC)).health.positions
    assert position.liquidation_price is not None
    return position.liquidation_price


async def test_rules_go_on_where_the_last_process_was(tmp_path: Path) -> None:
    """A drawdown from the day's high does not vanish because the process that saw the high is gone."""
    tables = tmp_path / "tables.json"
    tables.write_bytes(orjson.dumps(sample_tables(PRICES)))
    today = int(time.time() * 1000) // DAY_MS
    heard = Heard(PoolReadings("none", "cross:USDT", "", "binance_usdm", 0, None, (), day=today, high=Decimal(3000)))
    limits = {"drawdown": Limits((Decimal("0.2"), None, None, None))}
    overrides = {"feeds.binance_usdm.stale_after_s": 600.0}
    simulator = Simulator(binance_usdm(), still(), speed=1.0)
    documents = [case_document("none", CASES["none"])]
    async with asyncio.timeout(60), local_rig(tmp_path, simulator, documents, tables=[tables], overrides=overrides) as rig:
        await rig.caught_up()
        evaluator = rig.daemon.evaluator
        assert evaluator is not None
        rounds = RuleRounds(evaluator, limits, heard, lambda _account: 0, interval_s=0.0, doze=lambda _seconds: asyncio.sleep(0))
        task = asyncio.create_task(rounds.run())
        await until(lambda: rounds.round_s > 0, within_s=30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert heard.readings["none", "cross:USDT"]["drawdown"].severity is Level.WATCH  # 1,500 of 3,000
    assert [item for item in heard.items if isinstance(item, Mark)] == [Mark.BEGIN, Mark.END]


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
