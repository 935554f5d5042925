"""Loading a partition: nothing damaged, missing, renamed or old is ever taken for good."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Container, Sequence

import orjson
import pytest

from monitor.errors import LedgerBroken
from monitor.ledger.changes import Anchor, Change, DocumentChange, Hold, Observation
from monitor.ledger.connection import Command
from monitor.ledger.loading import DAMAGED, Loaded
from monitor.ledger.partition import Partition
from monitor.ledger.verify import verify_partition
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


def _plain(index: int, wallet: int = 1000) -> bytes:
    """A document that has a packed form."""
    position = {"instrument": "BTCUSDT", "quantity": "1", "entry_price": "30000"}
    balances = [{"asset": "USDT", "wallet": str(wallet)}]
    return orjson.dumps({"account": {"id": f"a{index}", "venue": "bybit", "balances": balances, "positions": [position]}})


async def _load_packed(lead: Lead, refuse: Container[str] = ()) -> tuple[Loaded, dict[str, bytes], dict[str, bytes | None]]:
    """Loads as the evaluator does: (what was found, packed records, documents)."""
    partition = await lead(held=False)
    await partition.lead(60.0)
    records: dict[str, bytes] = {}
    documents: dict[str, bytes | None] = {}

    def take(accounts: Sequence[str], packed: Sequence[bytes]) -> list[str]:
        records.update((account, record) for account, record in zip(accounts, packed, strict=True) if account not in refuse)
        return [account for account in accounts if account in refuse]

    loaded = await partition.load(lambda account, document, _hold: documents.update({account: document}), take)
    await partition.release()
    return loaded, records, documents


async def test_plain_accounts_come_packed_and_the_others_as_documents(lead: Lead) -> None:
    """Those that are refused, on hold, removed or not plain come as documents; no other document is read."""
    partition = await lead()
    changes: list[Change] = [DocumentChange(f"a{index}", 1, 1, _plain(index)) for index in range(10)]
    await partition.commit([*changes, DocumentChange("other", 1, 1, b'{"n":2}'), Hold("a8", "poisoned"), DocumentChange("a9", 1, 2, None)])
    await partition.release()

    loaded, records, documents = await _load_packed(lead, refuse={"a7"})

    assert (loaded.accounts, loaded.complaint, loaded.from_documents) == (11, None, False)
    assert sorted(records) == [f"a{index}" for index in range(7)]
    assert documents == {"a7": _plain(7), "a8": _plain(8), "a9": None, "other": b'{"n":2}'}


@pytest.mark.parametrize("kind", ["flip", "delete", "rename", "swap", "old", "all"])
async def test_damaged_packed_records_are_never_used_and_made_anew(lead: Lead, redis: Redis, kind: str) -> None:
    """The documents are read instead, without a complaint; the next start finds all packed records in order."""
    partition = await lead()
    await partition.commit([DocumentChange(f"a{index}", 1, 1, _plain(index, 5)) for index in range(10)])
    old = await redis.call("HGET", "{0}:packed", "a3")
    await partition.commit([DocumentChange(f"a{index}", 1, 2, _plain(index)) for index in range(10)])
    await partition.release()
    flat = await redis.call("HGETALL", "{0}:packed")
    sound = dict(zip(flat[::2], flat[1::2], strict=True))
    record = bytearray(await redis.call("HGET", "{0}:packed", "a3"))
    record[20] ^= 1
    damages: dict[str, list[Command]] = {
        "flip": [("HSET", "{0}:packed", "a3", bytes(record))],
        "delete": [("HDEL", "{0}:packed", "a3")],
        "rename": [("HDEL", "{0}:packed", "a3"), ("HSET", "{0}:packed", "b3", old)],
        "swap": [("HSET", "{0}:packed", "a3", sound[b"a4"])],
        "old": [("HSET", "{0}:packed", "a3", old)],
        "all": [("DEL", "{0}:packed")],
    }
    await redis.exchange(*damages[kind])
    assert (await verify_partition(redis.link(), 0)).is_sound is (kind in {"delete", "all"})

    loaded, records, documents = await _load_packed(lead)
    again, records_again, _ = await _load_packed(lead)

    assert loaded.complaint is None and loaded.accounts == 10
    assert documents == ({"a3": _plain(3)} if kind in {"flip", "swap"} else {})
    assert {account.encode(): record for account, record in records.items()} == {
        name: record for name, record in sound.items() if name.decode() not in documents
    }
    if kind != "rename":  # the record of an account that is not there stays until a person looks
        assert (await verify_partition(redis.link(), 0)).is_sound
        assert not again.from_documents
        assert len(records_again) == 10


async def test_a_damaged_document_behind_a_sound_packed_record_is_found_by_verification(lead: Lead, redis: Redis) -> None:
    """A start does not read it; the account goes on by its packed record."""
    partition = await lead()
    await partition.commit([DocumentChange(f"a{index}", 1, 1, _plain(index)) for index in range(3)])
    await partition.release()
    sealed = bytearray(await redis.call("HGET", "{0}:accounts", "a1"))
    sealed[40] ^= 1
    await redis.call("HSET", "{0}:accounts", "a1", bytes(sealed))

    report = await verify_partition(redis.link(), 0)

    assert report.faults == ["a1: its document is damaged"]
    await redis.call("HDEL", "{0}:accounts", "a1")
    assert (await verify_partition(redis.link(), 0)).faults == ["a1: its document is missing", "2 accounts, the head says 3"]


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
