"""Debian packages unpacked inside the checkout: no root needed, nothing of the system changed.

The package lists, the archives and the files all go into `.servers/`; apt checks the signatures and hashes as always.
Runs on the system's own Python, before there is a virtual environment, so it uses the standard library only.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

__all__ = ["ROOT", "UNPACKED", "UnobtainableError", "library_path", "unpack"]

ROOT = Path(__file__).resolve().parent.parent
_HOME = ROOT / ".servers"

UNPACKED = _HOME / "unpacked"
"""Where the files of unpacked packages are, as if it were `/`."""

_APT_TIMEOUT_S = 300
_INSTALL_LINE = re.compile(r"^Inst (?P<name>\S+) (?:\[[^\]]*\] )?\((?P<version>\S+) ")
_updated = False


class UnobtainableError(Exception):
    """A package could not be had; the message is one line that says why."""


def unpack(package: str, *, dependencies: bool = True) -> None:
    """Download `package` with what it needs and the system lacks, and unpack it all under `UNPACKED`.

    Args:
        package: Name of a Debian or Ubuntu package.
        dependencies: False for a program that needs nothing beside the C library.

    Raises:
        UnobtainableError: If this is no Debian, there is no network, or apt does not know the package.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UnobtainableError(f"there is no {tool} here (not a Debian or Ubuntu?)")
    _update_lists()
    wanted = _with_dependencies(package) if dependencies else [package]
    archives = _HOME / "archives"
    shutil.rmtree(archives, ignore_errors=True)
    archives.mkdir(parents=True)
    _apt("download", *wanted, cwd=archives)
    for archive in sorted(archives.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(archive), str(UNPACKED)])
    shutil.rmtree(archives)


def library_path() -> str:
    """The folders with unpacked shared libraries, for LD_LIBRARY_PATH."""
    folders = {library.parent for library in UNPACKED.glob("**/*.so*")}
    return ":".join(sorted(str(folder) for folder in folders if _holds_libraries(folder)))


def _holds_libraries(folder: Path) -> bool:
    """Also libraries that another library finds by a path of its own: those of PulseAudio, without which Chromium does not start."""
    return folder.name.endswith("-linux-gnu") or folder.name in {"lib", "pulseaudio"}


def _update_lists() -> None:
    """Fetch the package lists into the checkout, once per run."""
    global _updated
    if _updated:
        return
    for folder in ("apt/lists/partial", "apt/cache/archives/partial", "apt/log", "unpacked"):
        (_HOME / folder).mkdir(parents=True, exist_ok=True)
    _apt("-qq", "update")
    _updated = True


def _with_dependencies(package: str) -> list[str]:
    """What apt would install for `package` on this system, each as name=version; the package itself where it is there already."""
    plan = _apt("--simulate", "--no-install-recommends", "install", package)
    found = [f"{match['name']}={match['version']}" for line in plan.splitlines() if (match := _INSTALL_LINE.match(line))]
    return found or [package]


def _apt(*arguments: str, cwd: Path | None = None) -> str:
    """Run apt-get on state of its own inside the checkout."""
    own_state = {
        "Dir::State::lists": str(_HOME / "apt" / "lists"),
        "Dir::Cache": str(_HOME / "apt" / "cache"),
        "Dir::Log": str(_HOME / "apt" / "log"),
        "Debug::NoLocking": "true",  # the system's lock is not ours to take; nothing of the system is written
        "APT::Sandbox::User": "",  # the sandbox user may not be able to enter the checkout
        "Acquire::Retries": "2",
    }
    options = [argument for key, value in own_state.items() for argument in ("-o", f"{key}={value}")]
    return _run(["apt-get", *options, *arguments], cwd=cwd)


def _run(command: list[str], cwd: Path | None = None) -> str:
    """The output of a command that must succeed."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=_APT_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnobtainableError(f"{command[0]}: {error}") from None
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines() or ["no message"]
        raise UnobtainableError(f"{command[0]} ended with {done.returncode}: {complaints[0]}")
    return done.stdout
