"""The document reader: what it takes, what it refuses and where it points, and that it never takes what the published schema refuses."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from monitor.errors import RefusedError
from monitor.margin.accounts import MODES, PORTFOLIO_MARGIN_VENUES, VENUES
from monitor.margin.instruments import Instrument, Kind
from monitor.margin.tables import Tables
from monitor.margin.venues import RULE_SETS
from monitor.service.schemas import schema_text
from monitor.wire.documents import Document, Purpose, parse_document, read_bytes, read_document
from tests.support.shared import SHARED, needs_shared

__all__: list[str] = []

VALIDATOR = Draft202012Validator(orjson.loads(schema_text("portfolio")))
NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
CONFIGURED = Tables(
    instruments={
        "KNOWN": Instrument(name="KNOWN", kind=Kind.LINEAR_PERPETUAL, settle="USDT"),
        "GONE": Instrument(name="GONE", kind=Kind.LINEAR_FUTURE, settle="USDT", expiry=datetime(2026, 1, 30, tzinfo=UTC)),
    }
)


def known(_venue: str) -> Tables:
    """The same two instruments at every venue."""
    return CONFIGURED


def read(body: object, purpose: Purpose = "evaluate", now: datetime | None = NOW) -> Document:
    """The body through bytes, as every caller does."""
    return read_bytes(orjson.dumps(body), purpose=purpose, known=known, now=now)


def whole() -> dict[str, Any]:
    """A document with every field that can stand in one."""
    tiers = [{"floor": 0, "maintenance_rate": "0.004", "max_leverage": 125}, {"floor": "50000", "maintenance_rate": "0.005", "slope": 0}]
    weights = [{"floor": 0, "weight": "0.95"}, {"floor": 10, "weight": 0, "initial_weight": 0}]
    return {
        "version": 1,
        "sequence": 7,
        "epoch": 1_700_000_000_000,
        "as_of": "2026-01-31T08:00:00.5Z",
        "account": {
            "id": "acme-1",
            "venue": "house",
            "mode": "multi_asset",
            "margin_model": "portfolio",
            "group": "desk",
            "rules": "own",
            "valuation_currency": "USD",
            "taker_fee": "0.0004",
            "minimum_initial_rate": "0.1",
            "balances": [{"asset": "USDT", "wallet": "-5"}, {"asset": "BTC", "wallet": 1.5, "collateral": False}],
            "positions": [
                {
                    "instrument": "KNOWN",
                    "quantity": "-2.5",
                    "side": "short",
                    "entry_price": "100",
                    "leverage": 20,
                    "unsettled_funding": "-1",
                },
                {"instrument": "KNOWN", "quantity": "1", "side": "long", "cost": "-0"},
                {"instrument": "OPT/X", "quantity": "1", "margin_mode": "isolated", "isolated_wallet": "3"},
                {"instrument": "FUT", "quantity": "1", "margin_mode": "isolated", "isolated_cash": "-3"},
            ],
            "orders": [
                {"instrument": "KNOWN", "side": "buy", "notional": "5", "count": 3},
                {"instrument": "FUT", "side": "sell", "quantity": "5", "price": "6"},
            ],
            "adjustments": [
                {"name": "add-on 1", "asset": "USD", "pnl": "-1", "option_value": "-2", "credit": "3", "notional": "4"},
                {"name": "x", "asset": "USD", "initial_margin": "1", "maintenance_margin": "0"},
            ],
        },
        "instruments": {
            "OPT/X": {
                "kind": "linear_option",
                "settle": "USDT",
                "underlying": "BTC",
                "option_type": "put",
                "strike": "70000",
                "expiry": "2026-02-01T08:00:00Z",
                "contract_size": "0.01",
                "tick_size": "0.5",
                "taker_fee": 0,
            },
            "FUT": {
                "kind": "inverse_future",
                "settle": "BTC",
                "expiry": "2026-02-01T08:00:00Z",
                "tier_unit": "quantity",
                "tiers": tiers,
                "size_factor": "0.001",
                "profit_weight": 1,
                "initial_profit_weight": "0.5",
                "open_interest_lower": 1,
                "open_interest_upper": 2,
            },
        },
        "assets": {
            "BTC": {
                "weights": weights,
                "debt_weights": [{"floor": 0, "weight": "1.1", "initial_weight": 1.2}],
                "borrow_tiers": copy.deepcopy(tiers),
                "taker_fee": "0.001",
                "size_factor": 0,
                "deposit_scale_start": "1",
                "borrow_scale_start": "1",
            }
        },
        "risk": {
            "BTC": {
                "price_moves": ["-0.16", "0", 0.16],
                "extreme_moves": ["0.5"],
                "extreme_factor": "0.5",
                "profit_offset": 0,
                "basis_floor": "0.01",
                "basis_annualised": "0.05",
                "minimum_charge": "0.004",
                "delta_shock_threshold": "20000000",
                "delta_shock_maximum": "0.1",
                "maintenance_factor": "0.8",
                "initial_factor": 1,
            }
        },
        "rules": {"value_basis": "entry", "closing_fee": "mark", "debts": "requirement", "netting": "larger_side", "liquidation": "below"},
        "prices": {
            "mark": {"KNOWN": "100.10", "FUT": 1e-5},
            "index": {"BTC": "70000"},
            "smoothed": {"BTC": 1},
            "forward": {"OPT/X": "70000"},
            "volatility": {"OPT/X": "0.6"},
            "interest_rate": {"USDT": "-0.01"},
            "funding_rate": {"KNOWN": "-0.0001"},
            "open_interest": {"KNOWN": 0},
            "deposits": {"BTC": 0},
            "borrows": {"BTC": "1"},
        },
    }


def small() -> dict[str, Any]:
    """The least document that is one."""
    return {"account": {"id": "a", "venue": "binance_usdm", "positions": []}}


def at(body: Any, path: str) -> tuple[Any, str | int]:
    """The container and key of a JSON pointer."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]
    for part in parents:
        body = body[int(part)] if isinstance(body, list) else body[part]
    return body, int(last) if isinstance(body, list) else last


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """A change: the value at a path."""

    def change(body: dict[str, Any]) -> None:
        container, key = at(body, path)
        container[key] = value

    return change


