"""The alert policy as a sink: takes every event, decides what people are told, and hands finished notices to the sinks that routes name.

    deliver(row) -> Notifier.observe -> state stored -> delivered
    twice a second -> Notifier.advance -> notices stored with the state -> an outbox a sink -> taken: stored

What was observed and what is to be said is stored before it counts: a restart at any moment loses no notice and makes none twice in the
store; to a sink a notice may go twice with the same id. Rows already observed are known by their place and pass without effect.
A burst is one message: while rows come in without a pause, messages wait for its end, at most `BURST_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import orjson

from monitor.alerting.policy import Firing, Notifier, Silence
from monitor.alerting.readings import Item, Mark
from monitor.alerting.requests import Request, perform
from monitor.alerting.routes import AlertPolicy
from monitor.errors import Fenced, LedgerUnavailable
from monitor.sinks.base import Backoff, Reason, Sink, SinkStatistics, read_body
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable

__all__ = ["NotifyStore", "PolicySink"]

TICK_S = 0.25
"""How often timers are looked at."""
PAUSE_S = 0.25
"""A burst is over when no row came for so long."""
REQUESTS_S = 0.5
"""How often requests of people are looked for."""
BURST_S = 5.0
"""Messages wait no longer than this for the end of a burst."""

KEPT_NOTICES = 1000
"""Notices kept for readers after every sink has them."""
NOT_AN_EVENT = (KeyError, ValueError, TypeError)
OWN_RECORDS = frozenset({"place", "sent"})
BATCH_ROWS = 250
BREATH_S = 0.06
"""After a full batch, in a burst, the sinks that carry every event go first: people's message waits for the end of the burst anyway."""
MOST_RAISES = 5
RAISED = Unavailable(Reason.PROTOCOL, detail="the sink itself failed")

Changes = Mapping[str, bytes | None]


class NotifyStore(Protocol):
    """Where the policy's records and notices live.

    All methods raise LedgerUnavailable, and Fenced when another process has loaded since: that one goes on from what is stored.
    """

    async def load(self) -> tuple[dict[str, bytes], list[tuple[int, bytes]]]:
        """Records by name, and notices by number, oldest first; after making sure that no write of another process can follow."""
        ...

    async def write(self, changes: Changes, notices: Sequence[tuple[int, bytes]] = (), *, keep_from: int = 0) -> None:
        """Stores records, removes those that are None, appends notices, and may forget notices below `keep_from`.

        A repetition of what was stored already, as after a lost answer, does no harm.
        """
        ...

    async def bury(self, notice_id: str, cause: str, raw: bytes) -> None:
        """Puts a notice that a sink refused into the dead letters."""
        ...

    async def requests(self) -> list[Request]:
        """What people ask: silences, acknowledgements."""
        ...

    async def take_off(self, request: Request) -> None:
        """Forgets a request whose effect is stored."""
        ...


