"""Stage 2: price batches and account documents in, level changes into the ledger.

One task decides, in the order in which things came: a message of prices goes through the engine tick by tick, a document
replaces its account between two messages. Reading and writing are other tasks; nothing here waits while it decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

import numpy as np
import orjson

from monitor.engine.evaluator import Crossing, Evaluator
from monitor.engine.terms import Verdict
from monitor.errors import CodecError, LedgerUnavailable, RefusedError
from monitor.ledger.cache import TickCursor, TickGap, TickMessage, TicksReader, read_marks
from monitor.ledger.changes import Blind, Change, DocumentChange, Hold, TicksRead, UpdatesRead
from monitor.ledger.committer import Committer
from monitor.ledger.connection import Link
from monitor.ledger.keys import partition_of
from monitor.ledger.updates import Order, Update, UpdateGuard, UpdatesReader, order_of, poisoned, unread
from monitor.margin.accounts import VENUES
from monitor.margin.health import margins
from monitor.margin.levels import Level, Thresholds
from monitor.margin.pools import MarginPool
from monitor.margin.prices import PriceKind, Prices
from monitor.measures import Durations
from monitor.service.account_book import AccountBook
from monitor.service.facts import Facts
from monitor.service.logs import log
from monitor.service.observing import NUMBERS_AT_ONCE, Observer, price_inputs
from monitor.service.price_store import PriceStore
from monitor.wire.event_body import document_cause, tick_cause
from monitor.wire.events import TickPosition
from monitor.wire.prices import PriceBatch, decode_batch

__all__ = ["EvaluatorStage", "EvaluatorStatistics", "Loading"]

AFTER = 2**31 - 1
"""Index of what is decided between two messages: after every tick of the earlier one."""

BACK_S = 60
"""How far back of the cursor prices are read, without deciding, when a partition is taken over."""

SWEEP_S = 0.25
UPDATES_POLL_S = 0.01
PASS_S = 1.0
PASS_SLICE = 500


class Loading(Protocol):
    """Told how a long load goes on."""

    def __call__(self, _what: str, _done: int, _total: int, /) -> None:
        """`done` of `total` of something."""


@dataclass(slots=True)
class EvaluatorStatistics:
    """What the stage did since it started.

    Attributes:
        messages, ticks: Price messages and prices evaluated. position: of the last message.
        gaps: Times that ticks did not join on. damaged: messages that could not be read.
        applied: Documents applied. dropped: documents not applied, by reason.
        evaluate: Time of one message, all accounts. pass_s: duration of the engine's last whole background pass.
        mismatches: Records of the ledger that were not what had been written, found when it was loaded.
        progress_at: Monotonic time at which the streams were last looked at.
    """

    messages: int = 0
    ticks: int = 0
    position: TickCursor = field(default_factory=lambda: TickCursor("0-0", 0, 0))
    gaps: int = 0
    damaged: int = 0
    applied: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    evaluate: Durations = field(default_factory=Durations)
    pass_s: float = 0.0
    mismatches: int = 0
    progress_at: float = 0.0

    def drop(self, reason: str) -> None:
        """Counts a document that is not applied."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


