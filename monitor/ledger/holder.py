"""The name under which a process holds a partition, and whether the process of such a name is provably dead.

    <host>:<pid>:<start of the process, ticks since boot>-<boot id>-<pid namespace>-<random>

A restarted daemon finds its own predecessor in the head. When that one ran on this very machine and its process is gone, there is no lease
to wait for. Where any part cannot be read or differs, nothing is proven and the lease is waited for. Correctness never rests on it: every
commit is fenced.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from pathlib import Path

__all__ = ["holder_name", "is_dead"]

_NAME = re.compile(r"(?P<host>[^:]+):(?P<pid>[0-9]+):(?P<start>[0-9]+)-(?P<boot>[0-9a-f]+)-(?P<space>[0-9]+)-[0-9a-f]+", re.ASCII)


def _machine() -> tuple[str, str] | None:
    """Boot id and pid namespace, or None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")[:12]
        return boot, re.sub(r"[^0-9]", "", str(Path("/proc/self/ns/pid").readlink()))
    except OSError:
        return None


def _start_of(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None when there is no such process (a zombie is none)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in {b"Z", b"X"} else fields[19].decode()


def holder_name(host: str | None = None) -> str:
    """A name for this process, unique among all that ever were."""
    machine = _machine() or ("0", "0")
    clean = re.sub(r"[^A-Za-z0-9._-]", "-", host or socket.gethostname()) or "host"
    pid = os.getpid()
    return f"{clean}:{pid}:{_start_of(pid) or 0}-{machine[0]}-{machine[1]}-{secrets.token_hex(4)}"


def is_dead(holder: str) -> bool:
    """True when the holder was a process of this machine, since its last boot, and is no more. False when it lives or cannot be known."""
    parts = _NAME.fullmatch(holder)
    machine = _machine()
    if parts is None or machine is None or (parts["boot"], parts["space"]) != machine or parts["start"] == "0":
        return False
    return _start_of(int(parts["pid"])) != parts["start"]
