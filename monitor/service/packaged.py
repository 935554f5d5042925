"""Where the files of `config/` are: in the repository, or inside the installed package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from monitor.errors import ConfigError

__all__ = ["config_folder"]


@cache
def config_folder() -> Path:
    """The folder of the shipped configuration.

    A wheel carries it as `monitor/_config`; a checkout has it beside the package.

    Raises:
        ConfigError: Neither is there, so the installation is broken.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_config", package.parent / "config"):
        if (folder / "schemas").is_dir():
            return folder
    raise ConfigError(source=str(package), key="_config", value="(absent)", expected="the shipped configuration; install the package again")
