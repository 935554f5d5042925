"""Ids, hashes and bodies of events."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.margin.levels import Level
from monitor.wire.events import EventId, TickPosition, blind_body, chain_hash, genesis_hash, level_body, parse_event_id
from monitor.wire.rows import Row

_NUMBERS = st.integers(0, 2**63)


@given(partition=st.integers(0, 400), seq=_NUMBERS, token=_NUMBERS)
def test_an_id_is_read_back(partition: int, seq: int, token: int) -> None:
    """`str` and `parse_event_id` are each other's inverse."""
    event_id = EventId(partition, seq, token)

    assert parse_event_id(str(event_id)) == event_id


@pytest.mark.parametrize("text", ["", "1", "1/2", "1-2", "a/1-2", "0/1-", "0/-1-2", "0/1-2-3", "0/1-2 ", "０/1-2", "0/1_0-2"])
def test_what_is_no_id_is_refused(text: str) -> None:
    """Only partition/seq-token in plain digits is an id."""
    with pytest.raises(ValueError, match="not an event id"):
        parse_event_id(text)


def test_the_chain_can_be_recomputed_by_anyone() -> None:
    """The hash is the first 128 bits of SHA-256 over the hash before, the id and the body."""
    expected = hashlib.sha256(b"a" * 32 + b"0/7-9" + b'{"x":1}').hexdigest()[:32]

    assert chain_hash("a" * 32, "0/7-9", b'{"x":1}') == expected


def test_two_ledgers_begin_with_different_hashes() -> None:
    """A chain of another ledger or another partition does not fit."""
    starts = {genesis_hash("one", 0), genesis_hash("two", 0), genesis_hash("one", 1)}

    assert len(starts) == 3


def _body(facts: bytes, unknown: str | None = None) -> dict[str, object]:
    body = level_body(
        event_id="0/7-9",
        account="acct-1",
        pool="cross:USDT",
        level=Level.MARGIN_CALL,
        previous=Level.WATCH,
        unknown=unknown,
        previous_unknown=None,
        rev=3,
        episode=2,
        at=TickPosition(1000, 5, 17),
        previous_hash="ab",
        facts=facts,
    )
    found: dict[str, object] = json.loads(body)
    return found


def test_a_body_says_what_changed_and_where() -> None:
    """The ledger's own fields come first, then the facts as they were given."""
    body = _body(b'{"equity":"5"}', unknown="stale mark")

    assert body == {
        "id": "0/7-9",
        "kind": "level",
        "account": "acct-1",
        "pool": "cross:USDT",
        "level": "margin_call",
        "previous": "watch",
        "unknown": "stale mark",
        "previous_unknown": None,
        "rev": 3,
        "episode": 2,
        "at": [1000, 5, 17],
        "chain": "ab",
        "equity": "5",
    }


def test_a_body_without_facts_is_json_too() -> None:
    """Empty facts add nothing."""
    assert "equity" not in _body(b"{}")


def test_a_blind_row_names_its_ends() -> None:
    """An end that is not known is null."""
    body = json.loads(blind_body(event_id="0/8-9", start=TickPosition(1, 2, 3), end=None, reason="wiped", previous_hash="cd"))

    assert body == {"id": "0/8-9", "kind": "blind", "from": [1, 2, 3], "to": None, "reason": "wiped", "chain": "cd"}


def test_a_row_knows_its_names() -> None:
    """The id names the partition, the stream id does not."""
    row = Row(0, 7, 9, b"{}", "ab")

    assert (row.id, row.stream_id) == ("0/7-9", "7-9")
