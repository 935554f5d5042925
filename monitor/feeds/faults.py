"""What a simulated venue does wrong, on demand: every way in which a real one has failed somebody."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode

from monitor.feeds.clock import Clock
from monitor.wire.quotes import Quotes

__all__ = ["Faults", "go_half_open", "reset", "send_slowly"]


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
    _sent: int = 0
    _held: bytes | None = None

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

    def frames(self, frames: list[bytes]) -> list[bytes]:
        """The frames as they are really sent."""
        sent: list[bytes] = []
        for frame in frames:
            self._sent += 1
            if self.lose_every and self._sent % self.lose_every == 0:
                continue
            if self.reorder and self._held is None:
                self._held = frame
                continue
            sent.append(frame)
            if self._held is not None:
                sent.append(self._held)
                self._held = None
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


async def send_slowly(connection: ServerConnection, frame: bytes, bytes_per_s: float, clock: Clock) -> None:
    """Lets one frame trickle out, byte by byte."""
    data = Frame(Opcode.TEXT, frame).serialize(mask=False)
    for index in range(len(data)):
        if connection.transport.is_closing():
            return
        connection.transport.write(data[index : index + 1])
        await clock.sleep(1 / bytes_per_s)
