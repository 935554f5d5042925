"""What a simulator asks of a venue's dialect: one peer a connection, which hears requests and turns quotes into the venue's frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from monitor.margin.prices import PriceKind
from monitor.wire.quotes import Quotes

__all__ = ["NO_NUMBERS", "Changes", "Dialect", "Heard", "Peer", "numbers_of"]

NO_NUMBERS: Mapping[str, str] = {}


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
    """The venue's end of one connection.

    Attributes:
        topics: Topics subscribed, in the order asked for.
        refuse: Topics this venue does not have: subscriptions to them are refused in its own words.
    """

    topics: dict[str, None]
    refuse: set[str]

    def greeting(self) -> list[bytes]:
        """Frames sent on connection."""

    def hear(self, message: bytes, latest: Quotes) -> Heard:
        """Answers one message of the client; subscriptions change `topics`. Never raises for what a client may send.

        `latest`: the state of the market, for venues that send it on subscription.
        """

    def frames(self, quotes: Quotes) -> list[bytes]:
        """What this connection is sent at this moment. Empty where it subscribed nothing that the quotes hold."""


class Dialect(Protocol):
    """A venue's server.

    Attributes:
        venue: Its name.
        messages_per_s: Messages a client may send in a second before it is cut off; None where the venue does not say.
        connects: (attempts, seconds): how many connections a client may open in how long before it is refused with 429; None likewise.
        session_s: Age at which the venue cuts a connection; None where it does not.
        ping_interval_s: How often the venue sends WebSocket pings; None where it does not.
    """

    venue: str
    messages_per_s: int | None
    connects: tuple[int, float] | None
    session_s: float | None
    ping_interval_s: float | None

    def peer(self, target: str) -> Peer | None:
        """The end of a new connection to this path (with query, unquoted), or None where the venue has nothing (HTTP 404)."""


def numbers_of(quotes: Quotes, kind: PriceKind) -> Mapping[str, str]:
    """The numbers of one kind, none where the quotes have none."""
    return quotes.numbers.get(kind, NO_NUMBERS)


class Changes:
    """Which numbers changed since they were last sent on a connection, for venues that send only these."""

    def __init__(self) -> None:
        self._sent: dict[tuple[PriceKind, str], str] = {}

    def take(self, quotes: Quotes, kind: PriceKind, name: str) -> str | None:
        """The number if it is there and not what was sent last; then it counts as sent."""
        text = numbers_of(quotes, kind).get(name)
        if text is None or self._sent.get((kind, name)) == text:
            return None
        self._sent[kind, name] = text
        return text

    def forget(self, name: str) -> None:
        """The next numbers of this name are all new."""
        for kind in PriceKind:
            self._sent.pop((kind, name), None)
