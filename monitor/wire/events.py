"""Events as bytes: the id of a row, the hash that chains it to the row before, and the JSON body.

    id      <partition>/<seq>-<token>     seq counts the rows of a partition from 1 without holes; the token names the holder's term,
                                          so one id means one fact in every history, also after a lost tail
    hash    the first 128 bits of sha256(hash of the row before + id + body), in hex

The chain finds accidents. Whoever can write to Redis can recompute it, so its head is also published outside.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

import orjson

from monitor.margin.levels import Level

__all__ = [
    "HASH_LENGTH",
    "LEVEL",
    "NUMBERS",
    "EventId",
    "TickPosition",
    "blind_body",
    "chain_hash",
    "genesis_hash",
    "level_body",
    "numbers_body",
    "parse_event_id",
]

HASH_LENGTH = 32

LEVEL, NUMBERS = "level", "numbers"
"""Kinds of rows about a pool."""

_WORDS = tuple(level.word for level in Level)


class TickPosition(NamedTuple):
    """Where in the tick log something was decided: writer's epoch, message number in it, place of the tick in the message.

    What a document caused between two messages stands at the end of the earlier one.
    """

    epoch: int
    n: int
    tick: int


class EventId(NamedTuple):
    """The name of one row, for ever."""

    partition: int
    seq: int
    token: int

    def __str__(self) -> str:
        return f"{self.partition}/{self.seq}-{self.token}"

    @property
    def stream_id(self) -> str:
        """The id of the same row on the partition's stream."""
        return f"{self.seq}-{self.token}"


def parse_event_id(text: str) -> EventId:
    """The id that `str` printed. Raises ValueError for anything else."""
    partition, _, row = text.partition("/")
    seq, _, token = row.partition("-")
    if not (partition.isdecimal() and seq.isdecimal() and token.isdecimal() and text.isascii()):
        raise ValueError(f"not an event id: {text!r}")
    return EventId(int(partition), int(seq), int(token))


def genesis_hash(ledger: str, partition: int) -> str:
    """The hash before the first row. It names the ledger, so that no chain of another one fits."""
    return sha256(f"margin-monitor ledger {ledger} {partition}".encode()).hexdigest()[:HASH_LENGTH]


def chain_hash(previous: str, event_id: str, body: bytes) -> str:
    """The hash of a row, from the hash of the row before, its own id and its body."""
    return sha256(previous.encode() + event_id.encode() + body).hexdigest()[:HASH_LENGTH]


def level_body(
    *,
    event_id: str,
    account: str,
    pool: str,
    level: Level,
    previous: Level,
    unknown: str | None,
    previous_unknown: str | None,
    rev: int,
    episode: int,
    at: TickPosition,
    previous_hash: str,
    facts: bytes,
) -> bytes:
    """The body of a change of one pool's verdict.

    Args:
        level, previous: The level now and before. While `unknown` is set, the level is the last one known, not the present one.
        unknown, previous_unknown: Reasons, or None.
        rev: Counts the changes of this pool from 1: a receiver ignores what it has already seen.
        episode: Counts the stays above healthy. Information, not identity.
        facts: A JSON object with the numbers of the evaluation, or b"{}". Its keys are not among those written here.
    """
    head = orjson.dumps(
        {
            "id": event_id,
            "kind": LEVEL,
            "account": account,
            "pool": pool,
            "level": _WORDS[level],
            "previous": _WORDS[previous],
            "unknown": unknown,
            "previous_unknown": previous_unknown,
            "rev": rev,
            "episode": episode,
            "at": tuple(at),
            "chain": previous_hash,
        }
    )
    return _joined(head, facts)


def numbers_body(
    *, event_id: str, account: str, pool: str, level: Level, rev: int, at: TickPosition, previous_hash: str, facts: bytes
) -> bytes:
    """The body of a row with the numbers of an earlier one: that of the same account, pool and `rev`, which said `"numbers": "follow"`.

    Args:
        level, rev, at: As in that row. facts: As in `level_body`.
    """
    head = {"id": event_id, "kind": NUMBERS, "account": account, "pool": pool, "level": _WORDS[level], "unknown": None}
    return _joined(orjson.dumps({**head, "rev": rev, "at": tuple(at), "chain": previous_hash}), facts)


def _joined(head: bytes, facts: bytes) -> bytes:
    """Two JSON objects as one."""
    return head if facts == b"{}" else b"%b,%b" % (head[:-1], facts[1:])


def blind_body(*, event_id: str, start: TickPosition | None, end: TickPosition | None, reason: str, previous_hash: str) -> bytes:
    """The body of a row that says: between these two places of the tick log nothing was decided. None: not known."""
    return orjson.dumps(
        {
            "id": event_id,
            "kind": "blind",
            "from": start and tuple(start),
            "to": end and tuple(end),
            "reason": reason,
            "chain": previous_hash,
        }
    )
