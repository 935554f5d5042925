"""The venues' tables: what is shipped in `config/venues`, and the user's own files over it.

`VenueTables(...)` is called with a venue and gives its `Tables`; a venue's shipped files are read when it is first asked for, so that
`evaluate` pays for the venues of its documents only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monitor.errors import ConfigError, RefusedError
from monitor.margin.accounts import VENUES
from monitor.margin.tables import NO_TABLES, Tables
from monitor.service.packaged import config_folder
from monitor.wire.table_files import TableFile, read_table_file

__all__ = ["VenueTables", "table_files"]


class VenueTables:
    """Tables by venue. Give it to the document reader as `known`.

    Args:
        extra: The user's own files, or folders of them (searched to the bottom for *.json). A later one lies over an earlier one, all lie
            over the shipped tables; an entry replaces the whole entry of that name.
        shipped: Folder of a folder per venue, instead of the packaged one.

    Raises:
        ConfigError: A file of `extra` that cannot be read or used, with file, key and value. Shipped files are read later.
    """

    def __init__(self, extra: Sequence[Path] = (), *, shipped: Path | None = None) -> None:
        self._shipped = config_folder() / "venues" if shipped is None else shipped
        self._tables: dict[str, Tables] = {}
        self._digests: dict[str, Any] = {}
        self._own: list[tuple[str, Tables, bytes]] = []
        for path in extra:
            self._own += _merged(table_files(path))

    def __call__(self, venue: str) -> Tables:
        """Tables of a venue; empty ones for a venue nobody wrote tables for."""
        tables = self._tables.get(venue)
        if tables is None:
            tables = self._tables[venue] = self._load(venue)
        return tables

    def fingerprint(self, venue: str) -> str:
        """SHA-256 over the files that the venue's tables come from, in order: equal means the same tables. 64 hex digits."""
        self(venue)
        return str(self._digests[venue].hexdigest())

    def load_all(self) -> None:
        """Reads every venue now, so that a broken file stops a start and not an account. Raises ConfigError."""
        for venue in VENUES:
            self(venue)

    def _load(self, venue: str) -> Tables:
        digest = self._digests[venue] = hashlib.sha256()
        tables = NO_TABLES
        folder = self._shipped / venue
        parts = _merged(table_files(folder)) if folder.is_dir() else []
        for own_venue, _, _ in parts:
            if own_venue != venue:
                raise ConfigError(source=str(folder), key="/venue", value=own_venue, expected=f"{venue}, as the folder is named")
        for own_venue, own, data in [*parts, *self._own]:
            if own_venue == venue:
                tables = own.over(tables)
                digest.update(hashlib.sha256(data).digest())
        return tables


def table_files(path: Path) -> Iterable[tuple[Path, TableFile, bytes]]:
    """The table files at a path: itself, or every *.json below it, in the order of their names.

    Raises:
        ConfigError: It is not there, cannot be read, or something in it cannot be right.
    """
    if path.is_dir():
        paths = sorted(path.rglob("*.json"))
        if not paths:
            raise ConfigError(source=str(path), key="tables", value="(no *.json in it)", expected="a folder with table files")
    else:
        paths = [path]
    for file in paths:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise ConfigError(
                source=str(file), key="tables", value=error.strerror or str(error), expected="a table file that can be read"
            ) from None
        try:
            yield file, read_table_file(data), data
        except RefusedError as error:
            raise ConfigError(source=str(file), key=error.path or "/", value=error.value, expected=error.expected) from None


def _merged(files: Iterable[tuple[Path, TableFile, bytes]]) -> list[tuple[str, Tables, bytes]]:
    """The files of one path, in order. Raises ConfigError when two of them have an entry of the same venue and name."""
    merged = []
    seen: dict[tuple[str, str, str], Path] = {}
    of: Mapping[str, Callable[[Tables], Mapping[str, Any]]] = {
        "instruments": lambda tables: tables.instruments,
        "assets": lambda tables: tables.assets,
        "risk": lambda tables: tables.risk,
        "rules": lambda tables: tables.rules,
    }
    for path, file, data in files:
        for part, entries in of.items():
            for name in entries(file.tables):
                before = seen.setdefault((file.venue, part, name), path)
                if before is not path:
                    raise ConfigError(
                        source=str(path), key=f"/{part}/{name}", value=name, expected=f"each entry once; it is in {before} too"
                    )
        merged.append((file.venue, file.tables, data))
    return merged
