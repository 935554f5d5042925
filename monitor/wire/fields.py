"""One field of a JSON document at a time: strict readers of numbers, names and times, and the error that says where a wrong one stands.

The readers take `(row, key)` so that what they raise names the key; a container adds its part of the path on the way up (`Wrong.under`).
They are hand-written because the daemon reads a million documents; a test holds them to the published schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NoReturn, TypeVar

import orjson

from monitor.errors import RefusedError
from monitor.margin.numbers import NUMBER, ZERO, decimal_of

__all__ = [
    "ABSENT",
    "ID",
    "NAME",
    "Row",
    "Wrong",
    "boolean",
    "choice",
    "debt_weight",
    "identifier",
    "integer",
    "keys_within",
    "listed",
    "mapped",
    "name",
    "nonnegative",
    "nonzero",
    "number",
    "optional",
    "pointer",
    "positive",
    "required",
    "row_of",
    "shown",
    "time",
    "unit",
]

Row = dict[str, Any]
"""A JSON object whose fields are not checked yet."""

_T = TypeVar("_T")


class _Absent:
    """The value of a key that is not there."""

    def __repr__(self) -> str:
        return "(absent)"


ABSENT: Final = _Absent()

_NUMBER = NUMBER.fullmatch
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/-]{0,63}", re.ASCII).fullmatch
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}", re.ASCII).fullmatch
_UNIT = re.compile(r"0(\.[0-9]+)?([eE]-[0-9]{1,2})?|1(\.0+)?|[1-9](\.[0-9]+)?[eE]-[0-9]{1,2}", re.ASCII).fullmatch
_DEBT_WEIGHT = re.compile(r"[1-9][0-9]*(\.[0-9]+)?", re.ASCII).fullmatch
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", re.ASCII).fullmatch

_A_NUMBER = "number, quoted or bare, finite, at most 60 characters, exponent of at most two digits"
LARGEST_INTEGER = 2**63 - 1


class Wrong(Exception):
    """A value that cannot be right, while its path is still being put together. Never leaves `monitor.wire`."""

    def __init__(self, key: str | int | None, value: object, expected: str) -> None:
        self.parts: list[str | int] = [] if key is None else [key]
        self.value, self.expected = value, expected
        super().__init__(expected)

    def under(self, *keys: str | int) -> Wrong:
        """The same, with the containers' keys (outermost first) put before the path."""
        self.parts[:0] = keys
        return self

    def refused(self, account_id: str | None = None) -> RefusedError:
        """As the error that callers see."""
        return RefusedError(pointer(self.parts), shown(self.value), self.expected, account_id=account_id)


