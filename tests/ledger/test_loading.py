"""Loading a partition: nothing damaged, missing, renamed or old is ever taken for good."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from monitor.errors import LedgerBroken
from monitor.ledger.changes import Anchor, Change, DocumentChange, Hold, Observation
from monitor.ledger.loading import DAMAGED, Loaded
from monitor.ledger.partition import Partition
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from tests.support.redis import Redis

Lead = Callable[..., Awaitable[Partition]]


def _see(account: str, level: Level, *, n: int = 1, unknown: str | None = None) -> Observation:
    return Observation(account, "cross", level, unknown, TickPosition(1, n, 0), b"{}")


async def _fill(lead: Lead, *, trimmed: bool = False) -> None:
    """Ten accounts with two documents each, ten pools with three rows each."""
    partition = await lead()
    changes: list[Change] = []
    for index in range(10):
        account = f"a{index}"
        changes += [DocumentChange(account, 1, sequence, b'{"n":%d}' % sequence) for sequence in (1, 2)]
        changes += [_see(account, level, n=level) for level in (Level.WATCH, Level.MARGIN_CALL, Level.LIQUIDATION)]
    await partition.commit([*changes, Hold("a9", "poisoned")])
    if trimmed:
        await partition.commit([Anchor(partition.head.seq, partition.head.hash)])
    await partition.release()


async def _load(lead: Lead) -> tuple[Partition, Loaded, dict[str, tuple[bytes | None, str | None]]]:
    partition = await lead(held=False)
    await partition.lead(60.0)
    documents: dict[str, tuple[bytes | None, str | None]] = {}
    loaded = await partition.load(lambda account, document, hold: documents.update({account: (document, hold)}))
    return partition, loaded, documents


async def test_a_sound_partition_loads_without_complaint(lead: Lead) -> None:
    """Every document, hold and level is there."""
    await _fill(lead)

    partition, loaded, documents = await _load(lead)

    assert (loaded.accounts, loaded.levels, loaded.complaint) == (10, 10, None)
    assert documents == {f"a{index}": (b'{"n":2}', "poisoned" if index == 9 else None) for index in range(10)}
    assert partition.state is not None
    assert {record.level for record in partition.state.levels.values()} == {Level.LIQUIDATION}


async def test_all_of_300_damages_are_found(lead: Lead, redis: Redis) -> None:
    """Flipped bytes, deletions, renames and roll-backs of any record: each load complains, and no damaged document is handed out."""
    await _fill(lead)
    draw = random.Random(1)
    names = [f"a{index}" for index in range(10)]
    sound = {key: await redis.call("HGETALL", key) for key in ("{0}:accounts", "{0}:levels")}
    documents = {bytes(name): bytes(value) for name, value in zip(sound["{0}:accounts"][::2], sound["{0}:accounts"][1::2], strict=True)}
    found = 0
    for _ in range(300):
        key, suffix = draw.choice([("{0}:accounts", ""), ("{0}:levels", "/cross")])
        name = draw.choice(names) + suffix
        old = await redis.call("HGET", key, name)
        kind = draw.choice(["flip", "delete", "rename", "swap"])
        if kind == "flip":
            damaged = bytearray(old)
            damaged[draw.randrange(len(damaged))] ^= draw.randrange(1, 256)
            await redis.call("HSET", key, name, bytes(damaged))
        elif kind == "delete":
            await redis.call("HDEL", key, name)
        elif kind == "rename":
            await redis.exchange(("HDEL", key, name), ("HSET", key, f"b{name[1:]}", old))
        else:
            other = draw.choice([other for other in names if other + suffix != name]) + suffix
            await redis.call("HSET", key, name, await redis.call("HGET", key, other))
        partition, loaded, handed_out = await _load(lead)
        await partition.release()
        found += loaded.complaint is not None
        assert all(document is None or documents[account.encode()][8:].find(document) > 0 for account, (document, _) in handed_out.items())
        await redis.exchange(("DEL", "{0}:accounts"), ("DEL", "{0}:levels"), *(("HSET", key, *pairs) for key, pairs in sound.items()))

    assert found == 300


async def test_a_record_put_back_to_an_older_version_is_found(lead: Lead, redis: Redis) -> None:
    """Its seal is right and nothing is missing: only the digest tells."""
    partition = await lead()
    await partition.commit([DocumentChange("a", 1, 1, b'{"n":1}')])
    old = await redis.call("HGET", "{0}:accounts", "a")
    await partition.commit([DocumentChange("a", 1, 2, b'{"n":2}')])
    await partition.release()
    await redis.call("HSET", "{0}:accounts", "a", old)

    _, loaded, _ = await _load(lead)

    assert loaded.complaint is not None


@pytest.mark.parametrize("damage", ["flip", "delete", "old"])
async def test_a_lost_level_is_made_again_from_the_events(lead: Lead, redis: Redis, damage: str) -> None:
    """The last retained row of the pool says it all; the next load has nothing to complain of."""
    partition = await lead()
    await partition.commit([_see("a", Level.WATCH), _see("b", Level.WATCH)])
    old = await redis.call("HGET", "{0}:levels", "a/cross")
    await partition.commit([_see("a", Level.LIQUIDATION, n=2)])
    await partition.release()
    if damage == "flip":
        await redis.call("HSET", "{0}:levels", "a/cross", b"x" + (await redis.call("HGET", "{0}:levels", "a/cross"))[1:])
    elif damage == "delete":
        await redis.call("HDEL", "{0}:levels", "a/cross")
    else:
        await redis.call("HSET", "{0}:levels", "a/cross", old)

    repaired, loaded, _ = await _load(lead)

    assert loaded.repaired_levels == ["a/cross"]
    assert loaded.complaint is not None
    assert loaded.complaint.endswith("now all agrees")
    assert repaired.state is not None
    assert repaired.state.levels["a/cross"][:3] == (Level.LIQUIDATION, None, 2)
    assert (await repaired.commit([_see("a", Level.LIQUIDATION, n=3)])).rows == 0


async def test_a_level_that_nothing_tells_is_unknown(lead: Lead, redis: Redis) -> None:
    """Its rows are trimmed: no level is claimed, and its next row has a rev above all that were given out."""
    await _fill(lead, trimmed=True)
    await redis.exchange(("HSET", "{0}:levels", "a3/cross", "damaged"), ("XTRIM", "{0}:events", "MAXLEN", "=", 0))

    partition, loaded, _ = await _load(lead)

    assert loaded.damaged_levels == ["a3/cross"]
    assert partition.state is not None
    record = partition.state.levels["a3/cross"]
    assert (record.unknown, record.rev) == (DAMAGED, 30)
    assert (await partition.commit([_see("a3", Level.LIQUIDATION, n=9)])).rows == 1


async def test_a_damaged_account_is_unknown_until_a_document_comes(lead: Lead, redis: Redis) -> None:
    """Its neighbours go on; any valid document heals it, and then the next load is content."""
    await _fill(lead)
    await redis.call("HSET", "{0}:accounts", "a3", "damaged")

    partition, loaded, documents = await _load(lead)
    assert (loaded.damaged_accounts, documents["a3"], documents["a4"]) == (["a3"], (None, DAMAGED), (b'{"n":2}', None))

    await partition.commit([DocumentChange("a3", 0, 1, b'{"n":3}')])
    await partition.release()
    healed, loaded, documents = await _load(lead)
    assert (loaded.complaint, documents["a3"]) == (None, (b'{"n":3}', None))
    await healed.release()


@pytest.mark.parametrize("key", ["accounts", "levels", "events", "updates", "dead", "sinks"])
async def test_a_key_of_another_type_is_broken(lead: Lead, redis: Redis, key: str) -> None:
    """Another program uses this database: found before anything is written."""
    await redis.call("SET", f"{{0}}:{key}", "x")

    with pytest.raises(LedgerBroken, match="another program uses this database"):
        await lead()


async def test_a_foreign_row_is_found(lead: Lead, redis: Redis) -> None:
    """The stream ends beyond the head."""
    await _fill(lead)
    await redis.call("XADD", "{0}:events", "99-1", "e", "{}", "h", "x")

    with pytest.raises(LedgerBroken, match="ends at row 99, the head at 30"):
        await lead()


async def test_a_row_that_is_there_twice_is_found(lead: Lead, redis: Redis) -> None:
    """Under another token, with the same content and the right hash."""
    await _fill(lead)
    ((last, fields),) = await redis.call("XREVRANGE", "{0}:events", "+", "-", "COUNT", 1)
    seq, _, token = last.decode().partition("-")
    await redis.call("XADD", "{0}:events", f"{seq}-{int(token) + 1}", *fields)

    with pytest.raises(LedgerBroken, match="31 rows from 1 to 30"):
        await lead()


async def test_a_row_taken_out_stops_nobody(lead: Lead, redis: Redis) -> None:
    """The accounts are watched all the same; verification tells of it."""
    await _fill(lead)
    ((second, _),) = await redis.call("XRANGE", "{0}:events", "2", "2")
    await redis.call("XDEL", "{0}:events", second)

    _, loaded, _ = await _load(lead)
    assert loaded.complaint is None


async def test_an_end_that_was_cut_off_is_found(lead: Lead, redis: Redis) -> None:
    """Events that were restored apart from the head."""
    await _fill(lead)
    await redis.call("DEL", "{0}:events")

    with pytest.raises(LedgerBroken, match="ends at row 0, the head at 30"):
        await lead()


async def test_a_large_partition_is_read_in_pieces(lead: Lead) -> None:
    """More records than one reply carries."""
    partition = await lead()
    for start in range(0, 6000, 1000):
        await partition.commit([_see(f"a{index}", Level.WATCH) for index in range(start, start + 1000)])
    await partition.release()

    _, loaded, _ = await _load(lead)

    assert (loaded.levels, loaded.complaint) == (6000, None)
