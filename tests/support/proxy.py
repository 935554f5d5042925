"""A proxy between a client and redis-server that does what a network can do, to one chosen EXEC (or other request) or to everything.

One EXEC (`arm`):

- cut_reply: the server gets the request and answers; the client gets a closed connection instead of the answer
- drop_request: neither the request nor an answer arrives; the connection is closed
- hold: the request stays on its way until the client has given up, then it reaches the server

Everything: `latency_s` each way, `black_hole` (nothing passes, nothing is closed; what was on its way arrives late), `reset` (all
connections at once), `slow_bytes` (a few at a time), and `target` for the connections from then on: another server, a fail-over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from monitor.ledger.connection import Endpoint

__all__ = ["ACTIONS", "FaultProxy"]

ACTIONS = ("cut_reply", "drop_request", "hold")
_EXEC = b"*1\r\n$4\r\nEXEC\r\n"


class FaultProxy:
    """Listens on a unix socket and forwards to another one. `arm` chooses what happens to which EXEC, counted over all connections."""

    def __init__(self, socket: Path, target: str, *, marker: bytes = _EXEC) -> None:
        self.endpoint = Endpoint(path=str(socket))
        self.execs = 0
        self.struck = 0
        self.closed_by_client = asyncio.Event()
        self.target = target
        self.latency_s = 0.0
        self.slow_bytes = 0
        self._socket, self._marker = socket, marker
        self._at = 0
        self._action = ""
        self._again = 0
        self._hold_until: asyncio.Event | None = None
        self._passable = asyncio.Event()
        self._passable.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def arm(self, action: str, *, after: int = 1, again: int = 0, hold_until: asyncio.Event | None = None) -> None:
        """The EXEC that comes `after` so many from now is struck, then each `again`-th if that is given.

        A held one goes on at `hold_until`, or when its client has closed.
        """
        self._action, self._at, self._again, self._hold_until = action, self.execs + after, again, hold_until

    def disarm(self) -> None:
        """The next EXECs pass."""
        self._action = ""

    @contextlib.contextmanager
    def black_hole(self) -> Iterator[None]:
        """While the block lasts, bytes go in and do not come out, in both directions."""
        self._passable.clear()
        try:
            yield
        finally:
            self._passable.set()

    def reset(self) -> None:
        """Ends every connection at once, whatever was on its way."""
        for writer in self._writers:
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FaultProxy]:
        """Serves until the block ends."""
        server = await asyncio.start_unix_server(self._serve, str(self._socket))
        try:
            yield self
        finally:
            server.close()
            for writer in list(self._writers):
                writer.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(client_out)
        server_out: asyncio.StreamWriter | None = None
        try:
            server_in, server_out = await asyncio.open_unix_connection(self.target)
            self._writers.add(server_out)
            muted = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                back = group.create_task(self._backward(server_in, client_out, muted))
                await self._forward(client_in, server_out, muted)
                back.cancel()
        except* (OSError, asyncio.CancelledError):
            pass  # the end of the test: on Python 3.11 a cancelled handler is reported as an error of the server
        finally:
            for writer in (client_out, server_out):
                if writer is not None:
                    writer.transport.abort()
                    self._writers.discard(writer)
            self._tasks.discard(task)

    async def _backward(self, server_in: asyncio.StreamReader, client_out: asyncio.StreamWriter, muted: asyncio.Event) -> None:
        while data := await server_in.read(1 << 16):
            if not muted.is_set():
                await self._pass_on(data, client_out)
        client_out.close()

    async def _pass_on(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Bytes that are not struck, as the network now is."""
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        await self._passable.wait()
        step = self.slow_bytes or len(data)
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
            await writer.drain()
            if self.slow_bytes:
                await asyncio.sleep(0.001)

    async def _forward(
        self,
        client_in: asyncio.StreamReader,
        server_out: asyncio.StreamWriter,
        muted: asyncio.Event,
    ) -> None:
        tail = b""
        while data := await client_in.read(1 << 20):
            seen = (tail + data).count(self._marker) - tail.count(self._marker)
            tail = (tail + data)[-len(self._marker) + 1 :]
            before = self.execs
            self.execs += seen
            if not (self._action and before < self._at <= self.execs):
                await self._pass_on(data, server_out)
                continue
            action = self._action
            if self._again:
                self._at = self.execs + self._again
            else:
                self._action = ""
            self.struck += 1
            muted.set()
            if action == "cut_reply":
                server_out.write(data)
                await server_out.drain()
                await self._worked_off()
                return
            if action == "drop_request":
                return
            await self._client_gone(client_in)
            self.closed_by_client.set()
            if self._hold_until is not None:
                await self._hold_until.wait()
            server_out.write(data)
            await server_out.drain()
            await self._worked_off()
            return

    async def _client_gone(self, client_in: asyncio.StreamReader) -> None:
        while await client_in.read(1 << 16):
            pass

    async def _worked_off(self) -> None:
        """A moment in which the server certainly works off what it got: two PINGs of another connection come back."""
        reader, writer = await asyncio.open_unix_connection(self.target)
        writer.write(b"PING\r\n")
        await reader.readline()
        writer.write(b"PING\r\n")
        await reader.readline()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
