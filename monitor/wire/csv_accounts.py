"""Accounts as a table: one line a position or a balance, for spreadsheets and back offices (docs/reference/portfolio.md, "CSV").

The first line names the columns, in any order; columns that nobody fills may be left out. A line has `account` and `venue`, then either an
`asset` (a balance) or an `instrument` (a position). What belongs to the account as a whole stands on any of its lines, the same on all.
An account without a balance line has not stated its balances, so its cross pools are unknown; an empty wallet is a line with `wallet` 0.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from monitor.errors import RefusedError
from monitor.wire.fields import shown

__all__ = ["COLUMNS", "CsvAccount", "accounts_of_csv"]

_ACCOUNT = ("mode", "margin_model", "group", "rules", "valuation_currency", "taker_fee", "minimum_initial_rate")
_BALANCE = ("asset", "wallet", "cash", "collateral")
_POSITION = (
    "instrument",
    "quantity",
    "side",
    "entry_price",
    "cost",
    "leverage",
    "margin_mode",
    "isolated_wallet",
    "isolated_cash",
    "unsettled_funding",
)
COLUMNS = ("account", "venue", *_ACCOUNT, *_BALANCE, *_POSITION)
"""Every column there is, as in the template."""

_BOOLEANS = {"true": True, "false": False}


@dataclass(slots=True, kw_only=True)
class CsvAccount:
    """One account of a file.

    Attributes:
        line: Where it is first named, from 1 (the header).
        body: The portfolio document its lines say.
        places: By JSON pointer into `body`: line and column of the cell it came from; of a row as a whole, line and "".
    """

    line: int
    body: dict[str, Any]
    places: dict[str, tuple[int, str]] = field(default_factory=dict)


class _WrongLine(Exception):
    """A line that cannot be part of an account."""

    def __init__(self, path: str, value: object, expected: str) -> None:
        self.path, self.value, self.expected = path, value, expected
        super().__init__(expected)


def accounts_of_csv(data: bytes) -> Iterator[CsvAccount | tuple[int, RefusedError]]:
    """The accounts of a file, in the order in which they are first named.

    A byte order mark at the start is taken off: spreadsheets write one. Cells are taken as they stand, without blanks around them; numbers
    are read by the document reader, so `1,000` or `1.000,5` is refused and not guessed.

    Yields:
        An account, or (line, error) for one with a line that cannot be read. A file whose header or text cannot be read is one such error.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        yield line, RefusedError("", f"bytes {data[wrong.start : wrong.start + 4].hex(' ')}", f"UTF-8 text; byte {wrong.start + 1} is not")
        return
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(header)
        yield from _accounts(reader, header)
    except csv.Error as error:
        yield reader.line_num, RefusedError("", "(line)", f'CSV, cells quoted with " where they hold a comma; {error}')
    except _WrongLine as wrong:
        yield 1, RefusedError(wrong.path, shown(wrong.value), wrong.expected)


def _check_header(header: list[str]) -> None:
    if not any(header):
        raise _WrongLine("", header, f"a first line that names the columns: {','.join(COLUMNS)}")
    for place, column in enumerate(header):
        if column not in COLUMNS:
            hint = "; separate columns with commas" if ";" in column or "\t" in column else ""
            raise _WrongLine("", column, f"in the first line only columns of {', '.join(COLUMNS)}{hint}")
        if column in header[:place]:
            raise _WrongLine("", column, "each column once")
    for column in ("account", "venue"):
        if column not in header:
            raise _WrongLine("", header, f"a column {column}")


def _accounts(reader: Any, header: list[str]) -> Iterator[CsvAccount | tuple[int, RefusedError]]:
    accounts: dict[str, CsvAccount | tuple[int, RefusedError]] = {}
    for cells in reader:
        line = reader.line_num
        row = {column: cell.strip() for column, cell in zip(header, cells, strict=False) if cell.strip()}
        if not any(cell.strip() for cell in cells):
            continue
        account_id = row.get("account", "")
        account = accounts.setdefault(account_id, CsvAccount(line=line, body=_empty(account_id, row.get("venue"))))
        if not isinstance(account, CsvAccount):
            continue
        try:
            if len(cells) != len(header):
                raise _WrongLine("", cells, f"{len(header)} cells as in the first line, not {len(cells)}")
            if not account_id:
                raise _WrongLine("/account/id", "", "an account id in column account")
            _take(account, row, line)
        except _WrongLine as wrong:
            accounts[account_id] = (line, RefusedError(wrong.path, shown(wrong.value), wrong.expected, account_id=account_id or None))
    yield from accounts.values()


def _empty(account_id: str, venue: str | None) -> dict[str, Any]:
    return {"account": {"id": account_id, "positions": []} | ({} if venue is None else {"venue": venue})}


def _take(account: CsvAccount, row: dict[str, str], line: int) -> None:
    """Adds one line to its account. Raises _WrongLine."""
    body = account.body["account"]
    account.places.setdefault("/account/id", (line, "account"))
    for column in ("venue", *_ACCOUNT):
        if column in row:
            before = body.setdefault(column, row[column])
            account.places.setdefault(f"/account/{column}", (line, column))
            if before != row[column]:
                raise _WrongLine(f"/account/{column}", row[column], f"{before} as on the lines before (column {column})")
    balance = [column for column in _BALANCE if column in row]
    position = [column for column in _POSITION if column in row]
    if ("asset" in row) == ("instrument" in row):
        expected = "either an asset (a balance) or an instrument (a position)"
        raise _WrongLine("", {column: row[column] for column in (*balance, *position)}, f"{expected} on a line")
    field_name, own, other = ("balances", balance, position) if "asset" in row else ("positions", position, balance)
    if other:
        kind = "balance" if field_name == "balances" else "position"
        raise _WrongLine("", row[other[0]], f"nothing in column {other[0]} on the line of a {kind}")
    rows = body.setdefault(field_name, [])
    path = f"/account/{field_name}/{len(rows)}"
    account.places[path] = (line, "")
    item: dict[str, Any] = {}
    for column in own:
        item[column] = _BOOLEANS.get(row[column].lower(), row[column]) if column == "collateral" else row[column]
        account.places[f"{path}/{column}"] = (line, column)
    rows.append(item)
