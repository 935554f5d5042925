"""One connection to an MQTT 5 broker, for publishing: many messages under way, each with the broker's own reason code.

What is to be sent in one turn of the loop goes to the socket in one write, and acknowledgements are taken as they come in, many at a time:
a burst of 11,279 events is 22,558 messages, and each turn is shared with an evaluator at work.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from monitor.wire.mqtt import (
    DISCONNECT,
    MAXIMUM_PACKET_SIZE,
    MAXIMUM_QOS,
    PINGREQ,
    RECEIVE_MAXIMUM,
    SERVER_KEEP_ALIVE,
    Acknowledged,
    Connected,
    Disconnected,
    Packets,
    connect,
    publish,
    reason,
)

__all__ = ["ConnectionEnded", "MqttConnection", "Publication", "Refusal", "TooLarge", "Will"]

QUICK_ACKNOWLEDGEMENT: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux only."""

PACKET_BYTES = 16
"""Fixed header, lengths, packet id and properties of a PUBLISH, rounded up."""

MOST_UNDER_WAY = 1_000
"""Messages under way at once, where the broker allows more."""


class ConnectionEnded(Exception):
    """The connection is over; says why. What was under way may have arrived or not. `is_timeout`: because nothing was acknowledged."""

    def __init__(self, why: str, *, is_timeout: bool = False) -> None:
        super().__init__(why)
        self.is_timeout = is_timeout


