"""What people ask of a running alert policy: `{p}:requests`, written by commands, taken by the process that decides.

A request lies in every partition, since a command does not know which process decides what; a process takes those of its home. It is taken
off after its effect is stored, so a crash between the two has it done twice, which changes nothing: a silence has an id, and what was
acknowledged stays so.
"""

from __future__ import annotations

from monitor.alerting.policy import Silence
from monitor.alerting.requests import Request
from monitor.ledger.connection import Wire, raise_faults
from monitor.ledger.keys import PartitionKeys, partitions

__all__ = ["MOST_REQUESTS", "ask", "read_requests", "stored_silences", "take_off"]

MOST_REQUESTS = 1_000
"""A stream keeps no more: where no policy runs, nobody takes them."""


async def ask(wire: Wire, count: int, kind: str, data: bytes, *, timeout_s: float = 5.0) -> None:
    """Puts a request to every process of a ledger of `count` partitions. Raises LedgerUnavailable: ask again, twice is no harm."""
    for number in partitions(count):
        key = PartitionKeys.of(number).requests
        raise_faults([await wire.call("XADD", key, "MAXLEN", "~", MOST_REQUESTS, "*", "kind", kind, "data", data, timeout_s=timeout_s)])


async def read_requests(wire: Wire, partition: int, *, timeout_s: float = 5.0) -> list[Request]:
    """What is asked and not yet taken off, oldest first. Raises LedgerUnavailable."""
    entries = await wire.call("XRANGE", PartitionKeys.of(partition).requests, "-", "+", "COUNT", 100, timeout_s=timeout_s)
    found = []
    for place, pairs in entries:
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        found.append(Request(place.decode(), fields.get(b"kind", b"").decode(errors="replace"), fields.get(b"data", b"")))
    return found


async def take_off(wire: Wire, partition: int, place: str, *, timeout_s: float = 5.0) -> None:
    """Forgets a request and those before it. Raises LedgerUnavailable."""
    left, _, right = place.partition("-")
    await wire.call("XTRIM", PartitionKeys.of(partition).requests, "MINID", f"{left}-{int(right) + 1}", timeout_s=timeout_s)


async def stored_silences(wire: Wire, count: int) -> list[Silence]:
    """Silences as the running policy has stored them, also those that are over. Raises LedgerUnavailable."""
    found = []
    for number in partitions(count):
        cursor = b"0"
        while True:
            cursor, pairs = await wire.call(
                "HSCAN", PartitionKeys.of(number).notify, cursor, "MATCH", "silence:*", "COUNT", 5000, timeout_s=10.0
            )
            found += [Silence.of_json(data) for data in pairs[1::2] if data]
            if cursor == b"0":
                break
    return found
