"""What a venue may do wrong, each as a course of events on a rig, and what must hold afterwards whatever it was.

Afterwards: the feed is ready and nothing is stale; every topic is subscribed again; every new mark that the venue sent was handed on; the
venue's limits were kept.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from monitor.errors import CodecError
from monitor.feeds.market import SAMPLES
from monitor.feeds.simulator import Simulator
from monitor.feeds.venues import PROFILES
from monitor.margin.prices import PriceKind
from monitor.wire.frames import Codec
from tests.support.feed_rig import Rig, rig_of, supplied, wanted_of

__all__ = ["CASES", "Case", "Outcome", "misbehave", "table"]

RESERVED_CODES = {1004, 1005, 1006}
"""Codes that no well-behaved peer puts into a close frame (RFC 6455, 7.4.1): they are sent as bare bytes."""


class RecordingSimulator(Simulator):
    """Notes what goes out and comes in, connection by connection.

    Attributes:
        sent: (number of the connection, its path, frame, wall time) of each frame given to a socket whole.
        heard: By connection, the times of the client's messages. attempts: the times of handshakes, refused ones too.
        most_topics: Most topics that one connection ever had.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sent: list[tuple[int, str, bytes, int]] = []
        self.heard: list[list[float]] = []
        self.attempts: list[float] = []
        self.most_topics = 0

    def _admit(self, connection: ServerConnection, request: Any) -> Any:
        self.attempts.append(self._clock.monotonic())
        return super()._admit(connection, request)

    async def _handle(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        number, path = len(self.heard), connection.request.path.partition("?")[0]
        heard: list[float] = []
        self.heard.append(heard)
        send, receive = connection.send, connection.recv

        async def noted_send(frame: Any, **options: Any) -> None:
            await send(frame, **options)
            self.sent.append((number, path, frame, self._clock.wall_ns()))

        async def noted_receive(*args: Any, **options: Any) -> Any:
            message = await receive(*args, **options)
            heard.append(self._clock.monotonic())
            self.most_topics = max([self.most_topics, *(len(client.peer.topics) for client in self.clients)])
            return message

        connection.send, connection.recv = noted_send, noted_receive  # type: ignore[method-assign, assignment]
        await super()._handle(connection)


@dataclass(frozen=True, slots=True)
class Case:
    """One misbehaviour.

    Attributes:
        name: Its row in docs/reference/venues.md. does: begins it, and lasts until the venue is well again.
        ends: Reasons for which a connection may end meanwhile; empty: none may.
        within_s: Time the feed has, from the venue's recovery, to be ready again.
    """

    name: str
    does: Callable[[Rig], Awaitable[None]]
    ends: frozenset[str] = frozenset()
    within_s: float = 5.0


@dataclass(slots=True)
class Outcome:
    """What came of it, in seconds of the venue's time. `faults`: what does not hold, in words; empty when all is well."""

    recovered_s: float = 0.0
    attempts: int = 0
    told: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)


async def misbehave(venue: str, case: Case) -> Outcome:
    """Lets a venue do one thing wrong, and looks at everything afterwards."""
    outcome = Outcome()
    async with rig_of(venue, simulate=RecordingSimulator) as rig:
        simulator = rig.simulator
        assert isinstance(simulator, RecordingSimulator)
        await rig.until(rig.feed.is_ready, within_s=5)
        before = len(simulator.attempts)
        await case.does(rig)
        outcome.recovered_s = await rig.until(lambda: rig.feed.is_ready() and _all_subscribed(rig), within_s=case.within_s)
        await rig.seconds(2)
        if not rig.feed.is_ready() or rig.feed.stale:
            outcome.faults.append(f"not well any more: stale {rig.feed.stale}, missing {rig.feed.missing()}")
        outcome.attempts = len(simulator.attempts) - before
        outcome.told = {str(change.reason) for change in rig.changes if change.reason is not None}
        outcome.faults += _lost(rig, simulator) + _beyond_limits(rig, simulator)
        ends = set(rig.feed.statistics.reconnects)
        if ends - case.ends or (case.ends and not ends):
            outcome.faults.append(f"connections ended by {sorted(ends)}, not by {sorted(case.ends)}")
    return outcome


def _all_subscribed(rig: Rig) -> bool:
    """Whether the simulator has every topic of the plan, each on its own endpoint."""
    paths = {endpoint: address.partition("://")[2].partition("/")[2] for endpoint, address in rig.feed.profile.endpoints.items()}
    plan = {("/" + paths[topic.endpoint], topic.key) for topic in rig.feed.profile.topics(wanted_of(rig.venue))}
    return plan <= {(client.path, key) for client in rig.simulator.clients for key in client.peer.topics}


