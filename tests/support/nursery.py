"""Processes of the monitor, forked from one that has everything imported and compiled: a start costs hundredths of a second, not a second.

What is forked runs the whole program from its command line on, in a process of its own that can be killed, stopped and resumed. Run as a
program, this module is the parent that forks: it listens on a unix socket and takes orders as lines of JSON; who closes a connection ends
what was started over it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Life", "Nursery", "connected", "nursery"]

ROOT = Path(__file__).resolve().parents[2]


class Life:
    """One process, from its start to its end."""

    def __init__(self, nursery: Nursery, number: int, log: Path) -> None:
        self.log = log
        self.pid = 0
        self.returncode: int | None = None
        self.started, self.over = asyncio.Event(), asyncio.Event()
        self._nursery, self._number = nursery, number

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal; one that is over does not mind."""
        self._nursery.order({"life": self._number, "signal": int(number)})

    async def ended(self, within_s: float = 30.0) -> int:
        """Its exit code; -9 when it was killed. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            await self.over.wait()
        assert self.returncode is not None
        return self.returncode

    async def kill(self) -> None:
        """SIGKILL; returns when it is no more."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def says(self, word: str, *, times: int = 1, within_s: float = 30.0) -> None:
        """Returns when its log has this so often. Raises TimeoutError, and EOFError when it ends without."""
        async with asyncio.timeout(within_s):
            while self.text().count(word) < times:
                if self.over.is_set() and self.text().count(word) < times:
                    raise EOFError(f"ended with {self.returncode} before it said {word}: {self.text()[-2_000:]}")
                await asyncio.sleep(0.01)

    def memory_kb(self, what: str = "VmRSS") -> int:
        """Its resident memory now, or the most there was (VmHWM), in KiB."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what))

    def text(self) -> str:
        """What it has logged."""
        return self.log.read_text() if self.log.exists() else ""


class Nursery:
    """The side that gives orders."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, folder: Path) -> None:
        self.lives: list[Life] = []
        self._reader, self._writer, self._folder = reader, writer, folder

    async def start(self, name: str, *arguments: str, **environment: str) -> Life:
        """A process with this command line; its output goes to a log of its own."""
        number = len(self.lives)
        life = Life(self, number, self._folder / f"{number:03d}-{name}.log")
        self.lives.append(life)
        self.order({"life": number, "arguments": arguments, "environment": environment, "log": str(life.log)})
        async with asyncio.timeout(30):
            await life.started.wait()
        return life

    def order(self, order: Mapping[str, Any]) -> None:
        """One line."""
        self._writer.write(json.dumps(order).encode() + b"\n")

    async def listen(self) -> None:
        """Takes in what is told of the lives, until cancelled."""
        while line := await self._reader.readline():
            told = json.loads(line)
            life = self.lives[told["life"]]
            if "pid" in told:
                life.pid = told["pid"]
                life.started.set()
            else:
                life.returncode = told["ended"]
                life.over.set()


@contextlib.contextmanager
def nursery(folder: Path, *prefix: str, **environment: str) -> Iterator[Path]:
    """The forking parent, ready; the path of its socket. `prefix` is put before its command (unshare, say)."""
    path = folder / "nursery.sock"
    command = [*prefix, sys.executable, str(Path(__file__)), str(path)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 180  # kernels of a first start are compiled
        while not path.exists():
            assert process.poll() is None, f"the nursery ended with {process.returncode}"
            assert time.monotonic() < deadline, "the nursery is not ready"
            time.sleep(0.02)
        yield path
    finally:
        assert process.stdin is not None
        process.stdin.close()  # its sign to end
        process.wait(30)


@contextlib.asynccontextmanager
async def connected(path: Path, folder: Path) -> AsyncIterator[Nursery]:
    """A connection to it; all processes started over it end with the block."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    ours = Nursery(reader, writer, folder)
    listening = asyncio.create_task(ours.listen())
    try:
        yield ours
    finally:
        for life in ours.lives:
            life.signal(signal.SIGKILL)
        for life in ours.lives:
            await life.ended()
        listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listening
        writer.close()


# ------------------------------------------------------------------ the forking parent


class _Order:
    """One connection and the processes started over it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.rest = connection, b""
        self.pids: dict[int, int] = {}


def _serve(path: Path) -> None:
    from monitor.engine.evaluator import Evaluator
    from monitor.service import commands, wiring  # noqa: F401  imported once, for all
    from monitor.service.settings import load_settings

    Evaluator(load_settings(None, environment={}).levels.thresholds(), exact=lambda *_: "not asked").warm_up()
    gc.collect()
    gc.freeze()
    selector = selectors.DefaultSelector()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path.with_suffix(".new")))
    listener.listen()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    path.with_suffix(".new").rename(path)
    while True:
        for key, _ in selector.select():
            if key.fd == 0:
                return
            if key.fileobj is listener:
                connection, _ = listener.accept()
                selector.register(connection, selectors.EVENT_READ, _Order(connection))
            elif isinstance(key.data, _Order):
                _take_orders(key.data, selector)
            else:
                order, number = key.data
                selector.unregister(key.fd)
                os.close(key.fd)
                _, status = os.waitpid(order.pids.pop(number), 0)
                _tell(order, {"life": number, "ended": os.waitstatus_to_exitcode(status)})


def _take_orders(order: _Order, selector: selectors.BaseSelector) -> None:
    data = order.connection.recv(1 << 16)
    if not data:
        for pid in order.pids.values():
            os.kill(pid, signal.SIGKILL)
        selector.unregister(order.connection)
        return
    *lines, order.rest = (order.rest + data).split(b"\n")
    for line in lines:
        asked = json.loads(line)
        number = asked["life"]
        if "signal" in asked:
            if number in order.pids:
                os.kill(order.pids[number], asked["signal"])
            continue
        pid = os.fork()
        if pid == 0:
            _become(asked)
        order.pids[number] = pid
        selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (order, number))
        _tell(order, {"life": number, "pid": pid})


def _tell(order: _Order, text: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        order.connection.sendall(json.dumps(text).encode() + b"\n")


def _become(asked: Mapping[str, Any]) -> None:
    """The program, as if it had been started by its name. Does not return."""
    code = 70
    try:
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.closerange(3, 256)  # the sockets of the parent
        os.environ.update(asked["environment"])
        random.seed()
        from monitor.ledger import crashpoints
        from monitor.service import entry

        importlib.reload(crashpoints)
        sys.argv = ["margin-monitor", *asked["arguments"]]
        entry.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001  whatever it is, it belongs into this log, and this process must not go on as its parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    ours: Sequence[str] = sys.argv
    _serve(Path(ours[1]))
