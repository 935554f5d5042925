"""A venue on loopback: speaks its protocol, plays a tape, so that the daemon cannot tell it from the exchange.

The tape stands still until the first subscription. With `speed="max"` it goes as fast as the readers read (a slow reader holds it), and
stands still again when nobody is subscribed; with a number it keeps time like the exchange, whoever listens.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Literal
from urllib.parse import unquote

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from monitor.errors import ConfigError
from monitor.feeds.clock import SYSTEM_CLOCK, Clock
from monitor.feeds.faults import Faults, Line, go_half_open, reset, send_slowly
from monitor.feeds.tape import Moment, Sent
from monitor.wire.dialects.base import Dialect, Peer
from monitor.wire.quotes import Quotes

__all__ = ["Client", "Simulator", "SimulatorStatistics", "Speed"]

Speed = float | Literal["max"]


@dataclass(slots=True)
class SimulatorStatistics:
    """What the simulator saw and did.

    Attributes:
        connections: Opened ever; open_now: open.
        moments: Played from the tape. frames: sent, all connections together. prices: numbers of the moments played, by kind; a reader
            that keeps up with one connection has taken as many (`FeedStatistics.prices`).
        messages: Received from clients. limited: connections cut because they sent too many, or refused because they came too often.
        refused: Handshakes refused, by status.
    """

    connections: int = 0
    open_now: int = 0
    moments: int = 0
    frames: int = 0
    prices: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    limited: int = 0
    refused: dict[int, int] = field(default_factory=dict)


class Client:
    """One connection as the simulator sees it."""

    def __init__(self, connection: ServerConnection, peer: Peer, path: str, clock: Clock) -> None:
        self.connection, self.peer, self.path = connection, peer, path
        self.opened_at = clock.monotonic()
        self.half_open = False
        self.line = Line()
        self.heard_at: deque[float] = deque()

    def frames(self, what: Quotes | Sent) -> list[bytes]:
        """What of a moment this connection is sent."""
        if isinstance(what, Quotes):
            return self.peer.frames(what)
        return [what.data] if what.path in {"", self.path} else []


class Simulator:
    """One venue, one port. `async with simulator.running():` in a test, `await simulator.run()` in a command."""

    def __init__(
        self,
        dialect: Dialect,
        tape: Iterable[Moment],
        *,
        speed: Speed = 1.0,
        stamp: Literal["tape", "now"] = "tape",
        host: str = "127.0.0.1",
        port: int = 0,
        session_s: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Prepares; `run` listens.

        Args:
            dialect: The venue's side of its protocol.
            tape: What is played. Quotes become each connection's frames; frames go to the connections of their
                path that subscribed anything.
            speed: Times as fast as the tape's own time, or "max".
            stamp: Event times sent: the tape's own, or the present ("now": what an exchange would send; delays can then be measured).
            session_s: Age at which connections are cut, in place of the venue's own.
        """
        if speed != "max" and not 0 < speed < 1e6:
            raise ConfigError(source="simulator", key="speed", value=str(speed), expected='a number of times > 0, or "max"')
        self.dialect, self.speed, self.host, self.port = dialect, speed, host, port
        self.statistics = SimulatorStatistics()
        self.clients: set[Client] = set()
        self.faults = Faults()
        self.latest = Quotes(time_ms=0, numbers={})
        self._stamp, self._clock = stamp, clock
        self._attempts: deque[float] = deque()
        self._tape = iter(tape)
        self._first = next(self._tape, None)
        if self._first is not None and isinstance(self._first[1], Quotes):
            self.latest = self._first[1]  # what a venue that sends its state on subscription has to send
        self._session_s = session_s if session_s is not None else dialect.session_s
        self._listening, self._subscribed, self._played = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @property
    def url(self) -> str:
        """`ws://host:port`, for `VenueProfile.at`. Valid while running."""
        return f"ws://{self.host}:{self.port}"

    async def run(self) -> None:
        """Listens and plays until cancelled. After the tape's end connections stay open and silent."""
        async with serve(
            self._handle,
            self.host,
            self.port,
            process_request=self._admit,
            compression=None,
            max_size=2**20,
            ping_interval=self.dialect.ping_interval_s,
            ping_timeout=600,
            close_timeout=1,
            server_header=None,
        ) as server:
            self.port = _port_of(server)
            self._listening.set()
            await self._play()
            await asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Simulator]:
        """Runs inside a with block."""
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.run(), name=f"simulator:{self.dialect.venue}")
            await self._listening.wait()
            try:
                yield self
            finally:
                task.cancel()

    async def listening(self) -> None:
        """Returns when the port is open."""
        await self._listening.wait()

    async def subscribed(self) -> None:
        """Returns once a client has subscribed something."""
        await self._subscribed.wait()

    async def played(self) -> None:
        """Returns when the tape has been played to its end and every open connection has answered a ping sent after it.

        The bytes are then with the reader; it may still have some frames before it. It has read all when its own counters say so.
        """
        await self._played.wait()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """404 for a path that the venue does not have, 429 for one attempt too many, and what the faults ask for."""
        if self._comes_too_often():
            self.statistics.limited += 1
            return connection.respond(HTTPStatus.TOO_MANY_REQUESTS, "too many connections\n")
        if self.faults.handshake is not None:
            status, headers = self.faults.handshake
            self.statistics.refused[status] = self.statistics.refused.get(status, 0) + 1
            response = connection.respond(HTTPStatus(status), "no\n")
            for key, value in headers.items():
                response.headers[key] = value
            return response
        if self.dialect.peer(unquote(request.path)) is None:
            self.statistics.refused[404] = self.statistics.refused.get(404, 0) + 1
            return connection.respond(HTTPStatus.NOT_FOUND, "no such stream\n")
        return None

    def _comes_too_often(self) -> bool:
        """Counts an attempt, whatever becomes of it, against the venue's limit."""
        if self.dialect.connects is None:
            return False
        most, period_s = self.dialect.connects
        now = self._clock.monotonic()
        self._attempts.append(now)
        while self._attempts[0] <= now - period_s:
            self._attempts.popleft()
        return len(self._attempts) > most

    async def _handle(self, connection: ServerConnection) -> None:
        """One client: hears until it goes."""
        assert connection.request is not None, "after the handshake"
        peer = self.dialect.peer(unquote(connection.request.path))
        assert peer is not None, "admitted"
        peer.refuse = self.faults.refuse_topics
        client = Client(connection, peer, connection.request.path.partition("?")[0], self._clock)
        self.clients.add(client)
        self.statistics.connections += 1
        self.statistics.open_now += 1
        try:
            for frame in peer.greeting():
                await connection.send(frame, text=True)
            if peer.topics:
                self._subscribed.set()
            async with asyncio.TaskGroup() as group:
                cut = group.create_task(self._cut_when_old(client), name="simulator:age")
                try:
                    await self._hear(client)
                finally:
                    cut.cancel()
        except ConnectionClosed:
            pass
        finally:
            self.clients.discard(client)
            self.statistics.open_now -= 1
            if not any(other.peer.topics for other in self.clients):
                self._subscribed.clear()

    async def _cut_when_old(self, client: Client) -> None:
        if self._session_s is not None:
            await self._clock.sleep(self._session_s)
            await client.connection.close(1001, "session expired")

    async def _hear(self, client: Client) -> None:
        limit = self.dialect.messages_per_s
        while True:
            try:
                message = await client.connection.recv()
            except ConnectionClosed:
                return
            self.statistics.messages += 1
            now = self._clock.monotonic()
            client.heard_at.append(now)
            while client.heard_at[0] <= now - 1:
                client.heard_at.popleft()
            if limit is not None and len(client.heard_at) > limit:
                self.statistics.limited += 1
                await client.connection.close(1008, "Too many requests")
                return
            heard = client.peer.hear(message.encode() if isinstance(message, str) else message, self.latest)
            try:
                for frame in heard.replies:
                    await client.connection.send(frame, text=True)
            except ConnectionClosed:
                return
            if heard.close is not None:
                await client.connection.close(*heard.close)
                return
            if client.peer.topics:
                self._subscribed.set()
            elif not any(other.peer.topics for other in self.clients):
                self._subscribed.clear()

    async def _play(self) -> None:
        """The tape, from its first moment."""
        await self._subscribed.wait()
        started_at = self._clock.monotonic()
        breathe_at = time.monotonic()
        for offset_s, what in itertools.chain([self._first] if self._first is not None else [], self._tape):
            if self.speed == "max":
                await self._subscribed.wait()
                if time.monotonic() - breathe_at > 0.005:  # a send into an empty buffer does not yield
                    await asyncio.sleep(0)
                    breathe_at = time.monotonic()
            else:
                wait_s = started_at + offset_s / self.speed - self._clock.monotonic()
                if wait_s > 0:
                    await self._clock.sleep(wait_s)
            await self._send(what)
            self.statistics.moments += 1
        for client in list(self.clients):
            try:
                await (await client.connection.ping())
            except ConnectionClosed:
                continue
        self._played.set()

    async def _send(self, what: Quotes | Sent) -> None:
        """One moment to every client, one after the other: at full speed the slowest reader sets the pace."""
        if isinstance(what, Quotes):
            if self._stamp == "now":
                what = replace(what, time_ms=self._clock.wall_ns() // 1_000_000)
            self.latest = Quotes(
                time_ms=what.time_ms,
                numbers={kind: {**self.latest.numbers.get(kind, {}), **numbers} for kind, numbers in what.numbers.items()},
            )
            for kind, numbers in what.numbers.items():
                self.statistics.prices[kind] = self.statistics.prices.get(kind, 0) + len(numbers)
            what = self.faults.distort(what)
        for client in list(self.clients):
            if not client.peer.topics or client.half_open or self.faults.silent:
                continue
            await self.send(client, self.faults.frames(client.frames(what), client.line))

    async def send(self, client: Client, frames: Sequence[bytes]) -> None:
        """Sends frames to one client as they stand; a client that has gone is no error."""
        try:
            for frame in frames:
                if self.faults.bytes_per_s:
                    await send_slowly(client.connection, frame, self.faults.bytes_per_s, self._clock)
                else:
                    await client.connection.send(frame, text=True)
                self.statistics.frames += 1
        except ConnectionClosed:
            return

    async def send_all(self, frame: bytes) -> None:
        """Sends one frame, whatever it is, to every client."""
        for client in list(self.clients):
            await self.send(client, [frame])

    async def close_all(self, code: int, reason: str = "") -> None:
        """Closes every connection with this code."""
        for client in list(self.clients):
            await client.connection.close(code, reason)

    def reset_all(self) -> None:
        """Ends every connection by RST."""
        for client in list(self.clients):
            reset(client.connection)

    def half_open_all(self) -> None:
        """Leaves every connection open and dead."""
        for client in list(self.clients):
            client.half_open = True
            go_half_open(client.connection)


def _port_of(server: Server) -> int:
    port = next(iter(server.sockets)).getsockname()[1]
    assert isinstance(port, int)
    return port