def drop(path: str) -> Callable[[dict[str, Any]], None]:
    """A change: nothing at a path."""

    def change(body: dict[str, Any]) -> None:
        container, key = at(body, path)
        del container[key]

    return change


def test_a_whole_document_reads_as_written() -> None:
    """Every field arrives where the margin model looks for it."""
    document = read(whole())

    assert VALIDATOR.is_valid(whole())
    assert (document.sequence, document.epoch, document.account_id) == (7, 1_700_000_000_000, "acme-1")
    assert document.as_of == datetime(2026, 1, 31, 8, 0, 0, 500_000, tzinfo=UTC)
    account = document.account
    assert account is not None and account.balances is not None
    assert account.positions[0].quantity == Decimal("-2.5") and account.positions[0].leverage == 20
    assert account.positions[1].cost == 0 and not account.positions[1].cost.is_signed()
    assert account.positions[2].isolated_wallet == 3 and account.positions[3].isolated_cash == -3
    assert [balance.collateral for balance in account.balances] == [True, False]
    assert [order.count for order in account.orders] == [3, 1]
    assert account.adjustments[0].credit == 3 and account.adjustments[1].credit is None
    tables = document.tables
    future = tables.instruments["FUT"]
    assert future.tiers is not None and future.tiers.rows[1].deduction == 50
    assert tables.instruments["OPT/X"].strike == 70_000 and tables.instruments["OPT/X"].taker_fee == 0
    assert tables.assets["BTC"].weights.rows[1].weight == 0 and tables.assets["BTC"].debt_weights.rows[0].initial_weight == Decimal("1.2")
    assert tables.risk["BTC"].price_moves == (Decimal("-0.16"), Decimal(0), Decimal("0.16"))
    assert tables.rules["own"].netting == "larger_side" and tables.rules["own"].since is None
    assert document.prices.mark == {"KNOWN": Decimal("100.1"), "FUT": Decimal("0.00001")}


