"""MQTT 5 packets as far as a publisher needs them: it connects with a will, publishes with QoS 1, reads acknowledgements, and leaves.

Sections named here are those of "MQTT Version 5.0", OASIS Standard, 7 March 2019.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

__all__ = [
    "DISCONNECT",
    "PINGREQ",
    "Acknowledged",
    "Connected",
    "Disconnected",
    "Packet",
    "Packets",
    "Pong",
    "connect",
    "publish",
    "reason",
]

PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
"""A normal one: the broker drops the will."""

MOST_BYTES = 65_536
"""What a broker sends a publisher is small; more is no MQTT."""

REASONS: Mapping[int, str] = {
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "unsupported protocol version",
    0x85: "client identifier not valid",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8B: "server shutting down",
    0x8D: "keep alive timeout",
    0x8E: "session taken over",
    0x90: "topic name invalid",
    0x91: "packet identifier in use",
    0x93: "receive maximum exceeded",
    0x95: "packet too large",
    0x96: "message rate too high",
    0x97: "quota exceeded",
    0x98: "administrative action",
    0x99: "payload format invalid",
    0x9A: "retain not supported",
    0x9B: "QoS not supported",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9F: "connection rate exceeded",
    0xA0: "maximum connect time",
}
"""Section 2.4, those that a publisher can get."""

RECEIVE_MAXIMUM, SERVER_KEEP_ALIVE, MAXIMUM_QOS, MAXIMUM_PACKET_SIZE = 0x21, 0x13, 0x24, 0x27
_FORMATS: Mapping[int, str] = {
    **dict.fromkeys((0x24, 0x25, 0x28, 0x29, 0x2A), ">B"),
    **dict.fromkeys((0x13, 0x21, 0x22), ">H"),
    **dict.fromkeys((0x11, 0x27), ">I"),
    **dict.fromkeys((0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F), "text"),
    0x26: "pair",
}
"""Properties of a CONNACK by identifier (section 3.2.2.3)."""


@dataclass(frozen=True, slots=True)
class Connected:
    """CONNACK. `code` from 0x80 on is a no; `properties`: numbers by identifier."""

    code: int
    properties: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """PUBACK."""

    packet_id: int
    code: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The broker ends the connection."""

    code: int


@dataclass(frozen=True, slots=True)
class Pong:
    """PINGRESP."""


Packet = Connected | Acknowledged | Disconnected | Pong


def reason(code: int) -> str:
    """A reason code in words: `not authorized (0x87)`."""
    return f"{REASONS.get(code, 'no known reason')} (0x{code:02x})"


def connect(
    client_id: str, *, keepalive_s: int, will_topic: str, will_payload: bytes, username: str | None = None, password: str | None = None
) -> bytes:
    """CONNECT with a clean start, a session that ends with the connection, and a retained will of QoS 1 (section 3.1)."""
    flags = 0x02 | 0x04 | 0x08 | 0x20 | (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    parts = [b"\x00\x04MQTT\x05", bytes((flags,)), struct.pack(">H", keepalive_s), b"\x00", _text(client_id)]
    parts += [b"\x00", _text(will_topic), _binary(will_payload)]
    parts += [_text(each) for each in (username, password) if each is not None]
    body = b"".join(parts)
    return b"\x10" + _length(len(body)) + body


def publish(topic: bytes, payload: bytes, packet_id: int, *, is_retained: bool) -> bytes:
    """PUBLISH with QoS 1 (section 3.3)."""
    size = len(topic) + len(payload) + 5
    head = b"\x33" if is_retained else b"\x32"
    return b"%b%b%b%b%b\x00%b" % (head, _length(size), struct.pack(">H", len(topic)), topic, struct.pack(">H", packet_id), payload)


class Packets:
    """Cuts what arrives into packets."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """The packets that are complete now. Raises ValueError for what is no MQTT, or nothing that a publisher gets."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while (end := _end(buffer, start)) is not None:
                at, until = end
                yield _packet(buffer[start], bytes(buffer[at:until]))
                start = until
        finally:
            del buffer[:start]


def _end(buffer: bytearray, start: int) -> tuple[int, int] | None:
    """Where the body of the packet at `start` begins and ends; None while it is not all there (section 2.1.4)."""
    size = shift = 0
    for place in range(start + 1, len(buffer)):
        size |= (buffer[place] & 0x7F) << shift
        if size > MOST_BYTES or shift > 21:
            raise ValueError("the broker sends a packet that is too large")
        if buffer[place] < 0x80:
            end = place + 1 + size
            return (place + 1, end) if end <= len(buffer) else None
        shift += 7
    return None


def _packet(kind: int, body: bytes) -> Packet:
    match kind >> 4:
        case 4 if len(body) >= 2:  # without a code it is success (section 3.4.2.1)
            return Acknowledged(body[0] << 8 | body[1], body[2] if len(body) > 2 else 0)
        case 2 if len(body) >= 2:
            return Connected(body[1], _properties(body[2:]) if len(body) > 2 else {})
        case 13:
            return Pong()
        case 14:
            return Disconnected(body[0] if body else 0)
        case _:
            raise ValueError(f"the broker sends what is no MQTT 5 packet for a publisher: 0x{kind:02x}")


def _properties(data: bytes) -> dict[int, int]:
    """The numbers among the properties; texts are passed over."""
    found: dict[int, int] = {}
    size = shift = place = 0
    try:
        while True:
            size |= (data[place] & 0x7F) << shift
            place, shift, is_last = place + 1, shift + 7, data[place] < 0x80
            if is_last:
                break
        end = place + size
        while place < end:
            identifier, place = data[place], place + 1
            form = _FORMATS[identifier]
            if form in ("text", "pair"):
                for _ in range(2 if form == "pair" else 1):
                    place += 2 + (data[place] << 8 | data[place + 1])
            else:
                (found[identifier],) = struct.unpack_from(form, data, place)
                place += struct.calcsize(form)
    except (IndexError, KeyError, struct.error):
        raise ValueError("the broker's properties cannot be read") from None
    return found


def _length(size: int) -> bytes:
    """A length of one to four bytes, seven bits each (section 1.5.5)."""
    if size < 0x80:
        return bytes((size,))
    parts = bytearray()
    while size:
        parts.append(size & 0x7F | (0x80 if size > 0x7F else 0))
        size >>= 7
    return bytes(parts)


def _binary(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def _text(text: str) -> bytes:
    return _binary(text.encode())