def _new_marks(rig: Rig, simulator: RecordingSimulator) -> Iterator[tuple[str, int, float]]:
    """(name, event time, price) of every mark sent that was news when it was sent: later than all before of its name."""
    endpoints = {"/" + address.partition("://")[2].partition("/")[2]: name for name, address in rig.feed.profile.endpoints.items()}
    codecs: dict[int, Codec] = {}
    latest: dict[str, int] = {}
    for number, path, frame, wall_ns in simulator.sent:
        codec = codecs.setdefault(number, PROFILES[rig.venue].codec(endpoints[path]))
        try:
            decoded = codec.decode(frame if isinstance(frame, bytes) else str(frame).encode(), wall_ns)
        except CodecError:
            continue
        for batch in decoded.batches:
            if batch.kind is PriceKind.MARK:
                for name, price, time in zip(batch.names, batch.prices, batch.venue_times_ms, strict=True):
                    if time == 0 or time > latest.get(name, -1):
                        latest[name] = max(time, latest.get(name, -1))
                        yield name, time, price


def _lost(rig: Rig, simulator: RecordingSimulator) -> list[str]:
    """Marks that the venue sent and the feed did not hand on, or not in the venue's order."""
    handed: dict[str, deque[tuple[int, float]]] = {}
    for batch in rig.batches:
        if batch.kind is PriceKind.MARK:
            for name, price, time in zip(batch.names, batch.prices, batch.venue_times_ms, strict=True):
                handed.setdefault(name, deque()).append((time, price))
    faults = []
    count = 0
    for name, time, price in _new_marks(rig, simulator):
        count += 1
        left = handed.get(name, deque())
        while left and left[0] != (time, price):
            left.popleft()
        if not left:
            faults.append(f"lost: mark {name} {price} of {time}")
    if count < len(SAMPLES[rig.venue].instruments):
        faults.append(f"only {count} marks were sent")
    return faults[:5]


def _beyond_limits(rig: Rig, simulator: RecordingSimulator) -> list[str]:
    """What the venue would have refused us for, and what our own narrower limits forbid."""
    limits = rig.feed.profile.limits
    faults = [f"the venue refused {simulator.statistics.limited} times"] if simulator.statistics.limited else []
    if _most(simulator.attempts, limits.connects_period_s) > limits.connects:
        faults.append(f"{_most(simulator.attempts, limits.connects_period_s)} attempts in {limits.connects_period_s} s")
    most = max((_most(times, limits.messages_period_s) for times in simulator.heard), default=0)
    if most > limits.messages:
        faults.append(f"{most} messages in {limits.messages_period_s} s")
    if simulator.most_topics > limits.topics:
        faults.append(f"{simulator.most_topics} topics on one connection")
    endpoints = len({topic.endpoint for topic in rig.feed.profile.topics(wanted_of(rig.venue))})
    if _most(simulator.attempts, 60.0) > 12 * endpoints:
        faults.append(f"{_most(simulator.attempts, 60.0)} attempts in a minute")
    return faults


def _most(times: list[float], period_s: float) -> int:
    """Most of these that fall into one period."""
    window: deque[float] = deque()
    most = 0
    for time in sorted(times):
        window.append(time)
        while window[0] <= time - period_s:
            window.popleft()
        most = max(most, len(window))
    return most


async def _until_all_ended(rig: Rig, within_s: float) -> None:
    """Lets time pass until every connection was opened anew, or is tried."""
    endpoints = len({topic.endpoint for topic in rig.feed.profile.topics(wanted_of(rig.venue))})
    await rig.until(lambda: sum(rig.feed.statistics.reconnects.values()) >= endpoints, within_s=within_s)


async def silence(rig: Rig) -> None:
    rig.simulator.faults.silent = True
    await _until_all_ended(rig, rig.feed.profile.silence_s + 5)
    rig.simulator.faults.silent = False


async def silent_symbol(rig: Rig) -> None:
    rig.simulator.faults.silent_names.add(min(SAMPLES[rig.venue].instruments))
    await rig.seconds(40)
    rig.simulator.faults.silent_names.clear()


async def drop(rig: Rig) -> None:
    for client in list(rig.simulator.clients):
        client.connection.transport.close()  # the end of the stream, without a close frame
    await _until_all_ended(rig, 5)


async def rst(rig: Rig) -> None:
    rig.simulator.reset_all()
    await _until_all_ended(rig, 5)


async def half_open(rig: Rig) -> None:
    rig.simulator.half_open_all()
    await _until_all_ended(rig, rig.feed.profile.silence_s + 12)


async def duplicate(rig: Rig) -> None:
    rig.simulator.faults.duplicate = True
    await rig.seconds(15)
    rig.simulator.faults.duplicate = False


