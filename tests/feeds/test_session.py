"""A feed against a venue on loopback: subscribing, reading, ageing, ending, coming back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from monitor.errors import ConfigError
from monitor.feeds.freshness import StaleChange, StaleReason
from monitor.feeds.market import MarketShape, market, sample_symbols
from monitor.feeds.publisher import Publisher
from monitor.feeds.recorder import Recorder
from monitor.feeds.simulator import Simulator
from monitor.feeds.supervisor import VenueFeed
from monitor.feeds.tape import Moment, capture_frames, frames_tape
from monitor.feeds.venues import BINANCE_USDM
from monitor.margin.prices import PriceKind
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.frames import Wanted
from monitor.wire.prices import PriceBatch
from monitor.wire.quotes import Quotes
from tests.support.fake_clock import FakeClock
from tests.support.waiting import until

T = 1_700_000_000_000


class Collected:
    """A publisher's writer that keeps everything."""

    def __init__(self) -> None:
        self.batches: list[PriceBatch] = []

    async def write(self, batches: Sequence[PriceBatch]) -> None:
        """Keeps."""
        self.batches.extend(batches)

    def put(self, batches: list[PriceBatch]) -> None:
        """Keeps at once, as a feed's publish."""
        self.batches.extend(batches)

    def marks(self) -> list[tuple[str, float]]:
        """Name and price of every mark, in order."""
        return [
            (name, price)
            for batch in self.batches
            if batch.kind is PriceKind.MARK
            for name, price in zip(batch.names, batch.prices, strict=True)
        ]


def seconds_of(prices: dict[str, str]) -> Iterator[Moment]:
    """The same prices every second, for ever, with rising times."""
    for second in count():
        yield float(second), Quotes(time_ms=T + 1000 * second, numbers={PriceKind.MARK: prices})


