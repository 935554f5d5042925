"""What is particular about a venue, as data: addresses, pings, limits, intervals. Nothing in the shared code asks for a venue's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit, urlunsplit

from monitor.errors import ConfigError
from monitor.wire.frames import Codec, Topic, Wanted
from monitor.wire.prices import PriceBatch

__all__ = ["Derive", "Limits", "Ping", "VenueProfile"]

Derive = Callable[[list[PriceBatch]], list[PriceBatch]]
"""Turns what the codecs of a venue's connections read into what is published; may remember."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Who keeps the connection alive.

    Attributes:
        every_s: We send the codec's ping message this often; None where the venue pings us (the library answers WebSocket pings).
        answer_s: No answer to our message for so long ends the connection.
    """

    every_s: float | None = None
    answer_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the venue allows; kept by us so that it never has to refuse.

    Attributes:
        topics: Per connection. topics_per_request: in one subscribe message.
        messages: Messages we may send on one connection in `messages_period_s`.
        connects: Connections we may open in `connects_period_s`, over all endpoints.
        frame_bytes: Largest frame accepted (after decompression, which is off).
    """

    topics: int = 200
    topics_per_request: int = 100
    messages: int = 4
    messages_period_s: float = 1.0
    connects: int = 60
    connects_period_s: float = 300.0
    frame_bytes: int = 4 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueProfile:
    """One venue.

    Attributes:
        venue: Its name in documents and configuration.
        endpoints: Endpoint -> address. A venue may split its streams over several.
        codec: Makes the codec of one connection to an endpoint.
        topics: What to subscribe for what is wanted.
        derive: Makes what stands between the venue's codecs and the publisher, one for all connections; None for nothing.
        ping, limits: see there.
        session_s: Age at which a connection is replaced, before the venue cuts it; None where the venue does not.
        silence_s: A connection with a confirmed topic and without any price for so long is dead, whatever its pings say.
        keepalive_s: We ping the peer on the WebSocket level this often, and give it up when no answer comes for as long again; None: never
            (a replay that holds the socket back reads the answer late).
        confirm_s: A subscription not confirmed for so long is asked again.
    """

    venue: str
    endpoints: Mapping[str, str]
    codec: Callable[[str], Codec]
    topics: Callable[[Wanted], tuple[Topic, ...]]
    derive: Callable[[], Derive] | None = None
    ping: Ping = Ping()
    limits: Limits = Limits()
    session_s: float | None = None
    silence_s: float = 10.0
    keepalive_s: float | None = 20.0
    confirm_s: float = 10.0

    def at(self, base: str) -> VenueProfile:
        """The same venue at another host, paths kept: a simulator, a proxy. `base`: `ws://host:port` (loopback only) or `wss://host[:port]`.

        Raises:
            ConfigError: For another scheme, or `ws://` to another machine: prices decide about money and are not read over an open line.
        """
        parts = urlsplit(base)
        loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        if parts.scheme != "wss" and not (parts.scheme == "ws" and loopback):
            raise ConfigError(
                source="feeds", key=f"{self.venue}.url", value=base, expected="wss://host, or ws:// on loopback (127.0.0.1, ::1, localhost)"
            )
        moved = {
            name: urlunsplit((parts.scheme, parts.netloc, urlsplit(address).path, urlsplit(address).query, ""))
            for name, address in self.endpoints.items()
        }
        return replace(self, endpoints=moved)
