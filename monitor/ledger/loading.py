"""Reading a whole partition after it was taken, and checking every record of it.

A record that fails its seal is never used. Counts and digest in the head find records that are missing, renamed or put back to an older
version. What the retained events still say about a pool repairs its level; what nothing says becomes unknown, with a reason that people
see.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import xor
from typing import Any

import orjson

from monitor.errors import LedgerBroken
from monitor.ledger.connection import ReplyError, Wire, raise_faults
from monitor.ledger.head import Head, level_digest
from monitor.ledger.keys import PartitionKeys
from monitor.ledger.records import NOWHERE, AccountVersion, LevelRecord, Versions, packed_record, read_account, read_level
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from monitor.wire.packed import is_plain, is_sound

__all__ = ["DAMAGED", "Contents", "Loaded", "OnDocument", "OnPacked", "OnProgress", "check_events", "load"]

OnDocument = Callable[[str, bytes | None, str | None], None]
"""Gets account, document (None: removed, or never had one) and hold reason (None: none)."""

OnPacked = Callable[[Sequence[str], Sequence[bytes]], Sequence[str]]
"""Gets plain accounts and their packed records, each account at most once a load; answers those whose documents it wants instead."""

OnProgress = Callable[[int], None]
"""Told how many accounts have been read."""

DAMAGED = "damaged record"
"""The reason of what was quarantined."""

_CHUNK = 2000
_TYPES = {
    "head": b"hash",
    "accounts": b"hash",
    "packed": b"hash",
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
        from_documents: Whether every document was read, since the packed records were not those that the head tells of.
        complaint: One line when counts or digest did not agree with the head: page a person. None when all is well.
    """

    accounts: int = 0
    levels: int = 0
    damaged_accounts: list[str] = field(default_factory=list)
    damaged_levels: list[str] = field(default_factory=list)
    repaired_levels: list[str] = field(default_factory=list)
    from_documents: bool = False
    complaint: str | None = None


@dataclass(slots=True)
class Contents:
    """All records in force, and what goes into the head about them."""

    accounts: Versions
    levels: dict[str, LevelRecord]
    digest: int


async def load(
    wire: Wire,
    head: Head,
    partition: int,
    on_document: OnDocument,
    on_packed: OnPacked = lambda accounts, _records: accounts,
    *,
    timeout_s: float,
    on_progress: OnProgress = lambda _done: None,
) -> tuple[Contents, Loaded]:
    """Reads and checks everything. Raises LedgerUnavailable, LedgerBroken (foreign types, a stream that is not the head's).

    Plain accounts come from their packed records, if those are sound, complete and of the versions that the head's digest is of; else all
    come from their documents, and the packed records are made anew.
    """
    keys = PartitionKeys.of(partition)
    await _check_types(wire, keys, timeout_s)
    await check_events(wire, head, partition, timeout_s=timeout_s)
    loaded = Loaded()

    levels: dict[str, LevelRecord] = {}
    damaged: list[str] = []
    async for chunk in _scan(wire, keys.levels, timeout_s):
        for name, sealed in chunk:
            record = read_level(name, sealed)
            if record is None:
                damaged.append(name)
            else:
                levels[name] = record

    reading = _Reading(wire, keys, head, on_document, on_packed, on_progress, timeout_s, loaded)
    of_levels = _digest_of_levels(levels)
    read = None if damaged or len(levels) != head.levels else await reading.from_packed(head.digest ^ of_levels)
    accounts, of_accounts = read or await reading.from_documents()
    digest = of_accounts ^ of_levels
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
        digest = of_accounts ^ _digest_of_levels(levels)
        healed = (digest, len(accounts), len(levels)) == (head.digest, head.accounts, head.levels)
        made_again = f"{len(loaded.repaired_levels)} levels made again from the events"
        loaded.complaint = f"{complaint}; {made_again}{', now all agrees' if healed else ''}"

    loaded.accounts, loaded.levels = len(accounts), len(levels)
    return Contents(accounts, levels, digest), loaded