def test_the_least_document_has_the_defaults() -> None:
    """What is absent is None or its default, never a guess."""
    document = read(small())

    assert document.account is not None
    assert document.account.balances is None and document.account.mode is None and document.account.valuation_currency == "USD"
    assert document.sequence is None and document.epoch == 0 and document.as_of is None
    assert document.tables.instruments == {} and document.prices.mark == {}


def test_an_isolated_wallet_of_null_stays_unstated() -> None:
    """Null is as absent, but leverage need not be there: the wallet is then the tier's initial margin at entry, if it has one."""
    body = small()
    body["account"]["positions"] = [{"instrument": "KNOWN", "quantity": 1, "margin_mode": "isolated", "isolated_wallet": None}]

    position = cast("Any", read(body).account).positions[0]

    assert position.isolated_wallet is None and position.leverage is None


ACCOUNT, POSITION, TIERS = "/account", "/account/positions/0", "/instruments/FUT/tiers"
REFUSED: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    # Keys and types.
    (put("/colour", 1), "/colour"),
    (put("/account/colour", 1), "/account/colour"),
    (put(f"{POSITION}/co~lo/ur".replace("lo/ur", "lo~1ur"), 1), f"{POSITION}/co~0lo~1ur"),
    (put("/account/orders/0/colour", 1), "/account/orders/0/colour"),
    (put("/prices/last", {}), "/prices/last"),
    (put("/instruments/FUT/tiers/1/colour", 1), "/instruments/FUT/tiers/1/colour"),
    (put("/risk/BTC/colour", 1), "/risk/BTC/colour"),
    (put("/rules/colour", 1), "/rules/colour"),
    (put("/version", 2), "/version"),
    (put("/version", True), "/version"),
    (put("/sequence", -1), "/sequence"),
    (put("/sequence", 1.5), "/sequence"),
    (put("/sequence", "1"), "/sequence"),
    (put("/sequence", 2**63), "/sequence"),
    (put("/epoch", True), "/epoch"),
    (put("/as_of", "2026-01-31"), "/as_of"),
    (put("/as_of", "2026-02-30T00:00:00Z"), "/as_of"),
    (put("/as_of", "2026-01-31T08:00:00+00:00"), "/as_of"),
    (put("/account", []), "/account"),
    (put("/account/positions", None), "/account/positions"),
    (put("/account/positions/0", "KNOWN"), "/account/positions/0"),
    (put("/account/balances/1/collateral", 1), "/account/balances/1/collateral"),
    (put("/assets/BTC", {}), "/assets/BTC"),
    (put("/prices/mark", []), "/prices/mark"),
    (drop("/account/id"), "/account/id"),
    (drop("/account/positions"), "/account/positions"),
    (drop(f"{POSITION}/quantity"), f"{POSITION}/quantity"),
    (drop(f"{TIERS}/0/floor"), f"{TIERS}/0/floor"),
    (drop("/instruments/FUT/settle"), "/instruments/FUT/settle"),
    (drop("/instruments/FUT/expiry"), "/instruments/FUT/expiry"),
    (drop("/risk/BTC/initial_factor"), "/risk/BTC/initial_factor"),
    (drop("/risk/BTC/extreme_factor"), "/risk/BTC/extreme_factor"),
    (drop("/instruments/FUT/open_interest_upper"), "/instruments/FUT/open_interest_upper"),
    # Names and words.
    (put("/account/id", "a/b"), "/account/id"),
    (put("/account/id", "x" * 129), "/account/id"),
    (put("/account/id", "é"), "/account/id"),
    (put("/account/group", "+"), "/account/group"),
    (put("/account/venue", "nyse"), "/account/venue"),
    (put("/account/margin_model", "span"), "/account/margin_model"),
    (put("/account/valuation_currency", ""), "/account/valuation_currency"),
    (put(f"{POSITION}/side", "buy"), f"{POSITION}/side"),
    (put(f"{POSITION}/margin_mode", "portfolio"), f"{POSITION}/margin_mode"),
    (put("/account/orders/0/side", "long"), "/account/orders/0/side"),
    (put("/account/adjustments/0/name", "Add-on"), "/account/adjustments/0/name"),
    (put("/instruments/FUT/kind", "spot"), "/instruments/FUT/kind"),
    (put("/prices/mark/ ", 1), "/prices/mark/ "),
    # Numbers of rule 2 and bounds.
    *[
        (put(f"{POSITION}/entry_price", bad), f"{POSITION}/entry_price")
        for bad in ("0", "-1", 0, "NaN", "1_0", " 1", "１", "01", "+1", ".5")
    ],
    *[(put(f"{POSITION}/entry_price", bad), f"{POSITION}/entry_price") for bad in ("1e100", 1e100, "9" * 61, None, True, "", "1.", "0e5")],
    *[(put(f"{POSITION}/quantity", bad), f"{POSITION}/quantity") for bad in ("0", 0, -0.0, "-0.00", "inf")],
    (put("/instruments/OPT~1X/strike", "0"), "/instruments/OPT~1X/strike"),
    (put("/instruments/OPT~1X/contract_size", "-1"), "/instruments/OPT~1X/contract_size"),
    (put("/account/taker_fee", "1.1"), "/account/taker_fee"),
    (put("/account/taker_fee", "5e-0"), "/account/taker_fee"),
    (put("/account/taker_fee", "-0"), "/account/taker_fee"),
    (put("/account/minimum_initial_rate", "-0.1"), "/account/minimum_initial_rate"),
    (put("/account/adjustments/0/credit", "-1"), "/account/adjustments/0/credit"),
    (put("/assets/BTC/weights/0/weight", "1.01"), "/assets/BTC/weights/0/weight"),
    (put("/assets/BTC/debt_weights/0/weight", "0.99"), "/assets/BTC/debt_weights/0/weight"),
    (put(f"{TIERS}/0/maintenance_rate", 1.5), f"{TIERS}/0/maintenance_rate"),
    (put("/account/orders/0/count", 0), "/account/orders/0/count"),
    (put("/risk/BTC/price_moves/0", "-1"), "/risk/BTC/price_moves/0"),
    (put("/risk/BTC/price_moves/2", "-0.160"), "/risk/BTC/price_moves/2"),
    (put("/risk/BTC/price_moves", []), "/risk/BTC/price_moves"),
    # Tables.
    (put(f"{TIERS}/0/floor", 1), f"{TIERS}/0/floor"),
    (put(f"{TIERS}/1/floor", 0), f"{TIERS}/1/floor"),
    (put(TIERS, []), TIERS),
    (drop(f"{TIERS}/1/maintenance_rate"), f"{TIERS}/1/maintenance_rate"),
    (put(f"{TIERS}/0/initial_rate", "0.1"), f"{TIERS}/0/initial_rate"),
    (put("/assets/BTC/weights/1/floor", 0), "/assets/BTC/weights/1/floor"),
    (put("/assets/BTC/borrow_tiers/0/floor", 5), "/assets/BTC/borrow_tiers/0/floor"),
    # Options and expiries.
    (drop("/instruments/OPT~1X/strike"), "/instruments/OPT~1X/strike"),
    (drop("/instruments/OPT~1X/option_type"), "/instruments/OPT~1X/option_type"),
    (drop("/instruments/OPT~1X/expiry"), "/instruments/OPT~1X/expiry"),
    (drop("/instruments/OPT~1X/underlying"), "/instruments/OPT~1X/underlying"),
    (put("/instruments/FUT/strike", 1), "/instruments/FUT/strike"),
    (put("/instruments/FUT/kind", "inverse_perpetual"), "/instruments/FUT/expiry"),
    (put("/as_of", "2026-02-01T08:00:01Z"), "/instruments/OPT~1X/expiry"),
    (put("/account/orders/0/instrument", "GONE"), "/account/orders/0/instrument"),
    # Accounts.
    (put(f"{POSITION}/instrument", "NOBODY"), f"{POSITION}/instrument"),
    (put("/account/orders/0/instrument", "NOBODY"), "/account/orders/0/instrument"),
    (put(f"{POSITION}/cost", 1), f"{POSITION}/cost"),
    (put(f"{POSITION}/side", "long"), f"{POSITION}/side"),
    (put(f"{POSITION}/isolated_cash", 1), f"{POSITION}/isolated_cash"),
    (put(f"{POSITION}/isolated_wallet", 1), f"{POSITION}/isolated_wallet"),
    (put(f"{POSITION}/side", "both"), "/account/positions/1/side"),
    (put("/account/positions/2/instrument", "KNOWN"), "/account/positions/2/side"),
    (put("/account/positions/3/instrument", "OPT/X"), "/account/positions/3/instrument"),
    (put("/account/positions/2/isolated_cash", "3"), "/account/positions/2/isolated_cash"),
    (drop("/account/positions/2/isolated_wallet"), "/account/positions/2/isolated_wallet"),
    (put("/account/balances/1/asset", "USDT"), "/account/balances/1/asset"),
    (put("/account/balances/1/cash", 1), "/account/balances/1/cash"),
    (put("/account/balances/1", {"asset": "BTC", "cash": 1}), "/account/balances/1/cash"),
    (put("/account/balances/1", {"asset": "BTC"}), "/account/balances/1/wallet"),
    (put("/account/orders/0/price", 1), "/account/orders/0/price"),
    (drop("/account/orders/1/price"), "/account/orders/1/notional"),
    (put("/account/adjustments/1", {"name": "x", "asset": "USD"}), "/account/adjustments/1"),
    # Venues.
    (put("/account/venue", "bybit"), "/account/margin_model"),
    (put("/account/venue", "okx"), "/rules"),
    (put("/account/mode", "hedge"), "/account/mode"),
    (put("/account/mode", ["multi_asset"]), "/account/mode"),
    # Removal is not for evaluate.
    (put("/remove", "acme-1"), "/remove"),
]


