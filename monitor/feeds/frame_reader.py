"""A client's socket read as lists of frames: all that came in one turn of the loop at once, not one message a wake-up.

Whole, unmasked, unfragmented data frames, which is nearly all that a venue sends, are cut out of the bytes here. Every other frame (ping,
close, fragments, whatever breaks the protocol) goes to the library as it stands, so that the protocol and its errors remain the library's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event, State

__all__ = ["FrameReader"]

MOST_FRAMES = 1_000
"""Frames that wait for their reader before the socket is held back."""

_TEXT, _BINARY = 0x81, 0x82
_HEAD_END = b"\r\n\r\n"


class FrameReader(ClientConnection):
    """Like its base, but read by `frames()` instead of `recv()`. Compression is off: a compressed frame breaks the protocol."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._frames: list[bytes] = []
        self._arrived = asyncio.Event()
        self._is_lost = self._is_held = False
        self._cuts = False  # after the handshake, until a close or an error: then all bytes are the library's
        self._begun: list[bytes] = []  # of a frame that is not whole
        self._size = self._needed = 0  # bytes of it here, and from which count on looking again is of use
        self._parts: list[bytes] = []  # of a message in fragments
        self._head = b""

    async def frames(self) -> list[bytes]:
        """All frames that have come, in order, at least one. Raises ConnectionClosed after the last one. Cancelling loses none."""
        while not self._frames:
            if self._is_lost:
                raise self.close_exc
            self._arrived.clear()
            await self._arrived.wait()
        taken, self._frames = self._frames, []
        if self._is_held:
            self._is_held = False
            self.transport.resume_reading()
        return taken

    def data_received(self, data: bytes) -> None:
        """Cuts the frames out of the bytes."""
        if self._cuts:
            self._cut(data)
            return
        if self.protocol.state is not State.CONNECTING:
            super().data_received(data)
            return
        end = (self._head + data).find(_HEAD_END)
        if end < 0:
            self._head = (self._head + data)[-3:]
            super().data_received(data)
            return
        end += len(_HEAD_END) - len(self._head)
        super().data_received(data[:end])
        self._cuts = self.response is not None and self.response.status_code == 101 and self.protocol.handshake_exc is None
        if end < len(data):
            self.data_received(data[end:])

    def _cut(self, data: bytes) -> None:
        if self._begun:
            self._begun.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return
            data = b"".join(self._begun)
            self._begun = []
        frames, limit = self._frames, self.protocol.max_message_size
        at, size, needed = 0, len(data), 0
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                start += wide
                if length <= 127 and start > size:
                    break
                length = int.from_bytes(data[at + 2 : start]) if length <= 127 else -1  # a masked frame: no server sends one
            if length < 0 or (limit is not None and length > limit):
                self._hand_over(data[at:])
                return
            end = start + length
            if end > size:
                needed = end - at
                break
            if (data[at] == _TEXT or data[at] == _BINARY) and not self._parts:
                frames.append(data[start:end])
            else:
                super().data_received(data[at:end])
                if self.protocol.state is not State.OPEN:
                    self._hand_over(data[end:])
                    return
            at = end
        if at < size:
            self._begun, self._size, self._needed = [data[at:]], size - at, needed
        self._tell()

    def _hand_over(self, data: bytes) -> None:
        """From here on the library reads."""
        self._cuts = False
        self._tell()
        if data:
            super().data_received(data)

    def _tell(self) -> None:
        if self._frames:
            self._arrived.set()
            if len(self._frames) > MOST_FRAMES and not self._is_held and not self.transport.is_closing():
                self._is_held = True
                self.transport.pause_reading()

    def process_event(self, event: Event) -> None:
        """Joins the fragments of a message; the rest is the library's."""
        if not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
            return
        self._parts.append(bytes(event.data))
        if event.fin:
            self._frames.append(b"".join(self._parts))
            self._parts.clear()
            self._tell()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends `frames()` after the last one."""
        super().connection_lost(exc)
        self._is_lost = True
        self._arrived.set()
