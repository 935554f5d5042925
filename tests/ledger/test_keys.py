"""Keys and partitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import ConfigError
from monitor.ledger.keys import PARTITIONS, PartitionKeys, level_name, partition_of, partitions, slot


def test_slots_are_those_of_redis() -> None:
    """The check value of CRC16 (XMODEM) is 0x31C3; the cluster page of Redis gives it."""
    assert slot("123456789") == 0x31C3 % 16384


@pytest.mark.parametrize(("nodes", "most", "least"), [(3, 22, 21), (6, 11, 10), (8, 8, 8)])
def test_64_partitions_spread_over_the_nodes(nodes: int, most: int, least: int) -> None:
    """No node of a cluster with equal slot ranges has many more than its share."""
    counts = [0] * nodes
    for number in PARTITIONS:
        counts[slot(str(number)) * nodes // 16384] += 1

    assert (max(counts), min(counts)) == (most, least)


def test_each_partition_has_a_range_of_slots_of_its_own() -> None:
    """One number for each 256 slots."""
    assert sorted(slot(str(number)) // 256 for number in PARTITIONS) == list(range(64))


@given(account=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,30}", fullmatch=True), count=st.integers(1, 64))
def test_an_account_belongs_to_one_of_the_ledgers_partitions(account: str, count: int) -> None:
    """The same one every time, and none beyond the first `count`."""
    assert partition_of(account, count) in partitions(count)
    assert partition_of(account, count) == partition_of(account, count)


def test_accounts_spread_over_the_partitions() -> None:
    """Of 64,000 numbered accounts each of 64 partitions gets between 900 and 1,100."""
    counts = dict.fromkeys(partitions(64), 0)
    for index in range(64_000):
        counts[partition_of(f"acct-{index}", 64)] += 1

    assert min(counts.values()) > 900
    assert max(counts.values()) < 1100


@pytest.mark.parametrize("count", [0, -1, 65])
def test_a_ledger_has_1_to_64_partitions(count: int) -> None:
    """Other numbers are refused with the key."""
    with pytest.raises(ConfigError, match="partitions"):
        partitions(count)


def test_keys_of_a_partition_share_a_slot() -> None:
    """Each carries the number in braces."""
    keys = PartitionKeys.of(48)

    assert keys.head == "{48}:head"
    assert all(getattr(keys, name) == f"{{48}}:{name}" for name in PartitionKeys.__slots__)


def test_a_level_is_named_by_account_and_pool() -> None:
    """A pool's name may hold a slash, an account's may not: the first slash parts them."""
    assert level_name("acct", "isolated:A/B").partition("/") == ("acct", "/", "isolated:A/B")
