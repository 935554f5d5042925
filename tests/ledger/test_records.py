"""Records of accounts and levels."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from monitor.ledger.records import AccountVersion, LevelRecord, account_record, level_record, read_account, read_level
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition

_HOLDS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(
    epoch=st.integers(-1, 2**62),
    sequence=st.integers(-1, 2**62),
    hold=_HOLDS,
    document=st.none() | st.just(b'{"doc":{"a":"},\\"doc\\":1"}}'),
)
def test_an_account_is_read_back(epoch: int, sequence: int, hold: str | None, document: bytes | None) -> None:
    """Version, hold and the document's very bytes survive, whatever the hold says."""
    version = AccountVersion.of(epoch, sequence, document, hold)

    assert read_account("acct", account_record("acct", version, document)) == (version, document)


def test_a_hold_that_looks_like_a_document_is_no_document() -> None:
    """The text that parts head and document cannot stand inside a JSON string."""
    version = AccountVersion.of(1, 2, b"{}", 'x","doc":{"forged":1}')

    assert read_account("acct", account_record("acct", version, b"{}")) == (version, b"{}")


def test_an_account_record_is_json_for_people() -> None:
    """Behind the seal stands one object."""
    record = account_record("acct", AccountVersion.of(1, 2, b'{"a":1}', None), b'{"a":1}')

    assert json.loads(record[8:]) == {"epoch": 1, "seq": 2, "hold": None, "doc": {"a": 1}}


def test_a_damaged_account_is_none() -> None:
    """It is never half read."""
    record = account_record("acct", AccountVersion.of(1, 2, b"{}", None), b"{}")

    assert read_account("other", record) is None
    assert read_account("acct", record[:-1]) is None


@given(
    level=st.sampled_from(Level),
    unknown=_HOLDS,
    rev=st.integers(0, 2**40),
    episode=st.integers(0, 2**40),
    at=st.tuples(*[st.integers(0, 2**40)] * 3),
)
def test_a_level_is_read_back(level: Level, unknown: str | None, rev: int, episode: int, at: tuple[int, int, int]) -> None:
    """Every field survives."""
    record = LevelRecord(level, unknown, rev, episode, TickPosition(*at), 9)

    assert read_level("acct/cross", level_record("acct/cross", record)) == record


def test_a_damaged_level_is_none() -> None:
    """It is never half read."""
    record = level_record("acct/cross", LevelRecord(Level.WATCH, None, 1, 1, TickPosition(1, 1, 1), 1))

    assert read_level("acct/cros", record) is None
