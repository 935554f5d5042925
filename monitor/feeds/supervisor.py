"""One venue's feed: how many sessions carry which topics, when each is opened again, which names are late, whether the feed is ready."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import structlog

from monitor.feeds.backoff import Backoff, RateLimit
from monitor.feeds.clock import SYSTEM_CLOCK, Clock, first_of
from monitor.feeds.freshness import Freshness, Memory, StaleChange, StaleReason
from monitor.feeds.profile import VenueProfile
from monitor.feeds.session import Session, Tap
from monitor.feeds.statistics import FeedStatistics
from monitor.margin.prices import PriceKind
from monitor.wire.frames import Topic, Wanted
from monitor.wire.prices import PriceBatch

__all__ = ["SWEEP_S", "Publish", "VenueFeed"]

log = structlog.get_logger()

SWEEP_S = 0.25
"""How often ages are looked at: a stale name is told at most this long after its limit."""

MEASURE_S = 0.001
"""Delays are measured at most this often: of a burst read at once, the first."""

STALL_S = 0.5
"""A look that comes so much too late says that this process stood still, not that the venue was silent."""

AGAIN_S = 30.0
AGAIN_AT_MOST_S = 600.0
"""A topic whose names are all silent is subscribed again at once, then after 30 s, 60 s ... 10 minutes."""

_ASK_AGAIN = frozenset({StaleReason.SILENT, StaleReason.NEVER_SEEN, StaleReason.FROZEN})

Publish = Callable[[list[PriceBatch]], Awaitable[None] | None]
"""Takes price batches; an awaitable holds the socket back (`Publisher.put`)."""


class _Slot:
    """The topics of one endpoint that fit on one connection, and the sessions that carry them.

    One session; two while an aged one is exchanged; more when the feed is told to keep several (the first arrival of each number wins).
    """

    def __init__(self, feed: VenueFeed, endpoint: str) -> None:
        self.feed, self.endpoint = feed, endpoint
        self.topics: dict[str, Topic] = {}
        self.freshness = Freshness(feed.profile.venue, memory=feed.memory, stale_after_s=feed.stale_after_s)
        self.freshness.down_since = feed.now()
        self.sessions: set[Session] = set()
        self.shared = False
        self._measured_at = -1.0
        self._again: dict[str, tuple[float, float]] = {}
        self.stopped = asyncio.Event()

    def wanted_keys(self) -> Sequence[str]:
        return list(self.topics)

    def put(self, topic: Topic) -> None:
        """Takes a topic, or takes over what it now supplies."""
        before = self.topics.get(topic.key)
        self.topics[topic.key] = topic
        for kind, names in topic.supplies:
            if before is not None:
                self.freshness.forget(kind, set(dict(before.supplies).get(kind, ())) - set(names))
            self.freshness.expect(kind, names, topic.interval_s, self.feed.now())
        if topic.open_kind is not None:
            self.freshness.expect_whatever_comes(topic.open_kind, topic.interval_s)
        self._tell_sessions()

    def remove(self, key: str) -> None:
        """Gives a topic up."""
        for kind, names in self.topics.pop(key).supplies:
            self.freshness.forget(kind, names)
        self._tell_sessions()

    def _tell_sessions(self) -> None:
        for session in self.sessions:
            session.changed()

    def refused(self, key: str, *, refused: bool) -> None:
        topic = self.topics.get(key)
        if topic is not None:
            for kind, names in topic.supplies:
                self.freshness.refuse(kind, names, refused=refused)

    def receive(self, session: Session, batches: list[PriceBatch]) -> Awaitable[None] | None:
        """Orders, counts and hands on. The venue's own order inside a frame is kept."""
        feed, statistics = self.feed, self.feed.statistics
        now = feed.now()
        strict = self.shared
        admitted = []
        if feed.derive is not None:
            batches = feed.derive(batches)
        for batch in batches:
            if strict and not any(batch.venue_times_ms) and not self._is_first(session):
                continue  # without event times two sessions cannot be ordered: only the first counts
            kept = self.freshness.admit(batch, now, strict=strict)
            if kept is None:
                continue
            admitted.append(kept)
            count = len(kept.names)
            statistics.prices[kept.kind] = statistics.prices.get(kept.kind, 0) + count
            if kept.kind is PriceKind.MARK:
                statistics.marks += count
            time_ms = kept.venue_times_ms[-1]
            if time_ms and now - self._measured_at >= MEASURE_S:
                self._measured_at = now
                delay_s = kept.received_at_ns / 1e9 - time_ms / 1e3
                statistics.delay.observe(delay_s)
                statistics.skew.observe(delay_s, now)
        return feed.hand_on(admitted) if admitted else None

    def _is_first(self, session: Session) -> bool:
        first = min((other for other in self.sessions if other.opened.is_set()), key=lambda other: other.opened_at, default=session)
        return first is session

    def sweep(self, now: float) -> list[StaleChange]:
        """What became stale or fresh; a topic on which nothing comes is subscribed again, ever less often."""
        changes = self.freshness.sweep(now)
        stale = self.freshness.stale
        for key, topic in self.topics.items() if stale else ():
            watched = [(kind, name) for kind, names in topic.supplies for name in names]
            if not watched or not all(stale.get(item) in _ASK_AGAIN for item in watched):
                self._again.pop(key, None)
                continue
            at, wait_s = self._again.get(key, (now - AGAIN_S, AGAIN_S))
            if now - at >= wait_s:
                self._again[key] = (now, min(2 * wait_s, AGAIN_AT_MOST_S))
                for session in self.sessions:
                    session.subscribe_again(key)
        return changes

    def is_whole(self, session: Session) -> bool:
        """Whether this session carries everything: all topics confirmed, and a frame received after that."""
        return all(key in session.confirmed for key in self.topics)

    async def run(self, replicas: int) -> None:
        """Keeps `replicas` sessions alive until the slot is stopped."""
        async with asyncio.TaskGroup() as group:
            lines = [group.create_task(self._line(), name=f"line:{self.feed.profile.venue}:{self.endpoint}") for _ in range(replicas)]
            await self.stopped.wait()
            for line in lines:
                line.cancel()

    async def _line(self) -> None:
        """One session after the other; a new one is whole before an aged one is given up."""
        backoff = Backoff(self.feed.rng)
        async with asyncio.TaskGroup() as group:
            serving = await self._open(group)
            while True:
                await first_of(serving.over, serving.aged)
                if serving.over.is_set():
                    await self._pause(serving, backoff)
                    serving = await self._open(group)
                    continue
                successor = await self._open(group)
                while not successor.over.is_set() and not serving.over.is_set() and not self.is_whole(successor):
                    await first_of(successor.over, serving.over, clock=self.feed.clock, seconds=SWEEP_S)
                if successor.over.is_set():
                    await self._pause(successor, backoff)
                    continue
                if serving.over.is_set():
                    assert serving.ended is not None, "over"
                    self.feed.statistics.reconnect(serving.ended.reason)
                else:
                    # One more nominal interval with both, so that the successor's first data is in before the old one goes.
                    await first_of(successor.over, serving.over, clock=self.feed.clock, seconds=self._overlap_s())
                    if successor.over.is_set():
                        await self._pause(successor, backoff)
                        continue
                    self.feed.statistics.reconnect("rotated")
                    serving.stop()
                    await serving.over.wait()
                self._left(serving)
                serving = successor

    def _overlap_s(self) -> float:
        return min(10.0, 2 * max((topic.interval_s for topic in self.topics.values()), default=1.0))

    async def _open(self, group: asyncio.TaskGroup) -> Session:
        feed = self.feed
        await feed.connects.take()
        session = Session(feed.profile, self.endpoint, self, clock=feed.clock, statistics=feed.statistics, tap=feed.tap)
        self.sessions.add(session)
        self._sessions_changed()
        session.start(group)
        await first_of(session.opened, session.over)
        self._sessions_changed()
        return session

    def _left(self, session: Session) -> None:
        self.sessions.discard(session)
        self._sessions_changed()

    def _sessions_changed(self) -> None:
        self.shared = len(self.sessions) > 1
        if any(session.opened.is_set() and not session.over.is_set() for session in self.sessions):
            self.freshness.down_since = None
        elif self.freshness.down_since is None:
            self.freshness.down_since = self.feed.now()

    async def _pause(self, session: Session, backoff: Backoff) -> None:
        """Waits as long as the end of this session asks for."""
        self._left(session)
        ended = session.ended
        assert ended is not None, "over"
        self.feed.statistics.reconnect(ended.reason)
        delay_s = backoff.next_s(ended.lived_s, refused=ended.refused, retry_after_s=ended.retry_after_s)
        log.warning(
            "feed_reconnecting",
            venue=self.feed.profile.venue,
            endpoint=self.endpoint,
            reason=ended.reason,
            detail=ended.detail,
            lived_s=round(ended.lived_s, 1),
            delay_s=round(delay_s, 2),
        )
        await self.feed.clock.sleep(delay_s)


