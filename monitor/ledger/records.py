"""The sealed records of accounts and levels, and the committed state kept of them in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import NamedTuple
from zlib import crc32

import orjson

from monitor.ledger.head import account_digests
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from monitor.wire.packed import left_to_document, pack, version_of
from monitor.wire.seal import seal, unseal

__all__ = [
    "NEVER",
    "NOWHERE",
    "NO_DOCUMENT",
    "AccountVersion",
    "LevelRecord",
    "Versions",
    "account_record",
    "level_record",
    "packed_record",
    "read_account",
    "read_level",
]

NOWHERE = TickPosition(0, 0, 0)
"""Before any tick."""


class AccountVersion(NamedTuple):
    """What is kept in memory of a stored document: enough to order the next one, not the document itself.

    `check` is a checksum of the document's bytes (0 where it was removed); `hold` is why the account is unknown whatever its document says.
    """

    epoch: int
    sequence: int
    check: int
    hold: str | None

    @classmethod
    def of(cls, epoch: int, sequence: int, document: bytes | None, hold: str | None) -> AccountVersion:
        """The version of a stored document."""
        return cls(epoch, sequence, 0 if document is None else crc32(document), hold)


NO_DOCUMENT = AccountVersion(-1, -1, 0, None)
"""Below every version, so that any document may follow a hold on an account that never had one."""


class Versions(MutableMapping[str, AccountVersion]):
    """Version by account. A plain account's stays in its packed record, which others hold anyway: a million versions are 120 MB."""

    def __init__(self) -> None:
        """Starts empty."""
        self._held: dict[str, AccountVersion | bytes] = {}

    def keep_packed(self, records: Mapping[str, bytes]) -> None:
        """Takes the versions of sound plain records."""
        self._held.update(records)

    def packed(self, accounts: Iterable[str]) -> list[bytes]:
        """The records of accounts whose versions were taken with them."""
        return [held for account in accounts if isinstance(held := self._held[account], bytes)]

    def digest(self) -> int:
        """What all of them add to `Head.digest`."""
        return account_digests(
            (account, *version_of(held)[:2], None) if isinstance(held, bytes) else (account, held.epoch, held.sequence, held.hold)
            for account, held in self._held.items()
        )

    def __getitem__(self, account: str) -> AccountVersion:
        """The version. Raises KeyError."""
        held = self._held[account]
        return AccountVersion(*version_of(held), None) if isinstance(held, bytes) else held

    def __setitem__(self, account: str, version: AccountVersion) -> None:
        """Takes a version."""
        self._held[account] = version

    def __delitem__(self, account: str) -> None:
        """Forgets a version. Raises KeyError."""
        del self._held[account]

    def __iter__(self) -> Iterator[str]:
        """The accounts."""
        return iter(self._held)

    def __len__(self) -> int:
        """How many."""
        return len(self._held)


class LevelRecord(NamedTuple):
    """The committed verdict of one pool. `at`: where it was decided; `seq`: the event that says so."""

    level: Level
    unknown: str | None
    rev: int
    episode: int
    at: TickPosition
    seq: int


NEVER = LevelRecord(Level.HEALTHY, None, 0, 0, NOWHERE, 0)
"""The verdict of a pool without a record: it has never left healthy."""

_WORDS = tuple(level.word for level in Level)
_DOCUMENT = b',"doc":'


def account_record(account: str, version: AccountVersion, document: bytes | None) -> bytes:
    """The sealed record of an account.

    `document` is JSON, stored as it came; None marks a removed account, kept so that no older update revives it.
    """
    head = orjson.dumps({"epoch": version.epoch, "seq": version.sequence, "hold": version.hold})
    return seal(account.encode(), b"%b%b%b}" % (head[:-1], _DOCUMENT, b"null" if document is None else document))


def packed_record(account: str, version: AccountVersion, document: bytes | None) -> bytes:
    """The packed form that stands beside the record of an account. One that is removed or on hold is left to its document."""
    if document is None or version.hold is not None:
        return left_to_document(account)
    return pack(account, version.epoch, version.sequence, document)


def read_account(account: str, sealed: bytes) -> tuple[AccountVersion, bytes | None] | None:
    """Version and document of a sealed record, or None when it is damaged."""
    value = unseal(account.encode(), sealed)
    if value is None:
        return None
    head, _, document = value.partition(_DOCUMENT)  # cannot stand inside a JSON string: its quote would be escaped
    fields = orjson.loads(head + b"}")
    body = None if document == b"null}" else document[:-1]
    return AccountVersion.of(fields["epoch"], fields["seq"], body, fields["hold"]), body


def level_record(name: str, record: LevelRecord) -> bytes:
    """The sealed record of a pool's verdict."""
    value = orjson.dumps(
        {
            "level": _WORDS[record.level],
            "unknown": record.unknown,
            "rev": record.rev,
            "episode": record.episode,
            "at": tuple(record.at),
            "seq": record.seq,
        }
    )
    return seal(name.encode(), value)


def read_level(name: str, sealed: bytes) -> LevelRecord | None:
    """The verdict of a sealed record, or None when it is damaged."""
    value = unseal(name.encode(), sealed)
    if value is None:
        return None
    body = orjson.loads(value)
    return LevelRecord(Level.of(body["level"]), body["unknown"], body["rev"], body["episode"], TickPosition(*body["at"]), body["seq"])
