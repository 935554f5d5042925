"""Readings of the rules through the cache: a stream for each partition, written by who evaluates it, read by who alerts.

Every pool that has something to tell is told anew in rounds, each between a begin and an end, and the stream always holds the last whole
round. So a reader needs no cursor: it begins at the beginning, and what was lost (a wiped cache, a writer that died) is made good by
the next round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from monitor.alerting.readings import Item, Mark, PoolReadings, decode_readings, encode_readings
from monitor.errors import LedgerUnavailable
from monitor.ledger.connection import Command, Link, Wire, raise_faults
from monitor.ledger.keys import readings_key

__all__ = ["ReadingsReader", "ReadingsWriter"]

CHUNK = 500


class _Connected:
    """One connection that is made anew after a failure."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._wire: Wire | None = None

    async def _exchange(self, commands: Sequence[Command]) -> list[object]:
        try:
            if self._wire is None or self._wire.closed:
                self._wire = await self._link.open()
            replies = await self._wire.exchange(list(commands), timeout_s=max(self._link.timeout_s, 5.0))
            raise_faults(replies)
        except BaseException:
            self.close()
            raise
        return list(replies)

    def close(self) -> None:
        """Drops the connection; the next use makes a new one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class ReadingsReader(_Connected):
    """Reads the streams of some partitions, from their beginning on."""

    def __init__(self, link: Link, partitions: Sequence[int]) -> None:
        super().__init__(link)
        self._places = dict.fromkeys(partitions, "-")

    def restart(self) -> None:
        """Begins at the beginning again."""
        self._places = dict.fromkeys(self._places, "-")

    async def read(self) -> dict[int, list[Item]]:
        """What is new, by partition; all that is there at the first call. What cannot be read is passed over. Raises LedgerUnavailable."""
        found: dict[int, list[Item]] = {}
        for number in self._places:
            while entries := await self._next(number):
                for entry_id, pairs in entries:
                    self._places[number] = f"({entry_id.decode()}"
                    try:
                        found.setdefault(number, []).extend(decode_readings(pairs[1]))
                    except ValueError:
                        continue
                if len(entries) < CHUNK:
                    break
        return found

    async def _next(self, number: int) -> list[tuple[bytes, list[bytes]]]:
        (entries,) = await self._exchange([("XRANGE", readings_key(number), self._places[number], "+", "COUNT", CHUNK)])
        assert isinstance(entries, list)
        return entries


class ReadingsWriter(_Connected):
    """Writes the streams of the partitions that this process evaluates."""

    def __init__(self, link: Link, partitions: Sequence[int], *, may_send: Callable[[int], bool]) -> None:
        """Prepares a writer. `may_send`: whether this process certainly holds a partition; an old leader keeps quiet."""
        super().__init__(link)
        self._partitions, self._may_send = partitions, may_send
        self._begun: dict[int, bytes] = {}

    async def remembered(self) -> list[PoolReadings]:
        """What the writer before this one told last of each pool; nothing where the cache cannot be had: the rules then begin anew."""
        reader = ReadingsReader(self._link, self._partitions)
        try:
            items = [item for found in (await reader.read()).values() for item in found if isinstance(item, PoolReadings)]
        except LedgerUnavailable:
            return []
        finally:
            reader.close()
        return list({(item.account, item.pool): item for item in items}.values())

    async def tell(self, items: Mapping[int, Sequence[Item]]) -> None:
        """Appends items by partition. At the end of a round, what is older than that round goes. Raises LedgerUnavailable."""
        chosen = {number: each for number, each in items.items() if each}
        if not all(map(self._may_send, chosen)):
            raise LedgerUnavailable("the partition is not certainly held now")
        commands: list[Command] = [("XADD", readings_key(number), "*", "r", encode_readings(each)) for number, each in chosen.items()]
        if not commands:
            return
        for (number, each), entry_id in zip(chosen.items(), await self._exchange(commands), strict=True):
            assert isinstance(entry_id, bytes)
            if Mark.BEGIN in each:
                self._begun[number] = entry_id
            if Mark.END in each and number in self._begun:
                await self._exchange([("XTRIM", readings_key(number), "MINID", self._begun[number])])
