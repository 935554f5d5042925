"""MQTT 5 packets of a publisher: lengths at their bounds, packets in pieces, and nothing but ValueError for what is no MQTT."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.wire.mqtt import Acknowledged, Connected, Disconnected, Packet, Packets, Pong, connect, publish, reason

CONNACK = bytes.fromhex("20 17 00 00 14 21 00 14 27 00 04 93 e0 13 00 0f 12 00 02 61 62 24 01 25 01".replace(" ", ""))
"""Receive maximum 20, packets of at most 300,000 bytes, keep alive 15 s, an identifier, QoS 1, retain."""
STREAM = CONNACK + bytes.fromhex("40020001 4003000210 400400038700 d000 e0018e".replace(" ", ""))
PACKETS: list[Packet] = [
    Connected(0, {0x21: 20, 0x27: 300_000, 0x13: 15, 0x24: 1, 0x25: 1}),
    Acknowledged(1, 0),
    Acknowledged(2, 0x10),
    Acknowledged(3, 0x87),
    Pong(),
    Disconnected(0x8E),
]


@given(st.lists(st.integers(1, len(STREAM)), max_size=10))
def test_packets_may_come_in_any_pieces(cuts: list[int]) -> None:
    """However the stream is cut, the same packets come out."""
    places = sorted({0, len(STREAM), *cuts})
    packets = Packets()

    assert [one for a, b in zip(places, places[1:], strict=False) for one in packets.feed(STREAM[a:b])] == PACKETS


@given(st.binary(max_size=300))
def test_anything_else_is_a_value_error(data: bytes) -> None:
    """Bytes of a stranger are packets or a ValueError."""
    try:
        list(Packets().feed(data))
    except ValueError:
        return


@pytest.mark.parametrize(("size", "length"), [(127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"), (2_097_152, "80808001")])
def test_a_length_has_as_few_bytes_as_it_needs(size: int, length: str) -> None:
    """Section 1.5.5, at every bound."""
    packet = publish(b"t", b"x" * (size - 6), 1, is_retained=True)

    assert packet[0] == 0x33
    assert packet[1 : 1 + len(length) // 2].hex() == length
    assert len(packet) == 1 + len(length) // 2 + size


def test_a_connect_is_as_the_standard_writes_it() -> None:
    """Flags: user name, password, retained will of QoS 1, clean start."""
    packet = connect("id", keepalive_s=15, will_topic="w", will_payload=b"gone", username="u", password="p")

    assert packet == b"\x10\x1f\x00\x04MQTT\x05\xee\x00\x0f\x00\x00\x02id\x00\x00\x01w\x00\x04gone\x00\x01u\x00\x01p"


def test_a_packet_without_end_is_given_up() -> None:
    """A broker cannot have us keep megabytes."""
    with pytest.raises(ValueError, match="too large"):
        list(Packets().feed(b"\x40\xff\xff\xff\x7f"))


def test_reasons_have_words() -> None:
    """Also those that nobody knows."""
    assert (reason(0x87), reason(0xFE)) == ("not authorized (0x87)", "no known reason (0xfe)")
