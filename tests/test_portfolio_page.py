"""docs/reference/portfolio.md is true: its examples give the numbers it prints, and it names every field and every venue."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.margin.accounts import MODES, VENUES
from monitor.service.schemas import schema_text
from monitor.service.tables import VenueTables
from monitor.wire.csv_accounts import COLUMNS
from monitor.wire.inputs import json_entry
from monitor.wire.metadata import CONVERTERS
from monitor.wire.results import result_body

__all__: list[str] = []

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "reference" / "portfolio.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json\n(.*?)```\n\n([^\n]*)", PAGE, flags=re.DOTALL)
EXPECTED = re.compile(r"`(pools[^`]*)` = `([^`]*)`")


def at(account: dict[str, Any], path: str) -> Any:
    """The value at `pools[0].equity` and the like."""
    value: Any = account
    for key, index in re.findall(r"([a-z_]+)|\[(\d+)\]", path):
        value = value[key] if key else value[int(index)]
    return value


@pytest.mark.parametrize(("document", "expected"), EXAMPLES)
def test_the_examples_give_what_the_page_says(document: str, expected: str) -> None:
    """Each example is evaluated and compared with the values below it."""
    from monitor.service.evaluate import judged

    verdicts = list(judged([json_entry("page", document.encode())], VenueTables(), datetime(2026, 1, 31, tzinfo=UTC)))
    result = result_body(verdicts, [])  # type: ignore[arg-type]
    values = EXPECTED.findall(expected)

    assert values
    assert [at(result["accounts"][0], path) for path, _ in values] == [value for _, value in values]


def test_the_page_names_everything() -> None:
    """Every field of both schemas, every venue with its modes, every converter and every column of the template."""
    fields: set[str] = set()
    for name in ("portfolio", "result"):
        schema = orjson.loads(schema_text(name))
        for definition in (schema, *schema["$defs"].values()):
            fields |= set(definition.get("properties", {}))
    said_otherwise = {
        "price_charge",
        "extreme_charge",
        "basis_charge",
        "version",
        "accounts",
        "refused",
        "initial_rate",
        "maintenance_rate",
    }
    missing = [
        name for name in (*fields - said_otherwise, *VENUES, *CONVERTERS, *COLUMNS) if f"`{name}`" not in PAGE and f'"{name}"' not in PAGE
    ]

    assert missing == []
    for venue, modes in MODES.items():
        (row,) = [
            line
            for line in PAGE.split("## Venues")[1].split("## Tables")[0].splitlines()
            if line.startswith("|") and f"`{venue}`" in line.split("|")[1]
        ]
        assert row.split("|")[2].strip() == ", ".join(mode.removesuffix("_asset") for mode in modes)


def test_there_are_examples() -> None:
    """The pattern above still finds them."""
    assert len(EXAMPLES) == 2