class EvaluatorStage:
    """The accounts of some partitions, held in memory and kept up to date. `load`, then `run` until cancelled."""

    def __init__(
        self,
        committers: dict[int, Committer],
        *,
        partitions: int,
        ledger_link: Callable[[], Link],
        cache_link: Callable[[], Link],
        book: AccountBook,
        facts: Facts,
        thresholds: Thresholds,
        unknown_after_s: float,
        on_loading: Loading = lambda _what, _done, _total: None,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        doze: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.committers = committers
        self.book = book
        self.store = PriceStore()
        self.engine = Evaluator(thresholds, exact=self._exact)
        self.statistics = EvaluatorStatistics()
        self.ready = asyncio.Event()
        self.stale: dict[tuple[str, PriceKind, str], int] = {}
        self.holds: dict[str, str] = {}
        self.observer = self._observer = Observer(
            committers,
            partitions,
            self.engine,
            book,
            self.store,
            facts,
            thresholds,
            unknown_after_s=unknown_after_s,
            clock=clock,
            wall_ns=wall_ns,
        )
        self._partitions = partitions
        self._ledger_link, self._cache_link = ledger_link, cache_link
        self._on_loading = on_loading
        self._clock, self._wall_ns, self._doze = clock, wall_ns, doze
        self._inbox: asyncio.Queue[TickMessage | TickGap | Update] = asyncio.Queue(maxsize=64)
        self._guards: dict[int, UpdateGuard] = {}
        self._turn = asyncio.Lock()  # one thing is decided at a time, its observations queued before the next
        self._wanted: set[tuple[str, PriceKind, str]] = set()  # grows: what is not held any more is still read until the next start
        self._wanted_told = 0
        self._ticks: TicksReader

    # ------------------------------------------------------------------ loading

    async def load(self, heads: dict[int, Any]) -> None:
        """Takes in the accounts, levels and prices of the partitions as they stand in Redis, then what was missed since.

        The engine's kernels are compiled by then (`Evaluator.warm_up`). `heads`: by partition, the head as it was before this process
        took it (`Partition.lead`). Sets `ready` at the end.
        """
        documents: dict[int, list[tuple[str, bytes | None, str | None]]] = {number: [] for number in self.committers}
        for number, committer in self.committers.items():
            found = documents[number]
            loaded = await committer.partition.load(lambda account, data, hold, found=found: found.append((account, data, hold)))  # type: ignore[misc]
            if loaded.complaint is not None:
                log.error("ledger_damaged", complaint=loaded.complaint, accounts=len(loaded.damaged_accounts))
                self.statistics.mismatches += max(1, len(loaded.damaged_accounts))
        start = min((self._cursor_of(head) for head in heads.values()), key=_cursor_order)
        await self._read_back(start)
        total = sum(len(found) for found in documents.values())
        done = 0
        for number, found in documents.items():
            at = _after(self._cursor_of(heads[number]))
            unique = {account: (data, hold) for account, data, hold in found}
            for account, (data, hold) in unique.items():
                await self._take_loaded(number, account, data, hold, at)
                done += 1
                if done % 1000 == 0:
                    self._on_loading("accounts", done, total)
                    await asyncio.sleep(0)
            found.clear()
        if total:
            self._on_loading("accounts", total, total)
        self._guards = {number: UpdateGuard(committer) for number, committer in self.committers.items()}
        self._ticks = TicksReader(self._cache_link(), start)
        self._updates = UpdatesReader(self._ledger_link(), {number: heads[number].updates for number in self.committers})
        await self._catch_up()
        await self._tell_wanted()
        self.statistics.progress_at = self._clock()
        self.ready.set()

    async def run(self) -> None:
        """Decides until cancelled. After `load`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read_ticks(), name="ticks")
            group.create_task(self._read_updates(), name="updates")
            group.create_task(self._decide(), name="decide")
            group.create_task(self._sweep(), name="sweep")
            group.create_task(self._go_round(), name="pass")
            group.create_task(self._observer.follow(), name="numbers")
            for number in self.committers:
                group.create_task(self._observer.measure(number), name=f"latency:{number}")

    async def drain(self) -> None:
        """After `run` was cancelled: decides what was read already and returns when all of it is committed."""
        while not self._inbox.empty():
            await self._take(self._inbox.get_nowait())
        await self._observer.follow_all()
        for committer in self.committers.values():
            await committer.flush()

    def _cursor_of(self, head: Any) -> TickCursor:
        return TickCursor(head.ticks, head.tick_e, head.tick_n)

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
            self._price_only(batch)
        for venue in VENUES:
            link = self._cache_link()
            kept = await read_marks(link, venue)
            for name, stored in kept.items():
                kind_word, _, instrument = name.partition(":")
                kind = PriceKind(kind_word)
                if kind is not PriceKind.STALE and self.store.price(venue, kind, instrument) is None:
                    self._price_only(
                        PriceBatch(
                            venue=venue,
                            kind=kind,
                            names=[instrument],
                            prices=[stored.price],
                            venue_times_ms=[stored.venue_time_ms],
                            received_at_ns=stored.received_at_ns,
                        )
                    )

    def _price_only(self, batch: PriceBatch) -> None:
        """Prices before there are accounts: nothing to decide."""
        if batch.kind is PriceKind.STALE:
            self._apply_stale(batch)
            return
        self.store.take(batch)
        columns = np.array([self.engine.column(batch.venue, batch.kind, name) for name in batch.names], np.int32)
        self.engine.apply(columns, np.array(batch.prices))

    async def _take_loaded(self, number: int, account: str, data: bytes | None, hold: str | None, at: TickPosition) -> None:
        """One account of the ledger, with the levels that stand there."""
        committer = self.committers[number]
        if hold is not None:
            self.holds[account] = hold
        if data is None:
            return
        cause = {"kind": "start"}
        try:
            held = self.book.parse(data, self._now(), stored=True)
        except RefusedError as error:
            # Valid when it was stored: the tables or the rules have changed. Its neighbours go on.
            log.error("account_unreadable", account=account, error=str(error))
            await self._observer.put(number, [Hold(account, str(error))])
            return
        self.book.keep(data, held)
        self._want(held.pools.values())
        levels = {name: committer.verdict(account, name)[0] for name in held.pools}
        if hold is None:
            found = self.engine.put(account, list(held.pools.values()), levels)
            await self._observer.observe(found, at, cause)
            for name in held.pools:
                level, unknown = self.engine.verdict(account, name)
                if unknown is None and committer.verdict(account, name)[1] is not None:
                    await self._observer.put(number, [self._observer.observation(account, name, level, None, at, cause)])

    async def _catch_up(self) -> None:
        """What happened while nobody was here: ticks and documents merged by their stream's time.

        The first message behind the cursor comes before any document: it is the only one that can be half committed.
        """
        end = await self._ticks.newest()
        updates: list[Update] = []
        while True:
            more = await self._updates.read()
            updates += more
            if not more:
                break
        updates.sort(key=lambda update: _stream_ms(update.id))
        waiting = iter(updates)
        following = next(waiting, None)
        first = True
        while _cursor_order(self._ticks.cursor) < _cursor_order(end):
            items = await self._ticks.read(block_ms=0)
            if not items:
                break
            for item in items:
                while (
                    not first
                    and following is not None
                    and isinstance(item, TickMessage)
                    and _stream_ms(following.id) <= _stream_ms(item.id)
                ):
                    await self._take(following)
                    following = next(waiting, None)
                await self._take(item)
                first = first and not isinstance(item, TickMessage)
            self._on_loading("messages", self.statistics.messages, self.statistics.messages)
        done = 0
        while following is not None:
            await self._take(following)
            following = next(waiting, None)
            done += 1
            if done % 500 == 0:
                self._on_loading("documents", done, len(updates))
                await asyncio.sleep(0)

    # ------------------------------------------------------------------ reading

    async def _read_ticks(self) -> None:
        while True:
            try:
                for item in await self._ticks.read():
                    await self._inbox.put(item)
            except LedgerUnavailable as error:
                log.warning("cache_unavailable", error=str(error))
                await self._doze(0.5)
            self.statistics.progress_at = self._clock()

    async def _read_updates(self) -> None:
        while True:
            try:
                updates = await self._updates.read()
            except LedgerUnavailable:
                await self._doze(0.5)
                continue
            for update in updates:
                await self._inbox.put(update)
            if not updates:
                await self._doze(UPDATES_POLL_S)

    # ------------------------------------------------------------------ deciding

    async def _decide(self) -> None:
        while True:
            item = await self._inbox.get()
            async with self._turn:
                await self._take(item)

    async def _take(self, item: TickMessage | TickGap | Update) -> None:
        if isinstance(item, TickMessage):
            await self._take_message(item)
        elif isinstance(item, Update):
            await self._take_update(item)
        else:
            self.statistics.gaps += 1
            start, end = _place(item.start), None if item.end is None else _place(item.end)
            log.warning("ticks_missing", reason=item.reason, start=str(start), end=str(end))
            for number in self.committers:
                await self._observer.put(number, [Blind(start, end, item.reason)])

    async def _take_message(self, message: TickMessage) -> None:
        started = self._clock()
        statistics = self.statistics
        try:
            batch = decode_batch(message.data)
            if len(set(batch.names)) != len(batch.names):
                raise CodecError("ticks", "name_twice", message.data, "each name once in a batch")
        except CodecError as error:
            statistics.damaged += 1
            log.error("message_unreadable", id=message.id, error=str(error))
        else:
            if batch.kind is PriceKind.STALE:
                crossings, names = self._apply_stale(batch), batch.names
            else:
                columns = self.engine.columns_of(batch.venue, batch.kind, batch.names)
                crossings, names = self.engine.apply(columns, np.array(batch.prices, np.float64)), batch.names
                for key in [key for key in self.stale if key[0] == batch.venue and key[1] is batch.kind] if self.stale else ():
                    if key[2] in names:
                        del self.stale[key]
            taken = 0
            moment = self.store.moment(batch) if len(crossings) > NUMBERS_AT_ONCE and batch.kind is not PriceKind.STALE else None
            for index, crossing in enumerate(crossings):
                if batch.kind is not PriceKind.STALE and crossing.tick >= taken:
                    self.store.take(batch, taken, crossing.tick + 1)
                    taken = crossing.tick + 1
                place = TickPosition(message.epoch, message.n, crossing.tick)
                await self._observer.observe(
                    [crossing],
                    place,
                    self._cause(batch, crossing.tick),
                    received_at_ns=batch.received_at_ns,
                    moment=moment if index >= NUMBERS_AT_ONCE else None,
                )
            if batch.kind is not PriceKind.STALE:
                self.store.take(batch, taken)
            statistics.ticks += len(names)
        statistics.messages += 1
        statistics.position = TickCursor(message.id, message.epoch, message.n)
        statistics.evaluate.observe(self._clock() - started)
        for number in self.committers:
            await self._observer.put(number, [TicksRead(message.id, message.epoch, message.n)])

    def _cause(self, batch: PriceBatch, tick: int) -> dict[str, Any]:
        if batch.kind is PriceKind.STALE:
            return {"kind": "stale", "instrument": batch.names[tick].partition(":")[2], "received_at_ns": batch.received_at_ns}
        return tick_cause(batch.kind, batch.names[tick], batch.prices[tick], batch.venue_times_ms[tick], batch.received_at_ns)

    def _apply_stale(self, batch: PriceBatch) -> list[Crossing]:
        """Takes prices that are too old out of the engine, which makes their pools unknown. A new price brings them back by itself."""
        columns = np.full(len(batch.names), -1, np.int32)
        for index, (text, flag) in enumerate(zip(batch.names, batch.prices, strict=True)):
            word, _, name = text.partition(":")
            kind = PriceKind(word)
            if flag:
                self.stale[batch.venue, kind, name] = batch.received_at_ns
                self.store.forget(batch.venue, kind, name)
                (columns[index],) = self.engine.columns_of(batch.venue, kind, [name])
        return self.engine.apply(columns, np.full(len(columns), np.nan))

    async def _take_update(self, update: Update) -> None:
        """One document of the update stream: applied, dropped as not newer, or put away as poisoned."""
        number = update.partition
        committer = self.committers[number]
        if not await self._guards[number].may_read(update):
            self.statistics.drop("killed_the_process")
            await self._observer.put(number, unread(update))
            return
        account: str | None = None
        try:
            if update.data is None:
                raise RefusedError("", "(nothing)", "a field u with a document")
            held = self.book.parse(update.data, self._now())
            document = held.document
            account = document.account_id
            if partition_of(account, self._partitions) != number:
                raise RefusedError("/account/id", account, "an account of this partition")
        except RefusedError as error:
            await self._poison(update, str(error), account or error.account_id)
            return
        assert document.sequence is not None
        data = update.data if document.account is not None else None
        match order_of(committer.version(account), document.epoch, document.sequence, data):
            case Order.OLDER | Order.SAME as order:
                self.statistics.drop(order.value)
                await self._observer.put(number, [UpdatesRead(update.id)])
                return
            case Order.CONFLICT:
                text = f"epoch {document.epoch}, sequence {document.sequence} came before with another content"
                await self._poison(update, text, account)
                return
        self.statistics.applied += 1
        changes: list[Change] = [DocumentChange(account, document.epoch, document.sequence, data)]
        place = self._now_place()
        cause = document_cause(document.epoch, document.sequence, self._wall_ns())
        self.holds.pop(account, None)
        if data is None:
            names = list(self.book.held(account, self._now()).pools) if account in self.book else []
            self.engine.remove(account)
            self.book.remove(account)
            changes += [
                self._observer.closing(account, name, place, cause)
                for name in names
                if committer.verdict(account, name) != (Level.HEALTHY, None)
            ]
            await self._observer.put(number, [*changes, UpdatesRead(update.id)])
            return
        self.book.keep(data, held)
        self._want(held.pools.values())
        await self._observer.put(number, changes)
        await self._observer.observe(self.engine.put(account, list(held.pools.values())), place, cause)
        for name in held.pools:
            level, unknown = self.engine.verdict(account, name)
            committed = committer.verdict(account, name)
            if unknown is None and committed != (level, None):
                await self._observer.put(number, [self._observer.observation(account, name, level, None, place, cause)])
        await self._observer.put(number, [UpdatesRead(update.id)])

    async def _poison(self, update: Update, reason: str, account: str | None) -> None:
        """An update that cannot be used: its account is unknown until a valid one comes; its neighbours do not notice."""
        number = update.partition
        self.statistics.drop("refused")
        log.error("update_refused", id=update.id, account=account, error=reason)
        known = account is not None and account in self.book
        if known:
            assert account is not None
            self.holds[account] = reason
            place = self._now_place()
            cause = {"kind": "refused", "update": update.id}
            observations = [
                self._observer.observation(account, name, level, f"update refused: {reason}"[:300], place, cause)
                for name, (level, _) in self.engine.verdicts(account).items()
            ]
            self.engine.remove(account)
            await self._observer.put(number, observations)
        await self._observer.put(number, poisoned(update, reason, account if known else None))

    # ------------------------------------------------------------------ time

    async def _sweep(self) -> None:
        """Tells what has been unknown for too long, and what the feeds should read."""
        while True:
            async with self._turn:
                await self._observer.tell_unknown(self._now_place())
            await self._tell_wanted()
            await self._doze(SWEEP_S)

    async def _go_round(self) -> None:
        """The engine's background pass: slices between messages, the whole book in about a second."""
        pass_started, passes = self._clock(), 0
        while True:
            started = self._clock()
            async with self._turn:
                found = self.engine.pass_slice(PASS_SLICE)
                await self._observer.observe(found, self._now_place(), {"kind": "pass"})
            counted = self.engine.statistics()
            if counted.passes != passes:
                self.statistics.pass_s, pass_started, passes = self._clock() - pass_started, self._clock(), counted.passes
            slices = max(1, counted.pools // PASS_SLICE)
            await self._doze(max(PASS_S / slices - (self._clock() - started), 0.0))

    async def _tell_wanted(self) -> None:
        """Keeps `wanted:<venue>` in step with the accounts."""
        if len(self._wanted) == self._wanted_told:
            return
        told = len(self._wanted)
        by_venue: dict[str, dict[str, list[str]]] = {}
        for venue, kind, name in sorted(self._wanted):
            by_venue.setdefault(venue, {}).setdefault(kind.value, []).append(name)
        try:
            wire = await self._cache_link().open()
            try:
                for venue, kinds in by_venue.items():
                    await wire.call("SET", f"wanted:{venue}", orjson.dumps(kinds, option=orjson.OPT_SORT_KEYS), timeout_s=5.0)
            finally:
                wire.close()
        except LedgerUnavailable:
            return
        self._wanted_told = told

    def _want(self, pools: Iterable[MarginPool]) -> None:
        for pool in pools:
            self._wanted.update(price_inputs(pool))

    def _now_place(self) -> TickPosition:
        return _after(self.statistics.position)

    def now(self) -> datetime:
        """Wall time, for what depends on the date."""
        return self._now()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall_ns() / 1e9, UTC)

    def _exact(self, _account: str, _pool: str, source: object, prices: Prices) -> Verdict:
        """Settles a tie for the engine."""
        assert isinstance(source, MarginPool)
        worked = margins(source, prices, self._now())
        if worked.unknown is not None:
            return worked.unknown
        equity, requirement = worked.equity, worked.requirement
        assert isinstance(equity, Decimal) and isinstance(requirement, Decimal)
        return equity, requirement


def _after(cursor: TickCursor) -> TickPosition:
    return TickPosition(cursor.epoch, cursor.n, AFTER)


def _place(cursor: TickCursor) -> TickPosition:
    return TickPosition(cursor.epoch, cursor.n, 0)


def _cursor_order(cursor: TickCursor) -> tuple[int, int]:
    left, _, right = cursor.id.partition("-")
    return int(left), int(right or 0)


def _stream_ms(stream_id: str) -> int:
    return int(stream_id.partition("-")[0])