@dataclass(slots=True)
class _Reading:
    """The accounts of one partition on their way in."""

    wire: Wire
    keys: PartitionKeys
    head: Head
    on_document: OnDocument
    on_packed: OnPacked
    on_progress: OnProgress
    timeout_s: float
    loaded: Loaded

    async def from_packed(self, wanted_digest: int) -> tuple[Versions, int] | None:
        """All accounts and their digest, from packed records where those tell; None, and nothing was handed on, if it is another one."""
        accounts = Versions()
        others: list[str] = []
        damaged: list[str] = []
        async for chunk in _scan(self.wire, self.keys.packed, self.timeout_s, ahead=True):
            plain: dict[str, bytes] = {}
            for name, record in chunk:
                if not is_sound(name.encode(), record):
                    damaged.append(name)
                elif not is_plain(record):
                    others.append(name)
                else:
                    plain[name] = record
            accounts.keep_packed(plain)
            self.on_progress(len(accounts) + len(others) + len(damaged))
        names = list(accounts)
        if len(names) + len({*others, *damaged}) != self.head.accounts:
            return None
        documents = await self._documents([*others, *damaged])
        accounts.update({name: version for name, (version, _) in documents.items()})
        digest = accounts.digest()
        if digest != wanted_digest:
            return None
        await self._write({name: packed_record(name, *documents[name]) for name in damaged})
        for start in range(0, len(names), _CHUNK):
            part = names[start : start + _CHUNK]
            wanted = self.on_packed(part, accounts.packed(part))
            documents |= await self._documents(wanted)
        for name, (version, document) in documents.items():
            accounts[name] = version
            self.on_document(name, document, version.hold)
        return accounts, accounts.digest() if self.loaded.damaged_accounts else digest

    async def _write(self, packed: Mapping[str, bytes]) -> None:
        """Puts packed records in their places. That needs no fence: what is not of the versions in the head is not used."""
        if packed:
            pairs = [part for item in packed.items() for part in item]
            await self.wire.call("HSET", self.keys.packed, *pairs, timeout_s=self.timeout_s)

    async def _documents(self, names: Sequence[str]) -> dict[str, tuple[AccountVersion, bytes | None]]:
        """Version and document of some accounts."""
        found: dict[str, tuple[AccountVersion, bytes | None]] = {}
        for start in range(0, len(names), _CHUNK):
            part = names[start : start + _CHUNK]
            values = await self.wire.call("HMGET", self.keys.accounts, *part, timeout_s=self.timeout_s)
            for name, sealed in zip(part, values, strict=True):
                found[name] = self._read(name, sealed)
        return found

    def _read(self, name: str, sealed: bytes | None) -> tuple[AccountVersion, bytes | None]:
        """A record, or what stands for one that is damaged or missing."""
        found = None if sealed is None else read_account(name, sealed)
        if found is None:
            self.loaded.damaged_accounts.append(name)
            return AccountVersion(-1, -1, 0, DAMAGED), None
        return found

    async def from_documents(self) -> tuple[Versions, int]:
        """All accounts and their digest, from their documents. Writes the packed records anew."""
        self.loaded.from_documents = True
        self.loaded.damaged_accounts.clear()
        accounts = Versions()
        async for chunk in _scan(self.wire, self.keys.accounts, self.timeout_s):
            documents: dict[str, bytes | None] = {}
            packed: dict[str, bytes] = {}
            for name, sealed in chunk:
                if name not in accounts:  # a scan may meet a name twice
                    accounts[name], documents[name] = version, document = self._read(name, sealed)
                    packed[name] = packed_record(name, version, document)
            await self._write(packed)
            plain = {name: record for name, record in packed.items() if is_plain(record)}
            accounts.keep_packed(plain)
            wanted = self.on_packed([*plain], [*plain.values()])
            for name in [*wanted, *(documents.keys() - plain.keys())]:
                self.on_document(name, documents[name], accounts[name].hold)
            self.on_progress(len(accounts))
        return accounts, accounts.digest()


def _digest_of_levels(levels: Mapping[str, LevelRecord]) -> int:
    return reduce(xor, (level_digest(name, record.rev) for name, record in levels.items()), 0)


async def _scan(wire: Wire, key: str, timeout_s: float, *, ahead: bool = False) -> AsyncIterator[list[tuple[str, bytes]]]:
    """The fields of a hash, some thousands at a time. `ahead`: the next are asked for meanwhile; nothing else may use the connection."""
    asked: asyncio.Task[Any] | None = None
    cursor: bytes | str = "0"
    try:
        while True:
            cursor, pairs = await (asked or wire.call("HSCAN", key, cursor, "COUNT", _CHUNK, timeout_s=timeout_s))
            if ahead and cursor != b"0":
                asked = asyncio.create_task(wire.call("HSCAN", key, cursor, "COUNT", _CHUNK, timeout_s=timeout_s))
                await asyncio.sleep(0)  # so that it is sent before we set to work
            yield [(name.decode(errors="backslashreplace"), value) for name, value in zip(pairs[::2], pairs[1::2], strict=True)]
            if cursor == b"0":
                return
    finally:
        if asked is not None:
            asked.cancel()


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
