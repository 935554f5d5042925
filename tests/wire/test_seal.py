"""Seals of records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.wire.seal import SEAL_LENGTH, seal, unseal


@given(name=st.binary(max_size=40), value=st.binary(max_size=200))
def test_what_was_sealed_comes_back(name: bytes, value: bytes) -> None:
    """A sealed value opens under its own name."""
    assert unseal(name, seal(name, value)) == value


@given(name=st.binary(max_size=20), value=st.binary(min_size=1, max_size=80), place=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_changed_byte_is_found(name: bytes, value: bytes, place: int, flip: int) -> None:
    """No single changed byte passes, in the checksum or in the value."""
    sealed = bytearray(seal(name, value))
    sealed[place % len(sealed)] ^= flip

    assert unseal(name, bytes(sealed)) is None


def test_another_name_does_not_open_it() -> None:
    """A record that was copied to another field fails."""
    assert unseal(b"acct-2", seal(b"acct-1", b"{}")) is None


def test_name_and_value_cannot_be_shifted() -> None:
    """The bytes between name and value are fixed: a longer name with a shorter value has another sum."""
    assert seal(b"ab", b"c")[:SEAL_LENGTH] != seal(b"a", b"bc")[:SEAL_LENGTH]


def test_the_letter_case_of_the_checksum_counts() -> None:
    """The digits are compared as bytes; as a number an upper-case one would pass."""
    sealed = next(
        seal(b"n", b"%d" % index)
        for index in range(100)
        if seal(b"n", b"%d" % index)[:SEAL_LENGTH].upper() != seal(b"n", b"%d" % index)[:SEAL_LENGTH]
    )

    assert unseal(b"n", sealed[:SEAL_LENGTH].upper() + sealed[SEAL_LENGTH:]) is None


def test_a_cut_record_fails() -> None:
    """Neither an empty record nor one without its end opens."""
    assert unseal(b"n", b"") is None
    assert unseal(b"n", seal(b"n", b"value")[:-1]) is None


def test_the_bytes_are_fixed() -> None:
    """Another program can check a record: CRC-32 of name, a zero byte and value."""
    assert seal(b"acct-1", b'{"a":1}') == b'2af911a1{"a":1}'
