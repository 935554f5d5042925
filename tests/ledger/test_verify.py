"""Verification finds whatever was done to the rows."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from monitor.errors import LedgerBroken
from monitor.ledger.changes import Blind, Observation
from monitor.ledger.partition import Partition
from monitor.ledger.verify import verify_partition
from monitor.margin.levels import Level
from monitor.wire.events import TickPosition
from monitor.wire.rows import Row
from tests.support.redis import Redis

Lead = Callable[..., Awaitable[Partition]]


async def _fill(lead: Lead, rows: int = 200) -> Partition:
    partition = await lead()
    draw = random.Random(3)
    changes = [
        Observation(f"a{draw.randrange(10)}", "cross", Level(draw.randrange(5)), None, TickPosition(1, n, 0), b'{"equity":"5"}')
        for n in range(1, rows * 2)
    ]
    await partition.commit([*changes, Blind(None, None, "hole")])
    return partition


async def test_a_sound_partition_is_sound(lead: Lead, redis: Redis) -> None:
    """Every row is walked, beside a running holder."""
    partition = await _fill(lead)

    report = await verify_partition(redis.link(), 0)

    assert report.is_sound
    assert (report.rows, report.first, report.last, report.blind_rows) == (partition.head.seq, 1, partition.head.seq, 1)
    assert report.pools == 10


async def test_an_empty_partition_is_sound(lead: Lead, redis: Redis) -> None:
    """Nothing was written, nothing is missing."""
    await lead()

    report = await verify_partition(redis.link(), 0)
    assert (report.is_sound, report.rows) == (True, 0)


async def test_no_head_is_told(redis: Redis) -> None:
    """An empty Redis is no sound ledger."""
    with pytest.raises(LedgerBroken, match="no head"):
        await verify_partition(redis.link(), 0)


async def _replace(redis: Redis, change: Callable[[list[Any]], list[Any]]) -> None:
    """Writes the stream anew, changed."""
    rows = [(entry, list(fields)) for entry, fields in await redis.call("XRANGE", "{0}:events", "-", "+")]
    changed = change(rows)
    await redis.call("DEL", "{0}:events")
    await redis.exchange(*(("XADD", "{0}:events", entry, *fields) for entry, fields in changed))


async def test_every_altered_or_removed_row_is_found(lead: Lead, redis: Redis) -> None:
    """Sixty times another row: its body, its hash, or the whole row."""
    await _fill(lead, rows=40)
    original = await redis.call("XRANGE", "{0}:events", "-", "+")
    draw = random.Random(5)
    for _ in range(60):
        victim = draw.randrange(len(original))
        kind = draw.choice(["body", "hash", "remove"])

        def change(rows: list[Any], victim: int = victim, kind: str = kind) -> list[Any]:
            fields = rows[victim][1]
            if kind == "remove":
                return [*rows[:victim], *rows[victim + 1 :]]
            place = 1 if kind == "body" else 3
            fields[place] = fields[place].replace(b"1", b"2", 1) if b"1" in fields[place] else fields[place][:-1] + b"x"
            return rows

        await _replace(redis, change)
        report = await verify_partition(redis.link(), 0)
        assert not report.is_sound, (victim, kind)
        await _replace(redis, lambda _rows: [(entry, list(fields)) for entry, fields in original])

    assert (await verify_partition(redis.link(), 0)).is_sound


async def test_a_cut_off_front_or_end_is_found(lead: Lead, redis: Redis) -> None:
    """The front needs an anchor that allows it, the end is in the head."""
    await _fill(lead)
    await redis.call("XTRIM", "{0}:events", "MINID", "=", "5")
    report = await verify_partition(redis.link(), 0)
    assert report.faults[0].startswith("rows 1 to 4 are missing")

    last = (await redis.call("XREVRANGE", "{0}:events", "+", "-", "COUNT", 1))[0][0]
    await redis.call("XDEL", "{0}:events", last)
    report = await verify_partition(redis.link(), 0)
    assert any("missing at the end" in fault for fault in report.faults)


async def test_a_level_record_that_contradicts_its_rows_is_found(lead: Lead, redis: Redis) -> None:
    """Whether altered, removed or replaced by another sealed one."""
    partition = await _fill(lead)
    state = partition.state
    assert state is not None
    await redis.call("HSET", "{0}:levels", "a1/cross", "damaged")
    await redis.call("HDEL", "{0}:levels", "a2/cross")

    report = await verify_partition(redis.link(), 0)
    assert sorted(report.faults) == ["a1/cross: its level record is damaged", "a2/cross: its level record is missing"]


async def test_whoever_recomputes_the_numbers_can_complain(lead: Lead, redis: Redis) -> None:
    """The hook gets every row with its body."""
    await _fill(lead, rows=20)
    seen: list[Row] = []

    def on_row(row: Row, body: dict[str, Any]) -> str | None:
        seen.append(row)
        assert orjson.loads(row.body) == body
        return "equity 5, recomputed 6" if row.seq == 3 else None

    report = await verify_partition(redis.link(), 0, on_row=on_row)

    assert len(seen) == report.rows
    assert [fault.partition(": ")[2] for fault in report.faults] == ["equity 5, recomputed 6"]


async def test_many_faults_are_counted_not_listed(lead: Lead, redis: Redis) -> None:
    """At most a hundred lines."""
    await _fill(lead)

    report = await verify_partition(redis.link(), 0, on_row=lambda _row, _body: "wrong")

    assert (len(report.faults), report.more_faults) == (100, report.rows - 100)