@pytest.mark.parametrize(("change", "path"), REFUSED, ids=[f"{index}{path}" for index, (_, path) in enumerate(REFUSED)])
def test_what_cannot_be_right_is_refused_where_it_stands(change: Callable[[dict[str, Any]], None], path: str) -> None:
    """One change to a good document: refused, and the pointer names the key that was changed."""
    body = whole()
    change(body)

    with pytest.raises(RefusedError) as error:
        read(body)

    assert error.value.path == path
    assert error.value.expected and len(error.value.value) <= 80


@pytest.mark.parametrize(("venue", "mode"), [("hyperliquid", "multi_asset"), ("kraken_futures", "single_asset"), ("bitmex", "multi_asset")])
def test_a_mode_that_the_venue_does_not_have_is_refused(venue: str, mode: str) -> None:
    """Hyperliquid has one pool per asset, Kraken one for all."""
    body = small()
    body["account"] |= {"venue": venue, "mode": mode}

    with pytest.raises(RefusedError) as error:
        read(body)

    assert error.value.path == "/account/mode" and error.value.account_id == "a"


def test_the_reader_and_the_rules_agree_on_what_a_venue_has() -> None:
    """Modes in the same order, and the venues with portfolio margin: the reader refuses what the rules could not judge."""
    for venue in VENUES:
        for rules in RULE_SETS[venue]:
            assert MODES[venue] == rules.modes
            assert ("portfolio" in rules.models) == (venue in PORTFOLIO_MARGIN_VENUES)


