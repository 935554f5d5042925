"""What stands in Redis after a run, read by redis-py and json alone, and the level changes that the log of ticks asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.oracle import Oracle

__all__ = ["LEVELS", "Changes", "changes_of", "client_of", "marks_of", "rows_of", "tick_entries", "wanted_changes"]

LEVELS = {"healthy": 0, "watch": 1, "margin_call": 2, "liquidation": 3, "bankrupt": 4}

Changes = dict[str, list[tuple[int, int]]]
"""By account/pool: (level before, level after), in order."""


def client_of(url: str) -> Any:
    """A client that does not repeat anything by itself."""
    return redis.Redis(unix_socket_path=url.removeprefix("unix://"), retry=Retry(NoBackoff(), 0))


def rows_of(url: str) -> list[dict[str, Any]]:
    """Every event of partition 0, in order."""
    with client_of(url) as client:
        return [json.loads(fields[b"e"]) for _, fields in client.xrange("{0}:events")]


def tick_entries(url: str) -> list[tuple[str, dict[str, Any]]]:
    """Every batch of prices on the stream, with its id.

    One whose write was not confirmed may stand there twice, under one number: the second is left out.
    """
    found: dict[tuple[bytes, bytes], tuple[str, dict[str, Any]]] = {}
    with client_of(url) as client:
        for entry, fields in client.xrange("ticks"):
            found.setdefault((fields[b"e"], fields[b"n"]), (entry.decode(), json.loads(fields[b"b"])))
    return list(found.values())


def marks_of(entries: Iterable[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, float]]:
    """(name, mark), one by one in the order of the log."""
    return [mark for _, batch in entries if batch["k"] == "mark" for mark in zip(batch["s"], batch["p"], strict=True)]


def changes_of(rows: Iterable[Mapping[str, Any]]) -> Changes:
    """What the rows say."""
    changes: Changes = {}
    for row in rows:
        if row["kind"] == "level":
            changes.setdefault(f"{row['account']}/{row['pool']}", []).append((LEVELS[row["previous"]], LEVELS[row["level"]]))
    return changes


def wanted_changes(marks: Iterable[tuple[str, float]], documents: Sequence[Mapping[str, Any]], tables: Mapping[str, Any]) -> Changes:
    """What evaluating these marks one by one gives, by the oracle. A first verdict of healthy is no change."""
    oracle = Oracle(documents, {name: entry["tiers"] for name, entry in tables["instruments"].items()})
    wanted: Changes = {}
    for name, price in marks:
        for account, pool, before, after in oracle.tick(name, Fraction(repr(price))):
            if before >= 0 or after > 0:
                wanted.setdefault(f"{account}/{pool}", []).append((max(before, 0), after))
    return wanted
