"""A file of venue tables: what a document's `instruments`, `assets` and `risk` are, for everyone, with its venue, source and date.

    {"venue": "okx", "source": "where the figures are from", "read": "2026-01-31", "note": "...",
     "instruments": {...}, "assets": {...}, "risk": {...}, "rules": {"name": {"since": "2026-01-31", "value_basis": "mark", ...}}}

`rules` are house rule sets, by name. Everything but `venue` may be left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from monitor.margin.accounts import VENUES
from monitor.margin.tables import HouseRules, Tables
from monitor.wire.documents import parse_document
from monitor.wire.entries import asset_of, house_rules_of, instrument_of, risk_of
from monitor.wire.fields import Row, Wrong, choice, keys_within, mapped, required, row_of

__all__ = ["TableFile", "read_table_file"]

_FILE = frozenset(("venue", "source", "read", "note", "instruments", "assets", "risk", "rules"))
_VENUES = {venue: venue for venue in VENUES}
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII).fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """One file, read. `source` and `read` (a date) say where the figures are from and when; None where the file does not."""

    venue: str
    tables: Tables
    source: str | None = None
    read: str | None = None
    note: str | None = None


def read_table_file(data: bytes) -> TableFile:
    """The tables in the bytes of a file.

    Raises:
        RefusedError: Not JSON, or something in it that cannot be right; its `path` is a JSON pointer.
    """
    body = parse_document(data)
    try:
        row = row_of(body)
        keys_within(row, _FILE)
        required(row, "venue")
        venue = choice(row, "venue", _VENUES)
        if "rules" in row and venue != "house":
            raise Wrong("rules", row["rules"], f"nothing: only house has rules in configuration, {venue} has its own")
        return TableFile(
            venue=venue,
            tables=Tables(
                instruments=mapped(row, "instruments", instrument_of) if "instruments" in row else {},
                assets=mapped(row, "assets", asset_of) if "assets" in row else {},
                risk=mapped(row, "risk", risk_of) if "risk" in row else {},
                rules=mapped(row, "rules", _rules) if "rules" in row else {},
            ),
            source=_text(row, "source"),
            read=_date(row, "read"),
            note=_text(row, "note"),
        )
    except Wrong as wrong:
        raise wrong.refused() from None


def _rules(entries: Row, key: str) -> HouseRules:
    since = None
    if isinstance(entries[key], dict):
        try:
            since = _date(entries[key], "since")
        except Wrong as wrong:
            raise wrong.under(key) from None
    return house_rules_of(entries, key, rule_name=key, extra=frozenset(("since",)), since=since)


def _text(row: Row, key: str) -> str | None:
    value = row.get(key)
    if value is None and key not in row:
        return None
    if type(value) is str:
        return value
    raise Wrong(key, value, "a text")


def _date(row: Row, key: str) -> str | None:
    value = _text(row, key)
    if value is None or _DATE(value) is not None:
        return value
    raise Wrong(key, value, "a date such as 2026-01-31")
