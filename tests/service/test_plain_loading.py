"""Plain accounts loaded straight into columns are what reading them in full gives, and nothing else is taken for plain."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from monitor.engine.evaluator import Evaluator
from monitor.engine.terms import Verdict
from monitor.margin.health import margins
from monitor.margin.levels import DEFAULT_THRESHOLDS, Level
from monitor.margin.prices import PriceKind, Prices
from monitor.service.account_book import AccountBook
from monitor.service.facts import facts_of
from monitor.service.plain_loading import PlainLoading
from monitor.service.sample_book import sample_documents, sample_tables
from monitor.service.tables import VenueTables
from monitor.wire.packed import is_plain, pack

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PRICES = {"BTCUSDT": 30_000.0, "ETHUSDT": 1_800.0, "XRPUSDT": 0.5}


class Side:
    """A book and an engine."""

    def __init__(self, tables: VenueTables) -> None:
        self.book = AccountBook(tables)
        self.engine = Evaluator(exact=self._exact, keep_sources=False)
        self.asked: list[str] = []

    def _exact(self, account: str, pool: str, source: object, prices: Prices) -> Verdict:
        self.asked.append(account)
        worked = margins(self.book.held(account, NOW).pools[pool], prices, NOW)
        assert worked.equity is not None
        assert worked.requirement is not None
        return worked.equity, worked.requirement

    def price(self, share: float) -> None:
        """All marks at a share of what they were."""
        columns = np.array([self.engine.column("binance_usdm", PriceKind.MARK, name) for name in PRICES], np.int32)
        self.engine.run(columns, np.array(list(PRICES.values())) * share)

    def put(self, documents: Iterable[bytes]) -> None:
        """Reads documents in full."""
        for data in documents:
            held = self.book.parse(data, NOW)
            self.book.keep(data, held)
            assert held.document.account is not None
            self.engine.put(held.document.account.id, list(held.pools.values()))


@pytest.fixture
def tables(tmp_path: Path) -> VenueTables:
    """Tables of the three instruments."""
    path = tmp_path / "tables.json"
    path.write_bytes(orjson.dumps(sample_tables(PRICES)))
    return VenueTables([path])


def take(loading: PlainLoading, documents: Iterable[bytes]) -> list[bytes]:
    """Hands documents over as the ledger does: plain ones as packed records. Returns those that have to be read in full."""
    by_account = {orjson.loads(data)["account"]["id"]: data for data in documents}
    records = {account: pack(account, 0, 1, data) for account, data in by_account.items()}
    plain = {account: record for account, record in records.items() if is_plain(record)}
    refused = loading.take([*plain], [*plain.values()])
    return [data for account, data in by_account.items() if account in refused or account not in plain]


def document(*positions: dict[str, Any], wallet: str = "1000", **more: Any) -> bytes:
    """An account with these positions."""
    account = {"id": "a", "venue": "binance_usdm", "balances": [{"asset": "USDT", "wallet": wallet}], "positions": list(positions)}
    return orjson.dumps({"sequence": 1, "account": account | more})


BTC = {"instrument": "BTCUSDT", "quantity": "0.1", "entry_price": "29000"}


def test_columns_are_those_of_a_full_read(tables: VenueTables) -> None:
    """On a mixed book every pool has the same verdict, equity and requirement at several prices; a good part of it is plain."""
    documents = [orjson.dumps(body) for body in sample_documents(400, PRICES)]
    full, fast = Side(tables), Side(tables)
    loading = PlainLoading(fast.engine, fast.book, NOW)
    others = take(loading, documents)
    loading.load()
    assert 100 < len(documents) - len(others) < 400
    for share in (1.0, 0.97, 0.9, 1.15):
        full.price(share)
        fast.price(share)
        if share == 1.0:
            full.put(documents)
            fast.put(others)
        for account in full.book:
            assert fast.engine.verdicts(account) == full.engine.verdicts(account)
            for one, other in zip(full.engine.views(account), fast.engine.views(account), strict=True):
                if one.equity is None or one.requirement is None:  # idle
                    assert (other.equity, other.requirement) == (None, None)
                    continue
                assert other.equity == pytest.approx(one.equity, rel=1e-12, abs=1e-8)
                assert other.requirement == pytest.approx(one.requirement, rel=1e-12)
            assert fast.book.venue_and_group(account) == full.book.venue_and_group(account)
            assert fast.book.document_hash(account) == full.book.document_hash(account)
            assert fast.book.held(account, NOW).document.account == full.book.held(account, NOW).document.account


def test_the_numbers_of_an_event_are_those_of_the_document(tables: VenueTables) -> None:
    """An event worked out from a packed record is the one that `verify` works out from the document, digit by digit."""
    documents = [orjson.dumps(body) for body in sample_documents(60, PRICES)]
    full, fast = Side(tables), Side(tables)
    loading = PlainLoading(fast.engine, fast.book, NOW)
    full.put(documents)
    refused = take(loading, documents)
    prices = Prices(mark=dict(zip(PRICES, map(Decimal, ("29000.5", "1799.25", "19.75")), strict=False)))
    seen = 0
    for data in documents:
        account = orjson.loads(data)["account"]["id"]
        for name in full.book.held(account, NOW).pools if data not in refused else ():
            facts = [
                orjson.dumps(
                    facts_of(
                        side.book.held(account, NOW).pools[name],
                        prices,
                        Level.WATCH,
                        DEFAULT_THRESHOLDS,
                        cause={},
                        document_hash=side.book.document_hash(account),
                        as_of=NOW,
                        decided_at_ns=0,
                        medians={},
                    )
                )
                for side in (full, fast)
            ]
            assert facts[0] == facts[1]
            seen += 1
    assert seen > 20


def test_a_level_of_the_ledger_is_where_it_starts_from(tables: VenueTables) -> None:
    """Crossings are against the level that stands in the ledger; a pool without prices is unknown with its reason."""
    side = Side(tables)
    loading = PlainLoading(side.engine, side.book, NOW)
    assert not take(loading, [document(BTC, wallet="5000")])
    loading.load()
    loading.start_from("a", "cross:USDT", Level.LIQUIDATION)
    loading.start_from("nobody", "cross:USDT", Level.WATCH)
    (crossing,) = loading.crossings()
    assert (crossing.before, crossing.after, crossing.reason) == (Level.LIQUIDATION, None, "no mark of BTCUSDT")
    side.price(1.0)
    (crossing,) = loading.crossings()
    assert (crossing.before, crossing.after) == (Level.LIQUIDATION, Level.HEALTHY)
    assert loading.wanted == {("binance_usdm", PriceKind.MARK, "BTCUSDT")}


def test_a_constant_that_floats_cannot_hold_is_decided_exactly(tables: VenueTables) -> None:
    """Equity exactly at the requirement: the error bound of the constant reaches over it, so the exact core decides."""
    wallet = Decimal("2900.1") - 3000 + 12
    position = {"instrument": "BTCUSDT", "quantity": "0.1", "entry_price": "29001"}
    side = Side(tables)
    loading = PlainLoading(side.engine, side.book, NOW)
    assert not take(loading, [document(position, wallet=str(wallet))])
    loading.load()
    side.price(1.0)
    assert side.engine.verdict("a", "cross:USDT") == (Level.LIQUIDATION, None)
    assert side.asked == ["a"]


@pytest.mark.parametrize(
    "data",
    [
        document(),
        document({**BTC, "margin_mode": "isolated", "isolated_wallet": "500"}),
        document({**BTC, "side": "long"}, {**BTC, "side": "short", "quantity": "-0.1"}),
        document({"instrument": "BTCUSDT", "quantity": "0.1", "cost": "2900"}),
        document({"instrument": "BTCUSDT", "quantity": "0.1"}),
        document({**BTC, "unsettled_funding": "5"}),
        document({**BTC, "instrument": "NOSUCH"}),
        document(BTC, mode="multi_asset"),
        document(BTC, balances=[{"asset": "USDT", "cash": "5"}]),
        document(BTC, balances=[{"asset": "BNB", "wallet": "5"}]),
        document(BTC, balances=[{"asset": "USDT", "wallet": "5"}, {"asset": "BNB", "wallet": "5"}]),
        document(BTC, orders=[]),
        document(BTC, venue="deribit"),
        orjson.dumps({**orjson.loads(document(BTC)), "instruments": {}}),
        document({**BTC, "quantity": "0.1000000000000001"}),
        document({**BTC, "entry_price": "29e3"}),
        document({**BTC, "leverage": "10.5"}),
    ],
)
def test_everything_else_is_read_in_full(tables: VenueTables, data: bytes) -> None:
    """Whatever says more, or less, than plain positions is not taken."""
    side = Side(tables)
    assert take(PlainLoading(side.engine, side.book, NOW), [data]) == [data]
    assert "a" not in side.book
