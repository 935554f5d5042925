"""Events as lines on a stream, one line an event, whatever is in them."""

from __future__ import annotations

import select
import sys
from typing import TextIO

from monitor.alerting.messages import line
from monitor.sinks.base import Reason, SinkStatistics, is_addressed_to, read_body
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable

__all__ = ["ConsoleSink"]

PIPE_BUF = 4096
"""What a pipe that reports itself writable takes without blocking (Linux, POSIX minimum 512)."""


class ConsoleSink:
    """Writes `messages.line` of each row.

    A reader that does not read must not stop the daemon: the stream is asked first, and a full pipe is `unavailable`. Lines are at most
    4096 bytes, which a pipe takes whole.
    """

    def __init__(self, stream: TextIO | None = None, *, name: str = "console") -> None:
        self.name = name
        self.statistics = SinkStatistics()
        self._stream = stream if stream is not None else sys.stdout

    async def open(self) -> None:
        """Nothing to do."""

    async def deliver(self, row: Row) -> Delivery:
        """Writes one line; unavailable while the reader is not reading or has gone."""
        if not self._is_writable():
            return self.statistics.count(Unavailable(Reason.BUSY, detail="nobody reads standard output"))
        try:
            body = read_body(row)
        except ValueError as error:
            return self.statistics.count(Refused(Reason.REJECTED, str(error)))
        if not is_addressed_to(body, self.name):
            return Delivered()
        encoding = self._stream.encoding or "utf-8"
        text = line(body).encode(encoding, "backslashreplace").decode(encoding)
        while len(text.encode(encoding)) >= PIPE_BUF:
            text = text[: len(text) * 3 // 4] + "..."
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            return self.statistics.count(Unavailable(Reason.CLOSED, detail=str(error)))
        return self.statistics.count(Delivered())

    async def close(self) -> None:
        """Leaves the stream as it is."""

    def _is_writable(self) -> bool:
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError):
            return True  # a stream in memory, or a closed one: writing will tell
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        return bool(poll.poll(0))
