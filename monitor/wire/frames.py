"""What a venue's codec gives and takes: topics wanted, batches and control messages read, requests written.

A codec lives as long as one connection, because some venues send only what changed. It is pure: it is handed the bytes and the time
of their arrival, and hands back values. Everything a venue can do wrong ends as a `CodecError` (the frame is lost, the connection is
not) or as a count by reason in `Decoded.rejected` (the item is lost, its neighbours are used).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

import orjson

from monitor.errors import CodecError
from monitor.margin.prices import PriceKind
from monitor.wire.prices import PriceBatch

__all__ = [
    "EARLIEST_MS",
    "Codec",
    "Confirmed",
    "Control",
    "Decoded",
    "Denied",
    "Ending",
    "Fault",
    "Notice",
    "Pong",
    "Reply",
    "Topic",
    "Wanted",
    "is_name",
    "is_time",
    "iso_ms",
    "moment_of",
    "read_json",
    "text_ms",
]

EARLIEST_MS = 1_262_304_000_000
"""2010-01-01 in ms. A venue time before it is no time in ms (seconds, 0, negative)."""

_LATEST_AHEAD_MS = 86_400_000
_YEAR_2100_MS = 4_102_444_800_000
_NAME = re.compile(r"[A-Za-z0-9._:@/#+-]{1,64}", re.ASCII)


class Fault(StrEnum):
    """Why a frame or an item of a frame could not be used: the closed set of `CodecError.reason` and of the keys of `Decoded.rejected`."""

    NOT_JSON = "not_json"
    WRONG_SHAPE = "wrong_shape"
    UNKNOWN_MESSAGE = "unknown_message"
    BAD_NAME = "bad_name"
    BAD_TIME = "bad_time"
    NOT_A_NUMBER = "not_a_number"
    NOT_POSITIVE = "not_positive"
    OUT_OF_RANGE = "out_of_range"
    NO_UNIVERSE = "no_universe"
    TOO_MANY_NAMES = "too_many_names"


def is_name(value: object) -> bool:
    """Whether this can be the name of an instrument or an asset: 1 to 64 of letters, digits and `._:@/#+-`: it goes into keys."""
    return type(value) is str and _NAME.fullmatch(value) is not None


def is_time(value: object, received_at_ns: int) -> bool:
    """Whether this can be a venue's event time in ms: after 2010 and at most a day after it was received.

    A time in seconds, a zero or the year 2100 is refused here; a clock that is minutes wrong is not, it is measured.
    """
    return type(value) is int and EARLIEST_MS <= value <= received_at_ns // 1_000_000 + _LATEST_AHEAD_MS


def read_json(venue: str, frame: bytes) -> Any:
    """The JSON value of a frame. Raises CodecError (`not_json`), also for NaN, 1e400, bytes that are not UTF-8 and deep nesting."""
    try:
        return orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise CodecError(venue, Fault.NOT_JSON, frame, str(error)) from None


def text_ms(value: object) -> int | None:
    """Milliseconds written as a string of 13 digits, or None."""
    return int(value) if type(value) is str and len(value) == 13 and value.isascii() and value.isdigit() else None


_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", re.ASCII)


def iso_ms(value: object) -> int | None:
    """Milliseconds of a UTC moment like `2026-05-27T12:56:40.500Z`, or None."""
    if type(value) is not str or _ISO.fullmatch(value) is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return round(moment.timestamp() * 1000)


def moment_of(value: object) -> float | None:
    """Milliseconds since 1970 of a moment between 2010 and 2100, given as a number, as a string of 13 digits or in ISO; or None.

    As a number of a batch: exact, since it is below 2^53.
    """
    number = value if type(value) is int else text_ms(value)
    moment = iso_ms(value) if number is None else number
    return float(moment) if moment is not None and EARLIEST_MS <= moment < _YEAR_2100_MS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which numbers of one venue are needed.

    Attributes:
        instruments: Their marks are watched: one that is late is told as stale.
        everything: Also take every other instrument of the venue's all-instrument channels, and watch each from its first number on.
        assets: Index prices needed, by asset.
        kinds: Kinds wanted beside mark and index, where the venue has them.
    """

    instruments: frozenset[str] = frozenset()
    everything: bool = False
    assets: frozenset[str] = frozenset()
    kinds: frozenset[PriceKind] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One subscription.

    Attributes:
        key: The topic as the venue writes it; what acknowledgements name.
        endpoint: Which of the venue's addresses serves it.
        supplies: Kind -> names whose numbers must come on it.
        interval_s: Nominal time between two numbers of one name. A name is stale after max(3 of them, 3 s).
        open_kind: A kind of which every name that comes is watched from then on (`Wanted.everything`), or None.
    """

    key: str
    endpoint: str
    supplies: tuple[tuple[PriceKind, tuple[str, ...]], ...] = ()
    interval_s: float = 1.0
    open_kind: PriceKind | None = None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The venue accepted a subscription: the numbered request, the topics it names, or of the numbered request only the topics it names."""

    request: int | None = None
    topics: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Denied:
    """The venue refused a subscription: the whole numbered request, or the topics it names."""

    request: int | None = None
    topics: tuple[str, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes to send back at once, else the venue closes (an application ping)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to our own application ping."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something for the log."""

    text: str


@dataclass(frozen=True, slots=True)
class Ending:
    """The venue says that it will close, or that this connection is of no more use: open another one."""

    text: str


Control = Confirmed | Denied | Reply | Pong | Notice | Ending


@dataclass(slots=True)
class Decoded:
    """What one frame held.

    Attributes:
        received_at_ns: Wall clock when the frame arrived.
        batches: Prices, one kind each, in the frame's order.
        controls: Everything else.
        rejected: Reason -> number of items left out; None when all were used.
    """

    received_at_ns: int
    batches: list[PriceBatch] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    rejected: dict[str, int] | None = None

    def reject(self, reason: str) -> None:
        """Counts one item that could not be used."""
        if self.rejected is None:
            self.rejected = {}
        self.rejected[reason] = self.rejected.get(reason, 0) + 1


class Codec(Protocol):
    """Both directions of one connection to one venue, from the client's side."""

    def decode(self, frame: bytes, received_at_ns: int) -> Decoded:
        """The content of one frame. Raises CodecError, and nothing else, for what cannot be read."""

    def opening(self) -> Sequence[bytes]:
        """Messages to send right after the connection is open, before any subscription."""

    def subscribe(self, topics: Sequence[str], request: int) -> bytes:
        """The message that subscribes these topics."""

    def unsubscribe(self, topics: Sequence[str], request: int) -> bytes:
        """The message that gives them up."""

    def ping(self, request: int) -> bytes | None:
        """The venue's own ping message, or None where WebSocket pings do."""
