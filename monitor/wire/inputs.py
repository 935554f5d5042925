"""Where documents come from: one JSON text, JSON lines, or the CSV template; and the entry of `refused` for one that cannot be right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from monitor.errors import RefusedError
from monitor.wire.csv_accounts import CsvAccount, accounts_of_csv
from monitor.wire.documents import Document, Known, Purpose, parse_document, read_document

__all__ = ["Entry", "Refusal", "csv_entries", "json_entry", "json_line_entries"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An entry of `refused` in a result.

    Attributes:
        source: File name, or "-".
        line: Where in it, from 1; None for a file that is one document.
        id: Account, where it could be read.
        path: JSON pointer to the offending key; "" is the whole document.
        value: What stands there, as JSON, at most 80 characters.
        expected: What should stand there.
    """

    source: str
    line: int | None
    id: str | None
    path: str
    value: str
    expected: str

    def __str__(self) -> str:
        """One line a person can act on."""
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        who = f"account {self.id}: " if self.id is not None else ""
        return f"{place}: {who}{self.path or '/'}: {self.value}: expected {self.expected}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One document of an input: a parsed body, or the error that kept it from being parsed.

    Attributes:
        places: Of a CSV account, by JSON pointer: line and column of the cell (see `CsvAccount`).
    """

    source: str
    line: int | None
    body: object = None
    error: RefusedError | None = None
    places: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def read(self, *, purpose: Purpose, known: Known, now: datetime | None = None) -> Document:
        """The document (see `read_document`). Raises RefusedError."""
        if self.error is not None:
            raise self.error
        return read_document(self.body, purpose=purpose, known=known, now=now)

    def refusal(self, error: RefusedError) -> Refusal:
        """The entry of `refused` for an error of this document; of a CSV account with the line and column of the cell."""
        line, expected = self.line, error.expected
        path, missing = error.path, ""
        while path and path not in self.places:
            path, _, missing = path.rpartition("/")
        if path in self.places:
            line, column = self.places[path]
            expected = f"{expected} (column {column or missing})"
        return Refusal(source=self.source, line=line, id=error.account_id, path=error.path, value=error.value, expected=expected)


def json_entry(source: str, data: bytes, line: int | None = None) -> Entry:
    """The one document of a JSON text."""
    try:
        return Entry(source=source, line=line, body=parse_document(data))
    except RefusedError as error:
        return Entry(source=source, line=line, error=error)


def json_line_entries(source: str, lines: Iterable[bytes]) -> Iterator[Entry]:
    """The documents of JSON lines, one each; blank lines are none."""
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text:
            yield json_entry(source, text, number)


def csv_entries(source: str, data: bytes) -> Iterator[Entry]:
    """The accounts of a CSV file in the documented template, in the order in which they are first named."""
    for account in accounts_of_csv(data):
        if isinstance(account, CsvAccount):
            yield Entry(source=source, line=account.line, body=account.body, places=account.places)
        else:
            line, error = account
            yield Entry(source=source, line=line, error=error)
