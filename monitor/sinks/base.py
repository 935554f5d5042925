"""What a sink is: it is opened, takes rows one by one and says of each what became of it, and is closed.

The worker that calls it owns cursor, order, retry and back-off; the sink owns its connection and nothing else. A row is
delivered       the receiver has it, as far as the receiver can say so (PUBACK, 2xx);
unavailable     the receiver cannot be had now: the worker waits and offers the same row again, for ever;
refused         the receiver will never take this row: the worker puts it into the dead letters and goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

import orjson

from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable

__all__ = ["Backoff", "Reason", "Sink", "SinkStatistics", "is_addressed_to", "read_body", "shortened"]


class Reason(StrEnum):
    """Why a row was not taken: the `reason` of Unavailable and Refused. A closed set: log word and metric label."""

    UNREACHABLE = "unreachable"
    """No connection: refused, no route, no such name."""
    CLOSED = "closed"
    """The connection broke before the receiver said yes."""
    TIMEOUT = "timeout"
    """No answer in time."""
    TLS = "tls"
    """The receiver's certificate is not good, or TLS failed."""
    BUSY = "busy"
    """The receiver asks to come later (429, 503, quota)."""
    SERVER_ERROR = "server_error"
    """The receiver failed (5xx)."""
    DENIED = "denied"
    """The receiver does not allow us to write this (401, 403, ACL)."""
    ADDRESS = "address"
    """The receiver's address is one that may not be called."""
    REDIRECT = "redirect"
    """The receiver sends us elsewhere; redirects are not followed."""
    REJECTED = "rejected"
    """The receiver does not want this row (other 4xx, invalid topic or payload)."""
    TOO_LARGE = "too_large"
    """The row, or the answer, is larger than allowed."""
    PROTOCOL = "protocol"
    """The answer is not the protocol's."""
    EARLIER = "earlier"
    """An earlier row of the same account has not been delivered yet; order is kept."""
    NOT_LEADING = "not_leading"
    """Another process holds the partitions; only that one may speak."""


def read_body(row: Row) -> dict[str, Any]:
    """The row's JSON object. Raises ValueError when it is none: such a row can only be refused."""
    body = orjson.loads(row.body)
    if not isinstance(body, dict):
        raise ValueError(f"row {row.id} is not a JSON object")  # noqa: TRY004 - one kind of error for a row that cannot be read
    return body


def is_addressed_to(body: Mapping[str, Any], sink: str) -> bool:
    """Whether a row is for the sink: every event is, a notice only for the sinks that its route names."""
    sinks = body.get("sinks")
    return not isinstance(sinks, list) or sink in sinks


def shortened(payload: bytes, body: Mapping[str, Any], most_bytes: int) -> bytes:
    """The payload itself, or where it is too long the same without inputs, positions and cure, one after the other; `truncated` names them.

    The result may still be too long: then it is the shortest there is.
    """
    if len(payload) <= most_bytes:
        return payload
    for left_out in (("inputs",), ("inputs", "positions"), ("inputs", "positions", "cure")):
        payload = orjson.dumps({**{key: value for key, value in body.items() if key not in left_out}, "truncated": left_out})
        if len(payload) <= most_bytes:
            break
    return payload


@runtime_checkable
class Sink(Protocol):
    """One receiver.

    `open` and `close` are called by the same task (a sink may hold a task group open between them). `open` starts whatever keeps
    the connection and returns at once: an absent receiver does not keep the daemon from starting. `deliver` may be called again while
    earlier calls are running, in the order of the rows; it never raises for what the outside does, and may be cancelled at any point
    (the row then counts as not delivered).
    """

    @property
    def name(self) -> str:
        """Name of the sink: field of its cursor in `{p}:sinks`, metric label, log word."""
        ...

    @property
    def statistics(self) -> SinkStatistics:
        """Counters, read when metrics are scraped."""
        ...

    async def open(self) -> None:
        """Starts the sink."""
        ...

    async def deliver(self, row: Row) -> Delivery:
        """Offers one row and says what became of it."""
        ...

    async def close(self) -> None:
        """Ends the sink within two seconds, whatever the receiver does."""
        ...


@dataclass(slots=True)
class SinkStatistics:
    """Plain counters of one sink."""

    delivered: int = 0
    unavailable: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    connects: int = 0
    in_flight: int = 0
    in_flight_high: int = 0
    trimmed: int = 0

    def count(self, delivery: Delivery) -> Delivery:
        """Counts what became of a row and hands it back."""
        match delivery:
            case Delivered():
                self.delivered += 1
            case Unavailable(reason=reason):
                self.unavailable[reason] += 1
            case Refused(reason=reason):
                self.refused[reason] += 1
        return delivery

    def entered(self) -> None:
        """One more row is under way."""
        self.in_flight += 1
        self.in_flight_high = max(self.in_flight_high, self.in_flight)


@dataclass(slots=True)
class Backoff:
    """Waiting times between attempts: they grow, are capped, and are spread at random so that many clients do not come back together.

    Each is uniform between half and the whole of `first_s * growth**attempt`, at most `most_s`.
    """

    uniform: Callable[[float, float], float]
    first_s: float = 0.2
    growth: float = 1.8
    most_s: float = 30.0
    attempt: int = 0

    def next(self) -> float:
        """The next waiting time in seconds."""
        whole = min(self.first_s * self.growth ** min(self.attempt, 64), self.most_s)
        self.attempt += 1
        return self.uniform(whole / 2, whole)

    def reset(self) -> None:
        """Starts again from the shortest; called after a connection that has held for a while, not after every success."""
        self.attempt = 0
