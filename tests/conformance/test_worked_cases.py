"""Every worked case of every venue, from the bytes of its portfolio document to the numbers of its result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from monitor.margin.schedules import Tier, TierTable
from monitor.margin.tables import NO_TABLES
from monitor.margin.verdict import judge
from monitor.service.schemas import schema_text
from monitor.wire.documents import read_bytes
from monitor.wire.results import account_body, result_body
from tests.support.shared import SHARED, needs_shared

CASES = [json.loads(line) for line in (Path(__file__).parent / "worked_cases.jsonl").read_text(encoding="utf-8").splitlines()]
NOW = datetime(2026, 11, 20, tzinfo=UTC)


def evaluated(document: object) -> dict[str, Any]:
    """The account of the result of one document that carries all its tables and prices."""
    read = read_bytes(json.dumps(document).encode(), purpose="evaluate", known=lambda _venue: NO_TABLES, now=NOW)
    assert read.account is not None
    return account_body(judge(read.account, read.tables, read.prices, read.as_of or NOW))


def value_at(account: dict[str, Any], steps: list[Any]) -> Any:
    """What stands at a place: keys, indices, and {key: value} for the one row of a list that has them."""
    node: Any = account
    for step in steps:
        if isinstance(step, dict):
            (node,) = [row for row in node if all(row[key] == wanted for key, wanted in step.items())]
        else:
            node = node[step]
    return node


def misses(expected: dict[str, Any], got: Any) -> bool:
    """True when a value is not the expected one within the tolerance of its source."""
    wanted = expected["value"]
    if wanted is None or isinstance(wanted, bool):
        return got is not wanted
    if not isinstance(got, str):
        return True
    error = abs(Decimal(got) - Decimal(wanted))
    if "absolute" in expected:
        return error > Decimal(expected["absolute"])
    return error > Decimal(expected["relative"]) * (abs(Decimal(wanted)) or 1)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["case"])
def test_case(case: dict[str, Any]) -> None:
    """The result holds every number that the case's source states, within its tolerance."""
    accounts = {document["account"]["id"]: evaluated(document) for document in case["documents"]}

    wrong = [(e["at"], e["value"], value_at(accounts[e["account"]], e["at"])) for e in case["expected"]]

    assert [row for e, row in zip(case["expected"], wrong, strict=True) if misses(e, row[2])] == [], case["source"]


def test_no_case_is_lost() -> None:
    """All 151 cases small enough to be carried are here, of every venue and of the option model."""
    venues = {case["venue"] for case in CASES}

    assert len(CASES) == 151
    assert venues == {
        "binance_usdm",
        "binance_coinm",
        "bybit",
        "okx",
        "deribit",
        "hyperliquid",
        "dydx_v4",
        "bitmex",
        "kraken_futures",
        "drift",
        "mango_v4",
        "reference",
    }


def test_the_result_is_as_the_schema_says() -> None:
    """Results of all cases together are valid by the published schema."""
    accounts = [evaluated(document) for case in CASES for document in case["documents"]]
    body = {**result_body((), ()), "accounts": accounts}

    jsonschema.Draft202012Validator(json.loads(schema_text("result"))).validate(body)


def big_documents() -> Iterator[dict[str, Any]]:
    """The bracket tables of 349 symbols, from the reference material."""
    with (SHARED / "venues" / "documents.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            if '"bn-usdm-209"' in line[:200]:
                yield from json.loads(line)["documents"]


@needs_shared
def test_derived_deductions_are_the_venues_own() -> None:
    """Of 2,805 brackets of 349 symbols every deduction follows from floors and rates."""
    rows = 0
    for document in big_documents():
        for instrument in document["instruments"].values():
            table = TierTable.of(
                [Tier(floor=Decimal(r["floor"]), maintenance_rate=Decimal(r["maintenance_rate"])) for r in instrument["tiers"]]
            )
            for tier, given in zip(table.rows, instrument["tiers"], strict=True):
                rows += 1
                if "deduction" in given:
                    assert tier.deduction is not None
                    assert abs(tier.deduction - Decimal(given["deduction"])) <= Decimal("0.01")

    assert rows >= 2805


@needs_shared
def test_the_command_reproduces_the_reference_documents() -> None:
    """`margin-monitor evaluate --json` passes the reference runner, whose results are checked against the schema."""
    runner, documents = SHARED / "venues" / "run_documents.py", SHARED / "venues" / "documents.jsonl"

    done = subprocess.run(
        [sys.executable, str(runner), str(documents), "--strict", "--", sys.executable, "-m", "monitor", "evaluate", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
