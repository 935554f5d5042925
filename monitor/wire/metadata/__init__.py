"""Venues' public metadata answers as venue tables: bytes in, a table file out. `convert` knows every converter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import orjson

from monitor.errors import RefusedError
from monitor.wire.documents import parse_document
from monitor.wire.fields import NAME
from monitor.wire.metadata.answers import Answer, Converted
from monitor.wire.metadata.binance import coinm, usdm
from monitor.wire.metadata.bitmex import bitmex
from monitor.wire.metadata.bybit import bybit
from monitor.wire.metadata.deribit import deribit
from monitor.wire.metadata.dydx import dydx
from monitor.wire.metadata.hyperliquid import hyperliquid
from monitor.wire.metadata.kraken import kraken
from monitor.wire.metadata.okx import okx
from monitor.wire.table_files import read_table_file

__all__ = ["CONVERTERS", "Answer", "Converted", "convert", "table_file_bytes"]

CONVERTERS: Mapping[str, Callable[[Sequence[Answer]], Converted]] = {
    "binance_usdm": usdm,
    "binance_coinm": coinm,
    "bybit": bybit,
    "okx": okx,
    "deribit": deribit,
    "hyperliquid": hyperliquid,
    "dydx_v4": dydx,
    "bitmex": bitmex,
    "kraken_futures": kraken,
}
"""Venue -> its converter. Each takes any number of answers in any order and tells them apart by what is in them."""


def convert(
    venue: str, files: Sequence[tuple[str, bytes]], *, read: str, taker_fee: str | None = None
) -> tuple[bytes, Mapping[str, str], Converted]:
    """A table file from a venue's answers.

    Args:
        venue: One of `CONVERTERS`.
        files: Name and bytes of each answer; the name is used where an answer does not say what was asked for (OKX position tiers).
        read: The day the answers were fetched, ISO.
        taker_fee: Rate written into every instrument that has none; bybit and okx count it and do not publish it here.

    Returns:
        The file, then what was left out and why, by name, then what was converted.

    Raises:
        RefusedError: Not JSON, not an answer this venue gives, or an entry that cannot be read. `account_id` is None; the text begins with
            the file's name.
    """
    answers = []
    for name, data in files:
        try:
            answers.append(Answer(name=name, body=parse_document(data)))
        except RefusedError as error:
            raise RefusedError(f"{name}{error.path}", error.value, error.expected) from None
    converted = CONVERTERS[venue](answers)
    left_out = dict(converted.left_out)
    for part in (converted.instruments, converted.assets):
        for name in [name for name in part if NAME(name) is None]:
            del part[name]
            left_out[name] = "a name the portfolio document has no spelling for"
    if taker_fee is not None:
        for entry in converted.instruments.values():
            entry.setdefault("taker_fee", taker_fee)
    data = table_file_bytes(venue, converted, source=f"public answers of {venue}: {', '.join(name for name, _ in files)}", read=read)
    read_table_file(data)  # what is written must be what is read
    return data, left_out, converted


def table_file_bytes(venue: str, converted: Converted, *, source: str, read: str, note: str | None = None) -> bytes:
    """The file, an entry a line, so that a later conversion can be compared with it."""
    head = {"venue": venue, "source": source, "read": read} | ({} if note is None else {"note": note})
    lines = [f"  {orjson.dumps(key).decode()}: {orjson.dumps(value).decode()}" for key, value in head.items()]
    for part, entries in (("instruments", converted.instruments), ("assets", converted.assets), ("risk", converted.risk)):
        if entries:
            rows = ",\n".join(f"    {orjson.dumps(name).decode()}: {orjson.dumps(entries[name]).decode()}" for name in sorted(entries))
            lines.append(f'  "{part}": {{\n{rows}\n  }}')
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()