@asynccontextmanager
async def running(feed: VenueFeed) -> AsyncIterator[VenueFeed]:
    """The feed inside a with block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(feed.run())
        try:
            yield feed
        finally:
            task.cancel()


async def test_a_tape_arrives_whole_and_in_order() -> None:
    """At full speed, holding the socket back, every frame of the tape is its own batch, in order, digit by digit."""
    tape = list(market(sample_symbols(20), seed=5, shape=MarketShape(steps=60)))
    collected = Collected()
    publisher = Publisher(collected.write, on_slow="wait")
    simulator = Simulator(binance_usdm(), tape, speed="max")
    async with simulator.running():
        feed = VenueFeed(BINANCE_USDM.at(simulator.url), Wanted(everything=True), publisher.put)
        async with running(feed):
            await simulator.played()
            await until(lambda: feed.statistics.prices.get(PriceKind.MARK) == simulator.statistics.prices[PriceKind.MARK])
            await publisher.drained()
            await feed.wait_ready()

    sent: list[tuple[str, float]] = []
    for _offset, quotes in tape:
        sent.extend((name, float(text)) for name, text in quotes.numbers[PriceKind.MARK].items())
    assert collected.marks() == sent
    assert len([batch for batch in collected.batches if batch.kind is PriceKind.MARK]) == 60
    assert feed.statistics.rejected == {}
    assert feed.statistics.symbols == 20


async def test_a_session_closes_its_socket_when_it_is_stopped() -> None:
    """Cancelling a feed leaves no connection open and no task behind."""
    simulator = Simulator(binance_usdm(), [])
    async with simulator.running():
        async with running(VenueFeed(BINANCE_USDM.at(simulator.url), Wanted(everything=True), Collected().put)) as feed:
            await simulator.subscribed()
            assert feed.statistics.connected == 1
        await until(lambda: simulator.statistics.open_now == 0)

    assert feed.statistics.connected == 0
    assert feed.statistics.reconnects == {}


async def test_ready_needs_the_confirmation_and_every_wanted_name() -> None:
    """A wanted symbol without data keeps the feed from being ready, and is told after the grace."""
    clock = FakeClock()
    changes: list[StaleChange] = []
    simulator = Simulator(binance_usdm(), seconds_of({"AUSDT": "1"}), clock=clock)
    async with simulator.running():
        wanted = Wanted(instruments=frozenset({"AUSDT", "BUSDT"}))
        feed = VenueFeed(BINANCE_USDM.at(simulator.url), wanted, Collected().put, clock=clock, on_stale=changes.extend)
        async with running(feed):
            await simulator.subscribed()
            for _ in range(12):
                await clock.advance(1.0)
                played = simulator.statistics.moments
                await until(lambda played=played: feed.statistics.marks >= played - 1)  # type: ignore[misc]

            assert not feed.is_ready()
            assert feed.missing() == [(PriceKind.MARK, "BUSDT")]
            assert [(change.name, change.reason) for change in changes] == [("BUSDT", StaleReason.NEVER_SEEN)]

            feed.want(Wanted(instruments=frozenset({"AUSDT"})))
            await clock.advance(0.5)

            assert feed.is_ready()
            assert feed.stale == {}


class Venue:
    """A server that does what the test says: a list of behaviours, one a connection."""

    def __init__(self, *behaviours: Any) -> None:
        self.behaviours = list(behaviours)
        self.opened_at: list[float] = []
        self.heard: list[Any] = []
        self.clock = FakeClock()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Venue]:
        """Listens."""
        async with serve(self._handle, "127.0.0.1", 0, process_request=self._admit, compression=None, close_timeout=0.2) as server:
            self.url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            yield self

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.opened_at.append(self.clock.monotonic())
        behaviour = self.behaviours[min(len(self.opened_at), len(self.behaviours)) - 1]
        if isinstance(behaviour, tuple):
            response = connection.respond(HTTPStatus(behaviour[0]), "no\n")
            for key, value in behaviour[1].items():
                response.headers[key] = value
            return response
        return None

    async def _handle(self, connection: ServerConnection) -> None:
        behaviour = self.behaviours[min(len(self.opened_at), len(self.behaviours)) - 1]
        await behaviour(self, connection)


async def close_at_once(_venue: Venue, connection: ServerConnection) -> None:
    """Accepts and says good-bye."""
    await connection.close(1000, "bye")


async def confirm(venue: Venue, connection: ServerConnection) -> None:
    """Confirms every request."""
    async for message in connection:
        body = orjson.loads(message)
        venue.heard.append(body)
        await connection.send(orjson.dumps({"result": None, "id": body["id"]}), text=True)


async def until_opened(venue: Venue, opened: int, *, step_s: float = 1.0) -> None:
    """Moves the venue's clock until it has seen so many connections."""
    async with asyncio.timeout(20):
        while len(venue.opened_at) < opened:
            await venue.clock.advance(step_s)
            await asyncio.sleep(0.002)


async def test_a_clean_close_is_followed_by_a_growing_wait() -> None:
    """A venue that accepts and closes is not asked in a hot loop."""
    venue = Venue(close_at_once)
    async with venue.running():
        feed = VenueFeed(BINANCE_USDM.at(venue.url), Wanted(everything=True), Collected().put, clock=venue.clock, rng=random.Random(1))
        async with running(feed):
            await until_opened(venue, 6, step_s=0.05)

    gaps = [later - earlier for earlier, later in zip(venue.opened_at, venue.opened_at[1:], strict=False)]
    assert min(gaps) >= 0.25
    assert gaps[4] > gaps[0] * 2
    assert feed.statistics.reconnects["closed_1000"] >= 5


@pytest.mark.parametrize(("status", "header", "least_s"), [(429, "300", 300.0), (418, None, 60.0), (403, None, 60.0), (503, "30", 30.0)])
async def test_a_refused_handshake_waits_as_asked(status: int, header: str | None, least_s: float) -> None:
    """429, 418 and 403 are not fatal and not a reason to hurry; Retry-After is obeyed."""
    venue = Venue((status, {"Retry-After": header} if header else {}), confirm)
    async with venue.running():
        feed = VenueFeed(BINANCE_USDM.at(venue.url), Wanted(everything=True), Collected().put, clock=venue.clock)
        async with running(feed):
            await until_opened(venue, 2, step_s=5.0)
            await until(lambda: feed.statistics.connected == 1)

    assert venue.opened_at[1] - venue.opened_at[0] >= least_s
    assert feed.statistics.reconnects == {f"status_{status}": 1}