def test_wallet_and_cash_may_stand_side_by_side_in_two_pools() -> None:
    """A single_asset account has a pool per asset, so the kinds do not meet."""
    body = small()
    body["account"]["balances"] = [{"asset": "USDT", "wallet": 1}, {"asset": "USDC", "cash": 1}]
    read(body)
    body["account"]["mode"] = "multi_asset"

    with pytest.raises(RefusedError) as error:
        read(body)

    assert error.value.path == "/account/balances/1/cash"


@pytest.mark.parametrize("purpose", ["import", "stream"])
@pytest.mark.parametrize("field", ["as_of", "prices"])
def test_import_and_stream_use_the_present(purpose: Purpose, field: str) -> None:
    """A time or prices of the document's own would be overruled by the feeds, so they are refused there."""
    body = small() | {"sequence": 1, field: whole()[field]}

    with pytest.raises(RefusedError) as error:
        read(body, purpose)

    assert error.value.path == f"/{field}"


def test_the_stream_needs_a_sequence_and_may_remove() -> None:
    """Sequence is required there only; a removal names an account and nothing else."""
    with pytest.raises(RefusedError) as error:
        read(small(), "stream")
    assert error.value.path == "/sequence"
    assert read({"remove": "a", "sequence": 3, "epoch": 5}, "stream").remove == "a"
    with pytest.raises(RefusedError) as error:
        read({"remove": "a", "sequence": 3, "assets": {}}, "stream")
    assert error.value.path == "/assets"
    with pytest.raises(RefusedError) as error:
        read({"remove": "a", "sequence": 3}, "import")
    assert error.value.path == "/remove"
    with pytest.raises(RefusedError) as error:
        read({"remove": "#", "sequence": 3}, "stream")
    assert error.value.path == "/remove" and error.value.account_id == "#"