class Refusal(Exception):
    """The broker does not let us connect."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text or reason(code))
        self.code = code


class TooLarge(Exception):
    """The broker has said that it takes no packet of this size."""


class Publication(NamedTuple):
    """One message to publish with QoS 1."""

    topic: str
    payload: bytes
    is_retained: bool = True


class Will(NamedTuple):
    """What the broker publishes, retained, when we are gone without a farewell."""

    topic: str
    payload: bytes


@dataclass(slots=True, eq=False)
class _Group:
    """Messages that are acknowledged together: their reason codes in the order in which they were sent."""

    codes: list[int]
    missing: int
    done: asyncio.Future[list[int]]


class MqttConnection(asyncio.Protocol):
    """A connection that stands until `ended`. Made by `open`."""

    def __init__(self, *, timeout_s: float, keepalive_s: int) -> None:
        self.maximum_packet_size: int | None = None
        self._loop = asyncio.get_running_loop()
        self._timeout_s, self._keepalive_s = timeout_s, keepalive_s
        self._packets = Packets()
        self._transport: asyncio.Transport | None = None
        self._welcome: asyncio.Future[Connected] = self._loop.create_future()
        self._ended: asyncio.Future[ConnectionEnded] = self._loop.create_future()
        self._why: ConnectionEnded | None = None
        self._window = MOST_UNDER_WAY
        self._last_id = 0
        self._under_way: dict[int, tuple[_Group, int]] = {}
        self._queue: deque[tuple[_Group, int, bytes, Publication]] = deque()
        self._is_pumping = False
        self._heard_at = self._progress_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        *,
        client_id: str,
        will: Will,
        username: str | None,
        password: str | None,
        tls: ssl.SSLContext | None,
        timeout_s: float,
        keepalive_s: int,
    ) -> MqttConnection:
        """Connects. Raises OSError (TLS's among them), TimeoutError, Refusal, ConnectionEnded; then nothing is left open.

        Args:
            timeout_s: For all of it, and later for the next acknowledgement of what is under way.
            keepalive_s: A broker that is silent for twice this time is given up.
        """
        packet = connect(
            client_id,
            keepalive_s=keepalive_s,
            will_topic=will.topic,
            will_payload=will.payload,
            username=username,
            password=password,
        )
        connection = cls(timeout_s=timeout_s, keepalive_s=keepalive_s)
        try:
            async with asyncio.timeout(timeout_s):
                await connection._loop.create_connection(lambda: connection, host, port, ssl=tls)
                connection._write(packet)
                await asyncio.wait((connection._welcome, connection._ended), return_when=asyncio.FIRST_COMPLETED)
            if not connection._welcome.done():
                raise connection._ended.result()
            connection._take_welcome(connection._welcome.result())
        except BaseException:
            connection.abort()
            raise
        return connection

    def publish(self, messages: Sequence[Publication]) -> asyncio.Future[list[int]]:
        """Sends messages after all earlier ones; the future holds the broker's reason code of each, or raises ConnectionEnded.

        Raises TooLarge for a message that the broker would not take, and ConnectionEnded; nothing is sent then. Giving the future up
        does not take the messages back.
        """
        if self._why is not None:
            raise self._why
        topics = [message.topic.encode() for message in messages]
        if self.maximum_packet_size is not None:
            for topic, message in zip(topics, messages, strict=True):
                size = len(topic) + len(message.payload) + PACKET_BYTES
                if size > self.maximum_packet_size:
                    raise TooLarge(f"{size} bytes for {message.topic}: the broker takes packets of {self.maximum_packet_size} bytes")
        group = _Group([0] * len(messages), len(messages), self._loop.create_future())
        if not self._under_way and not self._queue:
            self._progress_at = self._loop.time()
        self._queue.extend((group, place, topic, message) for place, (topic, message) in enumerate(zip(topics, messages, strict=True)))
        if not self._is_pumping:
            self._is_pumping = True
            self._loop.call_soon(self._pump)
        return group.done

    async def ended(self, closing: asyncio.Future[None], within_s: float) -> ConnectionEnded | None:
        """Waits for the end of the connection, at most so long, and says why it came; None when it stands, or `closing` came first."""
        await asyncio.wait((closing, self._ended), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        return self._why

    async def leave(self, within_s: float) -> None:
        """Disconnects: politely if the broker lets us, else by breaking off."""
        if self._transport is not None and self._why is None:
            self._write(DISCONNECT)
            self._transport.close()
            await asyncio.wait((self._ended,), timeout=within_s)
        self.abort()

    def abort(self, why: ConnectionEnded | None = None) -> None:
        """Breaks the connection off."""
        if self._why is None:
            self._end(why or ConnectionEnded("closed by us"))
        if self._transport is not None:
            self._transport.abort()

    # -- what asyncio calls --------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        with contextlib.suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._why is not None:  # given up meanwhile
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        if self._why is None:
            self._end(ConnectionEnded(str(exc) if exc is not None else "the broker closed the connection"))

    def data_received(self, data: bytes) -> None:
        """The broker says something."""
        self._acknowledge_quickly()
        self._heard_at = self._loop.time()
        try:
            for packet in self._packets.feed(data):
                if isinstance(packet, Acknowledged):
                    self._acknowledged(packet)
                elif isinstance(packet, Connected) and not self._welcome.done():
                    self._welcome.set_result(packet)
                elif isinstance(packet, Disconnected):
                    self.abort(ConnectionEnded(f"the broker ended the connection: {reason(packet.code)}"))
        except ValueError as error:
            self.abort(ConnectionEnded(str(error)))
        self._pump()

    # -- inside --------------------------------------------------------------------------------------------------------------------

    def _take_welcome(self, welcome: Connected) -> None:
        if welcome.code:
            raise Refusal(welcome.code)
        told = welcome.properties
        if not told.get(MAXIMUM_QOS, 2):
            raise Refusal(0x9B)
        self.maximum_packet_size = told.get(MAXIMUM_PACKET_SIZE)
        self._window = min(self._window, told.get(RECEIVE_MAXIMUM, MOST_UNDER_WAY))
        self._keepalive_s = told.get(SERVER_KEEP_ALIVE, self._keepalive_s) or self._keepalive_s
        self._look()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def _pump(self) -> None:
        """Sends what waits as far as the window goes, in one write."""
        self._is_pumping = False
        if self._why is not None or not self._queue:
            return
        packets: list[bytes] = []
        while self._queue and len(self._under_way) < self._window:
            group, place, topic, message = self._queue.popleft()
            packet_id = self._last_id % 65_535 + 1
            while packet_id in self._under_way:
                packet_id = packet_id % 65_535 + 1
            self._last_id = packet_id
            self._under_way[packet_id] = (group, place)
            packets.append(publish(topic, message.payload, packet_id, is_retained=message.is_retained))
        if packets:
            self._write(b"".join(packets))

    def _acknowledged(self, packet: Acknowledged) -> None:
        found = self._under_way.pop(packet.packet_id, None)
        if found is None:
            return
        self._progress_at = self._heard_at
        group, place = found
        group.codes[place] = packet.code
        group.missing -= 1
        if not group.missing and not group.done.done():
            group.done.set_result(group.codes)

    def _acknowledge_quickly(self) -> None:
        """Has the kernel send the TCP acknowledgement that it holds back.

        A broker that leaves Nagle's algorithm on (mosquitto's default) holds all PUBACKs but the first back until that one is acknowledged,
        which would be after 40 ms: a burst of 11,279 events took 60 s. The kernel forgets the wish by itself, so it is said each time.
        """
        if QUICK_ACKNOWLEDGEMENT is not None and self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, QUICK_ACKNOWLEDGEMENT, 1)

    def _look(self) -> None:
        """Looks after the broker a few times within each limit: keeps it awake, and gives up one that no longer acknowledges or speaks."""
        now = self._loop.time()
        if self._why is not None:
            return
        if (self._under_way or self._queue) and now - self._progress_at >= self._timeout_s:
            self.abort(ConnectionEnded(f"no acknowledgement within {self._timeout_s:g} s", is_timeout=True))
            return
        if now - self._heard_at >= 2 * self._keepalive_s:
            self.abort(ConnectionEnded(f"the broker was silent for {2 * self._keepalive_s} s"))
            return
        if now - self._heard_at >= self._keepalive_s / 2:
            self._write(PINGREQ)
        self._timer = self._loop.call_later(min(self._timeout_s, self._keepalive_s) / 4, self._look)

    def _end(self, why: ConnectionEnded) -> None:
        self._why = why
        if self._timer is not None:
            self._timer.cancel()
        if not self._ended.done():
            self._ended.set_result(why)
        groups = {id(group): group for group, _ in self._under_way.values()} | {id(group): group for group, *_ in self._queue}
        self._under_way.clear()
        self._queue.clear()
        for group in groups.values():
            if not group.done.done():
                group.done.set_exception(why)
                group.done.exception()  # who has given it up need not fetch it
