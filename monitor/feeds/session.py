"""One socket to one venue: opens it, subscribes until all topics are confirmed, reads, answers pings, notices silence, ends with a reason.

That a peer answers pings says nothing about prices. Here a connection without prices ends by itself, and what each name's age means is
decided in `monitor/feeds/freshness.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException

from monitor.errors import CodecError
from monitor.feeds.backoff import RateLimit, retry_after_s
from monitor.feeds.clock import Clock, first_of
from monitor.feeds.frame_reader import FrameReader
from monitor.feeds.profile import VenueProfile
from monitor.feeds.statistics import FeedStatistics
from monitor.wire.frames import Confirmed, Control, Denied, Ending, Notice, Pong, Reply
from monitor.wire.prices import PriceBatch

__all__ = ["Ended", "Owner", "Session", "Tap"]

log = structlog.get_logger()

OPEN_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 1.0
WATCH_S = 0.5
DENIED_AGAIN_S = 60.0

_DEAD = frozenset({"silent", "unanswered", "pong_missing"})

Tap = Callable[[str, bytes, int], None]
"""Called with (endpoint, frame, received at ns) of every frame, before it is decoded: the recorder."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a session is over: `reason` from a closed set (metric label), the venue's words, and what it asked for.

    Reasons: `closed_<code>`, `reset`, `connect_failed`, `connect_timeout`, `status_<code>`, `bad_handshake`, `protocol_error`, `silent`,
    `unanswered`, `pong_missing`, `venue_ending`, `rotated`.
    """

    reason: str
    detail: str = ""
    lived_s: float = 0.0
    refused: bool = False
    retry_after_s: float | None = None


class Owner(Protocol):
    """What a session reports to."""

    def wanted_keys(self) -> Sequence[str]:
        """The topics to be subscribed now."""

    def refused(self, key: str, *, refused: bool) -> None:
        """The venue refuses this topic, or has accepted it after all."""

    def receive(self, session: Session, batches: list[PriceBatch]) -> Awaitable[None] | None:
        """Takes prices. An awaitable holds the socket back until it is done."""


class _Over(Exception):
    """Ends the session's task group."""

    def __init__(self, ended: Ended) -> None:
        self.ended = ended
        super().__init__(ended.reason)


class _Connect(connect):
    """`connect` without redirects: a venue that sends us elsewhere is not followed."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Refuses every redirect."""
        return exc


