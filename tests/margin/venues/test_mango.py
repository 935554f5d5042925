"""Mango v4: the health cases of the program's own test, those without serum orders."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.support.judged import document, first, judged, linear, number

D = Decimal
LOT = 50  # one base lot of 10 at a price of 5

# blockworks-foundation/mango-v4 programs/mango-v4/src/health/cache.rs test_health1; tokens t1 (price 1), t2 (5), t3 (10); one
# perpetual settled in t1: base lots, quote, bids, asks.
CASES: dict[str, tuple[dict[str, str], tuple[int, int, int, int], Decimal]] = {
    "0 without serum: all bids execute": (
        {"t1": "100", "t2": "-10"},
        (3, -131, 7, 11),
        D("0.8") * (100 + 10 * LOT * D("0.8") - 131 - 7 * LOT) - 75,
    ),
    "1 without serum: all asks execute": (
        {"t1": "-100", "t2": "10"},
        (-10, -131, 7, 11),
        D("1.2") * (-100 - 21 * LOT * D("1.2") - 131 + 11 * LOT) + 25,
    ),
    "2 positive perp pnl is weighted": ({}, (-1, 100, 0, 0), D("0.8") * D("0.95") * (100 - D("1.2") * LOT)),
    "3 negative perp pnl is not": ({}, (1, -100, 0, 0), D("1.2") * (-100 + D("0.8") * LOT)),
    "4 perp health": ({}, (10, 100, 0, 0), D("0.8") * D("0.95") * (100 + D("0.8") * 10 * LOT)),
    "5 perp health": ({}, (30, -100, 0, 0), D("0.8") * D("0.95") * (-100 + D("0.8") * 30 * LOT)),
    "12 positive perp health offsets a borrow": ({"t1": "-100"}, (1, 100, 0, 0), D("0.8") * (-100 + D("0.95") * (100 + D("0.8") * LOT))),
    "13 negative perp health offsets a deposit": ({"t1": "100"}, (-1, -100, 0, 0), D("1.2") * (-D("1.2") * LOT)),
}


def body(
    tokens: dict[str, str], perp: tuple[int, int, int, int], assets: dict[str, dict[str, Any]] | None = None, **prices: Any
) -> dict[str, Any]:
    """The program's test account as a document."""
    lots, quote, bids, asks = perp
    positions = [linear("PERP", str(lots), cost=str(-quote))] if lots else []
    orders = [
        {"instrument": "PERP", "side": side, "quantity": str(size), "price": "5"} for side, size in (("buy", bids), ("sell", asks)) if size
    ]
    table: dict[str, dict[str, Any]] = {
        name: {"weights": [{"floor": 0, "weight": weight}], "debt_weights": [{"floor": 0, "weight": debt}]}
        for name, weight, debt in (("t1", "0.8", "1.2"), ("t2", "0.5", "1.5"), ("t3", "0.5", "1.5"))
    }
    for name, more in (assets or {}).items():
        table[name] |= more
    tiers = [{"floor": 0, "maintenance_rate": "0.2", "initial_rate": "0.2", "deduction": 0}]
    perpetual = {"kind": "linear_perpetual", "settle": "t1", "contract_size": 10, "tiers": tiers, "profit_weight": "0.95"}
    return document(
        "mango_v4",
        positions,
        instruments={"PERP": perpetual | {"underlying": "t2"}},
        mark={"PERP": "5"},
        index={"t1": "1", "t2": "5", "t3": "10"},
        assets=table,
        wallet={"t1": "0", **tokens},
        prices=prices,
        orders=orders,
    )


@pytest.mark.parametrize("name", CASES)
def test_health(name: str) -> None:
    """Initial health is what is available; maintenance health, of the same weights here, is the headroom."""
    tokens, perp, expected = CASES[name]

    pool = first(judged(body(tokens, perp)))

    assert pool.available == expected
    assert pool.headroom == expected
    assert pool.liquidatable == (expected < 0)


@pytest.mark.parametrize(
    ("amount", "key", "kind", "expected"),
    [
        ("100", "deposit_scale_start", "deposits", D(80) + D(250) * 5000 / 7500 + D(500) / 10),
        ("-100", "borrow_scale_start", "borrows", D(-120) - D(750) * 7500 / 5000 - D(1500) * 10),
    ],
    ids=["10 collateral limit", "11 borrow limit"],
)
def test_large_banks_scale_the_weights(amount: str, key: str, kind: str, expected: Decimal) -> None:
    """Above the start value the asset weight shrinks and the liability weight grows, initial side only."""
    starts = {"t1": {key: 1000}, "t2": {key: 5000}, "t3": {key: 10_000}}
    totals = {kind: {"t1": "100", "t2": "1500", "t3": "10000"}}

    pool = first(judged(body(dict.fromkeys(("t1", "t2", "t3"), amount), (0, 0, 0, 0), starts, **totals)))

    assert abs(number(pool.available) - expected) < D("1e-20")
    assert number(pool.headroom) > expected


def test_assets_and_liabilities_are_those_of_the_health_ratio() -> None:
    """A deposit of 100 and a position with health -60: liabilities 60 * 1.2, assets 40 * 0.8 more; the venue prints 100 * 32 / 72."""
    pool = first(judged(body({"t1": "100"}, (-1, 0, 0, 0))))

    assert pool.maintenance_margin == 72
    assert pool.equity == 72 + 32
    assert number(pool.venue_ratio).quantize(D("1e-20")) == (D(3200) / 72).quantize(D("1e-20"))


def test_the_initial_side_takes_the_worse_of_oracle_and_stable_price() -> None:
    """A long at the lower price, collateral at the lower, a debt at the higher."""
    calm = first(judged(body({"t2": "10"}, (2, -100, 0, 0))))
    shaken = first(judged(body({"t2": "10"}, (2, -100, 0, 0), smoothed={"t2": "4"})))
    owing = first(judged(body({"t2": "-10"}, (0, 0, 0, 0), smoothed={"t2": "6"})))

    assert shaken.headroom == calm.headroom
    # perp: -100 + 20 * 4 * 0.8 = -36, times 1.2; t2: 10 * 4 * 0.5
    assert shaken.available == D("-43.2") + 20
    assert owing.available == D(-10) * 6 * D("1.5")
