"""Every record of the ledger carries its own checksum, with its name inside.

    sealed = crc32(name, 0, value) as 8 lower-case hex digits + value

The name (the hash field) is part of the sum, so a record that was copied or renamed fails like one that was altered. The digits are
compared as bytes: read as a number, a flipped letter case would pass.
"""

from __future__ import annotations

from zlib import crc32

__all__ = ["SEAL_LENGTH", "seal", "unseal"]

SEAL_LENGTH = 8


def seal(name: bytes, value: bytes) -> bytes:
    """The value with its checksum in front."""
    return b"%08x%b" % (crc32(value, crc32(name + b"\0")), value)


def unseal(name: bytes, sealed: bytes) -> bytes | None:
    """The value, or None when the record is damaged, cut, or stands under another name."""
    value = sealed[SEAL_LENGTH:]
    return value if sealed[:SEAL_LENGTH] == b"%08x" % crc32(value, crc32(name + b"\0")) else None
