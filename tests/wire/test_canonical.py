"""Canonical bytes: the round trip, and one spelling for equal documents."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import RefusedError
from monitor.margin.instruments import Instrument, Kind
from monitor.margin.numbers import NUMBER
from monitor.margin.tables import Tables
from monitor.wire.canonical import document_bytes, document_hash, number_text
from monitor.wire.documents import Document, read_bytes
from tests.support.shared import SHARED, needs_shared

__all__: list[str] = []

TABLES = Tables(instruments={name: Instrument(name=name, kind=Kind.LINEAR_PERPETUAL, settle="USDT") for name in "ABCDEFGH"})


def read(data: bytes) -> Document:
    """A document of `evaluate`."""
    return read_bytes(data, purpose="evaluate", known=lambda _: TABLES)


figures = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][-+]?[0-9]{1,2})?", fullmatch=True).filter(
    lambda text: len(text) <= 60
)


@given(figures)
def test_a_number_keeps_its_value_in_sixty_characters(text: str) -> None:
    """Exact, readable by rule 2, and one text for one value."""
    number = Decimal(text)
    written = number_text(number)

    assert Decimal(written) == number
    assert len(written) <= 60 and NUMBER.fullmatch(written)
    assert number_text(Decimal(written)) == written


numbers = figures | st.floats(-1e12, 1e12).filter(lambda x: x == 0 or abs(x) > 1e-90) | st.integers(-(10**15), 10**15)
positives = numbers.map(lambda value: value.lstrip("-") if isinstance(value, str) else abs(value)).filter(
    lambda value: Decimal(repr(value) if isinstance(value, float) else value) != 0
)
nonnegatives = positives | st.just(0)
units = st.decimals(0, 1, places=6).map(str).map(lambda text: "0" if Decimal(text) == 0 else f"{Decimal(text):f}") | st.floats(0.001, 1)
names = st.sampled_from("ABCDEFGH")


def rows(row: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Table rows with rising floors from 0."""

    def floored(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"floor": index * 1000, **entry} for index, entry in enumerate(found)]

    return st.lists(row, min_size=1, max_size=4).map(floored)


