"""One plain connection to one Redis, where every outcome is told: an answer, or not known.

redis-py is not used for it. Its connection reconnects by itself on the next write, which would lose a WATCH; its time-outs swallow
cancellations on Python 3.11; and reading reply by reply it made 1,018 EXECs of 100 rows a second where this makes 2,295. hiredis parses and
packs.

A cancelled or timed-out exchange closes the connection, so no reply is ever handed to another request. What the server did with the bytes
is then not known: the caller finds out by a new connection and a compare-and-swap, never by sending again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from monitor.errors import ConfigError, LedgerBroken, LedgerUnavailable

__all__ = [
    "Argument",
    "Command",
    "ConnectionLost",
    "Endpoint",
    "Link",
    "Moved",
    "Refusal",
    "ReplyError",
    "Wire",
    "fault_of",
    "raise_faults",
]

Argument = str | bytes | int | float
Command = tuple[Argument, ...]

ReplyError = hiredis.ReplyError
"""An error reply: a value in the list that `Wire.exchange` returns. Its text begins with the code."""

_T = TypeVar("_T")

_MISSING = object()
_MOST_MOVES = 5

_TEMPORARY = frozenset(
    (
        *("ASK", "BUSY", "CLUSTERDOWN", "EXECABORT", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH"),
        *("NOPERM", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN", "UNKILLABLE", "WRONGPASS"),
    )
)
"""Codes that say: nothing was done, and it may work later, or when a person has acted."""


class ConnectionLost(LedgerUnavailable):
    """The connection broke, timed out or could not be made. Whether the last request was carried out is not known."""


class Refusal(LedgerUnavailable):
    """Redis answered that it did not do it. `code` is the first word of the answer (OOM, MISCONF, READONLY, NOPERM ...)."""

    def __init__(self, text: str) -> None:
        self.code = text.partition(" ")[0]
        super().__init__(text)


class Moved(Refusal):
    """The slot lives on another node of the cluster."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        host, _, port = text.split(" ")[2].rpartition(":")
        self.host, self.port = host, int(port)


def fault_of(error: Exception) -> LedgerUnavailable | LedgerBroken:
    """The error to raise for an error reply. Codes nobody expects (WRONGTYPE, ERR ...) mean a ledger that is not what it should be."""
    text = str(error)
    code = text.partition(" ")[0]
    if code == "MOVED":
        return Moved(text)
    return Refusal(text) if code in _TEMPORARY else LedgerBroken(f"Redis answered {text!r}")