async def reorder(rig: Rig) -> None:
    rig.simulator.faults.reorder = True
    await rig.seconds(15)
    rig.simulator.faults.reorder = False


async def old_times(rig: Rig) -> None:
    rig.simulator.faults.late_s = 600.0
    await rig.simulator.close_all(1000)
    await _until_all_ended(rig, 5)
    await rig.seconds(5)
    rig.simulator.faults.late_s = 0.0


async def refused_symbol(rig: Rig) -> None:
    name = max(SAMPLES[rig.venue].instruments)
    topics = rig.feed.profile.topics(wanted_of(rig.venue))
    rig.simulator.faults.refuse_topics.update(topic.key for topic in topics if (PriceKind.MARK, name) in supplied(topic))
    await rig.simulator.close_all(1000)
    await rig.until(lambda: rig.feed.statistics.denied > 0, within_s=15)
    await rig.seconds(10)
    rig.simulator.faults.refuse_topics.clear()


async def slow_bytes(rig: Rig) -> None:
    rig.simulator.faults.bytes_per_s = 2.0
    await _until_all_ended(rig, rig.feed.profile.silence_s + 30)
    rig.simulator.faults.bytes_per_s = 0.0


async def wrong_json(rig: Rig) -> None:
    for _ in range(10):
        for frame in (b"{", b"[]}", b'{"a":1e999}', b"\x00", b'"', b"7", b'{"data":' * 500):
            await rig.simulator.send_all(frame)
        await rig.seconds(0.5)
    assert sum(rig.feed.statistics.rejected.values()) >= 70


async def oversized(rig: Rig) -> None:
    await rig.simulator.send_all(b" " * (rig.feed.profile.limits.frame_bytes + 1))
    await _until_all_ended(rig, 5)


def refused(status: int, headers: dict[str, str]) -> Callable[[Rig], Awaitable[None]]:
    async def does(rig: Rig) -> None:
        rig.simulator.faults.handshake = (status, headers)
        await rig.simulator.close_all(1008)
        await rig.until(lambda: bool(rig.simulator.statistics.refused), within_s=10)
        await rig.seconds(25)
        rig.simulator.faults.handshake = None

    return does


def closed(code: int) -> Callable[[Rig], Awaitable[None]]:
    async def does(rig: Rig) -> None:
        for client in list(rig.simulator.clients):
            if code in RESERVED_CODES:
                body = b"" if code == 1005 else struct.pack("!H", code)
                client.connection.transport.write(Frame(Opcode.CLOSE, body).serialize(mask=False))
            else:
                await client.connection.close(code, "x")
        await _until_all_ended(rig, 5)

    return does


def stormy(code: int) -> Callable[[Rig], Awaitable[None]]:
    """Closes every connection as soon as it is open, for ten minutes."""

    async def does(rig: Rig) -> None:
        for _ in range(600):
            await rig.simulator.close_all(code)
            await rig.seconds(1.0, step_s=1.0)

    return does


CASES: tuple[Case, ...] = (
    Case("silence, pings answered", silence, frozenset({"silent"})),
    Case("one symbol silent", silent_symbol),
    Case("stream ended without a close frame", drop, frozenset({"reset"})),
    Case("RST", rst, frozenset({"reset"})),
    Case("half-open", half_open, frozenset({"silent", "pong_missing"})),
    Case("every frame twice", duplicate, within_s=1.0),
    Case("frames out of order", reorder, within_s=1.0),
    Case("old event times after a reconnect", old_times, frozenset({"closed_1000"})),
    Case("subscription of one symbol refused", refused_symbol, frozenset({"closed_1000"}), 60.0),
    Case("bytes trickle", slow_bytes, frozenset({"silent", "pong_missing", "unanswered"})),
    Case("frames that are no JSON", wrong_json, within_s=1.0),
    Case("frame beyond the size limit", oversized, frozenset({"closed_1009"})),
    Case("handshake refused with 403", refused(403, {}), frozenset({"closed_1008", "status_403"}), 160.0),
    Case("handshake refused with 429, Retry-After 60", refused(429, {"Retry-After": "60"}), frozenset({"closed_1008", "status_429"}), 60.0),
    *(
        Case(f"close code {code}", closed(code), frozenset({"closed_1002" if code in {1004, 1006} else f"closed_{code}"}))
        for code in range(1000, 1014)
    ),
    Case("every connection closed, for ten minutes", stormy(1012), frozenset({"closed_1012", "reset"}), 400.0),
)


def table() -> str:
    """The misbehaviours as the docs list them."""
    rows = [
        f"| {case.name} | {', '.join(f'`{reason}`' for reason in sorted(case.ends)) or 'is kept'} | {case.within_s:g} s |" for case in CASES
    ]
    return "\n".join(["| the venue | the connection | all is well again within |", "|---|---|---|", *rows])
