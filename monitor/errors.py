"""Every error of the house, in one tree.

MonitorError
  ConfigError        fatal at start (exit code 2): names the file, the line where known, the key, the value and what was expected
  RefusedError       a document that cannot be right: JSON pointer, value, expected
  CodecError         bytes of a venue that cannot be read: venue, reason (a closed set, used as metric label), a bounded piece of the bytes
  LedgerError
    LedgerUnavailable  Redis cannot be reached or cannot write; retried
    Fenced             another process holds the partition; this one must stop writing
    LedgerBroken       the ledger is not what the protocol allows (wrong types, foreign writers, lost tail): stop and page
  ServerError        a server this process should start itself (redis-server) cannot be had or does not start

Bad or missing data of ONE account is never an exception in the stream: it is `unknown` with a reason.
"""

from __future__ import annotations

__all__ = [
    "CodecError",
    "ConfigError",
    "Fenced",
    "LedgerBroken",
    "LedgerError",
    "LedgerUnavailable",
    "MonitorError",
    "RefusedError",
    "ServerError",
]


class MonitorError(Exception):
    """Base of all errors raised by this package on purpose."""


class ConfigError(MonitorError):
    """A configuration that cannot be used. Its text is one line a person can act on."""

    def __init__(self, *, source: str, key: str, value: str, expected: str, line: int | None = None) -> None:
        self.source, self.key, self.value, self.expected, self.line = source, key, value, expected, line
        place = f"{source}:{line}" if line is not None else source
        super().__init__(f"{place}: {key}: {value}: expected {expected}")


class RefusedError(MonitorError):
    """A document that cannot be right. `path` is a JSON pointer to the offending key; `account_id` whose it is, where it could be read."""

    def __init__(self, path: str, value: str, expected: str, *, account_id: str | None = None) -> None:
        self.path, self.value, self.expected, self.account_id = path, value, expected, account_id
        super().__init__(f"{path or '/'}: {value}: expected {expected}")


class CodecError(MonitorError):
    """Bytes from a venue that cannot be read.

    `reason` comes from a closed set per codec and is used as a metric label; `raw` keeps at most 256 bytes.
    """

    def __init__(self, venue: str, reason: str, raw: bytes = b"", detail: str = "") -> None:
        self.venue, self.reason, self.raw, self.detail = venue, reason, raw[:256], detail
        super().__init__(f"{venue}: {reason}{': ' + detail if detail else ''}: {self.raw!r}")


class LedgerError(MonitorError):
    """Something about the ledger."""


class LedgerUnavailable(LedgerError):
    """Redis cannot be reached, or cannot write. The caller waits and tries again."""


class Fenced(LedgerError):
    """Another process holds the partition: stop writing to it at once."""


class LedgerBroken(LedgerError):
    """The ledger is not what the protocol allows. Never retried; a person has to look."""


class ServerError(MonitorError):
    """A server that this process should start itself cannot be had or does not start."""
