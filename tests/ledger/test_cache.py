"""The cache: ticks with every hole told, last prices, snapshots."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from monitor.errors import LedgerUnavailable
from monitor.ledger.cache import HealthWriter, StoredPrice, TickCursor, TickGap, TickMessage, TicksReader, TicksWriter, read_marks
from monitor.ledger.connection import Link
from monitor.margin.prices import PriceKind
from monitor.wire.prices import PriceBatch, decode_batch
from tests.support.proxy import FaultProxy
from tests.support.redis import Redis

_START = TickCursor("0-0", 0, 0)


def _batch(price: float, name: str = "BTCUSDT") -> PriceBatch:
    return PriceBatch(venue="binance_usdm", kind=PriceKind.MARK, names=[name], prices=[price], venue_times_ms=[1700], received_at_ns=42)


def _prices(found: list[TickMessage | TickGap]) -> list[float | str]:
    return [item.reason if isinstance(item, TickGap) else decode_batch(item.data).prices[0] for item in found]


async def _read_all(reader: TicksReader) -> list[TickMessage | TickGap]:
    found: list[TickMessage | TickGap] = []
    while more := await reader.read(block_ms=0, count=3):
        found += more
    return found


async def test_what_is_written_is_read_in_order(redis: Redis) -> None:
    """Numbered from 1 without holes, in the epoch of the writer."""
    writer = TicksWriter(redis.link(), wall_ms=lambda: 1000)
    for price in range(1, 8):
        await writer.write([_batch(float(price))])
    await writer.write([_batch(8.0), _batch(9.0, "ETHUSDT")])
    writer.close()
    reader = TicksReader(redis.link(), _START)

    found = await _read_all(reader)

    assert _prices(found) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert [(item.epoch, item.n) for item in found if isinstance(item, TickMessage)] == [(1000, n) for n in range(1, 10)]
    assert reader.cursor.n == 9
    reader.close()


async def test_a_waiting_reader_gets_a_message_as_it_comes(redis: Redis) -> None:
    """It blocks on the server, not in a loop of its own."""
    writer, reader = TicksWriter(redis.link()), TicksReader(redis.link(), _START)
    waiting = asyncio.ensure_future(reader.read(block_ms=10_000))
    await asyncio.sleep(0.05)
    await writer.write([_batch(1.0)])

    assert _prices(await waiting) == [1.0]
    writer.close()
    reader.close()


async def test_last_prices_are_kept_by_venue(redis: Redis) -> None:
    """Price, the venue's time and when it came; what cannot be read is left out."""
    writer = TicksWriter(redis.link())
    await writer.write([_batch(64000.5)])
    await writer.write([_batch(64001.25), _batch(0.1, "DOGEUSDT")])
    writer.close()
    await redis.call("HSET", "marks:binance_usdm", "mark:X", "nonsense")

    assert await read_marks(redis.link(), "binance_usdm") == {
        "mark:BTCUSDT": StoredPrice(64001.25, 1700, 42),
        "mark:DOGEUSDT": StoredPrice(0.1, 1700, 42),
    }


async def test_a_new_writer_begins_a_higher_epoch(redis: Redis) -> None:
    """Whatever its clock says; the reader is told that ticks may be missing between the two."""
    first = TicksWriter(redis.link(), wall_ms=lambda: 5000)
    await first.write([_batch(1.0)])
    first.close()
    second = TicksWriter(redis.link(), wall_ms=lambda: 3000)
    await second.write([_batch(2.0)])
    second.close()
    reader = TicksReader(redis.link(), _START)

    found = await _read_all(reader)

    assert (first.epoch, second.epoch) == (5000, 5001)
    assert _prices(found) == [1.0, "new_epoch", 2.0]
    reader.close()


async def test_trimmed_messages_are_a_hole(redis: Redis) -> None:
    """The cursor's message is gone, and so are some after it."""
    writer = TicksWriter(redis.link())
    for price in range(1, 11):
        await writer.write([_batch(float(price))])
    writer.close()
    reader = TicksReader(redis.link(), _START)
    await reader.read(block_ms=0, count=3)
    before = reader.cursor
    await redis.call("XTRIM", "ticks", "MAXLEN", "=", 4)

    found = await _read_all(reader)

    assert _prices(found) == ["hole", 7.0, 8.0, 9.0, 10.0]
    gap = found[0]
    assert isinstance(gap, TickGap)
    assert gap.end is not None
    assert (gap.start, gap.end.n) == (before, 7)
    reader.close()


