"""The commands `verify` and `explain`: what stands in the ledger, walked and recomputed.

`verify` walks the hash chain, and recomputes the numbers of every event whose document is still the account's present one, digit by digit,
from the prices that the event itself records. `explain` evaluates one account now, from its stored document and the last prices.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

import orjson

from monitor.errors import LedgerBroken, MonitorError, RefusedError
from monitor.ledger.cache import read_marks
from monitor.ledger.connection import Wire
from monitor.ledger.keys import PartitionKeys, partition_of, partitions
from monitor.ledger.records import read_account
from monitor.ledger.verify import Verification, verify_partition
from monitor.margin.levels import Level, Thresholds
from monitor.margin.numbers import exact_of_float
from monitor.margin.pools import cut
from monitor.margin.prices import PriceKind, Prices
from monitor.margin.verdict import judge
from monitor.service.accounts_commands import with_redis
from monitor.service.evaluate import explained
from monitor.service.facts import facts_of
from monitor.service.logs import configure_logs
from monitor.service.settings import Settings
from monitor.service.tables import VenueTables
from monitor.service.wiring import Places
from monitor.wire.documents import read_bytes
from monitor.wire.rows import Row

__all__ = ["explain_command", "recomputed", "verify_command"]


def verify_command(settings: Settings, event_id: str | None, *, wait_s: float) -> int:
    """Verifies one event, or all. Exit code 1 when anything is wrong."""
    configure_logs(form=settings.log.format, level="warning")
    tables = VenueTables(settings.evaluator.tables)
    thresholds = settings.levels.thresholds()
    counts: Counter[str] = Counter()

    async def work(where: Places) -> list[Verification]:
        found = []
        for number in partitions(settings.ledger.partitions):
            if event_id is not None and event_id.partition("/")[0] != str(number):
                continue
            wire = await where.ledger_link().open()
            try:
                documents = await _documents(wire, number)
            finally:
                wire.close()

            def on_row(row: Row, body: dict[str, Any], documents: Mapping[str, bytes] = documents) -> str | None:
                if event_id is not None and row.id != event_id:
                    return None
                outcome = recomputed(body, documents.get(body.get("account", "")), tables, thresholds)
                counts[outcome if outcome in OUTCOMES else "wrong"] += 1
                return None if outcome in OUTCOMES else f"{row.id}: {outcome}"

            try:
                found.append(await verify_partition(where.ledger_link(), number, on_row=on_row))
            except LedgerBroken as error:
                if "there is no head" not in str(error):
                    raise
        return found

    reports = with_redis(settings, wait_s, work)
    if event_id is not None and not counts:
        print(f"margin-monitor: {event_id}: no such event in the ledger (trimmed, or another ledger)", file=sys.stderr)
        return 1
    for report in reports:
        for fault in report.faults:
            print(f"margin-monitor: {fault}", file=sys.stderr)
        if report.more_faults:
            print(f"margin-monitor: and {report.more_faults} more", file=sys.stderr)
    rows, pools = sum(report.rows for report in reports), sum(report.pools for report in reports)
    told = ", ".join(f"{counts[word]:,} {word}" for word in (*OUTCOMES, "wrong") if counts[word])
    sound = all(report.is_sound for report in reports)
    print(f"{rows:,} rows of {pools:,} pools: chain {'sound' if sound else 'BROKEN'}; {told or 'nothing to recompute'}")
    return 0 if sound else 1


OUTCOMES = ("recomputed", "document replaced since", "without numbers")


def recomputed(body: Mapping[str, Any], document: bytes | None, tables: VenueTables, thresholds: Thresholds) -> str:
    """One of `OUTCOMES`, or what is wrong: the first field that differs from a recomputation, with both values."""
    inputs = body.get("inputs")
    if inputs is None:
        return "without numbers"
    if document is None or sha256(document).hexdigest()[:32] != inputs["document_hash"]:
        return "document replaced since"
    as_of = datetime.fromisoformat(inputs["as_of"])
    read = read_bytes(document, purpose="stream", known=tables)
    assert read.account is not None
    pools = {pool.name: pool for pool in cut(read.account, read.tables.over(tables(read.account.venue)), as_of)}
    prices = Prices(**{kind: {name: Decimal(text) for name, text in table.items()} for kind, table in inputs["prices"].items()})
    facts = facts_of(
        pools[body["pool"]],
        prices,
        Level.of(body["level"]),
        thresholds,
        cause=body["cause"],
        document_hash=inputs["document_hash"],
        as_of=as_of,
        decided_at_ns=body["decided_at_ns"],
        medians={kind: {name: Decimal(text) for name, text in table.items()} for kind, table in inputs.get("medians", {}).items()},
    )
    for name, value in orjson.loads(orjson.dumps(facts)).items():
        if body.get(name) != value:
            return f"{name} is {orjson.dumps(body.get(name)).decode()[:200]}, recomputed {orjson.dumps(value).decode()[:200]}"
    return "recomputed"


def explain_command(settings: Settings, account: str, *, wait_s: float) -> int:
    """Prints every term of an account's sums at the last prices."""
    configure_logs(form=settings.log.format, level="warning")
    tables = VenueTables(settings.evaluator.tables)

    async def work(where: Places) -> list[str]:
        number = partition_of(account, settings.ledger.partitions)
        wire = await where.ledger_link().open()
        try:
            sealed = await wire.call("HGET", PartitionKeys.of(number).accounts, account, timeout_s=5.0)
        finally:
            wire.close()
        found = None if sealed is None else read_account(account, sealed)
        if found is None or found[1] is None:
            raise MonitorError(f"{account}: no such account in the ledger (margin-monitor accounts list)")
        read = read_bytes(found[1], purpose="stream", known=tables)
        assert read.account is not None
        venue = read.account.venue
        prices: dict[str, dict[str, Decimal]] = {}
        for name, stored in (await read_marks(where.cache_link(), venue)).items():
            kind, _, instrument = name.partition(":")
            if kind != PriceKind.STALE.value:
                prices.setdefault(kind, {})[instrument] = exact_of_float(stored.price)
        try:
            verdict = judge(
                read.account,
                read.tables.over(tables(venue)),
                Prices(**prices),
                datetime.now(UTC),
                thresholds=settings.levels.thresholds(),
            )
        except RefusedError as error:
            raise MonitorError(f"{account}: its document cannot be used with these tables: {error}") from None
        return explained(verdict)

    print("\n".join(with_redis(settings, wait_s, work)))
    return 0


async def _documents(wire: Wire, number: int) -> dict[str, bytes]:
    """Stored documents of one partition."""
    found: dict[str, bytes] = {}
    cursor: bytes | str = "0"
    while True:
        cursor, pairs = await wire.call("HSCAN", PartitionKeys.of(number).accounts, cursor, "COUNT", 2000, timeout_s=10.0)
        for index in range(0, len(pairs), 2):
            name = pairs[index].decode(errors="backslashreplace")
            record = read_account(name, pairs[index + 1])
            if record is not None and record[1] is not None:
                found[name] = record[1]
        if cursor == b"0":
            return found
