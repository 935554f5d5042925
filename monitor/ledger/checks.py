"""Is this Redis one that can keep what the ledger promises? Asked at start and by `doctor`."""

from __future__ import annotations

from dataclasses import dataclass

from monitor.ledger.connection import ReplyError, Wire, raise_faults

__all__ = ["Finding", "check_ledger_server"]

_WANTED = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "aof-load-truncated": "no"}
_WHY = {
    "appendonly": "without it a restart of Redis empties the ledger",
    "appendfsync": "with another value a power cut loses writes that were acknowledged: margin calls, and account updates silently",
    "maxmemory-policy": "with another value Redis throws records away when its memory is full",
    "aof-load-truncated": "a write torn by a power cut can come back at a later start (deploy/redis/repair-append-file)",
}
_FATAL = {"appendonly", "maxmemory-policy"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. `is_fatal`: the ledger must not be used like this."""

    is_fatal: bool
    text: str


async def check_ledger_server(wire: Wire, *, timeout_s: float = 5.0) -> list[Finding]:
    """What is wrong with a server as the ledger's; [] when nothing is. Raises LedgerUnavailable.

    Where CONFIG GET is not allowed (managed services), the settings cannot be read, which is said.
    """
    info, *answers = await wire.exchange([("INFO", "server"), *(("CONFIG", "GET", name) for name in _WANTED)], timeout_s=timeout_s)
    raise_faults([info])
    facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    findings: list[Finding] = []
    version = facts.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < (6, 2):
        findings.append(Finding(is_fatal=True, text=f"Redis {version}: expected 6.2 or later"))
    for (name, wanted), answer in zip(_WANTED.items(), answers, strict=True):
        if isinstance(answer, ReplyError):
            findings.append(Finding(is_fatal=False, text=f"{name} cannot be read ({answer}): make sure that it is {wanted}"))
        elif not answer:
            findings.append(Finding(is_fatal=False, text=f"{name} is not told by this server: make sure that it is {wanted}"))
        elif answer[1].decode() != wanted:
            findings.append(Finding(is_fatal=name in _FATAL, text=f"{name} is {answer[1].decode()}, expected {wanted}: {_WHY[name]}"))
    return findings
