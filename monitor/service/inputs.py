"""Reads the files that documents come in: x.json one document, x.jsonl one a line, x.csv the template, - JSON lines from standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from monitor.errors import RefusedError
from monitor.wire.documents import Document, Known, Purpose, parse_document
from monitor.wire.fields import shown
from monitor.wire.inputs import Entry, Refusal, csv_entries, json_entry, json_line_entries

__all__ = ["Seen", "documents_of_file"]


def documents_of_file(path: Path | str, *, stdin: BinaryIO | None = None) -> Iterator[Entry]:
    """The documents of one file, parsed but not yet read.

    .json is one document; .jsonl, .ndjson and "-" are one a line; .csv is the template; any other name is one a line, or one document where
    only the whole is JSON. A file that cannot be opened, or a .json that is empty, is one refused entry: the other files are still read.

    Args:
        stdin: What "-" reads; standard input by default.
    """
    source = str(path)
    if source == "-":
        yield from _lines_or_one(source, stdin or sys.stdin.buffer)
        return
    suffix = Path(path).suffix.lower()
    try:
        with Path(path).open("rb") as file:
            if suffix == ".json":
                yield json_entry(source, file.read())
            elif suffix == ".csv":
                yield from csv_entries(source, file.read())
            elif suffix in {".jsonl", ".ndjson"}:
                yield from json_line_entries(source, file)
            else:
                yield from _lines_or_one(source, file)
    except OSError as error:
        reason = error.strerror or str(error)
        yield Entry(source=source, line=None, error=RefusedError("", f"({reason})", "a file that can be read"))


def _lines_or_one(source: str, file: BinaryIO) -> Iterator[Entry]:
    """JSON lines; or one document over several lines, as `cat x.json | margin-monitor evaluate -` gives it."""
    lines: Iterable[bytes] = file
    before: list[bytes] = []
    for line in file:
        before.append(line)
        if not line.strip():
            continue
        try:
            parse_document(line.strip())
        except RefusedError:
            rest = file.read()
            whole = b"".join(before) + rest
            try:
                body = parse_document(whole)
            except RefusedError:
                lines = rest.splitlines(keepends=True)
            else:
                yield Entry(source=source, line=None, body=body)
                return
        break
    yield from json_line_entries(source, chain(before, lines))


class Seen:
    """The account ids of one call: each may stand in it once."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}

    def read(self, entry: Entry, *, purpose: Purpose, known: Known, now: datetime | None = None) -> Document | Refusal:
        """The document of an entry; or why it is refused: it cannot be right, or its account was accepted before in the same call."""
        try:
            document = entry.read(purpose=purpose, known=known, now=now)
        except RefusedError as error:
            return entry.refusal(error)
        place = entry.source if entry.line is None else f"{entry.source}:{entry.line}"
        before = self._places.setdefault(document.account_id, place)
        if before is not place:
            account_id = document.account_id
            path = "/account/id" if document.account is not None else "/remove"
            return entry.refusal(
                RefusedError(path, shown(account_id), f"each account once in a call; it is at {before}", account_id=account_id)
            )
        return document
