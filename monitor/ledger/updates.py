"""Account updates: how a producer gets a document in, and how the evaluator takes it out.

A document carries (epoch, sequence) and the whole account. A producer repeats until it is answered, so a document may stand on the stream
twice; the consumer drops what is not newer than what it has. A hole in the sequence is harmless.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from zlib import crc32

import orjson

from monitor.errors import LedgerUnavailable, RefusedError
from monitor.ledger.changes import Change, DeadLetter, Hold, Suspicion, UpdatesRead
from monitor.ledger.committer import Committer
from monitor.ledger.connection import Command, Link, Wire, raise_faults
from monitor.ledger.head import FIELDS, Head, Suspect
from monitor.ledger.keys import ACCOUNT_ID, PartitionKeys, partition_of
from monitor.ledger.records import AccountVersion

__all__ = [
    "MAX_UPDATE_BYTES",
    "Imported",
    "Order",
    "Update",
    "UpdateGuard",
    "UpdatesProducer",
    "UpdatesReader",
    "order_of",
    "poisoned",
    "stamped",
]

MAX_UPDATE_BYTES = 8 << 20
"""The largest document taken: 10,000 positions are about 2 MB."""

_CHUNK_ENTRIES = 500
_CHUNK_BYTES = 1 << 20
_RAW_KEPT = 1 << 20
_ID_IN_JSON = re.compile(rb'"(?:id|remove)"\s*:\s*"([A-Za-z0-9][A-Za-z0-9._:@-]{0,127})"')


# The producer's side


def stamped(document: bytes, epoch: int, sequence: int) -> bytes:
    """The document with this epoch and sequence in front, unless it has a sequence of its own.

    Raises RefusedError when it is no JSON object.
    """
    try:
        body = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise RefusedError("", document[:40].decode(errors="replace"), f"JSON; {error.msg}") from None
    if not isinstance(body, dict):
        raise RefusedError("", type(body).__name__, "a portfolio document")
    if "sequence" in body:
        return document
    return orjson.dumps({"epoch": epoch, "sequence": sequence, **body})


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import wrote: how many documents, and the stream id of the last one by partition."""

    count: int
    last: Mapping[int, str]


