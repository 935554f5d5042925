"""How an evaluator starts: the accounts, levels and prices of its partitions as they stand in Redis, then what was missed since.

Prices come first; plain accounts (`plain_loading`) go into the engine's columns and are evaluated in one pass over them; the few others are
read in full and evaluated one by one.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from monitor.errors import CodecError, RefusedError
from monitor.ledger.cache import StoredPrice, TickCursor, TickMessage, TicksReader, read_marks
from monitor.ledger.changes import Hold
from monitor.ledger.connection import Link
from monitor.ledger.head import Head
from monitor.ledger.updates import Update, UpdatesReader
from monitor.margin.accounts import VENUES
from monitor.margin.levels import Level
from monitor.margin.prices import PriceKind
from monitor.service.deciding import Decider, after
from monitor.service.logs import log
from monitor.service.observing import NUMBERS_AT_ONCE
from monitor.service.plain_loading import PlainLoading
from monitor.service.price_store import Moment
from monitor.wire.events import TickPosition
from monitor.wire.prices import PriceBatch, decode_batch

__all__ = ["Loader", "Loading"]

BACK_S = 60
"""How far back of the cursor prices are read, without deciding, when a partition is taken over."""

CAUSE = {"kind": "start"}

COLLECTOR = (10_000, 20, 1_000_000)
"""When Python looks for cycles, in objects made and kept (https://docs.python.org/3.11/library/gc.html#gc.set_threshold). The last one is
never reached: it counts what a start has set aside as nothing, and so all the rest was looked through several times in a burst, 0.2 s each.
The daemon does that now and then (`COLLECT_S` in `wiring`)."""

Account = tuple[str, bytes | None, str | None]
"""Id, document and reason of a hold, as the ledger has them."""


class Loading(Protocol):
    """Told how a long load goes on."""

    def __call__(self, _what: str, _done: int, _total: int, /) -> None:
        """`done` of `total` of something."""


class Loader:
    """Fills a decider from Redis, once."""

    def __init__(self, decider: Decider, *, ledger_link: Callable[[], Link], cache_link: Callable[[], Link], on_loading: Loading) -> None:
        self._decider = decider
        self._ledger_link, self._cache_link = ledger_link, cache_link
        self._on_loading = on_loading

    async def load(self, heads: Mapping[int, Head]) -> tuple[TicksReader, UpdatesReader]:
        """Returns the readers behind what was taken in. `heads`: by partition, the head as it was before this process took it."""
        with _collector_resting():
            start = min((_cursor_of(head) for head in heads.values()), key=_cursor_order)
            expected = sum(head.accounts for head in heads.values())
            plain = PlainLoading(self._decider.engine, self._decider.book, self._decider.now(), expected)
            ticks = TicksReader(self._cache_link(), start)
            if start.epoch or not (await ticks.newest()).epoch:
                await self._read_back(start)  # else the log of ticks is read from its beginning, and the last prices are those of its end
            others = await self._read_accounts(heads, plain)
            self._decider.engine.settle_all()
            await self._tell_plain(plain, heads)
            await self._take_others(others, heads)
            updates = UpdatesReader(self._ledger_link(), {number: heads[number].updates for number in self._decider.committers})
            await self._catch_up(ticks, updates)
        return ticks, updates

    async def _read_accounts(self, heads: Mapping[int, Head], plain: PlainLoading) -> dict[int, dict[str, Account]]:
        """Reads every partition; plain accounts go into the engine at once. Returns the others."""
        total, done = sum(head.accounts for head in heads.values()), 0
        others: dict[int, dict[str, Account]] = {}
        for number, committer in self._decider.committers.items():
            rest = others[number] = {}

            def take(account: str, data: bytes | None, hold: str | None, rest: dict[str, Account] = rest) -> None:
                rest[account] = (account, data, hold)

            def progress(read: int, before: int = done) -> None:
                self._on_loading("accounts", min(before + read, total), total)

            loaded = await committer.partition.load(take, plain.take, progress)
            done += loaded.accounts
            if loaded.from_documents and loaded.accounts:
                log.info("documents_packed", partition=number, accounts=loaded.accounts)
            if loaded.complaint is not None:
                log.error("ledger_damaged", complaint=loaded.complaint, accounts=len(loaded.damaged_accounts))
                self._decider.statistics.mismatches += max(1, len(loaded.damaged_accounts))
        plain.load()
        self._decider.wanted |= plain.wanted
        for number, committer in self._decider.committers.items():
            state, rest = committer.partition.state, others[number]
            assert state is not None
            for name, record in state.levels.items():
                account, _, pool = name.partition("/")
                if record.level is not Level.HEALTHY and account not in rest:
                    plain.start_from(account, pool, record.level)
        return others

    async def _tell_plain(self, plain: PlainLoading, heads: Mapping[int, Head]) -> None:
        """Observes the plain accounts whose verdict at the present prices is not the committed one."""
        observer, committers = self._decider.observer, self._decider.committers
        places = {number: after(_cursor_of(head)) for number, head in heads.items()}
        crossings = [*plain.crossings()]
        moments: dict[str, Moment] = {}
        for crossing in crossings:
            venue, _ = self._decider.book.venue_and_group(crossing.account)
            if len(crossings) > NUMBERS_AT_ONCE and venue not in moments:
                moments[venue] = self._decider.store.moment(_nothing(venue))
            place = places[self._decider.partition_of(crossing.account)]
            await observer.observe([crossing], place, CAUSE, moment=moments.get(venue))
        for number, committer in committers.items():
            state = committer.partition.state
            assert state is not None
            for name in [name for name, record in state.levels.items() if record.unknown is not None]:
                account, _, pool = name.partition("/")
                if pool in self._decider.engine.verdicts(account):
                    await self._known_again(number, account, pool, places[number])

    async def _known_again(self, number: int, account: str, pool: str, at: TickPosition) -> None:
        """Tells that a pool is known, which the ledger has as unknown."""
        decider = self._decider
        level, unknown = decider.engine.verdict(account, pool)
        if unknown is None and decider.committers[number].verdict(account, pool)[1] is not None:
            await decider.observer.put(number, [decider.observer.observation(account, pool, level, None, at, CAUSE)])

    async def _take_others(self, others: Mapping[int, Mapping[str, Account]], heads: Mapping[int, Head]) -> None:
        done, total = 0, sum(len(rest) for rest in others.values())
        for number, rest in others.items():
            at = after(_cursor_of(heads[number]))
            for account, data, hold in rest.values():
                await self._take_loaded(number, account, data, hold, at)
                done += 1
                if done % 1000 == 0:
                    self._on_loading("accounts read in full", done, total)
                    await asyncio.sleep(0)

    async def _read_back(self, start: TickCursor) -> None:
        """Prices as they stood at the cursor: from the stream's last minute before it, else the last ones kept."""
        wire = await self._cache_link().open()
        try:
            entries: Sequence[Any] = []
            if start.epoch:
                first = max(0, int(start.id.partition("-")[0]) - BACK_S * 1000)
                entries = await wire.call("XRANGE", "ticks", str(first), start.id, timeout_s=30.0)
        finally:
            wire.close()
        for _, pairs in entries:
            fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
            try:
                batch = decode_batch(fields[b"b"])
            except (CodecError, KeyError):
                continue
            self._decider.price_only(batch)
        for venue in VENUES:
            absent: dict[PriceKind, dict[str, StoredPrice]] = {}
            for name, stored in (await read_marks(self._cache_link(), venue)).items():
                kind_word, _, instrument = name.partition(":")
                kind = PriceKind(kind_word)
                if kind is not PriceKind.STALE and self._decider.store.price(venue, kind, instrument) is None:
                    absent.setdefault(kind, {})[instrument] = stored
            for kind, prices in absent.items():
                self._decider.price_only(
                    PriceBatch(
                        venue=venue,
                        kind=kind,
                        names=list(prices),
                        prices=[stored.price for stored in prices.values()],
                        venue_times_ms=[stored.venue_time_ms for stored in prices.values()],
                        received_at_ns=max(stored.received_at_ns for stored in prices.values()),
                    )
                )

    async def _take_loaded(self, number: int, account: str, data: bytes | None, hold: str | None, at: TickPosition) -> None:
        """One account of the ledger, with the levels that stand there."""
        decider = self._decider
        committer = decider.committers[number]
        if hold is not None:
            decider.holds[account] = hold
        if data is None:
            return
        try:
            held = decider.book.parse(data, decider.now(), stored=True)
        except RefusedError as error:
            # Valid when it was stored: the tables or the rules have changed. Its neighbours go on.
            log.error("account_unreadable", account=account, error=str(error))
            await decider.observer.put(number, [Hold(account, str(error))])
            return
        decider.book.keep(data, held)
        decider.want(held.pools.values())
        levels = {name: committer.verdict(account, name)[0] for name in held.pools}
        if hold is None:
            found = decider.engine.put(account, list(held.pools.values()), levels)
            await decider.observer.observe(found, at, CAUSE)
            for name in held.pools:
                await self._known_again(number, account, name, at)

    async def _catch_up(self, ticks: TicksReader, documents: UpdatesReader) -> None:
        """What happened while nobody was here: ticks and documents merged by their stream's time.

        The first message behind the cursor comes before any document: it is the only one that can be half committed.
        """
        end = await ticks.newest()
        updates: list[Update] = []
        while True:
            more = await documents.read()
            updates += more
            if not more:
                break
        updates.sort(key=lambda update: _stream_ms(update.id))
        waiting = iter(updates)
        following = next(waiting, None)
        first = True
        while _cursor_order(ticks.cursor) < _cursor_order(end):
            items = await ticks.read(block_ms=0)
            if not items:
                break
            for item in items:
                while (
                    not first
                    and following is not None
                    and isinstance(item, TickMessage)
                    and _stream_ms(following.id) <= _stream_ms(item.id)
                ):
                    await self._decider.take(following)
                    following = next(waiting, None)
                await self._decider.take(item)
                first = first and not isinstance(item, TickMessage)
            self._on_loading("messages", self._decider.statistics.messages, self._decider.statistics.messages)
        done = 0
        while following is not None:
            await self._decider.take(following)
            following = next(waiting, None)
            done += 1
            if done % 500 == 0:
                self._on_loading("documents", done, len(updates))
                await asyncio.sleep(0)


@contextmanager
def _collector_resting() -> Iterator[None]:
    """Python's search for cycles is off while very many objects are made, and leaves them out afterwards: they stay, and have none."""
    if gc.get_freeze_count():
        gc.unfreeze()
        gc.collect()
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*COLLECTOR)
        with suppress(AttributeError, OSError):  # glibc keeps what was freed, here 100 MB and more of answers from Redis, until it is asked
            ctypes.CDLL(None).malloc_trim(0)
        if was_on:
            gc.enable()


def _nothing(venue: str) -> PriceBatch:
    """A batch without prices: a moment before it is the present."""
    return PriceBatch(venue=venue, kind=PriceKind.MARK, names=[], prices=[], venue_times_ms=[], received_at_ns=0)


def _cursor_of(head: Head) -> TickCursor:
    return TickCursor(head.ticks, head.tick_e, head.tick_n)


def _cursor_order(cursor: TickCursor) -> tuple[int, int]:
    left, _, right = cursor.id.partition("-")
    return int(left), int(right or 0)


def _stream_ms(stream_id: str) -> int:
    return int(stream_id.partition("-")[0])
