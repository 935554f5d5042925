"""Frames cut out of bytes: the same, in the same order, however the bytes were cut, as the library itself reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from monitor.feeds.frame_reader import MOST_FRAMES, FrameReader

Wire = list[Frame]


@asynccontextmanager
async def reader_of(data: bytes, cuts: Sequence[int] = (), *, close: int = 1000, max_size: int = 2**20) -> AsyncIterator[FrameReader]:
    """A reader of a server that sends these bytes in these pieces, and closes."""

    async def handle(connection: ServerConnection) -> None:
        at = 0
        for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
            connection.transport.write(data[at:cut])
            at = cut
            await asyncio.sleep(0)
        await connection.close(close)

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(
            f"ws://127.0.0.1:{port}", create_connection=FrameReader, compression=None, proxy=None, max_size=max_size, close_timeout=1
        ) as connection:
            assert isinstance(connection, FrameReader)
            yield connection


async def read(data: bytes, cuts: Sequence[int] = (), *, close: int = 1000, max_size: int = 2**20) -> tuple[list[bytes], int | None]:
    """All frames, and the code at the end."""
    frames: list[bytes] = []
    async with asyncio.timeout(10), reader_of(data, cuts, close=close, max_size=max_size) as reader:
        try:
            while True:
                frames += await reader.frames()
        except ConnectionClosed as error:
            end = error.rcvd or error.sent
            return frames, end.code if end is not None else None


def wire(frames: Wire) -> bytes:
    """As a server writes them."""
    return b"".join(frame.serialize(mask=False) for frame in frames)


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=300).map(lambda data: [Frame(Opcode.TEXT, data)]),
        st.integers(60_000, 70_000).map(lambda size: [Frame(Opcode.BINARY, b"x" * size)]),
        st.binary(max_size=20).map(lambda data: [Frame(Opcode.PING, data)]),
        st.binary(max_size=9).map(lambda data: [Frame(Opcode.TEXT, data, fin=False), Frame(Opcode.PING, b""), Frame(Opcode.CONT, data)]),
    ),
    max_size=12,
)


def messages(pieces: list[Wire]) -> list[bytes]:
    """What a reader of these is to be given."""
    return [
        b"".join(frame.data for frame in piece if frame.opcode is not Opcode.PING) for piece in pieces if piece[0].opcode is not Opcode.PING
    ]


@settings(max_examples=40, deadline=None)
@given(pieces=PIECES, cuts=st.lists(st.integers(0, 100_000), max_size=8))
def test_every_message_once_and_in_order(pieces: list[Wire], cuts: list[int]) -> None:
    """Short, long, empty and fragmented messages with pings between, cut anywhere: all of them, then the close code."""
    frames, code = asyncio.run(read(wire([frame for piece in pieces for frame in piece]), cuts))

    assert frames == messages(pieces)
    assert code == 1000


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"\x81\x81\x00\x00\x00\x00a", 1002),  # masked
        (b"\xc1\x01a", 1002),  # compressed, which was not agreed
        (b"\x80\x01a", 1002),  # a continuation of nothing
        (b"\x01\x01a\x81\x01b", 1002),  # a message inside a message
        (b"\x83\x01a", 1002),  # an opcode that does not exist
        (b"\x81\x7f\x00\x00\x00\x00\x7f\xff\xff\xff", 1009),  # two gigabytes
        (b"\x81\x7e\x08\x00", 1009),  # over the limit
    ],
)
async def test_what_breaks_the_protocol_ends_the_connection(bad: bytes, code: int) -> None:
    """The frames before it are read; the connection ends with the library's own code."""
    frames, found = await read(wire([Frame(Opcode.TEXT, b"good")]) + bad, max_size=1_000)

    assert (frames, found) == ([b"good"], code)


async def test_a_reader_that_does_not_read_holds_the_socket() -> None:
    """No more than two readings of the socket wait, however much was sent; then everything comes."""
    count = 50 * MOST_FRAMES
    async with asyncio.timeout(20), reader_of(wire([Frame(Opcode.TEXT, b"0123456789" * 20)]) * count) as reader:
        await asyncio.sleep(0.3)
        waiting = len(await reader.frames())
        total = waiting
        while total < count:
            total += len(await reader.frames())

    assert waiting < MOST_FRAMES + 2 * 262_144 // 200
    assert total == count