async def test_redirects_are_refused() -> None:
    """A venue that sends us elsewhere is not followed."""
    elsewhere = Venue(confirm)
    async with elsewhere.running():
        venue = Venue((302, {"Location": elsewhere.url + "/market/ws"}))
        async with venue.running():
            feed = VenueFeed(BINANCE_USDM.at(venue.url), Wanted(everything=True), Collected().put, clock=venue.clock)
            async with running(feed):
                await until_opened(venue, 2)

    assert elsewhere.opened_at == []
    assert feed.statistics.reconnects["status_302"] >= 1


async def test_a_venue_that_is_not_there_is_asked_again() -> None:
    """A refused connection counts and is repeated."""
    clock = FakeClock()
    async with Venue(confirm).running() as gone:
        url = gone.url
    feed = VenueFeed(BINANCE_USDM.at(url), Wanted(everything=True), Collected().put, clock=clock)
    async with running(feed), asyncio.timeout(20):
        while feed.statistics.reconnects.get("connect_failed", 0) < 3:
            await clock.advance(1.0)
            await asyncio.sleep(0.002)

    assert feed.statistics.sessions == 0


async def test_a_connection_that_answers_pings_and_sends_nothing_is_dropped() -> None:
    """Silence ends a connection within its limit, and every wanted name is stale long before."""
    venue = Venue(confirm)
    changes: list[StaleChange] = []
    async with venue.running():
        wanted = Wanted(instruments=frozenset({"AUSDT"}))
        feed = VenueFeed(BINANCE_USDM.at(venue.url), wanted, Collected().put, clock=venue.clock, on_stale=changes.extend)
        async with running(feed):
            await until(lambda: bool(venue.heard))
            await until_opened(venue, 2, step_s=0.25)

    assert 10.0 <= venue.opened_at[1] - venue.opened_at[0] <= 13.0
    assert feed.statistics.reconnects == {"silent": 1}
    assert [(change.name, change.reason) for change in changes][:1] == [("AUSDT", StaleReason.NEVER_SEEN)]


async def test_unanswered_and_refused_subscriptions_are_asked_again() -> None:
    """A request without an answer is repeated after its time-out; a refused one after a minute, and is told meanwhile."""

    async def deaf_then_refusing_then_willing(venue: Venue, connection: ServerConnection) -> None:
        async with asyncio.TaskGroup() as group:
            chatter = group.create_task(_chatter(venue, connection))
            async for message in connection:
                body = orjson.loads(message)
                venue.heard.append((venue.clock.monotonic(), body))
                if len(venue.heard) == 2:
                    await connection.send(orjson.dumps({"error": {"code": 2, "msg": "no"}, "id": body["id"]}), text=True)
                elif len(venue.heard) > 2:
                    await connection.send(orjson.dumps({"result": None, "id": body["id"]}), text=True)
            chatter.cancel()

    async def _chatter(venue: Venue, connection: ServerConnection) -> None:
        while True:
            await connection.send(b"[]", text=True)
            await venue.clock.sleep(1.0)

    venue = Venue(deaf_then_refusing_then_willing)
    changes: list[StaleChange] = []
    async with venue.running():
        feed = VenueFeed(
            BINANCE_USDM.at(venue.url), Wanted(instruments=frozenset({"A"})), Collected().put, clock=venue.clock, on_stale=changes.extend
        )
        async with running(feed), asyncio.timeout(30):
            while len(venue.heard) < 3:
                await venue.clock.advance(0.5)
                await asyncio.sleep(0.002)
            await until(lambda: any(slot.freshness.missing() and feed.statistics.connected for slot in feed._slots))
            await venue.clock.advance(1.0)

    first, second, third = (moment for moment, _body in venue.heard[:3])
    assert 10.0 <= second - first <= 12.0
    assert 60.0 <= third - second <= 62.0
    assert feed.statistics.subscribe_timeouts == 1
    assert feed.statistics.denied == 1
    assert StaleReason.REFUSED in {change.reason for change in changes}
    assert feed.statistics.reconnects == {}