def test_an_expired_instrument_is_refused_only_where_the_moment_is_known() -> None:
    """A stored document is read again without a moment: an account must not vanish because one of its instruments ended."""
    body = small() | {"sequence": 1}
    body["account"]["positions"] = [{"instrument": "GONE", "quantity": 1}]

    assert read(body, "stream", now=None).account_id == "a"
    with pytest.raises(RefusedError) as error:
        read(body, "stream")

    assert error.value.path == "/account/positions/0/instrument"


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"account": "\xff"}', "byte 14 (line 1)"),
        (b'{"account": \n{"id": 1,', "line 2 column 10"),
        (b'{"account": nul}', "line 1 column 13"),
        (b'{"a": NaN}', "line 1 column 7"),
        (b'{"a": 1e999}', "infinity"),
        (b"{} {}", "line 1 column 4"),
        (b"[1,]", "trailing comma"),
        (b"{'a': 1}", "line 1 column 2"),
        ("{}".encode("utf-16"), "UTF-8"),
        (b"[" * 2000, "JSON"),
    ],
)
def test_bytes_that_are_not_json_say_what_and_where(data: bytes, says: str) -> None:
    """Path is the whole document; the text tells the place."""
    with pytest.raises(RefusedError) as error:
        parse_document(data)

    assert error.value.path == "" and says in f"{error.value.value} {error.value.expected}"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b'{"version":1,"version":1}', "/version"),
        (
            b'{"account":{"id":"a","venue":"okx","positions":[{"instrument":"x","quantity":1,"quantity" : 2}]}}',
            "/account/positions/0/quantity",
        ),
        (b'{"\\u0061":1,"a":2}', "/a"),
        (b'{"prices":{"mark":{"a:b":1,"a\\u003ab":2}}}', "/prices/mark/a:b"),
        (b'{"a":1e-400}', "/a"),
        (b'{"a":[1, 1e0000]}', "/a/1"),
        (b'{"a":0.' + b"1" * 60 + b"}", "/a"),
        (b'{"x":1.0,"a":1' + b"0" * 60 + b"}", "/a"),
    ],
)
def test_what_a_json_reader_would_lose_is_refused(data: bytes, path: str) -> None:
    """Doubled keys and bare numbers outside rule 2 vanish in a plain parse; here they are found, spelled any way."""
    with pytest.raises(RefusedError) as error:
        parse_document(data)

    assert error.value.path == path


@pytest.mark.parametrize(
    "data",
    [
        b'{"a" : 1.10,\n\t"b":[1e5, "x:\\"y\\":"]}',
        b'{"a":"1e1000 ' + b"1" * 80 + b'"}',
        '{"é":"\\u00e9"}'.encode(),
        b'{"a":0.0000000000000000001}',
    ],
)
def test_unusual_spelling_is_not_refused(data: bytes) -> None:
    """White space, escapes and non-shortest numbers take the slow way and come out as they are."""
    assert parse_document(data) == json.loads(data)


def test_a_deep_text_with_escapes_is_refused_not_a_crash() -> None:
    """The closer look has a depth of its own."""
    with pytest.raises(RefusedError) as error:
        parse_document(b"[" * 1000 + b'"\\n"' + b"]" * 1000)

    assert "nested" in error.value.value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_any_json_comes_out_or_is_refused(value: object) -> None:
    """Whatever JSON is printed by another library, the parse gives the value back or a RefusedError, never another error."""
    data = json.dumps(value).encode("utf-8", "surrogatepass")
    try:
        body = parse_document(data)
    except RefusedError:
        return

    assert orjson.dumps(body) == orjson.dumps(orjson.loads(data))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_refusal(data: bytes) -> None:
    """Nothing but RefusedError comes out of hostile bytes."""
    try:
        read_document(parse_document(data), purpose="stream", known=known, now=NOW)
    except RefusedError as error:
        path = error.path
    else:
        path = ""

    assert path == "" or path.startswith("/")


