"""Documents with absurd but valid numbers: an answer by the schema or a refusal, never an exception."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import RefusedError
from monitor.margin.liquidation import report
from monitor.margin.pools import cut
from monitor.service.schemas import schema_text
from monitor.wire.results import result_body
from tests.support.judged import NOW, judged, opened

DOCUMENTS = [
    document
    for line in (Path(__file__).parent / "worked_cases.jsonl").read_text(encoding="utf-8").splitlines()
    for document in json.loads(line)["documents"]
]
RESULT = jsonschema.Draft202012Validator(json.loads(schema_text("result")))
NUMBER = re.compile(r"-?[0-9.]+")
ABSURD = (
    "1e99",
    "1e-99",
    "0",
    "1",
    "0.999999999999999999",
    "1e30",
    "1e-30",
    "-1e99",
    "-1e-99",
    "-1",
    "12345678901234567890123456789.0123456789",
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where numbers stand in a document."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from places(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from places(value, (*path, index))
    elif isinstance(node, (int, float)) or (isinstance(node, str) and NUMBER.fullmatch(node)):
        yield path


def put(document: Any, path: tuple[Any, ...], value: str) -> None:
    """Replaces one number."""
    for key in path[:-1]:
        document = document[key]
    document[path[-1]] = value


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_absurd_numbers_are_refused_or_answered(data: st.DataObject) -> None:
    """Up to three numbers of a worked case replaced: the result stays valid, and an event could be written of it."""
    document = copy.deepcopy(data.draw(st.sampled_from(DOCUMENTS)))
    found = list(places(document))
    for path in data.draw(st.lists(st.sampled_from(found), min_size=1, max_size=3)) if found else ():
        put(document, path, data.draw(st.sampled_from(ABSURD)))
    try:
        read = opened(document)
    except RefusedError:
        return

    verdict = judged(document)

    RESULT.validate(result_body([verdict], []))
    assert read.account is not None
    for pool in cut(read.account, read.tables, read.as_of or NOW):
        report(pool, read.prices, read.as_of or NOW)


def test_numbers_that_do_not_fit_make_the_pool_unknown() -> None:
    """1e99 contracts at 1e99: a valid document, and no level is claimed."""
    document = copy.deepcopy(next(d for d in DOCUMENTS if d["account"]["id"] == "bm-001"))
    document["account"]["positions"][0]["quantity"] = "1e60"
    document["prices"]["mark"]["ETHUSDT"] = "1e60"

    verdict = judged(document)

    assert verdict.level is None
    assert verdict.unknown == "a number is too large or too small to be worked out exactly"
    assert verdict.pools[0].positions[0].instrument == "ETHUSDT"
