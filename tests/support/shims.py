"""Shared libraries that change what a process sees of its machine, compiled from `shims/`, and a redis-server started under one of them."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from monitor.ledger.server import find_redis_server

__all__ = ["build_shim", "cut_power", "needs_gcc", "preloaded_redis"]

_SOURCES = Path(__file__).with_name("shims")

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc on the PATH")


def build_shim(name: str, folder: Path) -> Path:
    """The library `name`: fsync_record (how much of the append-only file is durable) or clock_shift (another wall clock)."""
    library = folder / f"{name}.so"
    source = _SOURCES / f"{name}.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True, capture_output=True, timeout=60)
    return library


def preloaded_redis(library: Path, **environment: str) -> Path:
    """A program like redis-server that runs it under this library."""
    server = find_redis_server()
    program = library.with_name("redis-server")
    settings = " ".join(f"{name}={value}" for name, value in environment.items())
    program.write_text(f'#!/bin/sh\nexec env LD_PRELOAD={library} {settings} {server} "$@"\n')
    program.chmod(0o755)
    library.with_name("redis-check-aof").symlink_to(server)
    return program


def cut_power(folder: Path, draw: random.Random) -> int:
    """What a power cut leaves of the append-only file of a killed server: its durable part, sometimes with half a write behind.

    The server ran under fsync_record. Returns the bytes taken away.
    """
    (file,) = folder.rglob("*.incr.aof")
    record = file.with_name(file.name + ".synced")
    durable = int(record.read_text()) if record.exists() else 0
    written = file.stat().st_size
    keep = durable if draw.random() < 0.8 else draw.randint(durable, max(durable, written))
    with file.open("r+b") as handle:
        handle.truncate(keep)
    return written - keep
