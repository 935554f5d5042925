"""One account: the worst pool's level, and unknown when any pool is."""

from __future__ import annotations

from decimal import Decimal

from monitor.margin.levels import Level
from tests.support.judged import document, judged, linear, perpetual

INSTRUMENTS = {"BTCUSDT": perpetual(), "ETHUSDC": perpetual("USDC")}


def test_the_worst_pool_gives_the_level() -> None:
    """USDT is near liquidation, USDC is not."""
    positions = [linear("BTCUSDT", "1", "100"), linear("ETHUSDC", "1", "100")]
    body = document(
        "binance_usdm", positions, instruments=INSTRUMENTS, wallet={"USDT": "1.2", "USDC": "50"}, mark={"BTCUSDT": "100", "ETHUSDC": "100"}
    )

    verdict = judged(body)

    assert [pool.level for pool in verdict.pools] == [Level.MARGIN_CALL, Level.HEALTHY]
    assert verdict.level is Level.MARGIN_CALL
    assert verdict.rules.name == "binance_usdm"


def test_one_unknown_pool_makes_the_account_unknown() -> None:
    """The other pool's numbers and level are there all the same."""
    positions = [linear("BTCUSDT", "1", "100"), linear("ETHUSDC", "1", "100")]
    body = document("binance_usdm", positions, instruments=INSTRUMENTS, wallet={"USDT": "50", "USDC": "50"}, mark={"BTCUSDT": "100"})

    verdict = judged(body)

    assert verdict.level is None
    assert verdict.unknown == "mark price of ETHUSDC is missing"
    assert [pool.level for pool in verdict.pools] == [Level.HEALTHY, None]


def test_an_empty_account_is_healthy_and_a_silent_one_is_not_known() -> None:
    """No position and an empty wallet is nothing at risk; no statement of the wallet is no knowledge."""
    assert judged(document("binance_usdm", [], wallet={})).level is Level.HEALTHY
    assert judged(document("bybit", [], wallet={})).level is Level.HEALTHY
    silent = judged(document("binance_usdm", []))
    assert (silent.level, silent.unknown) == (None, "balances are not stated")


def test_the_rule_set_follows_the_date_and_the_name() -> None:
    """Before 2023 Bybit took margins at entry; an account may name a set."""
    positions = [linear("BTCUSDT", "1", "100", leverage=10)]
    instruments = {"BTCUSDT": perpetual(taker_fee=0)}
    body = document("bybit", positions, instruments=instruments, wallet={"USDT": "50"}, mark={"BTCUSDT": "200"}, index={"USDT": "1"})

    now, then = judged(body), judged({**body, "as_of": "2022-12-31T23:59:59Z"})
    named = judged({**body, "account": {**body["account"], "rules": "bybit-entry-value"}})

    assert (now.rules.name, now.rules.since, now.pools[0].maintenance_margin) == ("bybit", "2023-01-01", Decimal(2))
    assert (then.rules.name, then.pools[0].maintenance_margin) == ("bybit-entry-value", Decimal(1))
    assert named.rules.name == "bybit-entry-value"
