"""New settings into a running daemon (SIGHUP): all or nothing.

The new file is read and checked to the end, with everything that it names, before anything is touched. On any error the running settings
stay, whole, and the error is logged with file, line and key. A change of a key that only a restart can apply is such an error: what runs
is always what one file says.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from monitor.errors import ConfigError, LedgerUnavailable
from monitor.service.config_check import check_settings, placed
from monitor.service.logs import configure_logs, log
from monitor.service.metrics import Sample
from monitor.service.notify import notify_systemd
from monitor.service.settings import Settings, redacted
from monitor.service.tables import VenueTables

__all__ = ["Apply", "Load", "Reloader", "changed_keys", "needs_restart"]

Load = Callable[[], Settings]
"""Reads the settings anew: the same file, environment and flags as at the start. Raises ConfigError."""

Apply = Callable[[Settings, list[str], VenueTables], Awaitable[None]]
"""Applies checked settings, given the keys that differ and the tables. Raises LedgerUnavailable, and has then changed nothing."""


def changed_keys(old: Settings, new: Settings) -> list[str]:
    """Dotted keys whose values differ, in the order of the sections."""
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def needs_restart(key: str) -> bool:
    """Whether only a restart can apply a change of this key: sockets, partitions, and which venues are read."""
    section, _, rest = key.partition(".")
    return section in ("ledger", "cache", "http") or (section == "feeds" and not rest.endswith(".symbols"))


class Reloader:
    """Reloads when asked. Plain attributes for the metrics.

    Attributes:
        load, path: How the settings are read, and from where. refused: why the last reload was, None when it was not.
        loaded_at: Wall time of the last good load.
    """

    def __init__(self, settings: Settings, load: Load | None, apply: Apply, *, path: Path | None, stages: Sequence[str]) -> None:
        self.refused: str | None = None
        self.loaded_at = time.time()
        self._settings, self.load, self._apply, self.path = settings, load, apply, path
        self._stages = stages
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Reloads soon. May be called from a signal handler; several calls before the next reload are one."""
        self._asked.set()

    async def run(self) -> None:
        """Reloads whenever asked, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            done = await self.reload()
            notify_systemd("READY=1\nSTATUS=running" + ("" if done else "; the last reload was refused, see the log"))

    async def reload(self) -> bool:
        """Reads, checks and applies. False, with the reason in the log, when the running settings stay."""
        try:
            if self.load is None:
                raise ConfigError(source="settings", key="(file)", value="(none)", expected="a daemon that was started by `run`")
            new = self.load()
            tables = await asyncio.to_thread(check_settings, new, self.path, stages=self._stages)
            changed = changed_keys(self._settings, new)
            fixed = [key for key in changed if needs_restart(key)]
            if fixed:
                raise placed(_restart_needed(fixed, self._settings, new), self.path)
            await self._apply(new, changed, tables)
        except (ConfigError, LedgerUnavailable) as error:
            self.refused = str(error)
            log.error("reload_refused", error=self.refused, hint="the running settings stay")
            return False
        self._settings, self.loaded_at, self.refused = new, time.time(), None
        configure_logs(form=new.log.format, level=new.log.level)
        log.info("reloaded", changed=", ".join(changed) or "nothing but files that the settings name")
        return True

    def samples(self) -> Iterable[Sample]:
        """For /metrics."""
        yield Sample("config_last_reload_successful", float(self.refused is None))
        yield Sample("config_last_reload_success_timestamp_seconds", self.loaded_at)
        yield Sample("config_hash", float(_number(self._settings)))


def _restart_needed(keys: list[str], old: Settings, new: Settings) -> ConfigError:
    first = keys[0]
    was, wanted = _flat(old.model_dump()).get(first), _flat(new.model_dump()).get(first)
    others = f" (so do {', '.join(keys[1:])})" if keys[1:] else ""
    expected = f"{str(was)!r}, as it runs: this key needs a restart{others}"
    return ConfigError(source="settings", key=first, value=repr(str(wanted)), expected=expected)


def _number(settings: Settings) -> int:
    """48 bits of a hash over the effective settings without their secrets: exact as a float."""
    return int.from_bytes(hashlib.sha256(orjson.dumps(redacted(settings), option=orjson.OPT_SORT_KEYS)).digest()[:6])


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
