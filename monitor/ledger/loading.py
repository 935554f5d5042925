"""Reading a whole partition after it was taken, and checking every record of it.

A record that fails its seal is never used. Counts and digest in the head find records that are missing, renamed or put back to an older
version. What the retained events still say about a pool repairs its level; what nothing says becomes unknown, with a reason that people
see.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import orjson

from monitor.errors import LedgerBroken
from monitor.ledger.connection import ReplyError, Wire, raise_faults
from monitor.ledger.head import Head, account_digest, level_digest
from monitor.ledger.keys import PartitionKeys
from monitor.ledger.records import NOWHERE, AccountVersion, LevelRecord, read_account, read_level
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition

__all__ = ["DAMAGED", "Contents", "Loaded", "OnDocument", "check_events", "load"]

OnDocument = Callable[[str, bytes | None, str | None], None]
"""Gets account, document (None: removed, or never had one) and hold reason (None: none)."""

DAMAGED = "damaged record"
"""The reason of what was quarantined."""

_CHUNK = 2000
_TYPES = {
    "head": b"hash",
    "accounts": b"hash",
    "levels": b"hash",
    "events": b"stream",
    "updates": b"stream",
    "dead": b"stream",
    "sinks": b"hash",
}


@dataclass(slots=True)
class Loaded:
    """What a load found.

    Attributes:
        accounts, levels: Records in force.
        damaged_accounts: Quarantined: unknown until a new document comes. Ask their producers for full documents.
        damaged_levels: Pools whose record was lost and whose events are trimmed: unknown until they are observed again.
        repaired_levels: Pools whose record was damaged, missing or old, and was made again from the retained events.
        complaint: One line when counts or digest did not agree with the head: page a person. None when all is well.
    """

    accounts: int = 0
    levels: int = 0
    damaged_accounts: list[str] = field(default_factory=list)
    damaged_levels: list[str] = field(default_factory=list)
    repaired_levels: list[str] = field(default_factory=list)
    complaint: str | None = None


@dataclass(slots=True)
class Contents:
    """All records in force, and what goes into the head about them."""

    accounts: dict[str, AccountVersion]
    levels: dict[str, LevelRecord]
    digest: int


async def load(wire: Wire, head: Head, partition: int, on_document: OnDocument, *, timeout_s: float) -> tuple[Contents, Loaded]:
    """Reads and checks everything. Raises LedgerUnavailable, LedgerBroken (foreign types, a stream that is not the head's)."""
    keys = PartitionKeys.of(partition)
    await _check_types(wire, keys, timeout_s)
    await check_events(wire, head, partition, timeout_s=timeout_s)
    loaded = Loaded()

    accounts: dict[str, AccountVersion] = {}
    async for name, sealed in _scan(wire, keys.accounts, timeout_s):
        found = read_account(name, sealed)
        if found is None:
            loaded.damaged_accounts.append(name)
            accounts[name] = AccountVersion(-1, -1, 0, DAMAGED)
            on_document(name, None, DAMAGED)
        else:
            accounts[name] = found[0]
            on_document(name, found[1], found[0].hold)

    levels: dict[str, LevelRecord] = {}
    damaged: list[str] = []
    async for name, sealed in _scan(wire, keys.levels, timeout_s):
        record = read_level(name, sealed)
        if record is None:
            damaged.append(name)
        else:
            levels[name] = record

    digest = _digest_of(accounts, levels)
    if damaged or loaded.damaged_accounts or (digest, len(accounts), len(levels)) != (head.digest, head.accounts, head.levels):
        complaint = (
            f"partition {partition}: {len(accounts)} accounts and {len(levels)} levels, digest {digest:032x}; "
            f"the head says {head.accounts}, {head.levels}, {head.digest:032x}"
        )
        loaded.repaired_levels = await _repair(wire, keys, levels, timeout_s)
        for name in damaged:
            if name not in levels:  # no event left that says: never claim a level, and never give out a rev again
                levels[name] = LevelRecord(Level.HEALTHY, DAMAGED, head.seq, head.seq, NOWHERE, head.seq)
                loaded.damaged_levels.append(name)
        digest = _digest_of(accounts, levels)
        healed = (digest, len(accounts), len(levels)) == (head.digest, head.accounts, head.levels)
        made_again = f"{len(loaded.repaired_levels)} levels made again from the events"
        loaded.complaint = f"{complaint}; {made_again}{', now all agrees' if healed else ''}"

    loaded.accounts, loaded.levels = len(accounts), len(levels)
    return Contents(accounts, levels, digest), loaded


def _digest_of(accounts: dict[str, AccountVersion], levels: dict[str, LevelRecord]) -> int:
    digest = 0
    for name, version in accounts.items():
        digest ^= account_digest(name, version.epoch, version.sequence, version.hold)
    for name, record in levels.items():
        digest ^= level_digest(name, record.rev)
    return digest


async def _scan(wire: Wire, key: str, timeout_s: float) -> AsyncIterator[tuple[str, bytes]]:
    cursor: bytes | str = "0"
    while True:
        cursor, pairs = await wire.call("HSCAN", key, cursor, "COUNT", _CHUNK, timeout_s=timeout_s)
        for index in range(0, len(pairs), 2):
            yield pairs[index].decode(errors="backslashreplace"), pairs[index + 1]
        if cursor == b"0":
            return


async def _check_types(wire: Wire, keys: PartitionKeys, timeout_s: float) -> None:
    replies = await wire.exchange([("TYPE", getattr(keys, name)) for name in _TYPES], timeout_s=timeout_s)
    raise_faults(replies)
    for (name, wanted), found in zip(_TYPES.items(), replies, strict=True):
        kind = found if isinstance(found, bytes) else str(found).encode()
        if kind not in {wanted, b"none"}:
            raise LedgerBroken(
                f"{getattr(keys, name)} is a {kind.decode()}, expected a {wanted.decode()}: another program uses this database"
            )


async def check_events(wire: Wire, head: Head, partition: int, *, timeout_s: float) -> None:
    """The rows on the stream must be those of the head: its last one the last, and no more than their numbers say. Raises LedgerBroken.

    A row that was taken out of the middle stops nobody; verification tells of it.
    """
    key = PartitionKeys.of(partition).events
    replies = await wire.exchange([("XINFO", "STREAM", key), ("XREVRANGE", key, "+", "-", "COUNT", 1)], timeout_s=timeout_s)
    info, last = replies
    if isinstance(info, ReplyError) and "no such key" in str(info):
        info = [b"last-generated-id", b"0-0", b"length", 0]
    raise_faults([info, last])
    facts = dict(zip(info[::2], info[1::2], strict=True))
    top = _seq(facts[b"last-generated-id"])
    if top != head.seq:
        raise LedgerBroken(f"{key} ends at row {top}, the head at {head.seq}: another program wrote to it, or it was restored apart")
    if last:
        first, count = _seq(facts[b"first-entry"][0]), facts[b"length"]
        if count > top - first + 1:
            raise LedgerBroken(f"{key} has {count} rows from {first} to {top}: some are there twice")
        fields = dict(zip(last[0][1][::2], last[0][1][1::2], strict=True))
        if fields.get(b"h") != head.hash.encode():
            raise LedgerBroken(f"{key}: the hash of row {top} is not the head's: the row was altered")


def _seq(stream_id: bytes) -> int:
    return int(stream_id.partition(b"-")[0])


async def _repair(wire: Wire, keys: PartitionKeys, levels: dict[str, LevelRecord], timeout_s: float) -> list[str]:
    """Puts the last retained event of each pool in the place of a record that is older, damaged or missing. Returns the names."""
    latest: dict[str, LevelRecord] = {}
    start = "-"
    while True:
        rows = await wire.call("XRANGE", keys.events, start, "+", "COUNT", _CHUNK, timeout_s=timeout_s)
        for row_id, pairs in rows:
            body = orjson.loads(dict(zip(pairs[::2], pairs[1::2], strict=True))[b"e"])
            if body["kind"] == "level":
                latest[f"{body['account']}/{body['pool']}"] = LevelRecord(
                    Level.of(body["level"]),
                    body["unknown"],
                    body["rev"],
                    body["episode"],
                    TickPosition(*body["at"]),
                    int(row_id.partition(b"-")[0]),
                )
        if len(rows) < _CHUNK:
            break
        start = "(" + rows[-1][0].decode()
    repaired = []
    for name, record in latest.items():
        known = levels.get(name)
        if known is None or known.rev < record.rev:
            levels[name] = record
            repaired.append(name)
    return repaired
