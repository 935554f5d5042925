"""A daemon in small, as a process of its own that tests may kill: ticks in, rows out, one file as the sink.

Run as `python ledger_rig.py JSON`. A tick says outright which level a pool has, so what must stand in the ledger can be worked out from
the tape alone (`ledger_checker.py`, which shares no code with this or with the ledger). Prints LEADING when it holds the partition, FENCED
when it lost it, DONE when the tape has ended and everything is delivered.

    url, cache     addresses of ledger and cache        lease_s         of the partition
    sink           file that rows are written to        refuse_every    the sink refuses each so many-th row (0: none)
    plant          a fault put in on purpose, that the checker must find: cursor_early, no_place, sink_early
    flush_each     one commit per message, instead of what has gathered
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson

from monitor.errors import Fenced, LedgerUnavailable
from monitor.ledger.cache import TickCursor, TickGap, TickMessage, TicksReader
from monitor.ledger.changes import Blind, Change, DocumentChange, Observation, TicksRead, UpdatesRead
from monitor.ledger.committer import Committer
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.cursors import SinkWorker, register_sink
from monitor.ledger.head import Head
from monitor.ledger.holder import holder_name
from monitor.ledger.identity import identify
from monitor.ledger.partition import Partition
from monitor.ledger.updates import Order, Update, UpdateGuard, UpdatesReader, order_of, poisoned, unread
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from monitor.wire.rows import Delivered, Delivery, Refused, Row

T = TypeVar("T")


class FileSink:
    """Appends the id of each row to a file, as a receiver outside would have it."""

    def __init__(self, path: Path, refuse_every: int, plant: str = "") -> None:
        self._skip = plant == "sink_early"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._refuse_every = refuse_every

    async def deliver(self, row: Row) -> Delivery:
        """Writes, or refuses."""
        if self._refuse_every and row.seq % self._refuse_every == 0:
            return Refused("every so many-th")
        if self._skip:
            asyncio.get_running_loop().call_later(0.05, self._write, row)  # told as delivered before it is
        else:
            self._write(row)
        return Delivered()

    def _write(self, row: Row) -> None:
        os.write(self._file, f"{row.id} {os.getpid()}\n".encode())


def say(text: str) -> None:
    """One line for the parent."""
    print(text, flush=True)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What the ledger answers, however long it is away."""
    while True:
        try:
            return await ask()
        except LedgerUnavailable:
            await asyncio.sleep(0.01)


async def evaluate(partition: Partition, committer: Committer, before: Head, settings: dict[str, Any]) -> None:
    """Reads ticks and updates from the committed cursors on, until the tape says that it ends."""
    number = partition.number
    ticks = TicksReader(Link(Endpoint.parse(settings["cache"])), TickCursor(before.ticks, before.tick_e, before.tick_n))
    updates = UpdatesReader(Link(Endpoint.parse(settings["url"])), {number: before.updates})
    guard = UpdateGuard(committer, first=settings.get("guarded", 50))
    place = TickPosition(before.tick_e, before.tick_n, 0)
    ended = False
    while not ended:
        for update in await patiently(lambda: updates.read(count=50)):
            await take(update, committer, guard)
        for found in await ticks.read(block_ms=20, count=16):
            if isinstance(found, TickGap):
                end = None if found.end is None else TickPosition(found.end.epoch, found.end.n, 0)
                await committer.put([Blind(place, end, found.reason)])
                continue
            changes, ended = decide(found, settings)
            place = TickPosition(found.epoch, found.n, len(changes))
            read = TicksRead(found.id, found.epoch, found.n)
            await committer.put([read, *changes] if settings.get("plant") == "cursor_early" else [*changes, read])
            if settings.get("flush_each"):
                await committer.flush()
    while remaining := await patiently(lambda: updates.read(count=400)):
        for update in remaining:
            await take(update, committer, guard)
    await committer.flush()


def decide(message: TickMessage, settings: dict[str, Any]) -> tuple[list[Change], bool]:
    """Every tick of a message, in order."""
    body = orjson.loads(message.data)
    padding = orjson.dumps({"padding": "x" * settings.get("facts", 100)})
    no_place = settings.get("plant") == "no_place"
    observed: list[Change] = [
        Observation(account, pool, Level(level), None, TickPosition(message.epoch, message.n, 0 if no_place else index), padding)
        for index, (account, pool, level) in enumerate(body["ticks"])
    ]
    return observed, body.get("end", False)


async def take(update: Update, committer: Committer, guard: UpdateGuard) -> None:
    """One account update."""
    if not await guard.may_read(update):
        await committer.put(unread(update))
        return
    data = update.data or b""
    try:
        body = orjson.loads(data)
        account, epoch, sequence = body["account"]["id"], body["epoch"], body["sequence"]
    except (ValueError, KeyError, TypeError):
        await committer.put(poisoned(update, "not a document", None))
        return
    if body.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    order = order_of(committer.version(account), epoch, sequence, data)
    if order is Order.CONFLICT:
        await committer.put(poisoned(update, "two documents of one sequence", account))
    elif order is Order.NEWER:
        await committer.put([DocumentChange(account, epoch, sequence, data), UpdatesRead(update.id)])
    else:
        await committer.put([UpdatesRead(update.id)])


async def serve(settings: dict[str, Any]) -> None:
    """One term as holder."""
    link = Link(Endpoint.parse(settings["url"]), timeout_s=settings.get("timeout_s", 1.0))
    lease_s = settings["lease_s"]
    ledger = await patiently(lambda: identify(link, 1))
    partition = Partition(link, 0, holder=holder_name(), ledger=ledger, partitions=1)
    before = await partition.lead(lease_s)
    committer = Committer(partition, lease_s=lease_s)
    say(f"LEADING {partition.holder}")
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(committer.run())
        loaded = await partition.load(lambda _account, _document, _hold: None)
        if loaded.complaint is not None:
            say(f"COMPLAINT {loaded.complaint}")
        sink = FileSink(Path(settings["sink"]), settings.get("refuse_every", 0), settings.get("plant", ""))
        await patiently(lambda: register_sink(link, 0, "file"))
        worker = SinkWorker(link, 0, "file", sink, may_send=committer.may_send)
        committer.listen(worker.wake)
        delivering = group.create_task(worker.run())
        await evaluate(partition, committer, before, settings)
        while worker.statistics.seq < partition.head.seq:
            await asyncio.sleep(0.005)
        delivering.cancel()
        writing.cancel()
    with contextlib.suppress(LedgerUnavailable):  # then copies are sent, and the lease runs out by itself
        await worker.finish()
        await partition.release()
    statistics = partition.statistics
    say(f"DONE settled_applied={statistics.settled_applied} settled_again={statistics.settled_again} stale={statistics.stale}")


async def main(settings: dict[str, Any]) -> None:
    """Serves until done; stands by again after being deposed."""
    while True:
        try:
            await serve(settings)
            return
        except* Fenced:
            say("FENCED")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(orjson.loads(sys.argv[1])))
