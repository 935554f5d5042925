"""Drift: the program's integer weights, strict prices, worst-case orders."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from monitor.margin.venues.drift import asset_weight, liability_weight
from tests.support.judged import document, first, judged, linear, perpetual

D = Decimal

# drift-labs/protocol-v2 programs/drift/src/math/margin/tests.rs spot_market_asset_weight; size in whole units, imf factor in 1e-6
ASSET = [("9000", 10, "1000", "0.9"), ("9000", 10, "1000000000", "0.8357"), ("7500", 100_000, "100000", "0.0337")]
LIABILITY = [("11000", 10, "1000", "1.1"), ("11000", 10_000, "1000", "1.1962")]


@pytest.mark.parametrize(("weight", "factor", "size", "expected"), ASSET)
def test_asset_weights(weight: str, factor: int, size: str, expected: str) -> None:
    """1.1 / (1 + f * sqrt(size)), truncated to 1e-4, never above the weight."""
    assert asset_weight(D(weight) / 10_000, D(factor) / 1_000_000, D(size)) == D(expected)


@pytest.mark.parametrize(("weight", "factor", "size", "expected"), LIABILITY)
def test_liability_weights(weight: str, factor: int, size: str, expected: str) -> None:
    """W - w/5 + f * sqrt(size), truncated to 1e-4, never below the weight."""
    assert liability_weight(D(weight) / 10_000, D(factor) / 1_000_000, D(size)) == D(expected)


SOL = {"SOL-PERP": perpetual("USDC", tiers=[{"floor": 0, "maintenance_rate": "0.05", "initial_rate": "0.1", "deduction": 0}])}


def sol(orders: list[dict[str, Any]] | None = None, **account: Any) -> dict[str, Any]:
    """10 SOL long at 100 with 500 USDC."""
    return document(
        "drift",
        [linear("SOL-PERP", "10", cost="1000")],
        instruments=SOL,
        mark={"SOL-PERP": "100"},
        index={"USDC": "1"},
        wallet={"USDC": "500"},
        orders=orders or [],
        **account,
    )


def test_open_orders_count_as_the_worse_side_filled() -> None:
    """Both margins on the larger position, and a cent for each order."""
    orders: list[dict[str, Any]] = [
        {"instrument": "SOL-PERP", "side": "buy", "quantity": "5", "price": "90", "count": 2},
        {"instrument": "SOL-PERP", "side": "sell", "quantity": "19", "price": "110"},
    ]

    pool = first(judged(sol(orders)))

    assert pool.maintenance_margin == 15 * 100 * D("0.05") + D("0.03")
    assert pool.initial_margin == 15 * 100 * D("0.1") + D("0.03")
    assert [term.name for term in pool.terms] == ["positions", "open_orders"]
    turned = first(judged(sol([{**orders[1], "quantity": "30"}])))
    assert turned.maintenance_margin == 20 * 100 * D("0.05") + D("0.01")


def test_profit_is_capped_on_the_initial_side() -> None:
    """A position's positive profit opens nothing beyond 100; it keeps what is open in full."""
    body = sol()
    body["prices"]["mark"]["SOL-PERP"] = "150"

    pool = first(judged(body))

    assert (pool.equity, pool.initial_equity) == (D(1000), D(600))


def test_the_user_s_own_ratio_limits_weights_but_not_of_the_quote() -> None:
    """max_margin_ratio 0.5: ratio at least 0.5, asset weight at most 0.5, USDC in full."""
    body = sol(minimum_initial_rate="0.5")
    body["account"]["balances"].append({"asset": "BTC", "wallet": "1"})
    body["assets"] = {"BTC": {"weights": [{"floor": 0, "weight": "0.9"}]}}
    body["prices"]["index"]["BTC"] = "1000"

    pool = first(judged(body))

    assert (pool.initial_equity, pool.equity) == (D(500) + 500, D(500) + 900)
    assert (pool.initial_margin, pool.maintenance_margin) == (D(500), D(50))


def test_a_borrow_is_a_requirement() -> None:
    """Liability weight in the margins, nothing in equity; a loss stays in equity."""
    body = sol()
    body["account"]["balances"].append({"asset": "BTC", "wallet": "-1"})
    body["assets"] = {"BTC": {"debt_weights": [{"floor": 0, "weight": "1.1"}]}}
    body["prices"]["index"]["BTC"] = "100"
    body["prices"]["mark"]["SOL-PERP"] = "90"

    pool = first(judged(body))

    assert (pool.equity, pool.maintenance_margin) == (D(400), D(110) + 45)
    assert pool.net_value == 500 - 100 - 100