class Session:
    """One connection's life. Made once, run once; `run` returns, it does not raise for anything a network or a venue can do.

    Attributes:
        opened: Set when the socket is open. over: set when it has ended (`ended` says why). aged: it should be replaced soon.
        confirmed: Topics the venue has accepted.
    """

    def __init__(
        self,
        profile: VenueProfile,
        endpoint: str,
        owner: Owner,
        *,
        clock: Clock,
        statistics: FeedStatistics,
        tap: Tap | None = None,
    ) -> None:
        self.profile, self.endpoint, self.owner = profile, endpoint, owner
        self.clock, self.statistics, self._tap = clock, statistics, tap
        self.opened, self.over, self.aged = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.ended: Ended | None = None
        self.confirmed: set[str] = set()
        self.opened_at = 0.0
        self.last_data_at = 0.0
        self._changed = asyncio.Event()
        self._codec = profile.codec(endpoint)
        self._messages = RateLimit(profile.limits.messages, profile.limits.messages_period_s, clock)
        self._pending: dict[int, tuple[tuple[str, ...], float]] = {}
        self._leaving: set[int] = set()
        self._denied_until: dict[str, float] = {}
        self._one_by_one: set[str] = set()
        self._again: set[str] = set()
        self._requests = 0
        self._confirmed_at: float | None = None
        self._unanswered = 0
        self._ping_sent_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._log = log.bind(venue=profile.venue, endpoint=endpoint)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Runs the session as a task of the group."""
        self._task = group.create_task(self.run(), name=f"session:{self.profile.venue}:{self.endpoint}")

    def stop(self) -> None:
        """Ends a started session without counting it as a failure."""
        if self._task is not None:
            self._task.cancel()

    def changed(self) -> None:
        """Tells that the wanted topics changed."""
        self._changed.set()

    def subscribe_again(self, key: str) -> None:
        """Gives up a confirmed topic on which nothing comes, and subscribes it anew."""
        if key in self.confirmed:
            self._again.add(key)
            self._changed.set()

    async def run(self) -> None:
        """Opens, reads and ends. Cancelling closes the socket within `CLOSE_TIMEOUT_S`."""
        try:
            self.ended = await self._live()
        finally:
            if self.ended is None:
                self.ended = Ended("rotated", lived_s=self._lived())
            self.over.set()

    def _lived(self) -> float:
        return self.clock.monotonic() - self.opened_at if self.opened.is_set() else 0.0

    async def _live(self) -> Ended:
        try:
            connection = await _Connect(
                self.profile.endpoints[self.endpoint],
                create_connection=FrameReader,
                compression=None,
                proxy=None,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=self.profile.keepalive_s,
                ping_timeout=self.profile.keepalive_s,
                max_size=self.profile.limits.frame_bytes,
                user_agent_header="margin-monitor",
            )
        except InvalidStatus as error:
            status = error.response.status_code
            asked = retry_after_s(error.response.headers.get("Retry-After"), self.clock.wall_ns())
            return Ended(f"status_{status}", str(error), refused=status in {403, 418, 429}, retry_after_s=asked)
        except TimeoutError:
            return Ended("connect_timeout", f"no answer within {OPEN_TIMEOUT_S:g} s")
        except InvalidHandshake as error:
            return Ended("bad_handshake", str(error)[:200])
        except (OSError, EOFError) as error:
            return Ended("connect_failed", str(error)[:200])
        except WebSocketException as error:
            return Ended("protocol_error", str(error)[:200])
        assert isinstance(connection, FrameReader), "made so"
        self.opened_at = self.last_data_at = self.clock.monotonic()
        self.opened.set()
        self.statistics.connected += 1
        self.statistics.sessions += 1
        self._log.info("feed_connected", url=self.profile.endpoints[self.endpoint])
        ended: Ended | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(connection), name="session:read")
                group.create_task(self._subscribe(connection), name="session:subscribe")
                group.create_task(self._watch(), name="session:watch")
                if self.profile.ping.every_s is not None:
                    group.create_task(self._ping(connection, self.profile.ping.every_s), name="session:ping")
        except* _Over as several:
            first = several.exceptions[0]
            assert isinstance(first, _Over), "the tasks of a session do not nest groups"
            ended = first.ended
        finally:
            self.statistics.connected -= 1
            if ended is not None and ended.reason in _DEAD:
                connection.transport.abort()  # nobody is there to say good-bye to
            await connection.close()
        assert ended is not None, "a session's tasks end only by _Over"
        return ended

    async def _read(self, connection: FrameReader) -> None:
        """Frame by frame: the decoding, the controls, the prices. What came together has one receive time and is handed on together."""
        statistics, clock, decode, tap = self.statistics, self.clock, self._codec.decode, self._tap
        try:
            while True:
                frames = await connection.frames()
                received_at_ns = clock.wall_ns()
                statistics.messages += len(frames)
                batches: list[PriceBatch] = []
                for frame in frames:
                    statistics.size_bytes += len(frame)
                    if tap is not None:
                        tap(self.endpoint, frame, received_at_ns)
                    try:
                        decoded = decode(frame, received_at_ns)
                    except CodecError as error:
                        statistics.reject(error.reason)
                        statistics.last_rejected.append((error.reason, error.raw))
                        continue
                    if decoded.rejected is not None:
                        for reason, count in decoded.rejected.items():
                            statistics.reject(reason, count)
                        statistics.last_rejected.append((next(iter(decoded.rejected)), frame[:256]))
                    if decoded.controls:
                        await self._hand_on(batches)  # before anything that can end the session
                        batches = []
                        for control in decoded.controls:
                            await self._control(control, connection)
                    batches += decoded.batches
                await self._hand_on(batches)
        except ConnectionClosed as error:
            raise _Over(self._closed(error)) from None
        except (WebSocketException, OSError, EOFError) as error:
            raise _Over(Ended("protocol_error", str(error)[:200], self._lived())) from None

    async def _hand_on(self, batches: list[PriceBatch]) -> None:
        if not batches:
            return
        self.last_data_at = self.clock.monotonic()
        held = self.owner.receive(self, batches)
        if held is not None:
            await held
            self.last_data_at = self.clock.monotonic()

    def _closed(self, error: ConnectionClosed) -> Ended:
        if error.rcvd is None and error.sent is None:
            return Ended("reset", str(error)[:200], self._lived())
        frame = error.rcvd if error.rcvd is not None and (error.rcvd_then_sent or error.sent is None) else error.sent
        assert frame is not None
        code = frame.code if frame.code in range(1000, 1016) else "other"
        return Ended(f"closed_{code}", frame.reason[:200], self._lived())

    async def _send(self, connection: FrameReader, message: bytes) -> None:
        """Sends text, within the venue's limit of messages."""
        await self._messages.take()
        try:
            await connection.send(message, text=True)
        except ConnectionClosed as error:
            raise _Over(self._closed(error)) from None

    async def _control(self, control: Control, connection: FrameReader) -> None:
        match control:
            case Confirmed():
                self._take_confirmation(control)
            case Denied():
                self._deny(control)
            case Reply():
                await self._send(connection, control.data)
            case Pong():
                self._ping_sent_at = None
            case Notice():
                self._log.debug("feed_notice", text=control.text)
            case Ending():
                raise _Over(Ended("venue_ending", control.text, self._lived()))

    def _take_confirmation(self, confirmed: Confirmed) -> None:
        """A numbered answer confirms its request; one that also names topics confirms these and refuses the request's others."""
        if confirmed.request is None:
            self._confirm(confirmed.topics)
        elif confirmed.request in self._leaving:
            self._leaving.discard(confirmed.request)
        else:
            asked = self._pending.pop(confirmed.request, ((), 0.0))[0]
            self._confirm(confirmed.topics or asked)
            left_out = tuple(key for key in asked if confirmed.topics and key not in confirmed.topics)
            if left_out:
                self._deny(Denied(topics=left_out, text="left out of the confirmation"))

    def _confirm(self, keys: Sequence[str]) -> None:
        self._unanswered = 0
        if self._confirmed_at is None:
            self._confirmed_at = self.clock.monotonic()
        wanted = set(self.owner.wanted_keys())
        self.confirmed.update(key for key in keys if key in wanted)
        for key in keys:
            if self._denied_until.pop(key, None) is not None:
                self.owner.refused(key, refused=False)
            for request, (asked, deadline) in list(self._pending.items()):
                if key in asked:
                    rest = tuple(other for other in asked if other != key)
                    if rest:
                        self._pending[request] = (rest, deadline)
                    else:
                        del self._pending[request]
        self._changed.set()

    def _deny(self, denied: Denied) -> None:
        """Topics named are refused, and the others of their request asked again; unnamed ones of a request are asked again one by one."""
        self._unanswered = 0
        asked = self._pending.pop(denied.request, ((), 0.0))[0] if denied.request is not None else ()
        keys = denied.topics or asked
        if not denied.topics and len(keys) > 1:
            self._one_by_one.update(keys)
        else:
            for key in keys:
                self.statistics.denied += 1
                self._one_by_one.add(key)
                self._denied_until[key] = self.clock.monotonic() + DENIED_AGAIN_S
                self.confirmed.discard(key)
                self.owner.refused(key, refused=True)
                for request, (asked, deadline) in list(self._pending.items()):
                    rest = tuple(other for other in asked if other != key)
                    if rest != asked:
                        self._pending[request] = (rest, deadline)
        self._log.warning("feed_subscription_refused", topics=",".join(keys)[:200], text=denied.text)
        self._changed.set()

    async def _subscribe(self, connection: FrameReader) -> None:
        """Brings what is confirmed to what is wanted, for as long as the connection lives."""
        for message in self._codec.opening():
            await self._send(connection, message)
        while True:
            self._changed.clear()
            now = self.clock.monotonic()
            for request, (keys, deadline) in list(self._pending.items()):
                if now >= deadline:
                    del self._pending[request]
                    if keys:
                        self.statistics.subscribe_timeouts += 1
                        self._unanswered += 1
                        self._log.warning("feed_subscription_unanswered", topics=",".join(keys)[:200])
            wanted = list(self.owner.wanted_keys())
            waiting = {key for keys, _deadline in self._pending.values() for key in keys}
            missing = [
                key for key in wanted if key not in self.confirmed and key not in waiting and self._denied_until.get(key, 0.0) <= now
            ]
            gone = [key for key in self.confirmed if key not in set(wanted) or key in self._again]
            self._again.clear()
            if gone:
                self.confirmed.difference_update(gone)
                self._requests += 1
                self._leaving.add(self._requests)
                await self._send(connection, self._codec.unsubscribe(gone, self._requests))
                continue
            for keys in self._requests_for(missing):
                self._requests += 1
                self._pending[self._requests] = (keys, self.clock.monotonic() + self.profile.confirm_s)
                await self._send(connection, self._codec.subscribe(keys, self._requests))
            await first_of(self._changed, clock=self.clock, seconds=1.0)

    def _requests_for(self, missing: Sequence[str]) -> list[tuple[str, ...]]:
        alone = [(key,) for key in missing if key in self._one_by_one]
        together = [key for key in missing if key not in self._one_by_one]
        most = self.profile.limits.topics_per_request
        return [tuple(together[start : start + most]) for start in range(0, len(together), most)] + alone

    async def _ping(self, connection: FrameReader, every_s: float) -> None:
        """The venue's own ping message."""
        while True:
            await self.clock.sleep(every_s)
            self._requests += 1
            message = self._codec.ping(self._requests)
            assert message is not None, "a profile with ping.every_s needs a codec with a ping message"
            if self._ping_sent_at is None:
                self._ping_sent_at = self.clock.monotonic()
            await self._send(connection, message)

    async def _watch(self) -> None:
        """Ends a connection that is silent or does not answer; marks one that has grown old."""
        profile, clock = self.profile, self.clock
        while True:
            await clock.sleep(WATCH_S)
            now = clock.monotonic()
            silent_s = 0.0 if self._confirmed_at is None else now - max(self._confirmed_at, self.last_data_at)
            if silent_s > profile.silence_s:
                raise _Over(Ended("silent", f"no price for {silent_s:.1f} s", self._lived()))
            if self._unanswered >= 2:
                raise _Over(Ended("unanswered", "no answer to two requests", self._lived()))
            if self._ping_sent_at is not None and now - self._ping_sent_at > profile.ping.answer_s:
                raise _Over(Ended("pong_missing", f"no answer to a ping for {now - self._ping_sent_at:.1f} s", self._lived()))
            if profile.session_s is not None and now - self.opened_at > profile.session_s:
                self.aged.set()
