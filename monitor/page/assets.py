"""The static files of the page, read once, each with its type and a tag of its content."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files

__all__ = ["POLICY", "Asset", "assets"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of every answer: nothing from outside, nothing inline."""

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    data: bytes
    content_type: str
    tag: str


def assets() -> dict[str, Asset]:
    """All files by their path under `static/`."""
    root = files("monitor.page") / "static"
    found: dict[str, Asset] = {}
    for folder in ("", "vendor"):
        for entry in (root / folder if folder else root).iterdir():
            suffix = entry.name[entry.name.rfind(".") :]
            if entry.is_file() and suffix in TYPES:
                data = entry.read_bytes()
                tag = f'"{blake2b(data, digest_size=12).hexdigest()}"'
                found[f"{folder}/{entry.name}" if folder else entry.name] = Asset(data, TYPES[suffix], tag)
    return found
