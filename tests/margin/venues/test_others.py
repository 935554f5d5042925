"""Bybit, OKX, Deribit, Kraken, Hyperliquid, house, and the dates of rule sets: what is particular to each."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from monitor.errors import RefusedError
from monitor.margin.accounts import VENUES, Account
from monitor.margin.health import PoolHealth
from monitor.margin.tables import NO_TABLES, HouseRules, Tables
from monitor.margin.venues import MULTI, PORTFOLIO, RULE_SETS, SINGLE, mode_of, rules_of
from tests.support.judged import document, first, judged, linear, number, perpetual

D = Decimal


def health(body: dict[str, Any]) -> PoolHealth:
    """The first pool of a document."""
    return first(judged(body))


@pytest.mark.parametrize(
    ("quantity", "inverse", "factor"),
    [("10", False, "0.00049500"), ("-10", False, "0.00060500"), ("100000", True, "0.00060500"), ("-100000", True, "0.00049500")],
)
def test_bybit_s_fee_is_that_at_the_bankruptcy_price(quantity: str, inverse: bool, factor: str) -> None:
    """Below the entry value for a linear long and an inverse short, above it for the others; in both margins."""
    body = document(
        "bybit",
        [linear("X", quantity, "1000", leverage=10)],
        instruments={"X": perpetual("BTC" if inverse else "USDT", inverse=inverse, taker_fee="0.00055")},
        mark={"X": "1000"},
        index={"USDT": "1", "BTC": "1000"},
        wallet={"USDT": "5000"},
    )

    (position,) = health(body).positions
    value = number(position.entry_value)

    assert position.terms[1].maintenance_margin == value * D(factor)
    assert position.maintenance_margin == value * D("0.01") + value * D(factor)


def test_bybit_s_fee_rate_is_rounded_up_to_eight_places() -> None:
    """0.00055 * (1 - 1/75) = 0.000542666... counts as 0.00054267."""
    body = document(
        "bybit",
        [linear("X", "1", "1000", leverage=75)],
        instruments={"X": perpetual(taker_fee="0.00055")},
        mark={"X": "1000"},
        index={"USDT": "1"},
        wallet={"USDT": "50"},
    )

    assert health(body).positions[0].terms[1].initial_margin == D("0.54267")


def test_bybit_s_isolated_price_has_the_fee_on_neither_side() -> None:
    """Entry - (initial - maintenance margin) / size: 20,000 - (400 - 100), with or without a fee, at any mark; bankruptcy 19,600."""
    for fee, mark in (("0", "20000"), ("0.00055", "20000"), ("0.00055", "19800")):
        body = document(
            "bybit",
            [linear("X", "1", "20000", leverage=50, margin_mode="isolated")],
            instruments={"X": perpetual(taker_fee=fee, tiers="0.005")},
            mark={"X": mark},
        )

        (position,) = health(body).positions

        assert (position.liquidation_price, position.bankruptcy_price) == (D(19_700), D(19_600))


def test_bybit_s_stated_isolated_wallet_holds_the_fee() -> None:
    """What the venue prints as position balance includes it, so that maintenance does too."""
    body = document(
        "bybit",
        [linear("X", "1", "20000", leverage=50, margin_mode="isolated", isolated_wallet="410.78")],
        instruments={"X": perpetual(taker_fee="0.00055", tiers="0.005")},
        mark={"X": "20000"},
    )

    assert health(body).positions[0].liquidation_price == 20_000 - (D("410.78") - 100 - 20_000 * D("0.00053900"))


def test_a_fee_rate_that_counts_must_be_said() -> None:
    """Neither the account nor the instrument says what closing costs."""
    body = document(
        "bybit",
        [linear("X", "1", "1000", leverage=75)],
        instruments={"X": perpetual()},
        mark={"X": "1000"},
        index={"USDT": "1"},
        wallet={"USDT": "50"},
    )

    assert health(body).unknown == "taker_fee of X is missing"
    body["account"]["taker_fee"] = "0"
    assert health(body).unknown is None


def test_okx_s_fees_stand_beside_maintenance() -> None:
    """In headroom and ratio, not in maintenance; the venue prints the inverse."""
    body = document(
        "okx",
        [linear("X", "10", "100", leverage=5)],
        instruments={"X": perpetual(tiers=[{"floor": 0, "maintenance_rate": "0.01", "deduction": 0}], taker_fee="0.0005")},
        mark={"X": "100"},
        wallet={"USDT": "21"},
        mode="single_asset",
    )

    pool = health(body)

    assert (pool.maintenance_margin, pool.fees, pool.headroom) == (D(10), D("0.5"), D("10.5"))
    assert (pool.margin_ratio, pool.venue_ratio) == (D("0.5"), D(2))


def test_okx_counts_the_value_of_options() -> None:
    """Equity of a currency holds them, on Deribit it does not."""
    option = {
        "kind": "inverse_option",
        "settle": "BTC",
        "underlying": "BTC",
        "strike": 60_000,
        "expiry": "2026-02-01T08:00:00Z",
        "option_type": "call",
    }
    bodies = [
        document(
            venue,
            [linear("C", "2")],
            instruments={"C": option},
            mark={"C": "0.05"},
            index={"BTC": "50000"},
            wallet={"BTC": "1"},
            mode="single_asset",
        )
        for venue in ("okx", "deribit")
    ]
    bodies[0]["account"]["taker_fee"] = 0

    okx, deribit = (health(body) for body in bodies)

    assert (okx.equity, okx.net_value) == (D("1.1"), D("1.1"))
    assert (deribit.equity, deribit.net_value, deribit.option_value) == (D(1), D("1.1"), D("0.1"))


def test_a_short_option_without_a_published_formula_is_unknown() -> None:
    """On OKX; the same option on Deribit and under house rules has a margin."""
    option = {
        "kind": "inverse_option",
        "settle": "BTC",
        "underlying": "BTC",
        "strike": 60_000,
        "expiry": "2026-02-01T08:00:00Z",
        "option_type": "put",
        "tiers": [{"floor": 0, "maintenance_rate": "0.1", "initial_rate": "0.15"}],
    }

    def pool(venue: str) -> PoolHealth:
        return health(
            document(
                venue,
                [linear("P", "-1")],
                instruments={"P": option},
                mark={"P": "0.3"},
                index={"BTC": "50000"},
                wallet={"BTC": "1"},
                mode="single_asset",
                taker_fee=0,
            )
        )

    assert pool("okx").unknown == "the margin of short options such as P is not published as a formula"
    assert pool("deribit").maintenance_margin == D("0.075") + D("0.3")
    assert pool("deribit").initial_margin == D("0.15") + D("0.3")
    assert pool("house").maintenance_margin == D("0.1") + D("0.3")


def test_deribit_s_linear_options_scale_with_the_index() -> None:
    """A short call in USDC: the fractions of the inverse formula times the price of the underlying."""
    option = {
        "kind": "linear_option",
        "settle": "USDC",
        "underlying": "SOL",
        "strike": 210,
        "expiry": "2026-02-01T08:00:00Z",
        "option_type": "call",
        "contract_size": 10,
    }
    body = document(
        "deribit",
        [linear("C", "-2")],
        instruments={"C": option},
        mark={"C": "5"},
        index={"SOL": "200", "USDC": "1"},
        wallet={"USDC": "1000"},
    )

    pool = health(body)

    assert pool.maintenance_margin == 20 * (15 + 5)
    assert pool.initial_margin == 20 * ((D("0.15") - D("0.05")) * 200 + 5)
    assert pool.positions[0].notional == 4000


def test_kraken_takes_the_larger_side_of_each_underlying() -> None:
    """At entry values, so that maintenance stands still while marks move."""
    tiers = [{"floor": 0, "maintenance_rate": "0.01", "initial_rate": "0.02", "deduction": 0}]
    body = document(
        "kraken_futures",
        [linear("A", "2", "100"), linear("B", "-3", "100"), linear("C", "1", "50")],
        instruments={
            name: perpetual("USD", tiers=tiers, underlying=underlying) for name, underlying in (("A", "BTC"), ("B", "BTC"), ("C", "ETH"))
        },
        mark={"A": "150", "B": "150", "C": "10"},
        wallet={"USD": "1000"},
    )

    pool = health(body)

    assert (pool.maintenance_margin, pool.initial_margin) == (D("3.5"), D(7))
    assert pool.positions[2].liquidation_price is None
    body["instruments"]["A"].pop("underlying")
    assert health(body).unknown == "underlying of A is missing"


def test_hyperliquid_of_early_2023_held_maintenance_still() -> None:
    """Liq = price - side * margin available / size, without dividing by 1 - l * side."""
    body = document(
        "hyperliquid",
        [linear("BTC", "-1", leverage=10)],
        instruments={"BTC": perpetual("USDC", tiers=[{"floor": 0, "max_leverage": 50}])},
        mark={"BTC": "100"},
    )
    body["account"]["balances"] = [{"asset": "USDC", "cash": "111"}]

    assert abs(number(health(body).positions[0].liquidation_price) - D(111) / D("1.01")) < D("1e-25")
    assert health({**body, "as_of": "2023-03-31T00:00:00Z"}).positions[0].liquidation_price == 110


@pytest.mark.parametrize(
    ("parameter", "value", "headroom"),
    [
        ("value_basis", "entry", D(100) + 100 - 10),
        ("closing_fee", "mark", D(100) + 100 - 11 - D("1.1")),
        ("liquidation", "below", D(100) + 100 - 11),
    ],
)
def test_house_rules_are_parameters(parameter: str, value: str, headroom: Decimal) -> None:
    """Each word of a house rule set is one of the parameters that venues have built in."""
    body = document(
        "house",
        [linear("X", "10", "100", leverage=10)],
        instruments={"X": perpetual("USD", tiers="0.01", taker_fee="0.001")},
        mark={"X": "110"},
        wallet={"USD": "100"},
    )

    assert health(body).headroom == 189
    assert health({**body, "rules": {parameter: value}}).headroom == headroom


def test_house_debts_may_be_a_requirement() -> None:
    """Then the ratio is liabilities to assets."""
    body = document("house", [], wallet={"USD": "100", "BTC": "-1"}, index={"BTC": "40"})

    assert (health(body).equity, health(body).maintenance_margin) == (D(60), D(0))
    owing = health({**body, "rules": {"debts": "requirement"}})
    assert (owing.equity, owing.maintenance_margin, owing.margin_ratio) == (D(100), D(40), D("0.4"))


def test_every_venue_has_rules_with_a_source() -> None:
    """Sets are in the order of their dates, names are distinct, and each says where it was read."""
    assert set(RULE_SETS) == set(VENUES)
    for venue, sets in RULE_SETS.items():
        assert [rules.venue for rules in sets] == [venue] * len(sets)
        assert len({rules.name for rules in sets}) == len(sets)
        assert sorted(rules.since or "" for rules in sets) == [rules.since or "" for rules in sets]
        assert all(rules.source and rules.modes for rules in sets)
    assert {venue for venue, sets in RULE_SETS.items() if PORTFOLIO in sets[0].models} == {"okx", "deribit", "house"}


def account(venue: str, **more: Any) -> Account:
    """An empty account."""
    return Account(id="a", venue=venue, positions=(), **more)


def test_the_set_in_force_is_that_of_the_day() -> None:
    """The first moment of a set is midnight UTC of its day."""
    before, after = datetime(2022, 12, 31, 23, 59, tzinfo=UTC), datetime(2023, 1, 1, tzinfo=UTC)

    assert rules_of(account("bybit"), NO_TABLES, before).value_basis == "entry"
    assert rules_of(account("bybit"), NO_TABLES, after).value_basis == "mark"


def test_house_sets_come_from_the_configuration() -> None:
    """By the account's name for them; "house" has defaults, any other must be there."""
    tables = Tables(rules={"prime": HouseRules(name="prime", since="2026-01-01", liquidation="below")})
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert rules_of(account("house", rules="prime"), tables, now).liquidation == "below"
    assert rules_of(account("house"), tables, now).name == "house"
    with pytest.raises(RefusedError, match="the name of a rule set"):
        rules_of(account("house", rules="retail"), tables, now)


def test_modes() -> None:
    """The first is the default, one the venue lacks is refused."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    bybit = rules_of(account("bybit"), NO_TABLES, now)

    assert mode_of(account("bybit"), bybit) == MULTI
    assert mode_of(account("bybit", mode=SINGLE), bybit) == SINGLE
    with pytest.raises(RefusedError, match="single_asset"):
        mode_of(account("bitmex", mode=MULTI), rules_of(account("bitmex"), NO_TABLES, now))
