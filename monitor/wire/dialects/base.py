"""What a simulator asks of a venue's dialect: one peer a connection, which hears requests and turns quotes into the venue's frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from monitor.wire.quotes import Quotes

__all__ = ["Dialect", "Heard", "Peer"]


@dataclass(slots=True)
class Heard:
    """What follows from one message of the client.

    Attributes:
        replies: Frames to send back, in order.
        close: (code, reason) when the venue would end the connection for it.
    """

    replies: list[bytes] = field(default_factory=list)
    close: tuple[int, str] | None = None


class Peer(Protocol):
    """The venue's end of one connection."""

    topics: dict[str, None]
    """Topics subscribed, in the order asked for."""

    def greeting(self) -> list[bytes]:
        """Frames sent on connection."""

    def hear(self, message: bytes, now_ms: int) -> Heard:
        """Answers one message of the client; subscriptions change `topics`. Never raises for what a client may send."""

    def frames(self, quotes: Quotes) -> list[bytes]:
        """What this connection is sent at this moment. Empty where it subscribed nothing that the quotes hold."""


class Dialect(Protocol):
    """A venue's server.

    Attributes:
        venue: Its name.
        messages_per_s: Messages a client may send in a second before it is cut off; None where the venue does not say.
        session_s: Age at which the venue cuts a connection; None where it does not.
        ping_interval_s: How often the venue sends WebSocket pings; None where it does not.
    """

    venue: str
    messages_per_s: int | None
    session_s: float | None
    ping_interval_s: float | None

    def peer(self, target: str) -> Peer | None:
        """The end of a new connection to this path (with query), or None where the venue has nothing (HTTP 404)."""
