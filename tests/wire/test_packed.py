"""The packed form says what the document says, or leaves it to the document."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from zlib import crc32

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.service.sample_book import sample_tables
from monitor.service.tables import VenueTables
from monitor.wire.documents import Document, parse_document, read_document
from monitor.wire.packed import (
    Place,
    columns_of,
    document_of,
    hash_of,
    instrument_hash,
    is_plain,
    is_sound,
    left_to_document,
    pack,
    place_of,
    version_of,
)

NAMES = ("BTCUSDT", "ETHUSDT", "1000PEPEUSDT", "SOLUSDT")
HASHES = {instrument_hash(name): name for name in NAMES}

numbers = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=8)
prices = st.decimals(allow_nan=False, allow_infinity=False, min_value="0.00000001", max_value=10**7, places=10)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Plain accounts, and some whose numbers have more digits than a float64."""
    positions = []
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)):
        quantity = draw(numbers.filter(bool))
        position: dict[str, Any] = {"instrument": name, "quantity": f"{quantity:f}", "entry_price": f"{draw(prices):f}"}
        if draw(st.booleans()):
            position["leverage"] = draw(st.sampled_from(["1", "10", 125, "200"]))
        positions.append(position)
    account = {
        "id": "a",
        "venue": "binance_usdm",
        "balances": [{"asset": "USDT", "wallet": f"{draw(numbers):f}"}],
        "positions": positions,
    }
    if draw(st.booleans()):
        account["group"] = "desk-1"
    return orjson.dumps({"epoch": draw(st.integers(0, 9)), "sequence": draw(st.integers(0, 2**40)), "account": account})


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> VenueTables:
    """Tables of the instruments."""
    path = tmp_path_factory.mktemp("tables") / "tables.json"
    path.write_bytes(orjson.dumps(sample_tables(dict.fromkeys(NAMES, 1.0))))
    return VenueTables([path])


def read(data: bytes, tables: VenueTables) -> Document:
    """What a document says."""
    return read_document(parse_document(data), purpose="stream", known=tables, now=datetime(2026, 1, 1, tzinfo=UTC))


@given(data=documents())
def test_a_plain_record_gives_the_document_back(tables: VenueTables, data: bytes) -> None:
    """Every number to its last digit, leverage and group; version, checksum and hash are those of the document."""
    body = orjson.loads(data)
    record = pack("a", body["epoch"], body["sequence"], data)
    assert is_sound(b"a", record)
    longest = max(
        len(number.strip("-").replace(".", ""))
        for position in body["account"]["positions"]
        for number in (position["quantity"], position["entry_price"], body["account"]["balances"][0]["wallet"])
    )
    assert is_plain(record) or longest > 15
    if is_plain(record):
        again = document_of("a", record, HASHES)
        assert read(again, tables) == read(data, tables)
        assert version_of(record) == (body["epoch"], body["sequence"], crc32(data))
        assert hash_of(record) == sha256(data).hexdigest()[:32]
        assert Place.of(place_of(record)) == Place("binance_usdm", "USDT", body["account"].get("group", ""))


def plain(account: str, *positions: tuple[str, str, str], wallet: str = "1000", group: str = "") -> bytes:
    """The record of an account."""
    rows = [dict(zip(("instrument", "quantity", "entry_price"), position, strict=True)) for position in positions]
    body = {"id": account, "venue": "bybit", "group": group, "balances": [{"asset": "USDT", "wallet": wallet}], "positions": rows}
    return pack(account, 0, 1, orjson.dumps({"sequence": 1, "account": body}))


def test_columns_of_several_records() -> None:
    """Positions lie one after the other, account by account."""
    records = [
        plain("a", ("BTCUSDT", "-0.5", "30000"), ("ETHUSDT", "2", "1800.5")),
        plain("b", ("SOLUSDT", "7", "20.25"), wallet="-3.5", group="desk"),
    ]
    columns = columns_of(records)
    assert columns.places == [b"bybit\0USDT\0", b"bybit\0USDT\0desk"]
    assert columns.wallets.tolist() == [1000.0, -3.5]
    assert columns.counts.tolist() == [2, 1]
    assert columns.quantities.tolist() == [-0.5, 2.0, 7.0]
    assert columns.entries.tolist() == [30000.0, 1800.5, 20.25]
    assert [HASHES[number] for number in columns.instruments.tolist()] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    assert columns.instruments.dtype == np.uint64


@pytest.mark.parametrize("record", [plain("a", ("BTCUSDT", "-0.5", "30000")), left_to_document("a")])
def test_every_altered_byte_and_every_other_name_is_found(record: bytes) -> None:
    """One flipped bit anywhere, a cut, or a record under another account's name."""
    assert is_sound(b"a", record)
    assert not is_sound(b"b", record)
    assert not is_sound(b"a", record[:-1])
    assert not is_sound(b"a", b"")
    for bit in range(8 * len(record)):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not is_sound(b"a", bytes(damaged))


@pytest.mark.parametrize(
    "number",
    ["0.1234567890123456", "1e3", "1E-7", 2**53 + 2, "1234567890123456"],
)
def test_a_number_that_a_float_does_not_carry_is_left_to_the_document(number: object) -> None:
    """Sixteen digits, exponents, integers beyond 53 bits."""
    for key in ("wallet", "quantity", "entry_price"):
        position = {"instrument": "BTCUSDT", "quantity": "1", "entry_price": "30000"}
        balance = {"asset": "USDT", "wallet": "5"}
        (balance if key == "wallet" else position)[key] = number  # type: ignore[assignment]
        account = {"id": "a", "venue": "binance_usdm", "balances": [balance], "positions": [position]}
        assert not is_plain(pack("a", 0, 1, orjson.dumps({"account": account})))


def test_versions_beyond_63_bits_are_left_to_the_document() -> None:
    """They are whole numbers of any size in a document."""
    data = orjson.dumps(
        {
            "account": {
                "id": "a",
                "venue": "binance_usdm",
                "balances": [{"asset": "USDT", "wallet": "5"}],
                "positions": [{"instrument": "BTCUSDT", "quantity": "1", "entry_price": "30000"}],
            }
        }
    )
    assert is_plain(pack("a", 0, 2**63 - 1, data))
    assert not is_plain(pack("a", 0, 2**63, data))
