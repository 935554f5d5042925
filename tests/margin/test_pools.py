"""An account is cut into the pools in which positions and collateral stand in for each other."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from monitor.errors import RefusedError
from monitor.margin.pools import cut
from monitor.margin.tables import NO_TABLES
from tests.support.judged import NOW, document, linear, opened, perpetual

INSTRUMENTS = {"BTCUSDT": perpetual(), "ETHUSDC": perpetual("USDC"), "BTCUSD": perpetual("BTC", inverse=True, contract_size=100)}


def names(body: dict[str, object]) -> list[str]:
    """Names of a document's pools."""
    read = opened(body)
    assert read.account is not None
    return [pool.name for pool in cut(read.account, read.tables, NOW)]


def test_single_asset_has_a_pool_per_settle_asset() -> None:
    """Balances first, then settle assets of positions, each once; isolated positions last."""
    positions = [
        linear("ETHUSDC", "1"),
        linear("BTCUSDT", "2", "100", margin_mode="isolated", isolated_wallet="10", side="long"),
        linear("BTCUSDT", "-2", "100", side="short"),
    ]
    body = document("binance_usdm", positions, instruments=INSTRUMENTS, wallet={"BNB": "1", "USDT": "5"})

    assert names(body) == ["cross:BNB", "cross:USDT", "cross:USDC", "isolated:BTCUSDT:long"]


def test_multi_asset_has_one_cross_pool() -> None:
    """Everything cross is one pool in the valuation currency."""
    positions = [linear("ETHUSDC", "1"), linear("BTCUSD", "5", "100", margin_mode="isolated", leverage=5)]
    body = document("bybit", positions, instruments=INSTRUMENTS, wallet={"USDT": "5"})

    assert names(body) == ["cross", "isolated:BTCUSD"]


def test_no_cross_pool_where_nothing_is_cross() -> None:
    """An account of isolated positions alone is judged by them alone."""
    positions = [linear("BTCUSDT", "5", "100", margin_mode="isolated", leverage=5)]

    assert names(document("bybit", positions, instruments=INSTRUMENTS)) == ["isolated:BTCUSDT"]
    assert names(document("binance_usdm", positions, instruments=INSTRUMENTS, wallet={})) == ["isolated:BTCUSDT"]


def test_holdings_cover_every_asset_the_pool_touches() -> None:
    """An asset without a balance is 0; without any balances it is not known."""
    known = opened(document("bybit", [linear("ETHUSDC", "1")], instruments=INSTRUMENTS, wallet={"USDT": "5"}))
    silent = opened(document("bybit", [linear("ETHUSDC", "1")], instruments=INSTRUMENTS))
    assert known.account is not None and silent.account is not None

    (first,) = cut(known.account, known.tables, NOW)
    (second,) = cut(silent.account, silent.tables, NOW)

    assert [(h.name, h.amount) for h in first.holdings] == [("USDT", Decimal(5)), ("USDC", Decimal(0))]
    assert [(h.name, h.amount) for h in second.holdings] == [("USDC", None)]
    assert second.unknown == "balances are not stated"


def test_a_leg_carries_what_no_price_moves() -> None:
    """Units, cost, leverage and the account's own fee are worked out once."""
    body = document("bybit", [linear("BTCUSD", "-3", "50000", leverage=4)], instruments=INSTRUMENTS, wallet={}, taker_fee="0.0003")
    read = opened(body)
    assert read.account is not None
    (pool,) = cut(read.account, read.tables, NOW)
    (leg,) = pool.legs

    assert (leg.units, leg.long, leg.inverse) == (Decimal(-300), False, True)
    assert leg.cost == Decimal(300) / 50000
    assert leg.leverage_rate == Decimal("0.25")
    assert leg.taker_fee == Decimal("0.0003")
    assert pool.positions == read.account.positions


def test_what_the_tables_do_not_know_is_refused_with_its_path() -> None:
    """An instrument, a mode or a rule set that is not there."""
    read = opened(document("bybit", [linear("BTCUSDT", "1")], instruments=INSTRUMENTS))
    assert read.account is not None

    with pytest.raises(RefusedError, match="/account/positions/0/instrument"):
        cut(read.account, NO_TABLES, NOW)
    with pytest.raises(RefusedError, match="/account/rules"):
        cut(replace(read.account, rules="bybit-1999"), read.tables, NOW)
    with pytest.raises(RefusedError, match="/account/mode"):
        cut(replace(read.account, venue="bitmex", mode="multi_asset"), read.tables, NOW)