def pointer(parts: list[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in parts)


def shown(value: object) -> str:
    """A value as JSON, at most 80 characters, to print beside what was expected."""
    if isinstance(value, _Absent):
        return "(absent)"
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def row_of(value: object) -> Row:
    """The value as an object. Raises Wrong when it is another type."""
    if type(value) is dict:
        return value
    raise Wrong(None, value, "an object")


def keys_within(row: Row, known: frozenset[str]) -> None:
    """Raises Wrong for the first key that is not `known`."""
    if not known.issuperset(row):
        key = next(key for key in row if key not in known)
        raise Wrong(key, row[key], f"no such field; one of {', '.join(sorted(known))}")


def required(row: Row, key: str) -> object:
    """The value at a key that must be there."""
    value = row.get(key, ABSENT)
    if value is ABSENT:
        raise Wrong(key, ABSENT, "a value: this field is required")
    return value


def optional(row: Row, key: str, reader: Callable[[Row, str], _T], default: _T) -> _T:
    """The value at a key, or `default` where the key is absent."""
    return reader(row, key) if key in row else default


def listed(row: Row, key: str, reader: Callable[[Any], _T], *, at_least: int = 0) -> list[_T]:
    """The array at a key, each item read by `reader`."""
    items = row[key]
    if type(items) is not list or len(items) < at_least:
        raise Wrong(key, items, "an array" if at_least == 0 else f"an array of {at_least} or more")
    index = 0
    read = []
    try:
        for item in items:
            read.append(reader(item))
            index += 1
    except Wrong as wrong:
        raise wrong.under(key, index) from None
    return read


def mapped(row: Row, key: str, reader: Callable[[Row, str], _T]) -> dict[str, _T]:
    """The object at a key, name -> value, each value read by `reader(object, name)`."""
    entries = row[key]
    if type(entries) is not dict:
        raise Wrong(key, entries, "an object")
    try:
        for entry_name in entries:
            if NAME(entry_name) is None:
                raise Wrong(entry_name, entries[entry_name], "a name: a letter or digit, then at most 63 letters, digits or . _ : @ / -")
        return {entry_name: reader(entries, entry_name) for entry_name in entries}
    except Wrong as wrong:
        raise wrong.under(key) from None


def _bad_number(key: str, value: object, kind: str) -> NoReturn:
    raise Wrong(key, value, f"{kind}{_A_NUMBER}")


def number(row: Row, key: str) -> Decimal:
    """Any number of rule 2."""
    value = row[key]
    if type(value) is str:
        if len(value) <= 60 and _NUMBER(value) is not None:
            return Decimal(value) or ZERO
    else:
        read = decimal_of(value)
        if read is not None:
            return read
    _bad_number(key, value, "a ")


def positive(row: Row, key: str) -> Decimal:
    """A number > 0."""
    value = row[key]
    if type(value) is str:
        if len(value) <= 60 and value[:1] != "-" and _NUMBER(value) is not None and (read := Decimal(value)):
            return read
    else:
        bare = decimal_of(value)
        if bare is not None and bare > 0:
            return bare
    _bad_number(key, value, "above 0: a ")


def nonzero(row: Row, key: str) -> Decimal:
    """A number other than 0."""
    value = row[key]
    if type(value) is str:
        if len(value) <= 60 and _NUMBER(value) is not None and (read := Decimal(value)):
            return read
    else:
        bare = decimal_of(value)
        if bare:
            return bare
    _bad_number(key, value, "not 0: a ")


def nonnegative(row: Row, key: str) -> Decimal:
    """A number >= 0; quoted, it has no minus."""
    value = row[key]
    if type(value) is str:
        if len(value) <= 60 and value[:1] != "-" and _NUMBER(value) is not None:
            return Decimal(value) or ZERO
    else:
        bare = decimal_of(value)
        if bare is not None and bare >= 0:
            return bare
    _bad_number(key, value, "0 or more: a ")


def unit(row: Row, key: str) -> Decimal:
    """A rate or weight, 0 to 1, as a fraction."""
    value = row[key]
    if type(value) is str:
        if len(value) <= 60 and _UNIT(value) is not None and (read := Decimal(value)) <= 1:
            return read or ZERO
    else:
        bare = decimal_of(value)
        if bare is not None and 0 <= bare <= 1:
            return bare
    raise Wrong(key, value, 'a rate or weight from 0 to 1, as a fraction: 4 % is "0.04"')


def debt_weight(row: Row, key: str) -> Decimal:
    """The weight of a debt, 1 or more."""
    value = row[key]
    if type(value) is str:
        if len(value) <= 60 and _DEBT_WEIGHT(value) is not None:
            return Decimal(value)
    else:
        bare = decimal_of(value)
        if bare is not None and 1 <= bare < 10**59:
            return bare
    raise Wrong(key, value, "a debt weight of 1 or more, without exponent: a debt is never discounted")


def integer(row: Row, key: str) -> int:
    """A whole number from 0 to 2**63 - 1; JSON's 3.0 is 3."""
    value = row[key]
    if type(value) is float and value.is_integer() and 0 <= value <= 2**53:
        return int(value)
    if type(value) is int and 0 <= value <= LARGEST_INTEGER:
        return value
    raise Wrong(key, value, f"an integer from 0 to {LARGEST_INTEGER}")


def boolean(row: Row, key: str) -> bool:
    """True or false, the JSON words."""
    value = row[key]
    if type(value) is bool:
        return value
    raise Wrong(key, value, "true or false")


def choice(row: Row, key: str, words: Mapping[str, _T]) -> _T:
    """One of some words, as the value it stands for."""
    value = row[key]
    if type(value) is str and value in words:
        return words[value]
    raise Wrong(key, value, f"one of {', '.join(words)}")


def name(row: Row, key: str) -> str:
    """An instrument or asset, spelled as the venue spells it."""
    value = row[key]
    if type(value) is str and NAME(value) is not None:
        return value
    raise Wrong(key, value, "a name: a letter or digit, then at most 63 letters, digits or . _ : @ / -")


def identifier(row: Row, key: str) -> str:
    """An account, group or rule set; it goes into keys and topics."""
    value = row[key]
    if type(value) is str and ID(value) is not None:
        return value
    raise Wrong(key, value, "a letter or digit, then at most 127 letters, digits or . _ : @ -")


def time(row: Row, key: str) -> datetime:
    """A UTC time, ISO 8601 with seconds and Z."""
    value = row[key]
    if type(value) is str and _TIME(value) is not None:
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            pass
    raise Wrong(key, value, "a UTC time such as 2026-01-31T08:00:00Z")
