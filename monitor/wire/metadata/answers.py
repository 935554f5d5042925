"""What a converter gets and gives, and the small readers they share: numbers as text, times, ascending tiers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from monitor.errors import RefusedError
from monitor.margin.numbers import decimal_of
from monitor.wire.canonical import number_text, time_text
from monitor.wire.fields import shown

__all__ = ["Answer", "Converted", "Row", "base_of_pair", "each", "milliseconds", "not_an_answer", "number", "optional_number", "rows_above"]

Row = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of a venue: the file's name and the parsed body."""

    name: str
    body: Any


@dataclass(slots=True)
class Converted:
    """Table entries by name, and why something has none."""

    instruments: dict[str, Row] = field(default_factory=dict)
    assets: dict[str, Row] = field(default_factory=dict)
    risk: dict[str, Row] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def not_an_answer(answer: Answer, expected: str) -> RefusedError:
    """The error for a body that no converter of the venue knows."""
    return RefusedError(answer.name, shown(answer.body), f"an answer of {expected}")


_NAMES = ("symbol", "instId", "instrument_name", "name", "currency", "ccy")


def each(out: Converted, answer: Answer, entries: Iterable[Any], what: str, take: Callable[[Any], object]) -> None:
    """Takes every entry; one that cannot be read is left out with the reason.

    Raises:
        RefusedError: Not one of them can be read: the venue has changed the answer, or it is another one.
    """
    failed: list[tuple[Any, str]] = []
    taken = 0
    for entry in entries:
        try:
            take(entry)
            taken += 1
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, InvalidOperation) as error:
            failed.append((entry, f"field {error} is missing" if isinstance(error, KeyError) else str(error)))
    if failed and not taken:
        raise RefusedError(answer.name, shown(failed[0][0]), f"{what}; {failed[0][1]}")
    for index, (entry, reason) in enumerate(failed):
        found = next((entry[key] for key in _NAMES if key in entry), None) if isinstance(entry, dict) else None
        if isinstance(entry, tuple):
            found = entry[0]
        out.left_out[str(found or f"{what} {index + 1}")] = f"it cannot be read: {reason}"


def number(value: Any) -> str:
    """A number of an answer, quoted or bare, as rule 2 writes it. Raises ValueError."""
    read = decimal_of(value)
    if read is None and isinstance(value, str):
        read = decimal_of(value.strip().lstrip("+"))
    if read is None:
        raise ValueError(f"{value!r} is not a number")
    return number_text(read)


def optional_number(row: Mapping[str, Any], key: str) -> str | None:
    """The number at a key; None where the venue leaves it out or empty."""
    value = row.get(key)
    return None if value is None or value == "" else number(value)


def milliseconds(value: Any) -> str:
    """A time in ms since 1970 as the document writes it."""
    return time_text(_EPOCH + timedelta(milliseconds=int(value)))


def rows_above(rows: Iterable[Row], cap: str) -> Iterator[tuple[str, Row]]:
    """(floor, row) of rows that say their upper end in field `cap`: each starts above the end of the one before, the first at 0."""
    floor = "0"
    for row in sorted(rows, key=lambda row: (row[cap] == "", Decimal(number(row[cap])) if row[cap] != "" else Decimal(0))):
        yield floor, row
        floor = number(row[cap]) if row[cap] != "" else ""


def base_of_pair(pair: str) -> str:
    """BTC of BTC-USDT, BTC_USDC or BTC/USD."""
    for mark in "-_/:":
        pair = pair.split(mark, maxsplit=1)[0]
    return pair
