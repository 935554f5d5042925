"""The commands `accounts import|list|show|remove`, and reading documents for other commands."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import orjson

from monitor.errors import LedgerUnavailable, MonitorError, RefusedError
from monitor.ledger.connection import Endpoint, Link, Wire
from monitor.ledger.identity import identify
from monitor.ledger.keys import PartitionKeys, partition_of, partitions
from monitor.ledger.records import read_account, read_level
from monitor.ledger.updates import UpdatesProducer, stamped
from monitor.margin.levels import Level, worst
from monitor.service.commands import first_monitor_error
from monitor.service.inputs import Seen, documents_of_file
from monitor.service.logs import configure_logs
from monitor.service.progress import Progress
from monitor.service.settings import Settings
from monitor.service.tables import VenueTables
from monitor.service.wiring import Places, places, wait_for_redis
from monitor.wire.inputs import Refusal

__all__ = ["import_command", "list_command", "read_documents", "remove_command", "show_command", "with_redis", "with_wire"]

Result = TypeVar("Result")


class RefusedDocuments(MonitorError):
    """At least one document of a call cannot be right; each has been told already."""


def read_documents(files: Sequence[Path], tables: Sequence[Path]) -> list[dict[str, Any]]:
    """The documents of files, checked as for an import; epoch and sequence are put in front of those that have none.

    Each refusal is a line on standard error. Raises RefusedDocuments after the last one, so that all are seen at once.
    """
    known = VenueTables(tables)
    seen = Seen()
    epoch = time.time_ns() // 1_000_000
    bodies: list[dict[str, Any]] = []
    refused = 0
    for path in files:
        for entry in documents_of_file(path):
            document = seen.read(entry, purpose="import", known=known)
            if isinstance(document, Refusal):
                print(f"margin-monitor: refused: {document}", file=sys.stderr)
                refused += 1
                continue
            assert isinstance(entry.body, dict)
            bodies.append(entry.body if "sequence" in entry.body else {"epoch": epoch, "sequence": len(bodies) + 1, **entry.body})
    if refused:
        raise RefusedDocuments(f"{refused} of {refused + len(bodies)} documents refused; nothing was written")
    return bodies


def import_command(settings: Settings, files: Sequence[Path], *, wait_s: float) -> int:
    """Puts documents on the update streams: all or none. Exit code 2 when one was refused."""
    configure_logs(form=settings.log.format, level="warning")
    try:
        bodies = read_documents(files, settings.evaluator.tables)
    except RefusedDocuments as error:
        print(f"margin-monitor: {error}", file=sys.stderr)
        return 2
    if not bodies:
        print("margin-monitor: no document in these files; nothing was written", file=sys.stderr)
        return 2
    pairs = [(body["account"]["id"] if "account" in body else body["remove"], orjson.dumps(body)) for body in bodies]
    progress = Progress()

    async def work(where: Places) -> int:
        producer = UpdatesProducer(lambda _partition: where.ledger_link(), settings.ledger.partitions)
        try:
            imported = await producer.import_documents(pairs, progress=lambda done: progress("documents", done, len(pairs)))
        finally:
            producer.close()
        return imported.count

    count = with_redis(settings, wait_s, work)
    print(f"{count:,} documents on the update stream; a running evaluator has them at once, another one at its start")
    return 0


def list_command(settings: Settings, *, wait_s: float, as_json: bool) -> int:
    """Prints the accounts of the ledger as they are stored, with their committed levels."""
    configure_logs(form=settings.log.format, level="warning")

    async def work(where: Places) -> list[dict[str, Any]]:
        rows = []
        for number in partitions(settings.ledger.partitions):
            wire = await where.ledger_link().open()
            try:
                rows += await _partition_rows(wire, number)
            finally:
                wire.close()
        return sorted(rows, key=lambda row: str(row["id"]))

    rows = with_redis(settings, wait_s, work)
    if as_json:
        print(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return 0
    for row in rows:
        level = row["hold"] or ("unknown" if row["level"] is None else row["level"])
        print(f"{row['id']:<32} {row['venue']:<16} {row['group'] or '-':<16} {row['epoch']}/{row['sequence']:<10} {level}")
    print(f"{len(rows):,} accounts", file=sys.stderr)
    return 0


def show_command(settings: Settings, account: str, *, wait_s: float) -> int:
    """Prints the stored document of one account."""
    configure_logs(form=settings.log.format, level="warning")

    async def work(where: Places) -> bytes | None:
        wire = await where.ledger_link().open()
        try:
            keys = PartitionKeys.of(partition_of(account, settings.ledger.partitions))
            sealed = await wire.call("HGET", keys.accounts, account, timeout_s=5.0)
        finally:
            wire.close()
        if sealed is None:
            return None
        record = read_account(account, sealed)
        if record is None:
            raise MonitorError(f"{account}: its record in the ledger is damaged; import its document again")
        return record[1]

    document = with_redis(settings, wait_s, work)
    if document is None:
        print(f"margin-monitor: {account}: no such account in the ledger", file=sys.stderr)
        return 1
    print(orjson.dumps(orjson.loads(document), option=orjson.OPT_INDENT_2).decode())
    return 0


def remove_command(settings: Settings, accounts: Sequence[str], *, wait_s: float) -> int:
    """Asks for the removal of accounts, through the update stream. Raises RefusedError for one that is not there: then none is removed."""
    configure_logs(form=settings.log.format, level="warning")

    async def work(where: Places) -> None:
        wire = await where.ledger_link().open()
        try:
            for account in accounts:
                keys = PartitionKeys.of(partition_of(account, settings.ledger.partitions))
                sealed = await wire.call("HGET", keys.accounts, account, timeout_s=5.0)
                record = None if sealed is None else read_account(account, sealed)
                if record is None or record[1] is None:
                    raise RefusedError("/remove", account, "an account of the ledger (margin-monitor accounts list)")
        finally:
            wire.close()
        epoch = time.time_ns() // 1_000_000
        documents = [(account, stamped(orjson.dumps({"remove": account}), epoch, index + 1)) for index, account in enumerate(accounts)]
        producer = UpdatesProducer(lambda _partition: where.ledger_link(), settings.ledger.partitions)
        try:
            await producer.import_documents(documents)
        finally:
            producer.close()

    with_redis(settings, wait_s, work)
    print(f"{len(accounts):,} removals on the update stream")
    return 0


async def _partition_rows(wire: Wire, number: int) -> list[dict[str, Any]]:
    """Accounts of one partition: version, venue, group, worst committed level (None: unknown)."""
    keys = PartitionKeys.of(number)
    levels: dict[str, list[Level | None]] = {}
    async for name, sealed in _scan(wire, keys.levels):
        record = read_level(name, sealed)
        account = name.partition("/")[0]
        levels.setdefault(account, []).append(None if record is None or record.unknown is not None else record.level)
    rows = []
    async for name, sealed in _scan(wire, keys.accounts):
        found = read_account(name, sealed)
        if found is None:
            rows.append(_row(name, 0, 0, {}, None, "damaged record"))
            continue
        version, document = found
        if document is None:
            continue
        held = levels.get(name, [])
        level = worst(held) if held else Level.HEALTHY
        rows.append(
            _row(
                name,
                version.epoch,
                version.sequence,
                orjson.loads(document)["account"],
                level.word if level is not None else None,
                version.hold,
            )
        )
    return rows


def _row(account_id: str, epoch: int, sequence: int, account: dict[str, Any], level: str | None, hold: str | None) -> dict[str, Any]:
    return {
        "id": account_id,
        "venue": account.get("venue", "?"),
        "group": account.get("group"),
        "epoch": epoch,
        "sequence": sequence,
        "level": level,
        "hold": hold,
    }


async def _scan(wire: Wire, key: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    cursor: bytes | str = "0"
    while True:
        cursor, pairs = await wire.call("HSCAN", key, cursor, "COUNT", 2000, timeout_s=10.0)
        for index in range(0, len(pairs), 2):
            yield pairs[index].decode(errors="backslashreplace"), pairs[index + 1]
        if cursor == b"0":
            return


def with_redis(settings: Settings, wait_s: float, work: Callable[[Places], Awaitable[Result]]) -> Result:
    """Runs `work` with the ledger at hand; an embedded ledger that a daemon already runs is used through its socket."""

    async def main() -> Result:
        async with AsyncExitStack() as stack:
            socket = settings.ledger.data_dir.resolve() / "redis.sock"
            if settings.ledger.url == "embedded" and await _answers(socket):
                settings_now = settings.model_copy(update={"ledger": settings.ledger.model_copy(update={"url": f"unix://{socket}"})})
            else:
                settings_now = settings
            where = await places(settings_now, stack)
            await wait_for_redis(where.ledger_link(), wait_s)
            await identify(where.ledger_link(), settings.ledger.partitions)
            return await work(where)

    try:
        return asyncio.run(main())
    except BaseExceptionGroup as group:
        error = first_monitor_error(group)
        if error is None:
            raise
        raise error from None


def with_wire(settings: Settings, wait_s: float, work: Callable[[Wire], Awaitable[Result]]) -> Result:
    """Runs `work` with one connection to the ledger."""
    configure_logs(form=settings.log.format, level="warning")

    async def opened(where: Places) -> Result:
        wire = await where.ledger_link().open()
        try:
            return await work(wire)
        finally:
            wire.close()

    return with_redis(settings, wait_s, opened)


async def _answers(socket: Path) -> bool:
    """Whether a Redis listens on a unix socket."""
    try:
        wire = await Link(Endpoint(path=str(socket))).open()
    except LedgerUnavailable:
        return False
    wire.close()
    return True
