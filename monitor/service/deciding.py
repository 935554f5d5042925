"""What a tick message, a document or a missing stretch does to the accounts held here: one at a time, in the order in which they came.

Nothing here reads or sleeps; what is decided is handed to the ledger's queue before the next thing is taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from monitor.engine.evaluator import Crossing, Evaluator
from monitor.engine.terms import Verdict
from monitor.errors import CodecError, RefusedError
from monitor.ledger.cache import TickCursor, TickGap, TickMessage
from monitor.ledger.changes import Blind, Change, DocumentChange, TicksRead, UpdatesRead
from monitor.ledger.committer import Committer
from monitor.ledger.keys import partition_of
from monitor.ledger.updates import Order, Update, UpdateGuard, order_of, poisoned, unread
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
from monitor.wire.suspicion import SuspicionWatch

__all__ = ["Decider", "EvaluatorStatistics", "after"]

Array = npt.NDArray[Any]

BURST = 250
"""Of a message that changes many levels, so many are handed over before the ledger gets a turn: it writes them meanwhile."""

AFTER = 2**31 - 1
"""Index of what is decided between two messages: after every tick of the earlier one."""


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


class Decider:
    """The accounts of some partitions, their prices and levels.

    Attributes:
        stale: Prices that must not be used, and when that was told. holds: accounts that are unknown until a new document comes, and why.
        watch: Compares the prices of all venues.
        wanted: Prices that the accounts need. It only grows: what is not held any more is still read until the next start.
    """

    def __init__(
        self,
        committers: Mapping[int, Committer],
        *,
        partitions: int,
        book: AccountBook,
        facts: Facts,
        thresholds: Thresholds,
        unknown_after_s: float,
        silent_after_s: Callable[[str], float] = lambda _venue: float("inf"),
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.committers = committers
        self.book = book
        self.store = PriceStore()
        self.watch = SuspicionWatch()
        self.engine = Evaluator(thresholds, exact=self._exact, keep_sources=False)
        self.statistics = EvaluatorStatistics()
        self.stale: dict[tuple[str, PriceKind, str], int] = {}
        self.holds: dict[str, str] = {}
        self.wanted: set[tuple[str, PriceKind, str]] = set()
        self.observer = Observer(
            committers,
            partitions,
            self.engine,
            book,
            self.store,
            facts,
            thresholds,
            watch=self.watch,
            unknown_after_s=unknown_after_s,
            clock=clock,
            wall_ns=wall_ns,
        )
        self._partitions = partitions
        self._clock, self._wall_ns = clock, wall_ns
        self._silent_after_s = silent_after_s
        self._heard: dict[str, float] = {}
        self._guards = {number: UpdateGuard(committer) for number, committer in committers.items()}

    async def take(self, item: TickMessage | TickGap | Update) -> None:
        """Decides what one item brings and hands it to the ledger's queue."""
        if isinstance(item, TickMessage):
            await self._take_message(item)
        elif isinstance(item, Update):
            await self._take_update(item)
        else:
            self.statistics.gaps += 1
            start, end = _place(item.start), None if item.end is None else _place(item.end)
            log.warning("ticks_missing", reason=item.reason, start=str(start), end=str(end))
            for number in self.committers:
                await self.observer.put(number, [Blind(start, end, item.reason)])

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
            self._heard[batch.venue] = started
            if batch.kind is PriceKind.STALE:
                crossings, names = self._apply_stale(batch), batch.names
            else:
                columns = self._columns_of(batch)
                crossings, names = self.engine.apply(columns, np.array(batch.prices, np.float64)), batch.names
                for key in [key for key in self.stale if key[0] == batch.venue and key[1] is batch.kind] if self.stale else ():
                    if key[2] in names:
                        del self.stale[key]
            taken = 0
            moment = self.store.moment(batch) if len(crossings) > NUMBERS_AT_ONCE and batch.kind is not PriceKind.STALE else None
            tick, place, cause = -1, TickPosition(message.epoch, message.n, 0), {}
            for count, crossing in enumerate(crossings, 1):
                if crossing.tick != tick:
                    tick = crossing.tick
                    if batch.kind is not PriceKind.STALE and tick >= taken:
                        self.store.take(batch, taken, tick + 1)
                        taken = tick + 1
                    place, cause = TickPosition(message.epoch, message.n, tick), self._cause(batch, tick)
                await self.observer.observe([crossing], place, cause, received_at_ns=batch.received_at_ns, moment=moment)
                if count % BURST == 0:
                    await asyncio.sleep(0)
            if batch.kind is not PriceKind.STALE:
                self.store.take(batch, taken)
                self.watch.take(batch)
            statistics.ticks += len(names)
        statistics.messages += 1
        statistics.position = TickCursor(message.id, message.epoch, message.n)
        statistics.evaluate.observe(self._clock() - started)
        for number in self.committers:
            await self.observer.put(number, [TicksRead(message.id, message.epoch, message.n)])

    async def tell_silent(self, reading_since: float) -> None:
        """Takes all prices of a venue away that nothing has been heard of for too long: the process that reads it is gone, or cut off.

        Single names are told stale by the feeds, on the stream; this is for when nobody is there to tell. `reading_since`: monotonic time
        since when the stream can be read: what could not be heard is no silence.
        """
        now = self._clock()
        for venue in self.store.venues():
            quiet = now - max(self._heard.get(venue, float("-inf")), reading_since)
            if quiet < self._silent_after_s(venue):
                continue
            log.error("venue_silent", venue=venue, quiet_s=round(quiet, 1), remedy="is its feeds stage running, and the venue configured?")
            names = [f"{kind.value}:{name}" for kind, name in self.store.names(venue)]
            batch = PriceBatch(
                venue=venue,
                kind=PriceKind.STALE,
                names=names,
                prices=[1.0] * len(names),
                venue_times_ms=[0] * len(names),
                received_at_ns=self._wall_ns(),
            )
            for crossing in self._apply_stale(batch):
                await self.observer.observe([crossing], self.now_place(), self._cause(batch, crossing.tick))

    def _cause(self, batch: PriceBatch, tick: int) -> dict[str, Any]:
        if batch.kind is PriceKind.STALE:
            return {"kind": "stale", "instrument": batch.names[tick].partition(":")[2], "received_at_ns": batch.received_at_ns}
        return tick_cause(
            batch.kind,
            batch.names[tick],
            batch.prices[tick],
            batch.venue_times_ms[tick],
            batch.received_at_ns,
            self.watch.look(batch, tick),
        )

    def price_only(self, batch: PriceBatch) -> None:
        """Prices from before the cursor: nothing to decide by them."""
        if batch.kind is PriceKind.STALE:
            self._apply_stale(batch)
            return
        self.store.take(batch)
        self.watch.take(batch)
        self.engine.run(self._columns_of(batch), np.array(batch.prices))

    def _columns_of(self, batch: PriceBatch) -> Array:
        """Where the engine keeps the numbers of a batch: all of them, so that an account that comes later has its prices at once."""
        columns = self.engine.columns_of(batch.venue, batch.kind, batch.names)
        if columns.min(initial=0) < 0:  # names that are new
            for name in batch.names:
                self.engine.column(batch.venue, batch.kind, name)
            columns = self.engine.columns_of(batch.venue, batch.kind, batch.names)
        return columns

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
            await self.observer.put(number, unread(update))
            return
        account: str | None = None
        try:
            if update.data is None:
                raise RefusedError("", "(nothing)", "a field u with a document")
            held = self.book.parse(update.data, self.now())
            document = held.document
            account = document.account_id
            if self.partition_of(account) != number:
                raise RefusedError("/account/id", account, "an account of this partition")
        except RefusedError as error:
            await self._poison(update, str(error), account or error.account_id)
            return
        assert document.sequence is not None
        data = update.data if document.account is not None else None
        match order_of(committer.version(account), document.epoch, document.sequence, data):
            case Order.OLDER | Order.SAME as order:
                self.statistics.drop(order.value)
                await self.observer.put(number, [UpdatesRead(update.id)])
                return
            case Order.CONFLICT:
                text = f"epoch {document.epoch}, sequence {document.sequence} came before with another content"
                await self._poison(update, text, account)
                return
        self.statistics.applied += 1
        changes: list[Change] = [DocumentChange(account, document.epoch, document.sequence, data)]
        place = self.now_place()
        cause = document_cause(document.epoch, document.sequence, self._wall_ns())
        self.holds.pop(account, None)
        if data is None:
            names = list(self.book.held(account, self.now()).pools) if account in self.book else []
            self.engine.remove(account)
            self.book.remove(account)
            changes += [
                self.observer.closing(account, name, place, cause)
                for name in names
                if committer.verdict(account, name) != (Level.HEALTHY, None)
            ]
            await self.observer.put(number, [*changes, UpdatesRead(update.id)])
            return
        self.book.keep(data, held)
        self.want(held.pools.values())
        await self.observer.put(number, changes)
        await self.observer.observe(self.engine.put(account, list(held.pools.values())), place, cause)
        for name in held.pools:
            level, unknown = self.engine.verdict(account, name)
            committed = committer.verdict(account, name)
            if unknown is None and committed != (level, None):
                await self.observer.put(number, [self.observer.observation(account, name, level, None, place, cause)])
        await self.observer.put(number, [UpdatesRead(update.id)])

    async def _poison(self, update: Update, reason: str, account: str | None) -> None:
        """An update that cannot be used: its account is unknown until a valid one comes; its neighbours do not notice."""
        number = update.partition
        self.statistics.drop("refused")
        log.error("update_refused", id=update.id, account=account, error=reason)
        known = account is not None and account in self.book
        if known:
            assert account is not None
            self.holds[account] = reason
            place = self.now_place()
            cause = {"kind": "refused", "update": update.id}
            observations = [
                self.observer.observation(account, name, level, f"update refused: {reason}"[:300], place, cause)
                for name, (level, _) in self.engine.verdicts(account).items()
            ]
            self.engine.remove(account)
            await self.observer.put(number, observations)
        await self.observer.put(number, poisoned(update, reason, account if known else None))

    def want(self, pools: Iterable[MarginPool]) -> None:
        """Adds the prices that these pools need."""
        for pool in pools:
            self.wanted.update(price_inputs(pool))

    def partition_of(self, account: str) -> int:
        """The partition of an account."""
        return partition_of(account, self._partitions)

    def now_place(self) -> TickPosition:
        """Behind the last message that was decided."""
        return after(self.statistics.position)

    def now(self) -> datetime:
        """Wall time, for what depends on the date."""
        return datetime.fromtimestamp(self._wall_ns() / 1e9, UTC)

    def _exact(self, account: str, pool: str, source: object, prices: Prices) -> Verdict:
        """Settles a tie for the engine, which keeps only the pools that it always asks about."""
        now = self.now()
        if source is None:
            source = self.book.held(account, now).pools[pool]
        assert isinstance(source, MarginPool)
        worked = margins(source, prices, now)
        if worked.unknown is not None:
            return worked.unknown
        equity, requirement = worked.equity, worked.requirement
        assert isinstance(equity, Decimal) and isinstance(requirement, Decimal)
        return equity, requirement


def after(cursor: TickCursor) -> TickPosition:
    """Behind this message and before the next."""
    return TickPosition(cursor.epoch, cursor.n, AFTER)


def _place(cursor: TickCursor) -> TickPosition:
    return TickPosition(cursor.epoch, cursor.n, 0)
