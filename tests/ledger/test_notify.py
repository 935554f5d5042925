"""Records of the alert policy: stored whole, fenced, in the right partition, and nothing twice."""

from __future__ import annotations

import asyncio

import pytest

from monitor.errors import Fenced, LedgerUnavailable
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.keys import partition_of, partitions
from monitor.ledger.notify import NotifyRecords
from tests.support.redis import Redis


def records_on(redis: Redis, *numbers: int, count: int = 1) -> NotifyRecords:
    """Records of one process."""
    return NotifyRecords({number: redis.link() for number in numbers or (0,)}, count)


async def test_what_was_written_is_loaded(redis: Redis) -> None:
    """Records as they were last, removed ones not, notices in their order."""
    one = records_on(redis)
    assert await one.load() == ({}, [])
    await one.write({"subject:a/cross/level": b"1", "route:desk": b"2", "gone": b"3"}, [(1, b"n1"), (2, b"n2")])
    await one.write({"subject:a/cross/level": b"4", "gone": None})
    one.close()

    assert await records_on(redis).load() == ({"subject:a/cross/level": b"4", "route:desk": b"2"}, [(1, b"n1"), (2, b"n2")])


async def test_a_write_may_be_repeated(redis: Redis) -> None:
    """After a lost answer the same is written again: no notice is there twice."""
    one = records_on(redis)
    await one.load()
    for _ in range(3):
        await one.write({"counter": b"2"}, [(1, b"n1"), (2, b"n2")])

    assert (await one.load())[1] == [(1, b"n1"), (2, b"n2")]


async def test_who_loaded_last_writes(redis: Redis) -> None:
    """An older process is fenced, whatever it tries; nothing of it is stored."""
    old, new = records_on(redis), records_on(redis)
    await old.load()
    await old.write({"a": b"1"})
    await new.load()
    with pytest.raises(Fenced):
        await old.write({"a": b"2"}, [(1, b"n")])
    await new.write({"b": b"3"})

    assert await new.load() == ({"a": b"1", "b": b"3"}, [])


async def test_before_loading_nothing_is_written(redis: Redis) -> None:
    """A process that never took the fence has no right to write."""
    with pytest.raises(Fenced):
        await records_on(redis).write({"a": b"1"})


async def test_a_transaction_whose_hash_changed_is_not_applied(redis: Redis) -> None:
    """Two writes that meet: one is told that nothing happened, and can repeat it."""
    one = records_on(redis)
    await one.load()
    write = asyncio.ensure_future(one.write({"a": b"1"}))
    failures = 0
    while not write.done():
        await redis.call("HSET", "{0}:notify", "other", b"x")
    try:
        await write
    except LedgerUnavailable:
        failures += 1
        await one.write({"a": b"1"})

    assert (await one.load())[0] == {"a": b"1", "other": b"x"}
    assert failures in {0, 1}


async def test_records_lie_with_their_accounts(redis: Redis) -> None:
    """Subjects and places in their partition, everything else and the notices at home; another process finds its own part."""
    numbers = partitions(64)
    accounts = {partition_of(f"a{n}", 64): f"a{n}" for n in range(2000)}
    process = NotifyRecords({number: redis.link() for number in numbers}, 64)
    await process.load()
    changes: dict[str, bytes | None] = {f"subject:{account}/cross:X/Y/level": account.encode() for account in accounts.values()}
    changes |= {f"place:{number}": b"1-1" for number in numbers}
    await process.write({**changes, "route:desk": b"r", "subject:/0/9-1/blind": b"b"}, [(1, b"n")])
    process.close()
    half = NotifyRecords({number: redis.link() for number in numbers[1::2]}, 64)
    records, notices = await half.load()

    mine = {f"subject:{accounts[number]}/cross:X/Y/level" for number in numbers[1::2]} | {f"place:{number}" for number in numbers[1::2]}
    assert set(records) == mine
    assert notices == []
    assert await redis.call("XLEN", f"{{{numbers[0]}}}:notices") == 1
    assert await redis.call("HEXISTS", f"{{{numbers[0]}}}:notify", "subject:/0/9-1/blind") == 1
    half.close()


async def test_notices_below_are_forgotten(redis: Redis) -> None:
    """What every sink has and no reader needs is trimmed."""
    one = records_on(redis)
    await one.load()
    await one.write({}, [(number, b"n") for number in range(1, 11)], keep_from=8)

    assert [number for number, _ in (await one.load())[1]] == [8, 9, 10]


async def test_many_records_and_notices(redis: Redis) -> None:
    """More than fit into one command."""
    one = records_on(redis)
    await one.load()
    changes: dict[str, bytes | None] = {f"subject:a{n}/cross/level": b"x" for n in range(1777)}
    await one.write(changes, [(number, b"n") for number in range(1, 1300)])
    records, notices = await one.load()

    assert (len(records), len(notices)) == (1777, 1299)


async def test_a_refused_notice_is_a_dead_letter(redis: Redis) -> None:
    """With its id, why, and its bytes."""
    one = records_on(redis)
    await one.load()
    await one.bury("0/1-0", "chat: rejected: no", b"raw")
    entries = await redis.call("XRANGE", "{0}:dead", "-", "+")

    assert entries[0][1] == [b"source", b"notice", b"cause", b"chat: rejected: no", b"raw", b"raw", b"id", b"0/1-0"]


async def test_without_redis_it_says_so() -> None:
    """Unavailable, to be tried again."""
    away = NotifyRecords({0: Link(Endpoint.parse("unix:///nonexistent/redis.sock"), timeout_s=0.5)}, 1)
    with pytest.raises(LedgerUnavailable):
        await away.load()