async def test_an_aged_connection_is_replaced_before_it_is_given_up() -> None:
    """At the session's age a second connection takes over without a hole: every second of the tape arrives exactly once."""
    clock = FakeClock()
    collected = Collected()
    simulator = Simulator(binance_usdm(), seconds_of({"AUSDT": "1.5"}), clock=clock)
    profile = replace(BINANCE_USDM, session_s=60.0)
    async with simulator.running():
        feed = VenueFeed(profile.at(simulator.url), Wanted(instruments=frozenset({"AUSDT"})), collected.put, clock=clock)
        async with running(feed):
            await simulator.subscribed()
            for _ in range(100):
                await clock.advance(1.0)
                await asyncio.sleep(0.003)
            await until(lambda: feed.statistics.reconnects.get("rotated") == 1)
            await until(lambda: simulator.statistics.open_now == 1)
            await until(lambda: len(collected.marks()) >= simulator.statistics.moments - 1)

    times = [time for batch in collected.batches if batch.kind is PriceKind.MARK for time in batch.venue_times_ms]
    assert times == [T + 1000 * second for second in range(len(times))]
    assert len(times) >= 99
    assert simulator.statistics.connections == 2
    assert feed.statistics.duplicates >= 1
    assert feed.statistics.reconnects == {"rotated": 1}


async def test_of_two_connections_the_first_arrival_wins() -> None:
    """With two connections each number is handed on once, and losing one loses nothing."""
    clock = FakeClock()
    collected = Collected()
    simulator = Simulator(binance_usdm(), seconds_of({"AUSDT": "1.5"}), clock=clock)
    async with simulator.running():
        feed = VenueFeed(
            BINANCE_USDM.at(simulator.url), Wanted(instruments=frozenset({"AUSDT"})), collected.put, clock=clock, connections=2
        )
        async with running(feed):
            await until(lambda: len([client for client in simulator.clients if client.peer.topics]) == 2)
            for second in range(20):
                if second == 10:
                    await next(iter(simulator.clients)).connection.close(1012)
                await clock.advance(1.0)
                await asyncio.sleep(0.003)
            await until(lambda: len(collected.marks()) >= 20)

    times = [time for batch in collected.batches if batch.kind is PriceKind.MARK for time in batch.venue_times_ms]
    assert times == [T + 1000 * second for second in range(len(times))]
    assert feed.statistics.reconnects == {"closed_1012": 1}


async def test_the_message_limit_is_kept() -> None:
    """Many changes of what is wanted stay under the venue's limit: nothing is cut."""
    simulator = Simulator(binance_usdm(), [], clock=(clock := FakeClock()))
    async with simulator.running():
        feed = VenueFeed(BINANCE_USDM.at(simulator.url), Wanted(everything=True), Collected().put, clock=clock)
        async with running(feed):
            await simulator.subscribed()
            for index in range(30):
                feed.want(Wanted(everything=True, assets=frozenset({"BTC"}) if index % 2 else frozenset()))
                await clock.advance(0.2)
                await asyncio.sleep(0.003)

    assert simulator.statistics.limited == 0
    assert 5 <= simulator.statistics.messages <= 33


async def test_a_bad_frame_costs_itself_only() -> None:
    """Frames that cannot be read are counted by reason; the connection and the other frames live on."""

    async def rubbish(venue: Venue, connection: ServerConnection) -> None:
        for frame in (b"{", b"[1]", b'{"e":"new"}', b'\xff"'):
            await connection.send(frame, text=frame[0] < 128)
        good = {"e": "markPriceUpdate", "E": T, "s": "A", "p": "2", "r": ""}
        bad = {"e": "markPriceUpdate", "E": T, "s": "B", "p": "NaN", "r": ""}
        await connection.send(orjson.dumps([good, bad]), text=True)
        await confirm(venue, connection)

    venue = Venue(rubbish)
    collected = Collected()
    async with venue.running():
        feed = VenueFeed(BINANCE_USDM.at(venue.url), Wanted(everything=True), collected.put, clock=venue.clock)
        async with running(feed):
            await until(lambda: bool(collected.batches))

    assert collected.marks() == [("A", 2.0)]
    assert feed.statistics.rejected == {"not_json": 2, "wrong_shape": 1, "unknown_message": 1, "not_a_number": 1}
    assert [reason for reason, _raw in feed.statistics.last_rejected] == [
        "not_json",
        "wrong_shape",
        "unknown_message",
        "not_json",
        "not_a_number",
    ]