class UpdatesProducer:
    """Puts documents on the update streams of a ledger."""

    def __init__(self, link_of: Callable[[int], Link], count: int, *, doze: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Prepares a producer. `link_of` gives a link for a partition's number; `count` is the ledger's number of partitions."""
        self.repeated = 0
        self._link_of, self._count, self._doze = link_of, count, doze
        self._links: dict[int, Link] = {}
        self._wires: dict[int, Wire] = {}

    async def publish(self, account: str, document: bytes) -> str:
        """Appends one stamped document to its account's stream and returns the entry's id.

        Repeats, with growing pauses, until it is answered; a repeated document does no harm. Put an `asyncio.timeout` around it to give up:
        then it may be there or not. Raises LedgerBroken, and RefusedError for an id or a size that no ledger takes.
        """
        _check_update(account, document)
        partition = partition_of(account, self._count)
        replies = await self._until_answered(partition, [("XADD", PartitionKeys.of(partition).updates, "*", "u", document)])
        return replies[0]

    async def import_documents(
        self, documents: Sequence[tuple[str, bytes]], *, progress: Callable[[int], None] = lambda _done: None
    ) -> Imported:
        """Appends many (account, stamped document) pairs.

        Everything is checked before the first write, so a refused import changes nothing. What is then written is repeated until it is
        answered. Run again after an interruption it completes the work: what is there already is dropped as not newer.

        Raises:
            RefusedError: An id, a size, or an account that stands there twice.
            LedgerUnavailable: A partition could not be reached before anything was written.
        """
        seen: set[str] = set()
        by_partition: dict[int, list[bytes]] = {}
        for account, document in documents:
            _check_update(account, document)
            if account in seen:
                raise RefusedError("/account/id", account, "each account once")
            seen.add(account)
            by_partition.setdefault(partition_of(account, self._count), []).append(document)
        for partition in by_partition:
            wire = await self._wire(partition)
            await wire.call("HMGET", PartitionKeys.of(partition).head, "token", timeout_s=self._link(partition).timeout_s)
        done = 0
        last: dict[int, str] = {}
        for partition, mine in by_partition.items():
            key = PartitionKeys.of(partition).updates
            for chunk in _chunks(mine):
                replies = await self._until_answered(partition, [("XADD", key, "*", "u", document) for document in chunk])
                last[partition] = replies[-1]
                done += len(chunk)
                progress(done)
        return Imported(done, last)

    async def wait_applied(self, imported: Imported, *, poll_s: float = 0.05) -> None:
        """Returns when the evaluator has committed everything that was imported.

        Put an `asyncio.timeout` around it. Raises LedgerBroken.
        """
        for partition, last in imported.last.items():
            keys = PartitionKeys.of(partition)
            while True:
                (values,) = await self._until_answered(partition, [("HMGET", keys.head, *FIELDS)], decode=False)
                head = Head.read(values, partition)  # type: ignore[arg-type]
                if head is not None and _order(head.updates) >= _order(last):
                    break
                await self._doze(poll_s)

    def close(self) -> None:
        """Drops the connections."""
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    def _link(self, partition: int) -> Link:
        if partition not in self._links:
            self._links[partition] = self._link_of(partition)
        return self._links[partition]

    async def _wire(self, partition: int) -> Wire:
        wire = self._wires.get(partition)
        if wire is None or wire.closed:
            wire = self._wires[partition] = await self._link(partition).open()
        return wire

    async def _until_answered(self, partition: int, commands: list[Command], *, decode: bool = True) -> list[str]:
        pause = 0.02
        link = self._link(partition)
        while True:
            try:
                wire = await self._wire(partition)
                replies = await wire.exchange(commands, timeout_s=link.timeout_s)
                raise_faults(replies)
                return [reply.decode() for reply in replies] if decode else replies
            except LedgerUnavailable as error:
                link.follow(error)
                if partition in self._wires:
                    self._wires.pop(partition).close()
            self.repeated += 1
            await self._doze(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 1.0)


def _check_update(account: str, document: bytes) -> None:
    if ACCOUNT_ID.fullmatch(account) is None:
        raise RefusedError("/account/id", account[:40], "letters, digits and . _ : @ -, at most 128, the first a letter or digit")
    if len(document) > MAX_UPDATE_BYTES:
        raise RefusedError("", f"{len(document)} bytes", f"a document of at most {MAX_UPDATE_BYTES} bytes")


def _chunks(documents: Sequence[bytes]) -> list[list[bytes]]:
    chunks: list[list[bytes]] = [[]]
    size = 0
    for document in documents:
        if chunks[-1] and (len(chunks[-1]) == _CHUNK_ENTRIES or size + len(document) > _CHUNK_BYTES):
            chunks.append([])
            size = 0
        chunks[-1].append(document)
        size += len(document)
    return chunks


# The evaluator's side


@dataclass(frozen=True, slots=True)
class Update:
    """An entry of an update stream, as it came. `data` is None where the field `u` is missing."""

    partition: int
    id: str
    data: bytes | None


class UpdatesReader:
    """Reads the update streams of partitions that live on one server, from a cursor each, without waiting."""

    def __init__(self, link: Link, cursors: Mapping[int, str]) -> None:
        """Prepares a reader. `cursors`: by partition, the id behind which to read (`head.updates`)."""
        self.cursors = dict(cursors)
        self._link = link
        self._wire: Wire | None = None

    async def read(self, *, count: int = 400) -> list[Update]:
        """What is new, at most `count` by partition, each partition in its own order; [] when there is nothing.

        Raises LedgerUnavailable; call again. Cancelling is safe: cursors move only when updates are returned.
        """
        partitions = list(self.cursors)
        commands: list[Command] = [
            ("XREAD", "COUNT", count, "STREAMS", PartitionKeys.of(partition).updates, self.cursors[partition]) for partition in partitions
        ]
        try:
            if self._wire is None or self._wire.closed:
                self._wire = await self._link.open()
            replies = await self._wire.exchange(commands, timeout_s=max(self._link.timeout_s, 5.0))
            raise_faults(replies)
        except LedgerUnavailable as error:
            self._link.follow(error)
            self.close()
            raise
        found: list[Update] = []
        for partition, reply in zip(partitions, replies, strict=True):
            for entry_id, pairs in reply[0][1] if reply else ():
                fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
                found.append(Update(partition, entry_id.decode(), fields.get(b"u")))
            if reply:
                self.cursors[partition] = found[-1].id
        return found

    def close(self) -> None:
        """Drops the connection; the next `read` makes a new one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class Order(Enum):
    """How an update stands to what is known of its account."""

    NEWER = "newer"
    OLDER = "older"
    """Dropped and counted."""
    SAME = "same"
    """A copy: dropped and counted."""
    CONFLICT = "conflict"
    """The same (epoch, sequence) with another content: nobody can say which is right. Dead letter and hold."""


def order_of(known: AccountVersion | None, epoch: int, sequence: int, document: bytes | None) -> Order:
    """Compares an update with the version known (`Committer.version`). `document` is None for a removal."""
    if known is None or (epoch, sequence) > (known.epoch, known.sequence):
        return Order.NEWER
    if (epoch, sequence) < (known.epoch, known.sequence):
        return Order.OLDER
    return Order.SAME if known.check == (0 if document is None else crc32(document)) else Order.CONFLICT


def poisoned(update: Update, cause: str, account: str | None) -> list[Change]:
    """What to write for an update that cannot be used: a dead letter, a hold on its account where one is known, and the cursor."""
    raw = (update.data or b"")[:_RAW_KEPT]
    changes: list[Change] = [DeadLetter("updates", cause, raw, update.id)]
    if account is not None and ACCOUNT_ID.fullmatch(account) is not None:
        changes.append(Hold(account, cause))
    changes.append(UpdatesRead(update.id))
    return changes


class UpdateGuard:
    """Keeps one update from killing the process for ever.

    The first updates after a start, one of which the last process may have died of, are applied one by one under a mark in the head,
    committed before it is tried. One that was marked and died of `deaths` times goes to the dead letters unread.
    """

    def __init__(self, committer: Committer, *, first: int = 400, deaths: int = 3) -> None:
        """Prepares the guard of one partition, after `Partition.lead`."""
        self._committer = committer
        self._left = first
        self._deaths = deaths
        self._before = committer.partition.head.suspect

    async def may_read(self, update: Update) -> bool:
        """Call before anything looks into the update. False: it has killed too often; write `unread(update)` and go on.

        Raises what `Committer.flush` raises.
        """
        if not self._left:
            return True
        before = self._before
        count = before.count if before is not None and before.update == update.id else 0
        self._left -= 1
        changes: list[Change] = [Suspicion(Suspect(update.id, count + 1))] if self._left and count < self._deaths else [Suspicion(None)]
        await self._committer.put(changes)
        await self._committer.flush()
        return count < self._deaths


def unread(update: Update) -> list[Change]:
    """What to write for an update that killed the process too often. The account is searched in the bytes without parsing them."""
    found = _ID_IN_JSON.search(update.data or b"")
    return poisoned(update, "killed the process", None if found is None else found[1].decode())


def _order(stream_id: str) -> tuple[int, int]:
    left, _, right = stream_id.partition("-")
    return int(left), int(right or 0)
