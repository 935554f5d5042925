"""The published JSON schemas of what goes in and what comes out."""

from __future__ import annotations

from typing import TextIO

import orjson

from monitor.service.packaged import config_folder

__all__ = ["SCHEMAS", "print_schemas", "schema_text"]

SCHEMAS = ("portfolio", "result")
"""`portfolio`: the input document. `result`: what `evaluate --json` prints."""


def schema_text(name: str) -> str:
    """The text of one schema, as it is in `config/schemas`. Raises KeyError for a name that is not in SCHEMAS."""
    if name not in SCHEMAS:
        raise KeyError(name)
    return (config_folder() / "schemas" / f"{name}.schema.json").read_text(encoding="utf-8")


def print_schemas(out: TextIO) -> None:
    """Prints one JSON object, name -> schema."""
    both = {name: orjson.loads(schema_text(name)) for name in SCHEMAS}
    print(orjson.dumps(both, option=orjson.OPT_INDENT_2).decode(), file=out)
