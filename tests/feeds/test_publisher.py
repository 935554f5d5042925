"""The buffer between sockets and Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import LedgerUnavailable
from monitor.feeds.publisher import Publisher, merge
from monitor.margin.prices import PriceKind
from monitor.wire.prices import PriceBatch
from tests.support.fake_clock import FakeClock
from tests.support.waiting import until


def batch(names: str, price: float, *, venue: str = "v", kind: PriceKind = PriceKind.MARK, received: int = 0) -> PriceBatch:
    """One price for each letter."""
    count = len(names)
    return PriceBatch(
        venue=venue, kind=kind, names=list(names), prices=[price] * count, venue_times_ms=[received] * count, received_at_ns=received
    )


class Redis:
    """A writer that can be held and broken."""

    def __init__(self) -> None:
        self.written: list[list[PriceBatch]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failures = 0
        self.fail_after: int | None = None  # this many writes

    async def write(self, batches: Sequence[PriceBatch]) -> None:
        """Writes when open."""
        await self.open.wait()
        if self.failures or (self.fail_after is not None and len(self.written) >= self.fail_after):
            self.failures = max(0, self.failures - 1)
            raise LedgerUnavailable("cache: refused")
        self.written.append(list(batches))


async def test_a_free_writer_gets_batches_as_they_came() -> None:
    """Without pressure nothing is merged."""
    redis = Redis()
    publisher = Publisher(redis.write)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(publisher.run())
        for price in (1.0, 2.0):
            assert publisher.put([batch("AB", price)]) is None
            await publisher.drained()
        running.cancel()

    assert redis.written == [[batch("AB", 1.0)], [batch("AB", 2.0)]]
    assert publisher.statistics.conflated == {}


async def test_a_slow_writer_gets_the_latest_of_each_name() -> None:
    """While a write is under way newer numbers overtake older ones; none of a name that came once is lost."""
    redis = Redis()
    publisher = Publisher(redis.write)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(publisher.run())
        publisher.put([batch("A", 1.0)])
        redis.open.clear()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        publisher.put([batch("AB", 2.0), batch("A", 9.0, kind=PriceKind.INDEX)])
        publisher.put([batch("BC", 3.0)])
        redis.open.set()
        await publisher.drained()
        running.cancel()

    assert redis.written[0] == [batch("A", 1.0)]
    [[marks, index]] = redis.written[1:]
    assert dict(zip(marks.names, marks.prices, strict=True)) == {"A": 2.0, "B": 3.0, "C": 3.0}
    assert index.kind is PriceKind.INDEX
    assert publisher.statistics.conflated == {"v": 1}


async def test_an_outage_loses_no_excursion() -> None:
    """What came while Redis was away is written in order and unmerged when it is back."""
    redis, clock = Redis(), FakeClock()
    publisher = Publisher(redis.write, clock=clock)
    redis.failures = 3
    async with asyncio.TaskGroup() as group:
        running = group.create_task(publisher.run())
        publisher.put([batch("AB", 1.0)])
        await until(lambda: publisher.statistics.failures == 1)
        for number in range(2, 1_000):
            publisher.put([batch("AB", float(number))])
        await clock.advance(10.0)
        await publisher.drained()
        publisher.put([batch("AB", 1_000.0)])
        await publisher.drained()
        running.cancel()

    assert [b.prices[0] for write in redis.written for b in write] == [float(number) for number in range(1, 1_001)]
    assert publisher.statistics.failures == 3
    assert publisher.statistics.conflated == {}


async def test_what_waits_is_bounded_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the backlog of an outage is merged, and the latest prices are written when Redis is back."""
    monkeypatch.setattr("monitor.feeds.publisher.MOST_BACKLOG", 100)
    redis, clock = Redis(), FakeClock()
    publisher = Publisher(redis.write, clock=clock)
    redis.failures = 3
    async with asyncio.TaskGroup() as group:
        running = group.create_task(publisher.run())
        publisher.put([batch("AB", 0.5)])
        await until(lambda: publisher.statistics.failures == 1)
        for number in range(10_000):
            publisher.put([batch("AB", float(number + 1))])
        assert publisher.statistics.pending_high <= 60
        await clock.advance(10.0)
        await publisher.drained()
        running.cancel()

    written = [b.prices for write in redis.written for b in write]
    assert written[0] == [0.5, 0.5]
    assert written[-1] == [10_000.0, 10_000.0]
    assert len(written) <= 60
    assert publisher.statistics.conflated["v"] >= 2 * 9_900


