"""Whether settings can be used: the files that they name, their secrets, tables, sinks and alert policy. Nothing is opened or connected.

`load_settings` says whether the file is well formed; this is the second half, which needs the rest of the machine. Every error names the
settings' own file and line where one is to blame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel

from monitor.errors import ConfigError
from monitor.ledger.connection import Endpoint, Link
from monitor.service.receivers import make_receivers
from monitor.service.settings import ENVIRONMENT_PREFIX, SecretSection, Settings, line_of
from monitor.service.tables import VenueTables

__all__ = ["check_settings", "placed"]

NOWHERE = Endpoint(path="/nonexistent")


def check_settings(settings: Settings, path: Path | None, *, stages: Sequence[str] = ("feeds", "evaluator", "alerts")) -> VenueTables:
    """Checks what the stages of this process need, and gives the tables, all read.

    Args:
        settings: Loaded ones. path: the file that they came from, for the errors.

    Raises:
        ConfigError: The first thing that cannot be used, with file, line, key, value and what was expected.
    """
    try:
        for key, section in _secret_sections(settings, ""):
            if not key.startswith("sinks.") or "alerts" in stages:
                _check_secret(key, section)
        settings.http.token()
        if "alerts" in stages:
            make_receivers(settings, [0], lambda: Link(NOWHERE), may_send=lambda _number: False)
        tables = VenueTables(settings.evaluator.tables if "evaluator" in stages else ())
        tables.load_all()
    except ConfigError as error:
        raise placed(error, path) from None
    return tables


def placed(error: ConfigError, path: Path | None) -> ConfigError:
    """The error with the file and line of its key, where the key is one of the settings'; else the error as it is."""
    stated_in = {"tables": "evaluator.tables", "(file)": "alerts.policy"}
    key = stated_in.get(error.key, error.key)
    keys = key.split(".")
    if keys[0] not in Settings.model_fields:
        return error
    value = error.value if error.source == "settings" else f"{error.source}: {error.value}"
    variable = ENVIRONMENT_PREFIX + key.replace(".", "__").upper()
    if variable in os.environ or path is None:
        return ConfigError(source=variable if variable in os.environ else error.source, key=key, value=value, expected=error.expected)
    return ConfigError(
        source=str(path), line=line_of(path.read_text(encoding="utf-8"), keys), key=key, value=value, expected=error.expected
    )


def _secret_sections(node: BaseModel, prefix: str) -> Iterator[tuple[str, SecretSection]]:
    for name, value in node:
        below = value.items() if isinstance(value, dict) else [("", value)]
        for inner, section in below:
            if isinstance(section, BaseModel):
                key = ".".join(part for part in (prefix, name, inner) if part)
                if isinstance(section, SecretSection):
                    yield key, section
                yield from _secret_sections(section, key)


def _check_secret(key: str, section: SecretSection) -> None:
    try:
        section.secret()
    except ConfigError as error:
        raise ConfigError(source=error.source, key=f"{key}.{error.key}", value=error.value, expected=error.expected) from None