# ---------------------------------------------------------------- the schema and the reader

# fmt: off
NASTY: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e300, 1e-7, "", "0", "-0", "1", "-1", "0.5", "1.0", "1.1", "2", "0.5e0", "10e-2",
    "5e-0", "5e-1", "0e1", "1e5", "1E+05", "1e100", "NaN", " 1", "1 ", "１", "1_0", "+1", "01", ".5", "x", "é", "both", "long", "buy",
    "isolated", "cross", "wallet", "2026-01-31T08:00:00Z", "2026-13-31T08:00:00Z", "BTC", "KNOWN", "x" * 65, "9" * 61, [], {}, [1],
    {"a": 1}, ["0.1", "0.1"], [{"floor": 0}],
)
# fmt: on
KEYS = sorted(
    {key for definition in VALIDATOR.schema["$defs"].values() for key in definition.get("properties", {})} | {"account", "remove", "x", "1"}
)


def nodes(body: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    found = [] if found is None else found
    for key, value in body.items() if isinstance(body, dict) else enumerate(body):
        found.append((body, key))
        if isinstance(value, dict | list):
            nodes(value, found)
    return found


def mutated(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """One to three changes anywhere: a key dropped, added, or its value replaced by something nasty or by another value of the document."""
    body = copy.deepcopy(body)
    for _ in range(chance.randint(1, 3)):
        places = nodes(body)
        if not places:
            return body
        container, key = chance.choice(places)
        what = chance.random()
        if what < 0.25:
            del container[key]
        elif what < 0.5 and isinstance(container, dict):
            container[chance.choice(KEYS)] = copy.deepcopy(chance.choice(NASTY))
        elif what < 0.65:
            other, other_key = chance.choice(places)
            if other_key in (other if isinstance(other, dict) else range(len(other))):
                container[key] = copy.deepcopy(other[other_key])
        else:
            container[key] = copy.deepcopy(chance.choice(NASTY))
    return body


def taken(body: object, purpose: Purpose) -> bool:
    """Whether the reader takes it."""
    try:
        read(body, purpose, now=None)
    except RefusedError:
        return False
    return True


@settings(max_examples=1500, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["evaluate", "import", "stream"]))
def test_what_the_reader_takes_the_schema_takes(chance: random.Random, purpose: Purpose) -> None:
    """After any mutation: refused by the published schema means refused by the reader."""
    start = chance.choice([whole(), small() | {"sequence": 1}, {"remove": "a", "sequence": 1}])
    body = mutated(start, chance)

    if taken(body, purpose):
        errors = [error.message for error in VALIDATOR.iter_errors(body)]
        assert errors == [], body


@needs_shared
def test_every_worked_case_is_taken() -> None:
    """The documents of all worked cases and of the contract page are good; so are most of their harmless mutations."""
    count = 0
    with (SHARED / "venues" / "documents.jsonl").open("rb") as lines:
        for line in lines:
            for body in orjson.loads(line).get("documents", []):
                assert VALIDATOR.is_valid(body)
                document = read(body, now=None)
                assert document.account_id == body["account"]["id"]
                count += 1

    assert count > 150


@needs_shared
@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_mutated_worked_cases_never_pass_the_reader_alone(chance: random.Random) -> None:
    """The same law on real documents."""
    body = mutated(chance.choice(_worked_documents()), chance)

    if taken(body, "evaluate"):
        errors = [error.message for error in VALIDATOR.iter_errors(body)]
        assert errors == [], body


_WORKED: list[dict[str, Any]] = []


def _worked_documents() -> list[dict[str, Any]]:
    if not _WORKED:
        with (SHARED / "venues" / "documents.jsonl").open("rb") as lines:
            small_lines = [line for line in lines if len(line) < 20_000]
        _WORKED.extend(body for line in small_lines for body in orjson.loads(line).get("documents", []))
    return _WORKED