class VenueFeed:
    """Reads one venue until cancelled. Single loop; every method but `run` is plain and quick."""

    def __init__(
        self,
        profile: VenueProfile,
        wanted: Wanted,
        publish: Publish,
        *,
        on_stale: Callable[[Sequence[StaleChange]], None] | None = None,
        stale_after_s: float | None = None,
        connections: int = 1,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        tap: Tap | None = None,
    ) -> None:
        """Prepares; `run` opens the first socket.

        Args:
            profile: The venue; `profile.at("ws://127.0.0.1:1234")` for a simulator.
            wanted: What is needed; `want` changes it at any time.
            publish: Takes the batches (`Publisher.put`). If it returns an awaitable, the socket waits for it.
            on_stale: Called with every change of a name between fresh and stale, at most `SWEEP_S` late.
            stale_after_s: Overrides the limit of every name.
            connections: Sessions that carry the same topics; the first arrival wins.
            clock, rng: For tests. tap: sees every frame (`Recorder.take`).
        """
        self.profile, self.clock, self.tap = profile, clock, tap
        self.stale_after_s = stale_after_s
        self.memory = Memory()
        self.rng = rng if rng is not None else random.Random()
        self.statistics = FeedStatistics(venue=profile.venue)
        self.connects = RateLimit(profile.limits.connects, profile.limits.connects_period_s, clock, spread=True)
        self.derive = profile.derive() if profile.derive is not None else None
        self._publish, self._on_stale, self._connections = publish, on_stale, connections
        self._held_s = 0.0
        self._held_since: float | None = None
        self._slots: list[_Slot] = []
        self._group: asyncio.TaskGroup | None = None
        self._ready = asyncio.Event()
        self.wanted = Wanted()
        self.want(wanted)

    def now(self) -> float:
        """Monotonic seconds without the time that a waiting publisher held the sockets back: that is our silence, not the venue's."""
        since = self._held_since
        present = self.clock.monotonic() if since is None else since
        return present - self._held_s

    def hand_on(self, batches: list[PriceBatch]) -> Awaitable[None] | None:
        """Gives batches to the publisher."""
        held = self._publish(batches)
        return None if held is None else self._hold(held)

    async def _hold(self, held: Awaitable[None]) -> None:
        if self._held_since is not None:
            await held
            return
        self._held_since = self.clock.monotonic()
        try:
            await held
        finally:
            self._held_s += self.clock.monotonic() - self._held_since
            self._held_since = None

    def want(self, wanted: Wanted) -> None:
        """Changes what is needed: topics are subscribed and given up on the open connections, new connections are opened if need be."""
        self.wanted = wanted
        plan = {(topic.endpoint, topic.key): topic for topic in self.profile.topics(wanted)}
        for slot in self._slots:
            for key in [key for key in slot.topics if (slot.endpoint, key) not in plan]:
                slot.remove(key)
        placed = {(slot.endpoint, key): slot for slot in self._slots for key in slot.topics}
        for where, topic in plan.items():
            slot = placed.get(where) or self._slot_with_room(topic.endpoint)
            if slot.topics.get(topic.key) != topic:
                slot.put(topic)
        for slot in [slot for slot in self._slots if not slot.topics]:
            slot.stopped.set()
            self._slots.remove(slot)
        self._ready.clear()

    def _slot_with_room(self, endpoint: str) -> _Slot:
        for slot in self._slots:
            if slot.endpoint == endpoint and len(slot.topics) < self.profile.limits.topics:
                return slot
        slot = _Slot(self, endpoint)
        self._slots.append(slot)
        if self._group is not None:
            self._group.create_task(slot.run(self._connections), name=f"slot:{self.profile.venue}:{endpoint}")
        return slot

    async def run(self) -> None:
        """Reads until cancelled; then every socket is closed."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for slot in self._slots:
                    group.create_task(slot.run(self._connections), name=f"slot:{self.profile.venue}:{slot.endpoint}")
                group.create_task(self._sweep(), name=f"sweep:{self.profile.venue}")
        finally:
            self._group = None

    async def _sweep(self) -> None:
        looked_at = self.clock.monotonic()
        while True:
            now = self.clock.monotonic()
            if now - looked_at < SWEEP_S + STALL_S:
                self.sweep()
            # else this process stood still (paused, or busy): what the sockets hold is read first, and judged at the next look
            looked_at = now
            await self.clock.sleep(SWEEP_S)

    def sweep(self) -> None:
        """Looks at every age once, tells the changes, and sets ready."""
        now = self.now()
        changes: list[StaleChange] = []
        for slot in self._slots:
            changes.extend(slot.sweep(now))
        statistics = self.statistics
        statistics.stale = sum(len(slot.freshness.stale) for slot in self._slots)
        statistics.symbols = self.memory.symbols
        statistics.older = sum(slot.freshness.older for slot in self._slots)
        statistics.duplicates = sum(slot.freshness.duplicates for slot in self._slots)
        if changes:
            worse = [change for change in changes if change.reason is not None]
            log.warning(
                "feed_names_stale" if worse else "feed_names_fresh",
                venue=self.profile.venue,
                names=len(worse or changes),
                first=(worse or changes)[0].name,
                reason=str(worse[0].reason) if worse else "",
            )
            if self._on_stale is not None:
                self._on_stale(changes)
        if self.is_ready():
            self._ready.set()

    def is_ready(self) -> bool:
        """Whether every topic is confirmed on an open connection, every wanted name has a number, and none is stale."""
        for slot in self._slots:
            if not any(session.opened.is_set() and not session.over.is_set() and slot.is_whole(session) for session in slot.sessions):
                return False
            if slot.freshness.missing() or slot.freshness.stale:
                return False
            if any(topic.open_kind for topic in slot.topics.values()) and not self.memory.symbols:
                return False
        return True

    async def wait_ready(self) -> None:
        """Returns once the feed has been ready after the last `want`."""
        await self._ready.wait()

    def missing(self) -> list[tuple[PriceKind, str]]:
        """Wanted names without any number so far."""
        return [item for slot in self._slots for item in slot.freshness.missing()]

    @property
    def stale(self) -> dict[tuple[PriceKind, str], StaleReason]:
        """What must not be used now, and why."""
        return {item: reason for slot in self._slots for item, reason in slot.freshness.stale.items()}
