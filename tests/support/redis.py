"""A real redis-server for tests: on a unix socket, in a temporary folder, with the settings of the ledger or of the cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from monitor.ledger.connection import Command, Endpoint, Link, Wire
from monitor.ledger.server import LEDGER_SETTINGS, EmbeddedServer

__all__ = ["Redis", "redis_server"]


class Redis:
    """A running server and the shortest way to ask it something."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.endpoint = Endpoint.parse(server.url)

    @property
    def url(self) -> str:
        """The address, as settings spell it."""
        return self.server.url

    def link(self, *, timeout_s: float = 5.0) -> Link:
        """A link to it."""
        return Link(self.endpoint, timeout_s=timeout_s)

    async def call(self, *command: Any) -> Any:
        """One command on a connection of its own."""
        wire = await Wire.connect(self.endpoint, timeout_s=5.0)
        try:
            return await wire.call(*command, timeout_s=10.0)
        finally:
            wire.close()

    async def exchange(self, *commands: Command) -> list[Any]:
        """Several commands on a connection of its own."""
        wire = await Wire.connect(self.endpoint, timeout_s=5.0)
        try:
            return await wire.exchange(commands, timeout_s=10.0)
        finally:
            wire.close()


@asynccontextmanager
async def redis_server(
    settings: Mapping[str, str] = LEDGER_SETTINGS, *, folder: Path | None = None, binary: Path | None = None
) -> AsyncIterator[Redis]:
    """A server for one test; its folder goes with it unless it was given."""
    home = folder or Path(tempfile.mkdtemp(prefix="redis-"))
    server = EmbeddedServer(home, settings=settings, binary=binary)
    try:
        await server.start()
        yield Redis(server)
    finally:
        if folder is None and server.pid is not None:
            await server.kill()  # a clean end takes a tenth of a second, for nothing
        await server.stop()
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)
