"""The one record that every commit watches and rewrites: lease, fence, cursors, sequence and outcome test in one.

`{p}:head` holds `token` and `n` in clear, cheap to poll, and `h`, the whole sealed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import orjson

from monitor.errors import LedgerBroken
from monitor.wire.events import genesis_hash
from monitor.wire.seal import seal, unseal

__all__ = ["FIELDS", "SCHEMA", "Head", "Suspect", "account_digest", "account_digests", "level_digest"]

SCHEMA = 1
"""Version of the records. Raised by any change that an older daemon would misread."""

FIELDS = ("token", "n", "h")
"""Fields of the hash, in the order in which `Head.read` wants them."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """The update that is about to be applied, and how often the process has died under it."""

    update: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The state of a partition.

    Attributes:
        ledger: Name of the ledger, drawn at random when it was made; partitions: how many it has; schema: version of the records.
        holder: Who may write ("" nobody). token: number of its term; rises with each acquire, never given out twice.
        n: Counts every write of the head. batch: counts every commit.
        updates: Stream id of the last account update taken in.
        ticks, tick_e, tick_n: Stream id, epoch and number of the last tick message fully decided.
        seq, hash: The last event.
        accounts, levels, digest: How many records there are, and the xor over all of a hash of (name, version).
        trim, trim_hash: Sequence number and hash of the last event that may be gone.
        suspect: An update under suspicion of killing the process.
    """

    ledger: str
    partitions: int
    schema: int
    holder: str
    token: int
    n: int
    batch: int
    updates: str
    ticks: str
    tick_e: int
    tick_n: int
    seq: int
    hash: str
    accounts: int
    levels: int
    digest: int
    trim: int
    trim_hash: str
    suspect: Suspect | None

    @classmethod
    def first(cls, ledger: str, partitions: int, partition: int) -> Head:
        """The head of a partition where nothing has been written yet."""
        start = genesis_hash(ledger, partition)
        return cls(
            ledger=ledger,
            partitions=partitions,
            schema=SCHEMA,
            holder="",
            token=0,
            n=0,
            batch=0,
            updates="0-0",
            ticks="0-0",
            tick_e=0,
            tick_n=0,
            seq=0,
            hash=start,
            accounts=0,
            levels=0,
            digest=0,
            trim=0,
            trim_hash=start,
            suspect=None,
        )

    def fields(self, partition: int) -> tuple[str | bytes | int, ...]:
        """Field and value in turn, for HSET on the head of this partition."""
        value = orjson.dumps(
            {
                "ledger": self.ledger,
                "partitions": self.partitions,
                "schema": self.schema,
                "holder": self.holder,
                "token": self.token,
                "n": self.n,
                "batch": self.batch,
                "updates": self.updates,
                "ticks": self.ticks,
                "tick_e": self.tick_e,
                "tick_n": self.tick_n,
                "seq": self.seq,
                "hash": self.hash,
                "accounts": self.accounts,
                "levels": self.levels,
                "digest": f"{self.digest:032x}",
                "trim": self.trim,
                "trim_hash": self.trim_hash,
                "suspect": None if self.suspect is None else (self.suspect.update, self.suspect.count),
            }
        )
        return ("token", self.token, "n", self.n, "h", seal(_seal_name(partition), value))

    @classmethod
    def read(cls, values: Sequence[bytes | None], partition: int) -> Head | None:
        """The head from the values of `FIELDS`, or None where there is none yet.

        Raises LedgerBroken when it is damaged or of another schema.
        """
        token, n, sealed = values
        if token is None and n is None and sealed is None:
            return None
        value = None if sealed is None else unseal(_seal_name(partition), sealed)
        if value is None:
            raise LedgerBroken(f"partition {partition}: the head is damaged: restore the ledger, or import the accounts into a new one")
        body = orjson.loads(value)
        if body["schema"] != SCHEMA:
            raise LedgerBroken(f"partition {partition}: records of schema {body['schema']}, this program writes {SCHEMA}")
        if token != b"%d" % body["token"] or n != b"%d" % body["n"]:
            raise LedgerBroken(
                f"partition {partition}: the head's clear fields do not agree with its sealed ones: another program writes to it"
            )
        suspect = body["suspect"]
        body["suspect"] = None if suspect is None else Suspect(*suspect)
        body["digest"] = int(body["digest"], 16)
        return cls(**body)


def _seal_name(partition: int) -> bytes:
    return b"{%d}:head" % partition


def account_digest(account: str, epoch: int, sequence: int, hold: str | None) -> int:
    """What one account adds to `Head.digest`."""
    return _digest(f"a\0{account}\0{epoch}\0{sequence}\0{hold or ''}")


def account_digests(accounts: Iterable[tuple[str, int, int, str | None]]) -> int:
    """What all of them add to `Head.digest`; arguments as of `account_digest`."""
    parts = b"".join(
        blake2b(b"a\0%b\0%d\0%d\0%b" % (account.encode(), epoch, sequence, (hold or "").encode()), digest_size=16).digest()
        for account, epoch, sequence, hold in accounts
    )
    return int.from_bytes(np.bitwise_xor.reduce(np.frombuffer(parts, np.uint64).reshape(-1, 2), axis=0).tobytes())


def level_digest(name: str, rev: int) -> int:
    """What one pool's record adds to `Head.digest`."""
    return _digest(f"l\0{name}\0{rev}")


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest())