async def test_an_oversized_frame_ends_the_connection() -> None:
    """A frame beyond the profile's limit is refused by the socket (1009), not read into memory."""

    async def flood(_venue: Venue, connection: ServerConnection) -> None:
        await connection.send(b" " * 2**21, text=True)
        await connection.wait_closed()

    venue = Venue(flood)
    profile = replace(BINANCE_USDM, limits=replace(BINANCE_USDM.limits, frame_bytes=2**20))
    async with venue.running():
        feed = VenueFeed(profile.at(venue.url), Wanted(everything=True), Collected().put, clock=venue.clock)
        async with running(feed):
            await until_opened(venue, 2)

    assert feed.statistics.reconnects["closed_1009"] >= 1


async def test_delay_and_skew_are_measured() -> None:
    """A venue clock 1.27 s ahead of ours shows as a negative skew, never as a wrong price."""
    clock = FakeClock(wall_ns=T * 10**6)
    clock.shift_wall(-1.27)
    simulator = Simulator(binance_usdm(), seconds_of({"AUSDT": "1"}), clock=clock)
    async with simulator.running():
        feed = VenueFeed(BINANCE_USDM.at(simulator.url), Wanted(everything=True), Collected().put, clock=clock)
        async with running(feed):
            await simulator.subscribed()
            for _ in range(5):
                await clock.advance(1.0)
                await until(lambda: feed.statistics.marks >= simulator.statistics.moments)

    assert feed.statistics.skew.seconds is not None
    assert -1.3 <= feed.statistics.skew.seconds <= -1.2
    assert feed.statistics.marks == 6


async def test_a_recording_replays_to_the_same_prices(tmp_path: Path) -> None:
    """What a feed recorded, played by the simulator, gives the same batches again."""
    tape = list(market(sample_symbols(5), seed=9, shape=MarketShape(steps=30)))
    first, second = Collected(), Collected()
    recorder = Recorder(tmp_path, "binance_usdm")
    simulator = Simulator(binance_usdm(), tape, speed="max")
    async with simulator.running():
        feed = VenueFeed(BINANCE_USDM.at(simulator.url), Wanted(everything=True), first.put, tap=recorder.take)
        async with running(feed):
            await until(lambda: len(first.marks()) == 150)
    recorder.close()

    [file] = list(tmp_path.iterdir())  # noqa: ASYNC240 - a test's folder
    simulator = Simulator(binance_usdm(), frames_tape(capture_frames(file), BINANCE_USDM), speed="max")
    async with simulator.running():
        feed = VenueFeed(BINANCE_USDM.at(simulator.url), Wanted(everything=True), second.put)
        async with running(feed):
            await until(lambda: len(second.marks()) == 150)

    assert first.marks() == second.marks()


@pytest.mark.parametrize("base", ["ws://example.org:80", "http://127.0.0.1:1", "ws://10.0.0.1:1", "127.0.0.1:99"])
def test_prices_are_not_read_over_an_open_line(base: str) -> None:
    """Only wss, or ws on loopback, is a venue's address."""
    with pytest.raises(ConfigError, match=r"binance_usdm\.url"):
        BINANCE_USDM.at(base)


def test_an_address_keeps_its_path() -> None:
    """Moving a venue to another host keeps the category in the path."""
    assert BINANCE_USDM.at("ws://127.0.0.1:8080").endpoints == {"market": "ws://127.0.0.1:8080/market/ws"}
    assert BINANCE_USDM.at("wss://proxy.example").endpoints == {"market": "wss://proxy.example/market/ws"}
