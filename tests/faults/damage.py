"""What is damaged in the ledger, and in the code, is found: flipped bytes, rows that are gone or altered, planted faults."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson

from monitor.errors import LedgerBroken
from monitor.ledger.changes import Change, DocumentChange, Observation
from monitor.ledger.connection import Command
from monitor.ledger.identity import identify
from monitor.ledger.partition import Partition
from monitor.ledger.verify import verify_partition
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from tests.faults.scenario import Outcome, scenario
from tests.support.daemon_rig import Stage
from tests.support.planted import PLANTS, is_caught
from tests.support.redis import Redis, redis_server

ACCOUNTS = 10
ROWS = 10_000
AT_ONCE = 100


def _document(index: int) -> bytes:
    """Every other one has a packed form beside it."""
    position = {"instrument": "BTCUSDT", "quantity": "1", "entry_price": "30000"} | ({"note": "x"} if index % 2 else {})
    balances = [{"asset": "USDT", "wallet": str(1000 + index)}]
    return orjson.dumps({"account": {"id": f"a{index}", "venue": "bybit", "balances": balances, "positions": [position]}})


@asynccontextmanager
async def _filled(rows: int) -> AsyncIterator[Redis]:
    """A ledger with documents and about so many rows, that nobody holds."""
    draw = random.Random(3)
    async with redis_server() as redis:
        partition = await _held(redis)
        await partition.load(lambda _account, _document, _hold: None)
        await partition.commit([DocumentChange(f"a{index}", 1, 1, _document(index)) for index in range(ACCOUNTS)])
        levels = [Level.HEALTHY] * ACCOUNTS
        changes: list[Change] = []
        for n in range(rows):
            index = draw.randrange(ACCOUNTS)
            levels[index] = draw.choice([level for level in Level if level is not levels[index]])
            facts = orjson.dumps({"equity": str(draw.randrange(10**9))})
            changes.append(Observation(f"a{index}", "cross", levels[index], None, TickPosition(1, n + 1, 0), facts))
        for start in range(0, rows, 1000):
            await partition.commit(changes[start : start + 1000])
        await partition.release()
        yield redis


async def _held(redis: Redis) -> Partition:
    ledger = await identify(redis.link(), 1)
    partition = Partition(redis.link(), 0, holder=f"test:{secrets.token_hex(4)}", ledger=ledger, partitions=1)
    await partition.lead(60.0)
    return partition


@scenario(short=100, long=1_000)
async def byte_flips(_stage: Stage, times: int) -> Outcome:
    """One byte of one value is another one: verification tells, and a start hands no altered document or packed record to the evaluator."""
    draw = random.Random(times)
    found = used = 0
    async with _filled(30) as redis:
        sound = {key: await redis.call("DUMP", key) for key in HASHES}
        hashes = {key: await redis.call("HGETALL", key) for key in HASHES}
        rows = await redis.call("XRANGE", "{0}:events", "-", "+")
        genuine = {bytes(value) for value in hashes["{0}:packed"][1::2]} | {_document(index) for index in range(ACCOUNTS)}
        for _ in range(times):
            key = draw.choice([*HASHES, "{0}:events"])
            if key == "{0}:events":
                victim, place = draw.randrange(len(rows)), draw.choice([1, 3])
                altered = [[*fields] for _, fields in rows]
                altered[victim][place] = _flipped(altered[victim][place], draw)
                await _rewrite(redis, [entry for entry, _ in rows], altered)
            else:
                at = draw.randrange(len(hashes[key]) // 2) * 2
                await redis.call("HSET", key, hashes[key][at], _flipped(hashes[key][at + 1], draw))
            found += await _is_found(redis)
            used += len(await _handed_on(redis) - genuine)
            await redis.exchange(*(("RESTORE", name, 0, value, "REPLACE") for name, value in sound.items()))
            if key == "{0}:events":
                await _rewrite(redis, [entry for entry, _ in rows], [fields for _, fields in rows])
    assert (found, used) == (times, 0), f"{found} of {times} found, {used} altered records used"
    return Outcome([], {"flips": times, "found": found, "used": used})


HASHES = ("{0}:head", "{0}:accounts", "{0}:packed", "{0}:levels")


def _flipped(value: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(value)
    damaged[draw.randrange(len(damaged))] ^= draw.randrange(1, 256)
    return bytes(damaged)


async def _rewrite(redis: Redis, entries: Sequence[bytes], fields: Sequence[Sequence[bytes]]) -> None:
    """The events anew, with these fields."""
    commands: list[Command] = [("DEL", "{0}:events")]
    commands += [("XADD", "{0}:events", entry, *pairs) for entry, pairs in zip(entries, fields, strict=True)]
    await redis.exchange(*commands)


async def _is_found(redis: Redis) -> bool:
    try:
        return not (await verify_partition(redis.link(), 0)).is_sound
    except LedgerBroken:
        return True


async def _handed_on(redis: Redis) -> set[bytes]:
    """What a start would evaluate; nothing when it refuses the ledger."""
    handed: set[bytes] = set()

    def document(_account: str, data: bytes | None, hold: str | None) -> None:
        if data is not None and hold is None:
            handed.add(data)

    def packed(_accounts: Sequence[str], records: Sequence[bytes]) -> Sequence[str]:
        handed.update(records)
        return ()

    try:
        partition = await _held(redis)
        await partition.load(document, packed)
        partition.close()
    except LedgerBroken:
        pass  # it goes no further, whatever it was handed
    return handed


@scenario(short=2, long=100)
async def rows_gone_or_altered(_stage: Stage, rounds: int) -> Outcome:
    """Of 10,000 rows a hundred at a time are deleted or altered, in body or hash: verification names each of them."""
    draw = random.Random(rounds)
    named = 0
    async with _filled(ROWS) as redis:
        rows = await redis.call("XRANGE", "{0}:events", "-", "+")
        entries, sound = [entry for entry, _ in rows], [fields for _, fields in rows]
        waiting = draw.sample(range(0, ROWS - 1, 2), ROWS // 2) + draw.sample(range(1, ROWS - 1, 2), ROWS // 2 - 1)
        for number in range(rounds):
            victims = set(waiting[number * AT_ONCE : (number + 1) * AT_ONCE])  # no two neighbours: each is told by itself
            kept = [index for index in range(ROWS) if index not in victims or number % 3]
            altered = [[*sound[index]] for index in kept]
            for position, index in enumerate(kept):
                if index in victims:
                    place = 1 if number % 3 == 1 else 3
                    altered[position][place] = _flipped(altered[position][place], draw)
            await _rewrite(redis, [entries[index] for index in kept], altered)
            report = await verify_partition(redis.link(), 0, most_faults=ROWS)
            text = "\n".join(report.faults)
            untold = [index for index in victims if not _names(text, entries[index].decode(), index + 1)]
            assert not untold, (number, untold, report.faults[:3])
            named += len(victims)
        await _rewrite(redis, entries, sound)
        assert (await verify_partition(redis.link(), 0)).is_sound
    return Outcome([], {"rows": ROWS, "gone_or_altered": named})


def _names(text: str, entry: str, seq: int) -> bool:
    return f"0/{entry}: " in text or f"rows {seq} to {seq} are missing" in text


@scenario(short=1, long=len(PLANTS))
async def planted_faults(stage: Stage, count: int) -> Outcome:
    """A fault of the protocol put into a copy of the code: the test that is named beside it fails there."""
    chosen = PLANTS if count >= len(PLANTS) else random.Random(stage.seed).sample(PLANTS, count)
    missed = [plant.name for plant in chosen if not (await is_caught(plant))[0]]
    assert not missed, f"not caught: {missed}"
    return Outcome([], {"planted": len(chosen), "caught": len(chosen)})
