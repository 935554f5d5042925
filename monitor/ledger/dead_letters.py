"""The dead letters of a partition: what could not be used, for people to look at, to try again, or to drop.

A letter is tried again by the process that would have used it in the first place: an update goes back on the update stream, an event on
the short stream `{p}:again:<sink>`, which its sink's worker reads beside the events. The letter goes in the same transaction, so it is in
one place only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from monitor.errors import RefusedError
from monitor.ledger.connection import Command, Wire, raise_faults
from monitor.ledger.keys import PartitionKeys

__all__ = ["DeadLetter", "drop", "letters", "try_again"]

MOST_AGAIN = 10_000
"""Events of one sink that may wait for another attempt; letters beyond it would be lost unseen."""

SINK = "sink:"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One letter.

    Attributes:
        partition, entry: Where it stands; `name` is both.
        source: `updates`, `sink:<name>` or `notice`.
        cause: Why it could not be used.
        raw: The bytes as they came; empty where they were too many or lie in a file that the cause names.
        id: Of the update, event or notice.
        hash: Of an event: its place in the chain.
    """

    partition: int
    entry: str
    source: str
    cause: str
    raw: bytes
    id: str
    hash: str

    @property
    def name(self) -> str:
        """What the commands call it: partition/entry."""
        return f"{self.partition}/{self.entry}"

    @property
    def milliseconds(self) -> int:
        """When it was buried, by the clock of Redis."""
        return int(self.entry.partition("-")[0])

    @property
    def sink(self) -> str | None:
        """The sink that refused it; None for another source."""
        return self.source.removeprefix(SINK) if self.source.startswith(SINK) else None


async def letters(wire: Wire, partition: int, *, first: str = "-", last: str = "+", timeout_s: float = 10.0) -> list[DeadLetter]:
    """The letters of a partition, oldest first. Raises LedgerUnavailable."""
    entries = await wire.call("XRANGE", PartitionKeys.of(partition).dead, first, last, timeout_s=timeout_s)
    return [_letter(partition, entry, pairs) for entry, pairs in entries]


def _letter(partition: int, entry: bytes, pairs: list[Any]) -> DeadLetter:
    fields = {name.decode(): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)}

    def text(name: str) -> str:
        return str(fields.get(name, b"").decode(errors="backslashreplace"))

    return DeadLetter(partition, entry.decode(), text("source"), text("cause"), fields.get("raw", b""), text("id"), text("hash"))


async def try_again(wire: Wire, letter: DeadLetter, *, timeout_s: float = 10.0) -> None:
    """Puts a letter back where it is used.

    Raises:
        RefusedError: There is nothing that could be tried again, or too much waits for this sink already.
        LedgerUnavailable: The outcome is not known; look at the list before calling again (an event arrives with the same id).
    """
    keys = PartitionKeys.of(letter.partition)
    if not letter.raw or (letter.sink is None and letter.source == "notice"):
        raise RefusedError(letter.name, letter.source, "a refused update or event: this letter has nothing to try again; drop it")
    again: Command
    if letter.sink is None:
        again = ("XADD", keys.updates, "*", "u", letter.raw)
    else:
        stream = keys.again(letter.sink)
        if await wire.call("XLEN", stream, timeout_s=timeout_s) >= MOST_AGAIN:
            raise RefusedError(letter.name, letter.source, f"fewer than {MOST_AGAIN:,} events that wait for this sink already")
        again = ("XADD", stream, "*", "raw", letter.raw, "id", letter.id, "hash", letter.hash)
    replies = await wire.exchange([("MULTI",), again, ("XDEL", keys.dead, letter.entry), ("EXEC",)], timeout_s=timeout_s)
    raise_faults([*replies, *(replies[-1] if isinstance(replies[-1], list) else ())])


async def drop(wire: Wire, letter: DeadLetter, *, timeout_s: float = 10.0) -> bool:
    """Forgets a letter. False when it was gone already."""
    return bool(await wire.call("XDEL", PartitionKeys.of(letter.partition).dead, letter.entry, timeout_s=timeout_s))