def raise_faults(replies: Sequence[object]) -> None:
    """Raises the error of the first error reply, if there is one. A MOVED wins over the EXECABORT that follows it, being earlier."""
    for reply in replies:
        if isinstance(reply, ReplyError):
            raise fault_of(reply)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a Redis is and how to log in. `path` set: a unix socket."""

    host: str = "127.0.0.1"
    port: int = 6379
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    ca_file: str | None = None

    @classmethod
    def parse(cls, url: str, *, username: str | None = None, password: str | None = None, ca_file: str | None = None) -> Endpoint:
        """Reads redis://HOST:PORT/DB, rediss://..., unix:///PATH?db=N. A user or password given apart wins over one in the address.

        Raises ConfigError (key "url") for anything else. Passwords are not repeated in it.
        """
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.hostname or parts.path}"
        if parts.scheme not in {"redis", "rediss", "unix"}:
            raise ConfigError(
                source="redis", key="url", value=shown, expected="redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH"
            )
        query = parse_qs(parts.query)
        try:
            port = parts.port or 6379
            database = int(query["db"][0]) if "db" in query else 0
            if parts.scheme != "unix" and parts.path.strip("/"):
                database = int(parts.path.strip("/"))
        except ValueError as error:
            raise ConfigError(source="redis", key="url", value=shown, expected="a port of 1 to 65535 and a database number") from error
        return cls(
            host=parts.hostname or "127.0.0.1",
            port=port,
            path=unquote(parts.path) if parts.scheme == "unix" else None,
            database=database,
            username=username or (unquote(parts.username) if parts.username else None),
            password=password or (unquote(parts.password) if parts.password else None),
            tls=parts.scheme == "rediss",
            ca_file=ca_file,
        )

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"Endpoint({self})"


class Wire(asyncio.Protocol):
    """One connection. One exchange at a time; two at once are a programmer's error."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._reader = hiredis.Reader(notEnoughData=_MISSING)
        self._replies: list[Any] = []
        self._wanted = 0
        self._answer: asyncio.Future[list[Any]] | None = None
        self._transport: asyncio.Transport | None = None
        self.closed = False

    @classmethod
    async def connect(cls, endpoint: Endpoint, *, timeout_s: float, client_name: str = "margin-monitor") -> Wire:
        """Opens a connection and logs in. Raises ConnectionLost, Refusal (a wrong password, LOADING ...)."""
        loop = asyncio.get_running_loop()
        wire = cls(str(endpoint))
        try:
            async with asyncio.timeout(timeout_s):
                if endpoint.path is not None:
                    await loop.create_unix_connection(lambda: wire, endpoint.path)
                else:
                    context = ssl.create_default_context(cafile=endpoint.ca_file) if endpoint.tls else None
                    await loop.create_connection(lambda: wire, endpoint.host, endpoint.port, ssl=context)
                commands: list[Command] = []
                if endpoint.password is not None:
                    commands.append(("AUTH", *([endpoint.username] if endpoint.username else []), endpoint.password))
                if endpoint.database:
                    commands.append(("SELECT", endpoint.database))
                commands.append(("CLIENT", "SETNAME", client_name))
                raise_faults(await wire.exchange(commands, timeout_s=timeout_s))
        except (OSError, TimeoutError) as error:
            wire.close()
            reason = "no connection in time" if isinstance(error, TimeoutError) else str(error)
            raise ConnectionLost(f"{endpoint}: {reason}") from error
        except BaseException:
            wire.close()
            raise
        return wire

    async def exchange(self, commands: Sequence[Command], *, timeout_s: float) -> list[Any]:
        """Sends all commands in one write and returns their replies in order. Error replies are values in the list.

        Raises ConnectionLost when the connection breaks or the replies are not all there in time. Then, and when cancelled, the connection
        is closed and it is not known which of the commands were carried out.
        """
        answer = self._expect(len(commands))
        try:
            self.send(commands)
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            self.close()
            raise ConnectionLost(f"{self._name}: no answer in {timeout_s:g} s") from error
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._answer = None

    async def call(self, *command: Argument, timeout_s: float) -> Any:
        """One command; raises its error reply as LedgerUnavailable or LedgerBroken."""
        replies = await self.exchange([command], timeout_s=timeout_s)
        raise_faults(replies)
        return replies[0]

    def send(self, commands: Sequence[Command]) -> None:
        """Writes commands without waiting. Part of `exchange`; alone only for a crash point that dies between two writes."""
        if self._transport is None or self.closed:
            raise ConnectionLost(f"{self._name}: the connection is closed")
        self._transport.write(b"".join([hiredis.pack_command(cast("Any", command)) for command in commands]))

    def close(self) -> None:
        """Ends the connection at once; bytes not yet sent are dropped. May be called twice."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionLost(f"{self._name}: closed"))

    def _expect(self, count: int) -> asyncio.Future[list[Any]]:
        assert self._answer is None, "two exchanges at once on one connection"
        self._replies, self._wanted = [], count
        self._answer = asyncio.get_running_loop().create_future()
        return self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)
        if self.closed:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Called by the loop: collects replies until all of the running exchange are there."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not _MISSING:
                self._replies.append(reply)
        except hiredis.ProtocolError:
            self.close()
            return
        answer = self._answer
        if answer is None or len(self._replies) > self._wanted:
            self.close()  # an answer to nothing: whatever this is, it must not be taken for a later reply
        elif len(self._replies) == self._wanted and not answer.done():
            answer.set_result(self._replies)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self.closed = True
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionLost(f"{self._name}: {exc or 'closed by the other side'}"))


class Link:
    """Opens connections for one purpose (a partition, a sink) and follows its slot through a cluster by hand."""

    def __init__(self, endpoint: Endpoint, *, timeout_s: float = 2.0, client_name: str = "margin-monitor") -> None:
        self._origin = endpoint
        self._endpoint = endpoint
        self._client_name = client_name
        self.timeout_s = timeout_s

    @property
    def endpoint(self) -> Endpoint:
        """Where the next connection goes."""
        return self._endpoint

    async def open(self) -> Wire:
        """A new connection.

        Raises ConnectionLost or Refusal; a node that is gone is forgotten, so the next attempt asks the first one again.
        """
        try:
            return await Wire.connect(self._endpoint, timeout_s=self.timeout_s, client_name=self._client_name)
        except ConnectionLost:
            self._endpoint = self._origin
            raise

    async def run(self, work: Callable[[Wire], Awaitable[_T]]) -> _T:
        """What `work` returns on a connection of its own; begun again on the right node when the slot has moved. Raises what it raises."""
        for _ in range(_MOST_MOVES):
            wire = await self.open()
            try:
                return await work(wire)
            except Moved as error:
                self.follow(error)
            finally:
                wire.close()
        raise ConnectionLost(f"{self._endpoint}: sent on {_MOST_MOVES} times: the nodes do not agree where the slot is")

    def follow(self, error: BaseException) -> None:
        """Remembers where a MOVED points; other errors change nothing. An empty host means the same host."""
        if isinstance(error, Moved):
            origin = self._origin
            self._endpoint = Endpoint(
                host=error.host or origin.host,
                port=error.port,
                username=origin.username,
                password=origin.password,
                tls=origin.tls,
                ca_file=origin.ca_file,
            )
