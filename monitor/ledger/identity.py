"""Which ledger this is: its name, drawn at random once, and how many partitions it was made with."""

from __future__ import annotations

import secrets

from monitor.errors import ConfigError
from monitor.ledger.connection import Link, Wire, raise_faults
from monitor.ledger.head import FIELDS, Head
from monitor.ledger.keys import PARTITIONS, PartitionKeys, partitions

__all__ = ["identify"]


async def identify(link: Link, count: int) -> str:
    """The name of the ledger; an empty one is given a name and `count` partitions.

    Several processes may ask at once: all get the same answer. Raises LedgerUnavailable (ask again), LedgerBroken, and ConfigError (key
    `ledger.partitions`) when the ledger was made with another number.
    """
    partitions(count)
    head = await link.run(lambda wire: _find_or_make(wire, count, link.timeout_s))
    if head.partitions != count:
        raise ConfigError(
            source=str(link.endpoint),
            key="ledger.partitions",
            value=str(count),
            expected=f"{head.partitions}, with which this ledger was made; to change it, import the accounts into an empty one",
        )
    return head.ledger


async def _find_or_make(wire: Wire, count: int, timeout_s: float) -> Head:
    """The head of the first partition."""
    first = PARTITIONS[0]
    key = PartitionKeys.of(first).head
    while True:
        replies = await wire.exchange([("WATCH", key), ("HMGET", key, *FIELDS)], timeout_s=timeout_s)
        raise_faults(replies)
        head = Head.read(replies[1], first)
        if head is not None:
            return head
        made = Head.first(secrets.token_hex(8), count, first)
        raise_faults(await wire.exchange([("MULTI",), ("HSET", key, *made.fields(first)), ("EXEC",)], timeout_s=timeout_s))
        # whether it was this one or another's that came first, the next look says
