"""Where everything lives in Redis, and which partition an account belongs to.

All keys of a partition carry its number in braces, so they share one slot and the same code runs on Redis Cluster.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from dataclasses import dataclass

from monitor.errors import ConfigError

__all__ = [
    "ACCOUNT_ID",
    "PARTITIONS",
    "TICKS",
    "PartitionKeys",
    "health_key",
    "level_name",
    "marks_key",
    "partition_of",
    "partitions",
    "readings_key",
    "slot",
]

ACCOUNT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}", re.ASCII)
"""What an account may be called: it goes into keys and topics."""

# fmt: off
PARTITIONS = (
    0, 2, 3, 1, 48, 152, 153, 49, 71, 73, 72, 70, 113, 111, 112, 110,
    172, 68, 69, 173, 10, 12, 11, 13, 53, 51, 50, 52, 29, 133, 28, 132,
    8, 123, 122, 9, 40, 42, 43, 41, 79, 163, 162, 78, 342, 119, 343, 118,
    62, 60, 61, 63, 18, 102, 19, 103, 143, 59, 58, 142, 21, 23, 20, 22,
)
# fmt: on
"""Numbers of partitions. A ledger of N partitions has the first N.

Cut the slots into 64 equal ranges; each number is the smallest one whose slot lies in its range. The ranges are taken in bit-reversed order
from that of "0", so the first 2, 4, 8, ... numbers are spread evenly too: over 3 nodes 64 partitions lie 21/22/21, over 8 nodes 8 each.
"""

TICKS = "ticks"
"""The stream of price batches, on the cache."""


def slot(text: str) -> int:
    """The cluster slot of a key without braces: CRC16 (XMODEM) of it, modulo 16,384."""
    return crc_hqx(text.encode(), 0) % 16384


def partitions(count: int) -> tuple[int, ...]:
    """The numbers of the partitions of a ledger. Raises ConfigError unless 1 <= count <= 64."""
    if not 1 <= count <= len(PARTITIONS):
        raise ConfigError(source="ledger", key="partitions", value=str(count), expected=f"1 to {len(PARTITIONS)}")
    return PARTITIONS[:count]


def partition_of(account: str, count: int) -> int:
    """The number of the partition that an account belongs to, in a ledger of `count` partitions."""
    return PARTITIONS[crc_hqx(account.encode(), 0) % count]


def level_name(account: str, pool: str) -> str:
    """The name of a pool's record. An account id has no slash, so the first one parts it."""
    return f"{account}/{pool}"


@dataclass(frozen=True, slots=True)
class PartitionKeys:
    """Names of the keys of one partition."""

    head: str
    accounts: str
    packed: str
    levels: str
    events: str
    updates: str
    dead: str
    sinks: str
    notify: str
    notices: str
    requests: str

    @classmethod
    def of(cls, partition: int) -> PartitionKeys:
        """The keys of the partition with this number."""
        return cls(*(f"{{{partition}}}:{name}" for name in cls.__slots__))

    def again(self, sink: str) -> str:
        """The stream of events that a person wants this sink to be given once more."""
        return f"{self.events.partition(':')[0]}:again:{sink}"


def marks_key(venue: str) -> str:
    """The hash of a venue's last prices, on the cache."""
    return f"marks:{venue}"


def health_key(account: str) -> str:
    """The snapshot of one account's health, on the cache."""
    return f"health:{account}"


def readings_key(partition: int) -> str:
    """The stream of what the alert policy's rules say of the pools of a partition, on the cache."""
    return f"readings:{partition}"
