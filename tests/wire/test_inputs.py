"""Documents from JSON, JSON lines and CSV, and refusals that name the place."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import RefusedError
from monitor.margin.instruments import Instrument, Kind
from monitor.margin.tables import Tables
from monitor.wire.csv_accounts import COLUMNS, CsvAccount, accounts_of_csv
from monitor.wire.documents import Document
from monitor.wire.inputs import Entry, csv_entries, json_entry, json_line_entries

__all__: list[str] = []

NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)
TABLES = Tables(instruments={name: Instrument(name=name, kind=Kind.LINEAR_PERPETUAL, settle="USDT") for name in ("BTCUSDT", "ETHUSDT")})
GOOD = """account,venue,group,mode,asset,wallet,collateral,instrument,quantity,entry_price,leverage
a,binance_usdm,desk,,USDT,"1000",,,,,
a,binance_usdm,,multi_asset,BTC,2,FALSE,,,,

a,binance_usdm,,,,,,BTCUSDT,-0.5,60000,20
b,okx,,,,,,ETHUSDT, 3 ,,
"""


def read(entry: Entry) -> Document:
    """An entry of an import."""
    return entry.read(purpose="import", known=lambda _: TABLES, now=NOW)


def refused(entry: Entry) -> str:
    """What is said about an entry that cannot be right."""
    with pytest.raises(RefusedError) as error:
        read(entry)
    return str(entry.refusal(error.value))


def test_a_table_becomes_one_document_per_account() -> None:
    """Lines gather by account; blanks, blank lines and empty cells are nothing; what is not stated stays unstated."""
    first, second = (read(entry).account for entry in csv_entries("x.csv", GOOD.encode()))

    assert first is not None and second is not None
    assert (first.id, first.venue, first.group, first.mode) == ("a", "binance_usdm", "desk", "multi_asset")
    assert first.balances is not None and [(row.asset, row.collateral) for row in first.balances] == [("USDT", True), ("BTC", False)]
    assert first.positions[0].leverage == 20 and first.positions[0].quantity.is_signed()
    assert second.balances is None and second.positions[0].quantity == 3 and second.positions[0].entry_price is None


def test_a_byte_order_mark_and_windows_lines_are_a_spreadsheets_way() -> None:
    """Both are taken off; the numbers stay."""
    entries = list(csv_entries("x.csv", b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()))

    assert [read(entry).account_id for entry in entries] == ["a", "b"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("-0.5", "-0,5", "x.csv:5: account a: /: "),
        ("-0.5", '"-0,5"', 'x.csv:5: account a: /account/positions/0/quantity: "-0,5": expected not 0'),
        ("60000", "1_0", "(column entry_price)"),
        (" 3 ", "", "x.csv:6: account b: /account/positions/0/quantity: (absent): expected a value: this field is required (column q"),
        ("FALSE", "no", 'x.csv:3: account a: /account/balances/1/collateral: "no": expected true or false (column collateral)'),
        ("BTCUSDT", "XRPUSDT", "x.csv:5: account a: /account/positions/0/instrument"),
        ("a,binance_usdm,,multi", "a,okx,,multi", "expected binance_usdm as on the lines before (column venue)"),
        ("b,okx", "b,", "x.csv:6: account b: /account/venue: (absent): expected a value"),
        ("b,okx", "b,nyse", "(column venue)"),
        ("b,okx", ",okx", 'x.csv:6: /account/id: "": expected an account id in column account'),
        ("BTC,2,FALSE,", "BTC,2,FALSE,BTCUSDT", "either an asset (a balance) or an instrument (a position) on a line"),
        ("BTC,2,FALSE,", ",2,FALSE,", "either an asset"),
        ("USDT,", ',"USDT,', "CSV, cells quoted"),
        ("ETHUSDT, 3 ,,", "ETHUSDT,3", "11 cells as in the first line, not 9"),
        ("account,", "", "a column account"),
        ("group", "desk", 'x.csv:1: /: "desk": expected in the first line only columns of account, venue'),
        ("group", "venue", "each column once"),
        (GOOD, "", "a first line that names the columns"),
        (GOOD, GOOD.replace(",", ";"), "separate columns with commas"),
    ],
)  # fmt: skip
def test_what_cannot_be_right_names_line_and_column(old: str, new: str, says: str) -> None:
    """One line of text: file, line, account, key, value, what was expected, column."""
    said = []
    for entry in csv_entries("x.csv", GOOD.replace(old, new, 1).encode()):
        try:
            read(entry)
        except RefusedError as error:
            said.append(str(entry.refusal(error)))

    assert len(said) == 1
    assert says in said[0] and "\n" not in said[0]


def test_bytes_that_are_not_utf_8_name_the_line() -> None:
    """A Latin-1 file is not guessed at."""
    (entry,) = csv_entries("x.csv", GOOD.replace("desk", "caf\xe9").encode("latin-1"))

    assert refused(entry).startswith("x.csv:2: /: bytes e9")


@given(st.binary(max_size=200) | st.text(alphabet=',"\n ax1', max_size=60).map(lambda text: f"account,venue,asset,wallet\n{text}".encode()))
def test_any_bytes_are_accounts_or_errors(data: bytes) -> None:
    """Nothing but values comes out of hostile bytes."""
    for account in accounts_of_csv(data):
        assert isinstance(account, CsvAccount) or isinstance(account[1], RefusedError)


def test_every_field_of_a_row_has_a_column() -> None:
    """The template can say everything a balance and a position can."""
    assert len(COLUMNS) == len(set(COLUMNS)) == 23


def test_json_lines_count_from_one_and_skip_blank_lines() -> None:
    """A broken line is an entry of its own; the others stand."""
    good = b'{"account":{"id":"a","venue":"okx","positions":[]}}\n'
    entries = list(json_line_entries("-", [good, b" \n", b'{"account":{"id":"b"}\n', good.replace(b"[]", b"{}")]))

    assert [entry.line for entry in entries] == [1, 3, 4]
    assert read(entries[0]).account_id == "a"
    assert refused(entries[1]).startswith("-:3: /: ") and "whole JSON; it ends too early, at line 1 column 22" in refused(entries[1])
    assert refused(entries[2]) == "-:4: account a: /account/positions: {}: expected an array"


def test_one_document_has_no_line() -> None:
    """A file that is one document is named without a line."""
    assert refused(json_entry("x.json", b"[]")) == "x.json: /: []: expected an object"