async def test_a_batch_of_one_number_costs_what_it_weighs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a channel of single symbols a quarter as many numbers are kept: each is a batch of its own, four times as heavy."""
    monkeypatch.setattr("monitor.feeds.publisher.MOST_BACKLOG", 400)
    redis, clock = Redis(), FakeClock()
    publisher = Publisher(redis.write, clock=clock)
    redis.failures = 1
    async with asyncio.TaskGroup() as group:
        running = group.create_task(publisher.run())
        publisher.put([batch("A", 0.5)])
        await until(lambda: publisher.statistics.failures == 1)
        for number in range(1_000):
            publisher.put([batch("A", float(number + 1))])
        running.cancel()

    assert 95 <= publisher.statistics.pending_high <= 101


async def test_a_redis_that_comes_and_goes_does_not_double_the_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being written of a backlog when Redis goes away again counts against the same bound as what comes meanwhile."""
    monkeypatch.setattr("monitor.feeds.publisher.MOST_BACKLOG", 400)
    monkeypatch.setattr("monitor.feeds.publisher.CHUNK", 2)
    redis, clock = Redis(), FakeClock()
    publisher = Publisher(redis.write, clock=clock)
    redis.failures = 1
    async with asyncio.TaskGroup() as group:
        running = group.create_task(publisher.run())
        publisher.put([batch("A", 0.5)])
        await until(lambda: publisher.statistics.failures == 1)
        for number in range(90):
            publisher.put([batch("A", float(number + 1))])
        redis.failures = 0
        redis.fail_after = len(redis.written) + 4
        await clock.advance(1.0)
        await until(lambda: publisher.statistics.failures >= 2)
        for number in range(90, 1_000):
            publisher.put([batch("A", float(number + 1))])
            assert publisher.backlog <= 400
        redis.fail_after = None
        await clock.advance(5.0)
        await publisher.drained()
        running.cancel()

    written = [b.prices[0] for write in redis.written for b in write]
    assert written == sorted(written)
    assert written[:91] == [0.5, *map(float, range(1, 91))]
    assert written[-1] == 1_000.0
    assert publisher.backlog == 0


async def test_waiting_loses_and_merges_nothing() -> None:
    """Every batch of every frame is its own write, in order, also over failures."""
    redis, clock = Redis(), FakeClock()
    publisher = Publisher(redis.write, on_slow="wait", clock=clock)
    redis.failures = 2

    async def put_all() -> None:
        for number in range(5):
            written = publisher.put([batch("A", float(number + 1)), batch("B", float(number + 1))])
            assert written is not None
            await written

    async with asyncio.TaskGroup() as group:
        task = group.create_task(put_all())
        while not task.done():
            await clock.advance(1.0)

    assert redis.written == [[batch(name, float(number + 1))] for number in range(5) for name in "AB"]
    assert publisher.statistics.written == 10


@given(st.lists(st.tuples(st.sampled_from(["A", "AB", "BC", "CAB"]), st.sampled_from("vw"), st.integers(1, 9)), max_size=12))
def test_a_merge_keeps_the_last_number_of_each_name(parts: list[tuple[str, str, int]]) -> None:
    """Per venue and kind: each name once, with its last number, in the order of the last numbers, as old as the oldest of them."""
    batches = [batch(names, float(price), venue=venue, received=index) for index, (names, venue, price) in enumerate(parts)]
    expected: dict[str, dict[str, tuple[float, int]]] = {}
    for part in batches:
        for name, price in zip(part.names, part.prices, strict=True):
            of_venue = expected.setdefault(part.venue, {})
            of_venue.pop(name, None)
            of_venue[name] = (price, part.received_at_ns)

    merged = merge(batches)

    assert {one.venue: list(zip(one.names, one.prices, one.venue_times_ms, strict=True)) for one in merged} == {
        venue: [(name, price, received) for name, (price, received) in names.items()] for venue, names in expected.items()
    }
    for one in merged:
        assert one.received_at_ns == min(one.venue_times_ms)
