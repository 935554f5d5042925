"""The head of a partition."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import xor

import pytest

from monitor.errors import LedgerBroken
from monitor.ledger.head import Head, Suspect, account_digest, account_digests, level_digest


def _values(head: Head, partition: int = 0) -> list[bytes | None]:
    fields = head.fields(partition)
    return [part if isinstance(part, bytes) else str(part).encode() for part in fields[1::2]]


_HEAD = replace(
    Head.first("ledger", 1, 0),
    holder="me",
    token=5,
    n=7,
    batch=3,
    updates="5-1",
    ticks="9-0",
    tick_e=1000,
    tick_n=12,
    seq=4,
    accounts=2,
    levels=1,
    digest=2**127 + 5,
    suspect=Suspect("5-2", 2),
)


def test_a_head_is_read_back() -> None:
    """Every field survives."""
    assert Head.read(_values(_HEAD), 0) == _HEAD


def test_no_head_is_none() -> None:
    """An empty hash is a partition where nothing was written."""
    assert Head.read([None, None, None], 0) is None


@pytest.mark.parametrize("place", [8, 20, 100])
def test_a_damaged_head_is_never_used(place: int) -> None:
    """One flipped bit breaks it."""
    token, n, sealed = _values(_HEAD)
    assert sealed is not None
    damaged = bytearray(sealed)
    damaged[place] ^= 1

    with pytest.raises(LedgerBroken, match="damaged"):
        Head.read([token, n, bytes(damaged)], 0)


def test_a_head_of_another_partition_is_refused() -> None:
    """Its name is in the seal."""
    with pytest.raises(LedgerBroken, match="damaged"):
        Head.read(_values(_HEAD, partition=2), 0)


def test_clear_fields_must_agree_with_sealed_ones() -> None:
    """Whoever raises `n` by hand is found."""
    _, n, sealed = _values(_HEAD)

    with pytest.raises(LedgerBroken, match="another program"):
        Head.read([b"6", n, sealed], 0)


def test_a_head_that_is_half_there_is_damaged() -> None:
    """The clear fields alone are no head."""
    with pytest.raises(LedgerBroken, match="damaged"):
        Head.read([b"5", b"7", None], 0)


def test_another_schema_is_refused() -> None:
    """Records of a later program are not misread."""
    with pytest.raises(LedgerBroken, match="schema 2"):
        Head.read(_values(replace(_HEAD, schema=2)), 0)


def test_digests_tell_names_kinds_and_versions_apart() -> None:
    """No two of these records weigh the same."""
    found = {
        account_digest("a", 1, 2, None),
        account_digest("a", 1, 3, None),
        account_digest("a", 2, 2, None),
        account_digest("a", 1, 2, "poisoned"),
        account_digest("b", 1, 2, None),
        level_digest("a", 1),
        level_digest("a", 2),
        level_digest("a/x", 1),
    }

    assert len(found) == 8


def test_the_digest_of_all_accounts_is_that_of_each_together() -> None:
    """Worked out in columns, it is what single changes add up to; none gives nothing."""
    accounts = [("a", 1, 2, None), ("b\u00e9", 0, 2**40, "hold: \u20ac"), ("a/b", 3, 4, "")]

    for count in range(len(accounts) + 1):
        part = accounts[:count]
        assert account_digests(iter(part)) == reduce(xor, (account_digest(*each) for each in part), 0)
