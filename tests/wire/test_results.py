"""Results: what is printed is what was evaluated, and `explain` says where it comes from."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import jsonschema
import pytest

from monitor.service.schemas import schema_text
from monitor.wire.inputs import Refusal
from monitor.wire.results import account_body, explain_lines, result_body, result_bytes, time_text
from tests.support.judged import document, judged, linear, perpetual

BODY = document(
    "binance_usdm",
    [linear("BTCUSDT", "1", "60000", leverage=20), linear("ETHUSDT", "-10", "3000", side="short")],
    instruments={"BTCUSDT": perpetual(), "ETHUSDT": perpetual()},
    mark={"BTCUSDT": "60000.5", "ETHUSDT": "3000"},
    wallet={"USDT": "1234.50"},
)


def test_a_result_is_valid_and_complete() -> None:
    """Every field of the schema is there, with numbers as plain text."""
    refusal = Refusal(source="x.jsonl", line=3, id="b", path="/account/venue", value='"ftx"', expected="a venue")

    result = json.loads(result_bytes([judged(BODY)], [refusal]))

    jsonschema.Draft202012Validator(json.loads(schema_text("result"))).validate(result)
    (account,) = result["accounts"]
    assert account["rules"] == {"name": "binance_usdm", "since": None}
    assert account["pools"][0]["wallet"] == "1234.5"
    assert account["pools"][0]["positions"][0]["notional"] == "60000.5"
    assert account["pools"][0]["positions"][1]["initial_margin"] is None
    assert result["refused"] == [
        {"source": "x.jsonl", "line": 3, "id": "b", "path": "/account/venue", "value": '"ftx"', "expected": "a venue"}
    ]


def test_an_unknown_pool_is_printed_with_what_is_known() -> None:
    """Null where unknown, the reason beside it, and no level."""
    silent: dict[str, Any] = {**BODY, "account": {k: v for k, v in BODY["account"].items() if k != "balances"}}

    body = account_body(judged(silent))

    assert (body["level"], body["unknown"]) == (None, "balances are not stated")
    assert body["pools"][0]["equity"] is None
    assert body["pools"][0]["positions"][0]["maintenance_margin"] == "600.005"
    jsonschema.Draft202012Validator(json.loads(schema_text("result"))).validate({**result_body((), ()), "accounts": [body]})


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), "2026-01-02T03:04:05.000678Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:04:05Z"),
    ],
)
def test_times_are_utc(moment: datetime, text: str) -> None:
    """ISO 8601 with Z."""
    assert time_text(moment) == text


def test_explain_names_rules_terms_and_reasons() -> None:
    """The rule set with its source, every position, every term, and a question mark for what is not known."""
    head, pool = explain_lines(judged(BODY))

    assert head[0] == "a"
    assert head[1][0] == ("rules", "binance_usdm", "since the beginning")
    assert head[1][1][1].startswith("https://www.binance.com/")
    said = {what: number for what, number, _ in pool[1]}
    assert said["equity"] == "1235"
    assert said["maintenance: positions"] == "900.005"
    assert said["ETHUSDT short"] == "-10"
    assert said["initial margin"] == "?"
    assert said["level"] == "watch"
    assert any(what == "  liquidation price" for what, _, _ in pool[1])


def test_explain_shows_scenarios() -> None:
    """Under portfolio margin the charges of each underlying."""
    body = document(
        "deribit",
        [linear("F", "500000", "50000")],
        instruments={"F": perpetual("BTC", tiers="0", inverse=True, underlying="BTC")},
        mark={"F": "50000"},
        index={"BTC": "50000"},
        wallet={"BTC": "3"},
        margin_model="portfolio",
    )
    body["risk"] = {"BTC": {"price_moves": ["-0.5", "0.25"], "maintenance_factor": 1, "initial_factor": 1}}

    _, (_, lines) = explain_lines(judged(body))

    said = {what: (number, how) for what, number, how in lines}
    assert said["charge BTC"][0] == "10"
    assert said["maintenance: risk:BTC"][0] == "10"
