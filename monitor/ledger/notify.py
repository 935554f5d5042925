"""Where the alert policy keeps its state and its finished notices: `{p}:notify` and `{p}:notices`, fenced by a token of their own.

What belongs to an account lies in the account's partition, so it goes with it to another process; notices, and what belongs to no
account, lie in the first partition of the process, its home. In one partition a write is one transaction: with a ledger of one partition
everything is. With more, the home is written first: a crash between the two repeats a notice under a new number, and loses none.

A write may be repeated: records are whole, and notices have numbers. A transaction watches the hash that every transaction rewrites, so
bytes that were sent earlier and arrive late are never applied. A removed record stays as an empty value: the daemon's Redis user may not
delete.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from monitor.alerting.requests import Request
from monitor.errors import Fenced, LedgerUnavailable
from monitor.ledger.connection import Command, Link, Wire, raise_faults
from monitor.ledger.keys import PartitionKeys, partition_of
from monitor.ledger.requests import read_requests, take_off

__all__ = ["NotifyRecords"]

T = TypeVar("T")

TOKEN = "token"  # noqa: S105 - the name of a field
CHUNK = 500
"""Records in one HSET."""


class NotifyRecords:
    """The records of one process.

    Args:
        links: By partition, for every partition of this process; the first one is its home.
        count: Partitions of the whole ledger.
    """

    def __init__(self, links: Mapping[int, Link], count: int) -> None:
        self._links, self._count = dict(links), count
        self.home = next(iter(self._links))
        self._wires: dict[int, Wire] = {}
        self._tokens: dict[int, int] = {}

    async def load(self) -> tuple[dict[str, bytes], list[tuple[int, bytes]]]:
        """Takes the fence and reads all records and notices. Raises LedgerUnavailable."""
        records: dict[str, bytes] = {}
        self.close()
        for number in self._links:
            await self._run(number, self._acquire(number))
            wire = self._wires[number]
            pairs = await self._run(number, wire.call("HGETALL", self._key(number), timeout_s=30.0))
            found = {name.decode(): data for name, data in zip(pairs[::2], pairs[1::2], strict=True) if data}
            found.pop(TOKEN, None)
            records |= {name: data for name, data in found.items() if self._place_of(name) == number}
        notices: list[tuple[int, bytes]] = []
        after = "-"
        while True:
            rows = await self._run(
                self.home, self._wires[self.home].call("XRANGE", self._notices, after, "+", "COUNT", CHUNK, timeout_s=30.0)
            )
            notices += [(int(row_id.partition(b"-")[0]), fields[1]) for row_id, fields in rows]
            if len(rows) < CHUNK:
                return records, notices
            after = f"({rows[-1][0].decode()}"

    async def write(self, changes: Mapping[str, bytes | None], notices: Sequence[tuple[int, bytes]] = (), *, keep_from: int = 0) -> None:
        """Stores records and notices, the home's first. Raises LedgerUnavailable; Fenced when another process has loaded since."""
        by_partition: dict[int, list[tuple[str, bytes]]] = {self.home: []} if notices else {}
        for name, data in changes.items():
            by_partition.setdefault(self._place_of(name), []).append((name, data or b""))
        for number in sorted(by_partition, key=lambda each: each != self.home):
            await self._run(number, self._write(number, by_partition[number], notices if number == self.home else ()))
        if keep_from:
            await self._run(self.home, self._wires[self.home].call("XTRIM", self._notices, "MINID", f"{keep_from}-0", timeout_s=30.0))

    async def bury(self, notice_id: str, cause: str, raw: bytes) -> None:
        """A dead letter. Raises LedgerUnavailable."""
        wire = await self._wire(self.home)
        command: Command = ("XADD", PartitionKeys.of(self.home).dead, "*", "source", "notice", "cause", cause, "raw", raw, "id", notice_id)
        await self._run(self.home, wire.call(*command, timeout_s=self._links[self.home].timeout_s))

    async def requests(self) -> list[Request]:
        """What people ask of the policy. Raises LedgerUnavailable."""
        return await self._run(self.home, read_requests(await self._wire(self.home), self.home))

    async def take_off(self, request: Request) -> None:
        """Forgets a request whose effect is stored. Raises LedgerUnavailable."""
        await self._run(self.home, take_off(await self._wire(self.home), self.home, request.place))

    def close(self) -> None:
        """Drops the connections; the next use makes new ones."""
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    async def _acquire(self, number: int) -> None:
        """A new token, higher than any before. From then on no transaction that anybody sent earlier can be applied."""
        wire = await self._wire(number)
        timeout_s = self._links[number].timeout_s
        while True:
            replies = await wire.exchange([("WATCH", self._key(number)), ("HGET", self._key(number), TOKEN)], timeout_s=timeout_s)
            raise_faults(replies)
            token = max(int(replies[1] or b"0") + 1, int(time.time() * 1000))
            replies = await wire.exchange([("MULTI",), ("HSET", self._key(number), TOKEN, token), ("EXEC",)], timeout_s=timeout_s)
            raise_faults(replies)
            if replies[-1] is not None:
                self._tokens[number] = token
                return

    async def _write(self, number: int, records: Sequence[tuple[str, bytes]], notices: Sequence[tuple[int, bytes]]) -> None:
        key, timeout_s = self._key(number), max(self._links[number].timeout_s, 10.0)
        token = self._tokens.get(number)
        if token is None:
            raise Fenced(f"{key}: load first")
        wire = await self._wire(number)
        watched: list[Command] = [("WATCH", key), ("HGET", key, TOKEN)]
        if notices:
            watched.append(("XREVRANGE", self._notices, "+", "-", "COUNT", 1))
        replies = await wire.exchange(watched, timeout_s=timeout_s)
        raise_faults(replies)
        if int(replies[1] or b"0") != token:
            raise Fenced(f"{key}: another process has taken over")
        last = int(replies[2][0][0].partition(b"-")[0]) if notices and replies[2] else 0
        commands: list[Command] = [("MULTI",), ("HSET", key, TOKEN, token)]
        pieces = (records[start : start + CHUNK] for start in range(0, len(records), CHUNK))
        commands += [("HSET", key, *(part for record in piece for part in record)) for piece in pieces]
        commands += [("XADD", self._notices, f"{each}-0", "n", raw) for each, raw in notices if each > last]
        commands.append(("EXEC",))
        replies = await wire.exchange(commands, timeout_s=timeout_s)
        raise_faults(replies)
        if replies[-1] is None:
            raise LedgerUnavailable(f"{key}: changed while it was written")
        raise_faults(replies[-1])

    async def _wire(self, number: int) -> Wire:
        wire = self._wires.get(number)
        if wire is None or wire.closed:
            wire = self._wires[number] = await self._links[number].open()
        return wire

    async def _run(self, number: int, work: Awaitable[T]) -> T:
        try:
            return await work
        except LedgerUnavailable as error:
            self._links[number].follow(error)
            if (wire := self._wires.pop(number, None)) is not None:
                wire.close()
            raise

    def _key(self, number: int) -> str:
        return PartitionKeys.of(number).notify

    @property
    def _notices(self) -> str:
        return PartitionKeys.of(self.home).notices

    def _place_of(self, name: str) -> int:
        """The partition that a record lies in."""
        kind, _, rest = name.partition(":")
        number = self.home
        if kind == "place":
            number = int(rest)
        elif kind == "subject" and not rest.startswith("/"):
            number = partition_of(rest.partition("/")[0], self._count)
        return number if number in self._links else self.home
