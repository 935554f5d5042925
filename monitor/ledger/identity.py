"""Which ledger this is: its name, drawn at random once, and how many partitions it was made with."""

from __future__ import annotations

import secrets

from monitor.errors import ConfigError
from monitor.ledger.connection import Link, raise_faults
from monitor.ledger.head import FIELDS, Head
from monitor.ledger.keys import PARTITIONS, PartitionKeys, partitions

__all__ = ["identify"]


async def identify(link: Link, count: int) -> str:
    """The name of the ledger; an empty one is given a name and `count` partitions.

    Several processes may ask at once: all get the same answer. Raises LedgerUnavailable (ask again), LedgerBroken, and ConfigError (key
    `ledger.partitions`) when the ledger was made with another number.
    """
    partitions(count)
    first = PARTITIONS[0]
    keys = PartitionKeys.of(first)
    while True:
        wire = await link.open()
        try:
            watched = await wire.exchange([("WATCH", keys.head), ("HMGET", keys.head, *FIELDS)], timeout_s=link.timeout_s)
            raise_faults(watched)
            head = Head.read(watched[1], first)
            if head is None:
                made = Head.first(secrets.token_hex(8), count, first)
                replies = await wire.exchange([("MULTI",), ("HSET", keys.head, *made.fields(first)), ("EXEC",)], timeout_s=link.timeout_s)
                raise_faults(replies)
                continue  # whether it was this one or another's, the next look says
        except BaseException as error:
            link.follow(error)
            raise
        finally:
            wire.close()
        if head.partitions != count:
            raise ConfigError(
                source=str(link.endpoint),
                key="ledger.partitions",
                value=str(count),
                expected=f"{head.partitions}, with which this ledger was made; to change it, import the accounts into an empty one",
            )
        return head.ledger
