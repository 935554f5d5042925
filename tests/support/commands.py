"""Programs from outside that a test runs: found on the PATH, else the test is left out by name."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

__all__ = ["needs", "output_of"]

_FOLDERS_OF_ADMINISTRATORS = "/usr/local/sbin:/usr/sbin:/sbin"


def needs(*commands: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Leaves a test out where one of the commands is absent, and says which."""
    absent = [name for name in commands if shutil.which(name) is None and shutil.which(name, path=_FOLDERS_OF_ADMINISTRATORS) is None]
    return pytest.mark.skipif(bool(absent), reason=f"needs {', '.join(absent)} on the PATH")


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
