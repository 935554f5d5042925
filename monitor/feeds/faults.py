"""What a simulated venue does wrong, on demand: every way in which a real one has failed somebody."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from monitor.feeds.clock import Clock
from monitor.wire.quotes import Quotes

__all__ = ["Faults", "Line", "go_half_open", "reset", "send_slowly"]


@dataclass(slots=True)
class Line:
    """What the faults know of one connection: frames that were to be sent, and the one held back."""

    count: int = 0
    held: bytes | None = None


@dataclass(slots=True, kw_only=True)
class Faults:
    """Standing faults, changed while the simulator runs.

    Attributes:
        silent: Nothing is sent; pings are answered, subscriptions confirmed.
        silent_names: These names are left out of every moment.
        refuse_topics: Subscriptions to these are refused in the venue's words.
        handshake: (status, headers) given instead of opening a connection.
        duplicate: Every frame is sent twice.
        reorder: Every second frame is sent before the one that precedes it.
        lose_every: Each n-th frame is left out; 0 for none.
        late_s: Event times lie so far in the past.
        freeze_time: Event times stand, prices go on.
        bytes_per_s: Frames trickle out at this rate; 0 for as fast as the socket takes them.
    """

    silent: bool = False
    silent_names: set[str] = field(default_factory=set)
    refuse_topics: set[str] = field(default_factory=set)
    handshake: tuple[int, Mapping[str, str]] | None = None
    duplicate: bool = False
    reorder: bool = False
    lose_every: int = 0
    late_s: float = 0.0
    freeze_time: bool = False
    bytes_per_s: float = 0.0
    _frozen_ms: int | None = None

    def distort(self, quotes: Quotes) -> Quotes:
        """The moment as the venue would show it."""
        if self.freeze_time:
            self._frozen_ms = quotes.time_ms if self._frozen_ms is None else self._frozen_ms
            quotes = replace(quotes, time_ms=self._frozen_ms)
        else:
            self._frozen_ms = None
        if self.late_s:
            quotes = replace(quotes, time_ms=quotes.time_ms - round(self.late_s * 1000))
        if self.silent_names:
            numbers = {
                kind: {name: text for name, text in of_kind.items() if name not in self.silent_names}
                for kind, of_kind in quotes.numbers.items()
            }
            quotes = replace(quotes, numbers=numbers)
        return quotes

    def frames(self, frames: list[bytes], line: Line) -> list[bytes]:
        """The frames of one connection as they are really sent."""
        sent: list[bytes] = []
        for frame in frames:
            line.count += 1
            if self.lose_every and line.count % self.lose_every == 0:
                continue
            if self.reorder and line.held is None:
                line.held = frame
                continue
            sent.append(frame)
            if line.held is not None:
                sent.append(line.held)
                line.held = None
            if self.duplicate:
                sent.append(frame)
        return sent


def reset(connection: ServerConnection) -> None:
    """Ends a connection by RST: no close frame, no FIN, what was under way is lost."""
    raw = connection.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()


def go_half_open(connection: ServerConnection) -> None:
    """Stops reading and says nothing any more, pings included, while the connection stays open: a peer that lost its power or its route."""
    transport = connection.transport
    assert isinstance(transport, asyncio.ReadTransport), "a TCP transport"
    transport.pause_reading()


class _Queued:
    """A transport whose writes join what trickles, so that a pong does not end up inside a frame. Everything else is the transport's."""

    def __init__(self, transport: asyncio.Transport, waiting: bytearray) -> None:
        self._transport, self._waiting = transport, waiting

    def write(self, data: bytes) -> None:
        """Joins the end."""
        self._waiting += data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def send_slowly(connection: ServerConnection, frame: bytes, bytes_per_s: float, clock: Clock) -> None:
    """Lets one frame, and what else is written meanwhile, trickle out byte by byte."""
    transport = connection.transport
    waiting = bytearray(Frame(Opcode.TEXT, frame).serialize(mask=False))
    connection.transport = _Queued(transport, waiting)  # type: ignore[assignment]
    try:
        while waiting and not transport.is_closing():
            transport.write(bytes(waiting[:1]))
            del waiting[:1]
            await clock.sleep(1 / bytes_per_s)
    finally:
        connection.transport = transport