class PolicySink:
    """Decides and delivers.

    Args:
        sinks: Opened and closed here; for those that get nothing but notices.
        borrowed: Opened and closed by somebody else; for those that get every event too.
        home: The partition under whose number notices are numbered: `<home>/<number>-0`. An event's token is never 0.
        may_send: False while another process leads: then nothing is decided and nothing is sent.
    """

    def __init__(
        self,
        policy: AlertPolicy,
        store: NotifyStore,
        sinks: Sequence[Sink],
        *,
        borrowed: Sequence[Sink] = (),
        home: int = 0,
        name: str = "policy",
        may_send: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
        uniform: Callable[[float, float], float] = random.uniform,
        tick_s: float = TICK_S,
    ) -> None:
        self.name = name
        self.statistics = SinkStatistics()
        self.batch_rows = BATCH_ROWS
        self.damaged = 0
        self.sinks = {sink.name: sink for sink in (*sinks, *borrowed)}
        self._own = {sink.name for sink in sinks}
        self._home = home
        missing = policy.sinks() - self.sinks.keys()
        assert not missing, f"routes name sinks that are not there: {sorted(missing)}"
        self._policy, self._store, self._may_send, self._clock, self._tick_s = policy, store, may_send, clock, tick_s
        self._uniform = uniform
        self._notifier: Notifier | None = None
        self._terms = 0
        self._places: dict[int, tuple[int, int]] = {}
        self._counter = 0
        self._unsaved: dict[str, bytes | None] = {}
        self._outboxes: dict[str, deque[tuple[int, bytes]]] = {name: deque() for name in self.sinks}
        self._filled = {name: asyncio.Event() for name in self.sinks}
        self._writing = asyncio.Lock()
        self._last_row = self._held_since = self._asked_at = float("-inf")
        self._group: asyncio.TaskGroup | None = None
        self._closing: asyncio.Future[None] | None = None

    @property
    def term(self) -> int:
        """How often the state was loaded, 0 while it is not there: what is not stored has to be said again in each term."""
        return self._terms if self._notifier is not None else 0

    @property
    def has_rules(self) -> bool:
        """Whether somebody has to tell `read` what the rules say."""
        return bool(self._policy.rules)

    @property
    def outstanding(self) -> int:
        """Notices on their way, counted once for each sink that does not have them yet."""
        return sum(map(len, self._outboxes.values()))

    async def open(self) -> None:
        """Opens the sinks and starts the timers; the state is loaded with the first row or tick."""
        assert self._group is None, "open() once"
        self._group = await asyncio.TaskGroup().__aenter__()
        self._closing = asyncio.get_running_loop().create_future()
        self._group.create_task(self._keep_time(self._closing), name=f"{self.name}: timers")
        for name, sink in self.sinks.items():
            self._group.create_task(self._send_all(name, sink, self._closing), name=f"{self.name}: {name}")

    async def close(self) -> None:
        """Stops. What is not sent stays in the store and is sent by the next process."""
        if self._group is None or self._closing is None:
            return
        group, self._group = self._group, None
        if not self._closing.done():
            self._closing.set_result(None)
        for filled in self._filled.values():
            filled.set()
        await group.__aexit__(None, None, None)

    async def deliver(self, row: Row) -> Delivery:
        """Observes a row; delivered when the state that it made is stored."""
        self.statistics.entered()
        try:
            async with self._writing:
                notifier = await self._ready()
                self._observe(notifier, row)
                await self._save(notifier)
        except LedgerUnavailable as error:
            return self.statistics.count(Unavailable(Reason.UNREACHABLE, detail=str(error)))
        except NOT_AN_EVENT as error:
            return self.statistics.count(Refused(Reason.REJECTED, f"not an event: {type(error).__name__}: {error}"))
        finally:
            self.statistics.in_flight -= 1
        return self.statistics.count(Delivered())

    async def deliver_batch(self, rows: Sequence[Row]) -> int:
        """Observes several rows and stores their state in one write: a burst becomes one message. How many, from the first on."""
        count = 0
        try:
            async with self._writing:
                notifier = await self._ready()
                with contextlib.suppress(*NOT_AN_EVENT):
                    for row in rows:
                        self._observe(notifier, row)
                        count += 1
                await self._save(notifier)
        except LedgerUnavailable as error:
            self.statistics.count(Unavailable(Reason.UNREACHABLE, detail=str(error)))
            return 0
        self.statistics.delivered += count
        if len(rows) >= BATCH_ROWS:
            await asyncio.sleep(BREATH_S)
        return count

    def _observe(self, notifier: Notifier, row: Row) -> None:
        """Takes a row unless it was taken before. Raises one of NOT_AN_EVENT, and has then done nothing."""
        body = read_body(row)
        seen = self._places.get(row.partition, (0, 0))
        if row.seq <= seen[0] and row.token <= seen[1]:  # after a lost tail seq begins lower, under a higher token
            return
        self._last_row = asyncio.get_running_loop().time()
        notifier.observe(body, self._now_ms())
        self._places[row.partition] = (row.seq, row.token)
        self._unsaved[f"place:{row.partition}"] = f"{row.seq}-{row.token}".encode()

    async def read(self, items: Sequence[Item], round_name: int = 0, covers: Callable[[str], bool] = lambda _account: True) -> None:
        """Takes what the rules say; stored with the next tick. Nothing before the state is loaded (`term`)."""
        async with self._writing:
            if self._notifier is not None:
                for item in items:
                    if isinstance(item, Mark):
                        self._notifier.mark_round(item, round_name, covers, self._now_ms())
                    else:
                        self._notifier.read(item, self._now_ms())

    async def acknowledge(self, *, account: str, pool: str = "*", about: str = "*") -> int:
        """Somebody has seen it. Returns how many things were acknowledged. Raises LedgerUnavailable."""
        async with self._writing:
            notifier = await self._ready()
            count = notifier.acknowledge(self._now_ms(), account=account, pool=pool, about=about)
            await self._save(notifier)
            return count

    async def silence(self, silence: Silence) -> None:
        """Adds or replaces a silence. Raises LedgerUnavailable."""
        async with self._writing:
            notifier = await self._ready()
            notifier.silence(silence, self._now_ms())
            await self._save(notifier)

    async def unsilence(self, silence_id: str) -> bool:
        """Ends a silence; False when there is none. Raises LedgerUnavailable."""
        async with self._writing:
            notifier = await self._ready()
            was_there = notifier.unsilence(silence_id, self._now_ms())
            await self._save(notifier)
            return was_there

    def firing(self) -> list[Firing]:
        """What stands above healthy; nothing before the state is loaded."""
        return list(self._notifier.firing()) if self._notifier is not None else []

    def silences(self) -> tuple[Silence, ...]:
        """Silences in force."""
        return self._notifier.silences if self._notifier is not None else ()

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    async def _ready(self) -> Notifier:
        """The notifier, loaded if it is not there. Raises LedgerUnavailable, also while another process leads."""
        if not self._may_send():
            raise LedgerUnavailable("another process leads")
        if self._notifier is None:
            records, notices = await self._store.load()
            self._restore(records, notices)
            own = {name: data for name, data in records.items() if name.partition(":")[0] not in OWN_RECORDS}
            self._terms += 1
            self._notifier = Notifier.load(self._policy, own, self._now_ms(), on_damaged=self._drop_damaged)
        return self._notifier

    def _drop_damaged(self, name: str) -> None:
        """A record that cannot be read is dropped and counted: what it was about is told anew with its next event."""
        self.damaged += 1
        self._unsaved[name] = None

    def _restore(self, records: Mapping[str, bytes], notices: Sequence[tuple[int, bytes]]) -> None:
        """Takes over places, the last number, and what every sink has not got yet. A sink that is new gets what is said from now on."""
        self._unsaved.clear()
        self._places.clear()
        sent = [int(data) for name, data in records.items() if name.startswith("sent:")]
        self._counter = max([0, *sent, *(number for number, _ in notices)])
        for name, data in records.items():
            if name.startswith("place:"):
                seq, _, token = data.decode().partition("-")
                self._places[int(name.removeprefix("place:"))] = (int(seq), int(token))
        for name, outbox in self._outboxes.items():
            outbox.clear()
            last = int(records.get(f"sent:{name}", str(self._counter).encode()))
            if f"sent:{name}" not in records:
                self._unsaved[f"sent:{name}"] = str(last).encode()
            outbox.extend((number, raw) for number, raw in notices if number > last and name in orjson.loads(raw)["sinks"])
            self._filled[name].set()

    async def _save(self, notifier: Notifier, notices: Sequence[tuple[int, bytes]] = ()) -> None:
        """Stores what has changed. What could not be stored stays and goes with the next write."""
        self._unsaved.update(notifier.take_changes())
        if not self._unsaved and not notices:
            return
        changes = dict(self._unsaved)
        try:
            await self._store.write(changes, notices, keep_from=self._keep_from() if notices else 0)
        except Fenced as error:
            self._notifier = None
            raise LedgerUnavailable(str(error)) from error
        self._unsaved.clear()

    def _keep_from(self) -> int:
        """The first notice that is still wanted: by a sink, or as one of the last `KEPT_NOTICES` for readers."""
        return max(0, min([self._counter, *(outbox[0][0] for outbox in self._outboxes.values() if outbox)]) - KEPT_NOTICES)

    async def _keep_time(self, closing: asyncio.Future[None]) -> None:
        while not closing.done():
            await asyncio.wait((closing,), timeout=self._tick_s)
            if not closing.done() and self._may_send():
                try:
                    async with self._writing:  # first the lock: rows may have come while it was waited for
                        if not self._is_in_a_burst():
                            notifier = await self._ready()
                            await self._take_requests(notifier)
                            await self._tick(notifier)
                except LedgerUnavailable as error:
                    self.statistics.count(Unavailable(Reason.UNREACHABLE, detail=str(error)))

    def _is_in_a_burst(self) -> bool:
        """While rows come in without a pause, messages wait, but not for ever."""
        now = asyncio.get_running_loop().time()
        if now - self._last_row >= PAUSE_S:
            self._held_since = float("-inf")
            return False
        if self._held_since == float("-inf"):
            self._held_since = now
        if now - self._held_since < BURST_S:
            return True
        self._held_since = now
        return False

    async def _take_requests(self, notifier: Notifier) -> None:
        """What people asked since the last look: done, stored, and only then taken off. One that makes no sense is counted and dropped."""
        now = asyncio.get_running_loop().time()
        if now < self._asked_at + REQUESTS_S:
            return
        self._asked_at = now
        for request in await self._store.requests():
            try:
                perform(notifier, request, self._now_ms())
            except ValueError:
                self.damaged += 1
            await self._save(notifier)
            await self._store.take_off(request)

    async def _tick(self, notifier: Notifier) -> None:
        """Decides what is due, stores notices and state in one write, and only then lets the notices go."""
        made: list[tuple[int, bytes]] = []
        for notice in notifier.advance(self._now_ms()):
            self._counter += 1
            made.append((self._counter, notice.to_json(self._row(self._counter, b"").id)))
        while True:
            try:
                await self._save(notifier, made)
                break
            except LedgerUnavailable:
                if self._notifier is None or self._closing is None or self._closing.done():
                    raise  # not stored, so not said: whoever goes on from the store decides it anew
                await asyncio.wait((self._closing,), timeout=self._tick_s)
        for number, raw in made:
            for name in orjson.loads(raw)["sinks"]:
                self._outboxes[name].append((number, raw))
                self._filled[name].set()

    async def _send_all(self, name: str, sink: Sink, closing: asyncio.Future[None]) -> None:
        """One sink: opened and closed by this task; its notices in order, each until it is taken or refused."""
        if name in self._own:
            await sink.open()
        backoff, raised = Backoff(self._uniform), 0
        try:
            while not closing.done():
                outbox = self._outboxes[name]
                if not outbox or not self._may_send():
                    self._filled[name].clear()
                    if not outbox and not closing.done():
                        await self._filled[name].wait()
                    else:
                        await asyncio.wait((closing,), timeout=self._tick_s)
                    continue
                outgoing = outbox[0]
                delivery = await self._offer(sink, outgoing, raised)
                raised = raised + 1 if delivery is RAISED else 0
                if isinstance(delivery, Unavailable):
                    await asyncio.wait((closing,), timeout=max(backoff.next(), delivery.retry_after_s or 0.0))
                    continue
                backoff.reset()
                await self._taken(name, outgoing, delivery, closing)
        finally:
            if name in self._own:
                await sink.close()

    async def _offer(self, sink: Sink, outgoing: tuple[int, bytes], raised: int) -> Delivery:
        """Offers a notice. A sink that raises is at fault itself; when it keeps raising, it has refused the notice."""
        try:
            return await sink.deliver(self._row(*outgoing))
        except Exception as error:  # noqa: BLE001 - one sink's fault must not end the others
            return RAISED if raised < MOST_RAISES else Refused(Reason.PROTOCOL, f"{type(error).__name__}: {error}")

    def _row(self, number: int, raw: bytes) -> Row:
        return Row(self._home, number, 0, raw, "")

    async def _taken(self, name: str, outgoing: tuple[int, bytes], delivery: Delivery, closing: asyncio.Future[None]) -> None:
        """Notes that a sink has a notice; repeated until it is stored. A refused notice goes to the dead letters first."""
        number, raw = outgoing
        while not closing.done():
            try:
                async with self._writing:
                    notifier = await self._ready()
                    outbox = self._outboxes[name]
                    if not outbox or outbox[0] is not outgoing:
                        return  # the state was loaded anew meanwhile: what is still outstanding is sent again, with the same id
                    if isinstance(delivery, Refused):
                        await self._store.bury(self._row(number, b"").id, f"{name}: {delivery.reason}: {delivery.detail}", raw)
                    self._unsaved[f"sent:{name}"] = str(number).encode()
                    await self._save(notifier)
                    outbox.popleft()
                    return
            except LedgerUnavailable:
                await asyncio.wait((closing,), timeout=self._tick_s)
