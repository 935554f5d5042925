"""`margin-monitor evaluate`: portfolio documents in, one result document out. Needs no Redis, no settings and no heavy import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import orjson

from monitor.errors import RefusedError
from monitor.margin.levels import DEFAULT_THRESHOLDS, Thresholds
from monitor.margin.numbers import plain
from monitor.margin.prices import Prices
from monitor.margin.verdict import AccountVerdict, judge
from monitor.service.inputs import Seen, documents_of_file
from monitor.service.tables import VenueTables
from monitor.wire.inputs import Entry, Refusal
from monitor.wire.results import account_body, explain_lines, result_body

__all__ = ["Store", "evaluate_command", "evaluate_files", "explained", "judged", "summary"]

Store = Callable[[str], Prices]
"""Prices of a venue, for documents that bring none."""


def judged(
    entries: Iterable[Entry],
    tables: VenueTables,
    now: datetime,
    *,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    store: Store | None = None,
) -> Iterator[AccountVerdict | Refusal]:
    """The verdict on each document, or why it is refused, in order.

    Args:
        entries: The documents of one call; an account may be in it once.
        tables: Configured tables; a document's own lie over them.
        now: UTC; the moment of documents that state none.
        store: Prices of documents that bring none; None: they are missing, and make what needs them unknown.

    Raises:
        ConfigError: A configured table that cannot be used.
    """
    seen = Seen()
    for entry in entries:
        document = seen.read(entry, purpose="evaluate", known=tables, now=now)
        if isinstance(document, Refusal):
            yield document
            continue
        account = document.account
        assert account is not None  # the reader takes `remove` on the stream only
        prices = document.prices
        if store is not None and prices == Prices():
            prices = store(account.venue)
        try:
            yield judge(account, document.tables.over(tables(account.venue)), prices, document.as_of or now, thresholds=thresholds)
        except RefusedError as error:
            error.account_id = account.id
            yield entry.refusal(error)


def evaluate_files(
    paths: Sequence[Path | str],
    *,
    tables: VenueTables,
    now: datetime,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    store: Store | None = None,
    stdin: BinaryIO | None = None,
    report: Callable[[Refusal], None] | None = None,
) -> tuple[bytes, int]:
    """One result document for one call, and its exit code: 2 when a document was refused, else 0.

    Accounts are in input order and turned to bytes one by one, so that memory holds the answer and not its objects.

    Args:
        report: Told of each refusal as it comes up.
    """
    accounts: list[bytes] = []
    refusals: list[Refusal] = []
    for verdict in judged(_entries(paths, stdin), tables, now, thresholds=thresholds, store=store):
        if isinstance(verdict, Refusal):
            refusals.append(verdict)
            if report is not None:
                report(verdict)
        else:
            accounts.append(orjson.dumps(account_body(verdict)))
    refused = orjson.dumps(result_body((), refusals)["refused"])
    return b'{"version":1,"accounts":[' + b",".join(accounts) + b'],"refused":' + refused + b"}\n", 2 if refusals else 0


def evaluate_command(files: Sequence[Path], *, as_json: bool, explain: bool, tables: Sequence[Path]) -> int:
    """The command: prints the result on standard output and each refusal on standard error. Returns the exit code."""
    venue_tables, now = VenueTables(tables), datetime.now(UTC)
    if as_json:
        result, code = evaluate_files(files, tables=venue_tables, now=now, report=_complain)
        sys.stdout.buffer.write(result)
        sys.stdout.buffer.flush()
        return code
    code = 0
    for verdict in judged(_entries(files), venue_tables, now):
        if isinstance(verdict, Refusal):
            _complain(verdict)
            code = 2
        else:
            print("\n".join(explained(verdict) if explain else summary(verdict)))
    return code


def _entries(paths: Iterable[Path | str], stdin: BinaryIO | None = None) -> Iterator[Entry]:
    for path in paths:
        yield from documents_of_file(path, stdin=stdin)


def _complain(refusal: Refusal) -> None:
    print(f"margin-monitor: refused: {refusal}", file=sys.stderr)


def explained(verdict: AccountVerdict) -> list[str]:
    """Every term of an account's sums, in aligned columns: what, number, how it comes about."""
    lines: list[str] = []
    for title, rows in explain_lines(verdict):
        lines.append(title)
        first, second = (max((len(row[place]) for row in rows), default=0) for place in (0, 1))
        lines += [f"  {what:<{first}}  {number:>{second}}  {how}".rstrip() for what, number, how in rows]
        lines.append("")
    return lines


def summary(verdict: AccountVerdict) -> list[str]:
    """A few lines for a person: the account's level, then each pool with its sums and each position with its liquidation price."""
    level = "unknown" if verdict.level is None else verdict.level.word
    lines = [f"{verdict.account.id} ({verdict.account.venue}): {level}{'' if verdict.unknown is None else ': ' + verdict.unknown}"]
    for pool in verdict.pools:
        sums = (
            ("equity", pool.equity),
            ("maintenance", pool.requirement),
            ("headroom", pool.headroom),
            ("margin ratio", pool.margin_ratio),
        )
        told = ", ".join(f"{name} {'?' if number is None else plain(number)}" for name, number in sums)
        word = "unknown" if pool.level is None else pool.level.word
        lines.append(f"  {pool.pool}: {word}{'' if pool.unknown is None else ': ' + pool.unknown}; {told} {pool.currency}")
        for position in pool.positions:
            side = "" if position.side == "both" else f" {position.side}"
            mark = "?" if position.mark_price is None else plain(position.mark_price)
            price = "none" if position.liquidation_price is None else plain(position.liquidation_price)
            lines.append(f"    {position.instrument}{side} {plain(position.quantity)}: mark {mark}, liquidation price {price}")
    return lines