def partly(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of the optional fields."""
    return st.fixed_dictionaries(required, optional=optional)


tiers = rows(
    partly({"maintenance_rate": units}, {"initial_rate": units, "deduction": nonnegatives, "slope": nonnegatives})
    | partly({"max_leverage": positives}, {"maintenance_rate": units})
)
weights = rows(partly({"weight": units}, {"initial_weight": units}))
debt_weights = rows(partly({"weight": st.sampled_from(["1", "1.25", 2])}, {}))
instruments = partly(
    {"kind": st.sampled_from(["linear_perpetual", "inverse_perpetual", "quanto_perpetual"]), "settle": names},
    {
        "underlying": names, "contract_size": positives, "tick_size": positives, "taker_fee": units, "tiers": tiers,
        "size_factor": nonnegatives, "tier_unit": st.sampled_from(["notional", "quantity"]), "profit_weight": units,
        "initial_profit_weight": units,
    },
)  # fmt: skip
assets = partly(
    {"weights": weights},
    {
        "debt_weights": debt_weights, "borrow_tiers": tiers, "taker_fee": units, "size_factor": nonnegatives,
        "deposit_scale_start": positives, "borrow_scale_start": positives,
    },
)  # fmt: skip
risk = partly(
    {"price_moves": st.just(["-0.1", 0, 0.1]), "maintenance_factor": positives, "initial_factor": positives},
    {
        "profit_offset": units,
        "basis_floor": units,
        "basis_annualised": units,
        "minimum_charge": units,
        "delta_shock_threshold": nonnegatives,
    },
)
positions = st.lists(
    partly({"instrument": names, "quantity": positives}, {"entry_price": positives, "leverage": positives, "unsettled_funding": numbers})
    | partly({"instrument": names, "quantity": positives, "margin_mode": st.just("isolated"), "isolated_wallet": st.none() | numbers}, {}),
    max_size=5,
    unique_by=lambda row: str(row["instrument"]),
)
balances = st.lists(
    partly({"asset": names, "wallet": numbers}, {"collateral": st.booleans()}), max_size=4, unique_by=lambda row: str(row["asset"])
)
adjustments = st.lists(
    partly({"name": st.just("x"), "asset": names, "pnl": numbers}, {"credit": nonnegatives, "notional": nonnegatives}), max_size=2
)
orders = st.lists(
    partly({"instrument": names, "side": st.sampled_from(["buy", "sell"]), "notional": positives}, {"count": st.integers(1, 9)})
)
documents = partly(
    {
        "account": partly(
            {"id": st.just("a"), "venue": st.just("house"), "positions": positions},
            {
                "balances": balances, "adjustments": adjustments, "orders": orders, "taker_fee": units, "group": st.just("g"),
                "mode": st.sampled_from(["single_asset", "multi_asset"]), "minimum_initial_rate": nonnegatives, "rules": st.just("own"),
            },
        )
    },
    {
        "sequence": st.integers(0, 2**63 - 1),
        "epoch": st.integers(0, 2**53),
        "as_of": st.sampled_from(["2026-01-31T08:00:00Z", "2026-01-31T08:00:00.120Z"]),
        "instruments": st.dictionaries(names, instruments, max_size=3),
        "assets": st.dictionaries(names, assets, max_size=2),
        "risk": st.dictionaries(names, risk, max_size=1),
        "rules": partly({}, {"value_basis": st.sampled_from(["mark", "entry"]), "debts": st.just("requirement")}),
        "prices": partly({}, {"mark": st.dictionaries(names, positives), "interest_rate": st.dictionaries(names, numbers)}),
    },
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(documents)
def test_reading_the_canonical_bytes_gives_the_document_back(body: dict[str, Any]) -> None:
    """Document -> bytes -> Document is the same, and the bytes are a fixed point."""
    document = read(orjson.dumps(body))
    data = document_bytes(document)

    again = read(data)

    assert again == document
    assert document_bytes(again) == data


def test_spelling_and_defaults_do_not_matter() -> None:
    """Key order, white space, trailing zeros, exponents and stated defaults leave the hash as it is."""
    plain = (
        b'{"account":{"id":"a","venue":"okx","positions":[{"instrument":"A","quantity":"120"}],"balances":[{"asset":"A","wallet":"1.5"}]}}'
    )
    wordy = b"""{"epoch": 0, "version": 1, "account": {
        "positions": [{"quantity": 1.20e2, "side": "both", "instrument": "A", "margin_mode": "cross"}], "orders": [], "venue": "okx",
        "balances": [{"wallet": 1.50, "asset": "A", "collateral": true}], "id": "a", "valuation_currency": "USD"}}"""

    assert document_bytes(read(wordy)) == document_bytes(read(plain))
    assert document_hash(read(wordy)) == document_hash(read(plain)) and len(document_hash(read(plain))) == 64
    assert document_hash(read(plain.replace(b'"120"', b'"121"'))) != document_hash(read(plain))


def test_what_leverage_and_continuity_give_is_left_out() -> None:
    """A third has no exact decimal: the row keeps its leverage, and the reader works the rate out again."""
    body = {
        "account": {"id": "a", "venue": "okx", "positions": []},
        "instruments": {
            "A": {"kind": "linear_perpetual", "settle": "A", "tiers": [{"floor": 0, "max_leverage": 3}, {"floor": 9, "max_leverage": 1}]}
        },
    }
    written = orjson.loads(document_bytes(read(orjson.dumps(body))))

    assert written["instruments"]["A"]["tiers"] == [{"floor": "0", "max_leverage": "3"}, {"floor": "9", "max_leverage": "1"}]


def test_an_unstated_isolated_wallet_stays_readable() -> None:
    """Without leverage it must be said that the wallet is not known."""
    body = {"account": {"id": "a", "venue": "okx", "positions": [{"instrument": "A", "quantity": 1, "margin_mode": "isolated"}]}}
    with pytest.raises(RefusedError):
        read(orjson.dumps(body))
    body["account"]["positions"][0]["isolated_wallet"] = None  # type: ignore[index]

    document = read(orjson.dumps(body))

    assert read(document_bytes(document)) == document


@needs_shared
def test_every_worked_case_goes_round() -> None:
    """The documents of all worked cases come back equal."""
    with (SHARED / "venues" / "documents.jsonl").open("rb") as lines:
        for line in lines:
            for body in orjson.loads(line).get("documents", []):
                document = read(orjson.dumps(body))
                assert read(document_bytes(document)) == document
