"""BitMEX: every integer of real positions, as the venue printed them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from monitor.margin.health import PositionHealth
from tests.support.judged import document, first, judged, linear, number, perpetual

D = Decimal
SATOSHI = D("1e-8")

# Fields of GET /position in public logs and documentation of 2018 to 2020, in satoshi: contracts, cost, funding payable by the side,
# posInit, posComm, posMaint, liquidation and bankruptcy price. Taker fee 0.00075.
XBTUSD: dict[str, dict[str, Any]] = {
    "short 500, 25x, 2018-08-27": {
        "quantity": "-500",
        "cost": "0.07435",
        "leverage": 25,
        "mark": "6726.8",
        "funding": "0",
        "init": 297_400,
        "comm": 5800,
        "maint": 42_975,
        "liq": "6968.5",
        "bust": "7004.5",
    },
    "short 693, 100x, 2019-04-07": {
        "quantity": "-693",
        "cost": "0.13365396",
        "leverage": 100,
        "mark": "5101",
        "funding": "0",
        "init": 133_654,
        "comm": 10_125,
        "maint": 76_952,
    },
    "long 1, 1x, 2019-01-04": {
        "quantity": "1",
        "cost": "-0.00026459",
        "leverage": 1,
        "mark": "3754.12",
        "funding": "0",
        "init": 26_459,
        "comm": 40,
        "maint": 173,
        "liq": "1894.5",
        "bust": "1890",
    },
    "short 20, 10x, 2019-02-09": {
        "quantity": "-20",
        "cost": "0.005971",
        "leverage": 10,
        "mark": "3608.44",
        "funding": "-0.00375",
        "init": 59_710,
        "comm": 493,
        "maint": 5718,
    },
}


def position(sample: dict[str, Any], **row: Any) -> PositionHealth:
    """The isolated position of a sample."""
    body = document(
        "bitmex",
        [linear("XBTUSD", sample["quantity"], cost=sample["cost"], leverage=sample["leverage"], margin_mode="isolated", **row)],
        instruments={"XBTUSD": perpetual("XBT", tiers="0.005", inverse=True, taker_fee="0.00075", tick_size="0.5")},
        mark={"XBTUSD": sample["mark"]},
        prices={"funding_rate": {"XBTUSD": sample["funding"]}},
    )
    return first(judged(body)).positions[0]


@pytest.mark.parametrize("name", XBTUSD)
def test_real_inverse_positions(name: str) -> None:
    """posInit, posComm and posMaint to the satoshi; prices to the tick where margin was not reduced by funding."""
    sample = XBTUSD[name]

    found = position(sample)

    base, fee, cover = found.terms
    assert number(base.initial_margin) == sample["init"] * SATOSHI
    assert fee.initial_margin == fee.maintenance_margin == sample["comm"] * SATOSHI
    assert cover.initial_margin == 0
    assert number(found.maintenance_margin) == sample["maint"] * SATOSHI
    if "liq" in sample:
        assert found.liquidation_price == D(sample["liq"])
        # The venue first rounds the value of a contract to a whole satoshi: up to one tick.
        assert abs(number(found.bankruptcy_price) - D(sample["bust"])) <= D("0.5")


def test_funding_paid_is_not_in_the_wallet() -> None:
    """The short of 2019-02-09 had paid 1042 satoshi: posMargin 59161 gives its liquidation and bankruptcy price."""
    found = position(XBTUSD["short 20, 10x, 2019-02-09"], isolated_wallet="0.00059161")

    assert (found.liquidation_price, found.bankruptcy_price) == (D("3678.5"), D("3714"))


def test_each_contract_is_worth_a_whole_number_of_satoshi() -> None:
    """Mark value 554260 = 20 * round(1e8 / 3608.44)."""
    assert position(XBTUSD["short 20, 10x, 2019-02-09"]).notional == 554_260 * SATOSHI


def test_a_quanto_position() -> None:
    """ETHUSD long 8 at 145.80 on 2019-11-21, three times leverage: a contract is 100 satoshi a point."""
    entry = {"kind": "quanto_perpetual", "settle": "XBT", "contract_size": "0.000001", "taker_fee": "0.00075", "tick_size": "0.05"}
    body = document(
        "bitmex",
        [linear("ETHUSD", "8", "145.8", leverage=3, margin_mode="isolated")],
        instruments={"ETHUSD": {**entry, "tiers": [{"floor": 0, "maintenance_rate": "0.01"}]}},
        mark={"ETHUSD": "145.77"},
        prices={"funding_rate": {"ETHUSD": "0.0005616"}},
    )

    pool = first(judged(body))
    (found,) = pool.positions
    base, fee, _ = found.terms

    assert found.entry_value == 116_640 * SATOSHI
    assert (base.initial_margin, fee.initial_margin) == (38_880 * SATOSHI, 117 * SATOSHI)
    assert (pool.wallet, pool.unrealized_pnl) == (38_997 * SATOSHI, -24 * SATOSHI)
    assert found.maintenance_margin == 1349 * SATOSHI
    assert (found.liquidation_price, found.bankruptcy_price) == (D("98.75"), D("97.20"))


def test_cross_covers_its_loss_and_funding_receivable_is_not_credited() -> None:
    """The loss cover is initial side only; the paying side alone counts funding."""
    tiers = [{"floor": 0, "maintenance_rate": "0.005", "initial_rate": "0.01", "deduction": 0}]

    def body(quantity: str, rate: str) -> dict[str, Any]:
        return document(
            "bitmex",
            [linear("XBTUSD", quantity, "10000")],
            instruments={"XBTUSD": perpetual("XBT", tiers=tiers, inverse=True, taker_fee=0)},
            mark={"XBTUSD": "9900"},
            wallet={"XBT": "1"},
            prices={"funding_rate": {"XBTUSD": rate}},
        )

    losing, paying, receiving = (first(judged(body(q, r))).positions[0] for q, r in (("1000", "0"), ("1000", "0.001"), ("-1000", "0.001")))

    assert losing.terms[2].initial_margin == D("0.00101000")
    assert losing.maintenance_margin == D("0.0005")
    assert paying.maintenance_margin == D("0.0006")
    assert receiving.maintenance_margin == D("0.0005")


def test_a_perpetual_without_funding_rate_is_unknown() -> None:
    """Payable funding is inside maintenance: without the rate it cannot be told, the rates can."""
    body = document(
        "bitmex",
        [linear("XBTUSD", "1000", "10000")],
        instruments={"XBTUSD": perpetual("XBT", tiers="0.005", inverse=True, taker_fee=0)},
        mark={"XBTUSD": "9900"},
        wallet={"XBT": "1"},
    )

    pool = first(judged(body))

    assert pool.unknown == "funding rate of XBTUSD is missing"
    assert (pool.maintenance_margin, pool.positions[0].maintenance_rate) == (None, D("0.005"))