async def test_a_wiped_stream_is_noticed_by_who_waits_behind_its_end(redis: Redis) -> None:
    """Ids begin anew: without this the reader would wait for ever."""
    writer = TicksWriter(redis.link())
    await writer.write([_batch(1.0)])
    reader = TicksReader(redis.link(), _START)
    await _read_all(reader)
    await redis.call("DEL", "ticks")
    await redis.call("XADD", "ticks", "1-1", "e", "7", "n", "1", "b", b"{}")

    found = await reader.read(block_ms=0)
    assert _prices(found) == ["wiped"]
    (message,) = await reader.read(block_ms=0)
    assert isinstance(message, TickMessage)
    assert (message.epoch, message.n) == (7, 1)
    assert await reader.read(block_ms=0) == []
    writer.close()
    reader.close()


async def test_an_emptied_cache_is_noticed_too(redis: Redis) -> None:
    """The stream does not exist any more."""
    writer = TicksWriter(redis.link())
    await writer.write([_batch(1.0)])
    reader = TicksReader(redis.link(), _START)
    await _read_all(reader)
    await redis.call("FLUSHALL")

    assert _prices(await reader.read(block_ms=0)) == ["wiped"]
    assert await reader.read(block_ms=0) == []
    writer.close()
    reader.close()


async def test_a_lost_answer_makes_no_second_tick(redis: Redis, tmp_path: Path) -> None:
    """The batch is sent again under its number; the reader knows the copy."""
    async with FaultProxy(tmp_path / "proxy.sock", str(redis.server.socket), marker=b"XADD").running() as proxy:
        writer = TicksWriter(Link(proxy.endpoint, timeout_s=0.3))
        await writer.write([_batch(1.0)])
        for action in ("cut_reply", "drop_request"):
            proxy.arm(action)
            with pytest.raises(LedgerUnavailable):
                await writer.write([_batch(2.0)])
            assert writer.has_unanswered
            await writer.retry()
            assert not writer.has_unanswered
        writer.close()
    reader = TicksReader(redis.link(), _START)

    found = await _read_all(reader)

    assert _prices(found) == [1.0, 2.0, 2.0]
    assert (await redis.call("XLEN", "ticks"), reader.statistics.duplicates, reader.statistics.gaps) == (4, 1, 0)
    reader.close()


async def test_a_zombie_writer_is_not_believed(redis: Redis) -> None:
    """Messages of an older epoch than the last one are dropped and counted, and what is no message too."""
    writer = TicksWriter(redis.link(), wall_ms=lambda: 9000)
    await writer.write([_batch(1.0)])
    await redis.call("XADD", "ticks", "*", "e", "8000", "n", "77", "b", b"{}")
    await redis.call("XADD", "ticks", "*", "hello", "world")
    await redis.call("XADD", "ticks", "*", "e", "9000", "n", "two", "b", b"{}")
    await writer.write([_batch(2.0)])
    reader = TicksReader(redis.link(), _START)

    found = await _read_all(reader)

    assert _prices(found) == [1.0, 2.0]
    assert (reader.statistics.foreign, reader.statistics.gaps) == (3, 0)
    writer.close()
    reader.close()


async def test_the_stream_stays_in_bounds(redis: Redis) -> None:
    """About as many messages as were asked for."""
    writer = TicksWriter(redis.link(), retain=500)
    for _ in range(20):
        await writer.write([_batch(1.0)] * 100)
    writer.close()

    assert 500 <= await redis.call("XLEN", "ticks") < 700


async def test_the_newest_place_is_told_without_reading(redis: Redis) -> None:
    """For a first start: what lies before it is not of interest."""
    reader = TicksReader(redis.link(), _START)
    assert await reader.newest() == _START

    writer = TicksWriter(redis.link(), wall_ms=lambda: 9000)
    await writer.write([_batch(1.0)] * 5)
    writer.close()
    newest = await reader.newest()
    assert (newest.epoch, newest.n) == (9000, 5)


async def test_a_reader_goes_on_after_an_outage(redis: Redis) -> None:
    """The cursor stands where it stood."""
    writer, reader = TicksWriter(redis.link()), TicksReader(redis.link(), _START)
    await writer.write([_batch(1.0)])
    await reader.read(block_ms=0)
    await redis.server.kill()
    with pytest.raises(LedgerUnavailable):
        await reader.read(block_ms=0)
    with pytest.raises(LedgerUnavailable):
        await writer.write([_batch(2.0)])
    await redis.server.start()
    await writer.retry()

    assert _prices(await _read_all(reader)) == [2.0]
    writer.close()
    reader.close()


async def test_snapshots_are_written_and_expire(redis: Redis) -> None:
    """In pipelines; a removed account's goes at once."""
    writer = HealthWriter(redis.link(), expire_s=100, chunk=10)

    assert await writer.write((f"a{index}", b"{}") for index in range(25)) == 25
    assert len(await redis.call("KEYS", "health:*")) == 25
    assert 90 < await redis.call("TTL", "health:a3") <= 100

    await writer.remove(["a3", "a4"])
    while await redis.exchange(("GET", "health:a3"), ("GET", "health:a4")) != [None, None]:
        await asyncio.sleep(0)
    writer.close()
