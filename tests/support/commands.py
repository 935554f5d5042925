"""Programs from outside that a test runs: found on the PATH, else the test is left out by name."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

__all__ = ["needs", "output_of", "path_of", "running"]

_FOLDERS_OF_ADMINISTRATORS = "/usr/local/sbin:/usr/sbin:/sbin"


def path_of(command: str) -> str | None:
    """Where a command is, on the PATH or in the folders of administrators; None where it is absent."""
    return shutil.which(command) or shutil.which(command, path=_FOLDERS_OF_ADMINISTRATORS)


def needs(*commands: str) -> pytest.MarkDecorator:
    """Leaves a test out where one of the commands is absent, and says which."""
    absent = [name for name in commands if path_of(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)} on the PATH")


@contextlib.contextmanager
def running(command: str, *arguments: str) -> Iterator[None]:
    """Runs a server while the block lasts."""
    program = path_of(command)
    assert program is not None, command
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def output_of(command: list[str], *, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit code, and standard output and error together, of a command that ends by itself within a minute."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode, done.stdout
