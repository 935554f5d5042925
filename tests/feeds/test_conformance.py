"""What every venue's feed must do, against that venue's own simulator. A new venue is in here by its profile, dialect and sample market."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from monitor.feeds.freshness import StaleReason
from monitor.feeds.market import SAMPLES, MarketShape, venue_market
from monitor.feeds.venues import DIALECTS, PROFILES
from monitor.margin.prices import PriceKind
from monitor.wire.frames import Wanted
from monitor.wire.quotes import Quotes
from tests.support.feed_rig import Rig, rig_of, supplied, wanted_of

EVERY = sorted(PROFILES)
POSITIONAL = {venue for venue in EVERY if SAMPLES[venue].positional}
UNTIMED = {venue for venue in EVERY if not SAMPLES[venue].timed}
SINGLE_TOPIC = {
    venue
    for venue in EVERY
    if sum(any(kind is PriceKind.MARK for kind, _names in topic.supplies) for topic in PROFILES[venue].topics(wanted_of(venue))) == 1
}


@pytest.mark.parametrize("venue", EVERY)
async def test_every_number_arrives_as_sent(venue: str) -> None:
    """Ready within a second of the first data; every number is the tape's last, digit by digit."""
    async with rig_of(venue, tape=venue_market(SAMPLES[venue], seed=3, shape=MarketShape(steps=25))) as rig:
        await rig.until(rig.feed.is_ready, within_s=5)
        await rig.until(lambda: rig.simulator.statistics.moments == 25, within_s=30)
        await rig.simulator.played()
        latest, sent = rig.latest(), rig.simulator.latest
        expected = _expected(rig, sent)

    assert latest == expected
    assert rig.feed.statistics.rejected == {}
    assert rig.feed.statistics.reconnects == {}
    assert rig.feed.statistics.denied == rig.feed.statistics.subscribe_timeouts == 0
    assert rig.feed.statistics.marks > 10 * len(wanted_of(venue).instruments)
    assert rig.changes == []


def _expected(rig: Rig, sent: Quotes) -> dict[tuple[PriceKind, str], Any]:
    """What of the tape's last moment this venue's topics carry."""
    wanted = wanted_of(rig.venue)
    expected: dict[tuple[PriceKind, str], Any] = {
        (PriceKind.MARK, name): float(sent.numbers[PriceKind.MARK][name]) for name in wanted.instruments
    }
    for kind, numbers in sent.numbers.items():
        for name, text in numbers.items():
            carried = (kind, name) in rig.latest() or any((kind, name) in supplied(topic) for topic in rig.feed.profile.topics(wanted))
            if carried:
                expected[kind, name] = float(text)
    for item in rig.latest():
        if item[0] is PriceKind.INDEX and item not in expected:  # a venue may tell more indices than asked for: of other pairs, of USDT
            expected[item] = rig.latest()[item]
        if item[0] is PriceKind.FUNDING_RATE and rig.venue == "dydx_v4":
            expected[item] = float(sent.numbers[PriceKind.FUNDING_RATE][item[1]])
    if rig.venue == "bybit":  # put together from three messages
        for asset in ("ETH", "XRP"):
            expected[PriceKind.INDEX, asset] = pytest.approx(expected[PriceKind.INDEX, asset], rel=1e-3)
    if rig.venue == "deribit":
        for name in SAMPLES["deribit"].options:
            expected[PriceKind.VOLATILITY, name] = pytest.approx(expected[PriceKind.VOLATILITY, name], rel=1e-12)
    return expected


@pytest.mark.parametrize("venue", EVERY)
async def test_after_a_close_everything_is_subscribed_again(venue: str) -> None:
    """A clean close, an abnormal one and an RST are each followed by a new connection that has everything, after a wait."""
    async with rig_of(venue) as rig:
        await rig.until(rig.feed.is_ready, within_s=5)
        for code in (1000, 1012, None):
            before = rig.feed.statistics.sessions
            if code is None:
                rig.simulator.reset_all()
            else:
                await rig.simulator.close_all(code, "maintenance")
            await rig.until(lambda before=before: rig.feed.statistics.sessions > before, within_s=10)  # type: ignore[misc]
            await rig.until(rig.feed.is_ready, within_s=10)

    reasons = rig.feed.statistics.reconnects
    assert {"closed_1000", "closed_1012"} <= reasons.keys()
    assert sum(count for reason, count in reasons.items() if reason in {"reset", "closed_1006"}) >= 1
    assert {change.reason for change in rig.changes if change.reason} <= {StaleReason.DISCONNECTED, StaleReason.SILENT}


@pytest.mark.parametrize("venue", EVERY)
async def test_silence_with_pings_answered_is_told_in_time(venue: str) -> None:
    """Every wanted number is told as stale within its limit and half a second; the connection is dropped within its own limit."""
    async with rig_of(venue) as rig:
        await rig.until(rig.feed.is_ready, within_s=5)
        rig.simulator.faults.silent = True
        limits = {item: max(3 * topic.interval_s, 3.0) for topic in rig.feed.profile.topics(wanted_of(venue)) for item in supplied(topic)}
        silence_s = rig.feed.profile.silence_s
        passed = await rig.until(lambda: bool(rig.feed.statistics.reconnects), within_s=max(limits.values(), default=0) + silence_s)
        late = {item for item, limit_s in limits.items() if limit_s + 0.5 < passed}
        told = {(change.kind, change.name) for change in rig.changes if change.reason is not None}
        rig.simulator.faults.silent = False
        await rig.until(rig.feed.is_ready, within_s=90)

    assert silence_s <= passed <= silence_s + 1.5
    assert told >= late
    assert set(rig.feed.statistics.reconnects) == {"silent"}
    assert rig.feed.stale == {}


@pytest.mark.parametrize("venue", [venue for venue in EVERY if venue not in POSITIONAL])
async def test_one_silent_name_among_others_is_told(venue: str) -> None:
    """The silent name alone is stale, within its limit and half a second; the others stay fresh."""
    name = min(SAMPLES[venue].instruments)
    async with rig_of(venue) as rig:
        await rig.until(rig.feed.is_ready, within_s=5)
        rig.simulator.faults.silent_names.add(name)
        limit_s = max(
            max(3 * topic.interval_s, 3.0)
            for topic in rig.feed.profile.topics(wanted_of(venue))
            if (PriceKind.MARK, name) in supplied(topic)
        )
        passed = await rig.until(lambda: (PriceKind.MARK, name) in rig.feed.stale, within_s=limit_s + 1.0)
        assert passed >= limit_s - 1.0
        stale = {item for item in rig.feed.stale if item[0] is PriceKind.MARK}
        rig.simulator.faults.silent_names.clear()
        await rig.until(lambda: rig.feed.stale == {}, within_s=40)

    assert stale == {(PriceKind.MARK, name)}
    assert "silent" not in rig.feed.statistics.reconnects


@pytest.mark.parametrize("venue", EVERY)
async def test_a_dropped_connection_is_told_after_three_seconds(venue: str) -> None:
    """While no connection can be opened nothing is fresh, whatever the nominal interval."""
    async with rig_of(venue) as rig:
        await rig.until(rig.feed.is_ready, within_s=5)
        rig.simulator.faults.handshake = (503, {})
        await rig.simulator.close_all(1013, "try again later")
        await rig.until(lambda: len(rig.feed.stale) >= len(wanted_of(venue).instruments), within_s=4.5)
        reasons = set(rig.feed.stale.values())
        rig.simulator.faults.handshake = None
        await rig.until(rig.feed.is_ready, within_s=60)

    assert reasons <= {StaleReason.DISCONNECTED, StaleReason.SILENT}
    assert StaleReason.DISCONNECTED in reasons
    assert {"closed_1013", "status_503"} <= rig.feed.statistics.reconnects.keys()


@pytest.mark.parametrize("venue", [venue for venue in EVERY if venue not in SINGLE_TOPIC])
async def test_one_refused_topic_costs_its_own_names_only(venue: str) -> None:
    """The venue refuses one subscription: its names are told as refused, all others are there, and nothing is reconnected."""
    name = max(SAMPLES[venue].instruments)
    topic = next(topic for topic in PROFILES[venue].topics(wanted_of(venue)) if (PriceKind.MARK, name) in supplied(topic))
    async with rig_of(venue) as rig:
        rig.simulator.faults.refuse_topics.add(topic.key)
        await rig.until(lambda: rig.feed.stale.get((PriceKind.MARK, name)) is StaleReason.REFUSED, within_s=15)
        lost = supplied(topic)
        if venue == "bybit":  # indices made of more than one pair are lost with each of them
            lost |= {item for item in rig.feed.missing() if item[0] is PriceKind.INDEX}
        await rig.until(lambda: set(rig.feed.missing()) <= lost, within_s=5)
        assert rig.feed.statistics.reconnects == {}
        assert not rig.feed.is_ready()

        rig.simulator.faults.refuse_topics.clear()
        await rig.until(rig.feed.is_ready, within_s=75)

    assert rig.feed.stale == {}


@pytest.mark.parametrize("venue", [venue for venue in EVERY if venue not in UNTIMED])
async def test_old_numbers_after_a_reconnect_are_refused(venue: str) -> None:
    """A venue that replays the past after a reconnect changes nothing: no price goes back, and the names do not count as fresh."""
    async with rig_of(venue) as rig:
        await rig.until(rig.feed.is_ready, within_s=5)
        rig.simulator.faults.late_s = 600.0
        await rig.simulator.close_all(1000)
        count = len(rig.batches)
        await rig.until(
            lambda: rig.feed.statistics.sessions > len({t.endpoint for t in PROFILES[venue].topics(wanted_of(venue))}), within_s=10
        )
        await rig.seconds(8)
        replayed = [batch for batch in rig.batches[count:] if any(0 < time < 1_700_000_000_000 - 300_000 for time in batch.venue_times_ms)]

    # Names never seen before (dYdX sends its first prices without a time) have nothing to be compared with.
    assert all(batch.kind is not PriceKind.MARK for batch in replayed) or venue == "dydx_v4"
    assert rig.feed.statistics.older > 0 or venue == "dydx_v4"


@pytest.mark.parametrize("venue", EVERY)
async def test_duplicates_and_disorder_never_turn_time_back(venue: str) -> None:
    """Frames twice, out of order and with holes: of each name the event times handed on never fall."""
    async with rig_of(venue) as rig:
        await rig.until(rig.feed.is_ready, within_s=5)
        rig.simulator.faults.duplicate = rig.simulator.faults.reorder = True
        rig.simulator.faults.lose_every = 5
        await rig.seconds(30)

    times: dict[tuple[PriceKind, str], int] = {}
    for batch in rig.batches:
        for name, time in zip(batch.names, batch.venue_times_ms, strict=True):
            assert time == 0 or time >= times.get((batch.kind, name), 0)
            times[batch.kind, name] = time or times.get((batch.kind, name), 0)
    assert rig.feed.statistics.reconnects == {}


@pytest.mark.parametrize("venue", EVERY)
async def test_the_keep_alive_is_the_venues(venue: str) -> None:
    """Ten quiet minutes of pings and heartbeats: no connection is lost, nothing goes stale, no test request stays unanswered."""
    async with rig_of(venue) as rig:
        await rig.until(rig.feed.is_ready, within_s=5)
        await rig.seconds(600, step_s=2.0)
        unanswered = [getattr(client.peer, "unanswered", 0) for client in rig.simulator.clients]

    assert rig.feed.statistics.reconnects == {}
    assert rig.changes == []
    assert max(unanswered) <= 1
    every_s = PROFILES[venue].ping.every_s
    if every_s is not None:
        assert rig.simulator.statistics.messages >= 600 / every_s


@pytest.mark.parametrize("venue", EVERY)
async def test_what_is_wanted_may_change(venue: str) -> None:
    """A name given up is no longer watched, a name wanted later arrives, on the connections that are open."""
    sample = SAMPLES[venue]
    first, *others = sorted(sample.instruments)
    async with rig_of(venue, wanted=Wanted(instruments=frozenset({first}))) as rig:
        await rig.until(rig.feed.is_ready, within_s=5)
        rig.feed.want(Wanted(instruments=frozenset(others)))
        await rig.until(rig.feed.is_ready, within_s=10)
        topics = {topic for client in rig.simulator.clients for topic in client.peer.topics}

    assert topics == {topic.key for topic in PROFILES[venue].topics(Wanted(instruments=frozenset(others)))}
    assert {(PriceKind.MARK, name) for name in others} <= rig.latest().keys()
    assert rig.feed.statistics.reconnects == {}


@pytest.mark.parametrize("venue", EVERY)
async def test_a_venue_that_refuses_us_is_left_alone(venue: str) -> None:
    """429 with Retry-After: not one attempt before it is over."""
    async with rig_of(venue) as rig:
        await rig.until(rig.feed.is_ready, within_s=5)
        rig.simulator.faults.handshake = (429, {"Retry-After": "100"})
        await rig.simulator.close_all(1008, "too many requests")
        await rig.until(lambda: bool(rig.simulator.statistics.refused), within_s=10)
        await rig.seconds(2)
        refused = rig.simulator.statistics.refused[429]
        await rig.seconds(90, step_s=2)
        assert rig.simulator.statistics.refused[429] == refused
        rig.simulator.faults.handshake = None
        await rig.until(rig.feed.is_ready, within_s=40)


@pytest.mark.parametrize("venue", EVERY)
def test_topics_supply_each_number_once(venue: str) -> None:
    """No two topics promise the same number, every endpoint exists, every wanted number is promised."""
    wanted = wanted_of(venue)
    plan = PROFILES[venue].topics(wanted)
    supplied = [item for topic in plan for kind, names in topic.supplies for item in [(kind, name) for name in names]]

    assert len(supplied) == len(set(supplied))
    assert {(PriceKind.MARK, name) for name in wanted.instruments} <= set(supplied)
    assert {topic.endpoint for topic in plan} <= set(PROFILES[venue].endpoints)
    assert len({(topic.endpoint, topic.key) for topic in plan}) == len(plan)
    if venue != "dydx_v4":
        assert {(PriceKind.INDEX, asset) for asset in wanted.assets} <= set(supplied)
    assert PROFILES[venue].topics(Wanted()) == ()


@pytest.mark.parametrize("venue", EVERY)
def test_a_venue_is_complete(venue: str) -> None:
    """Profile, dialect, sample market and codec go by one name, addresses are encrypted, and the tape of the sample has every price."""
    profile = PROFILES[venue]

    assert DIALECTS[venue]().venue == profile.codec(next(iter(profile.endpoints))).venue == venue  # type: ignore[attr-defined]
    assert all(address.startswith("wss://") for address in profile.endpoints.values())
    for address in profile.at("ws://127.0.0.1:1").endpoints.values():
        assert DIALECTS[venue]().peer(address.removeprefix("ws://127.0.0.1:1")) is not None
    assert DIALECTS[venue]().peer("/nothing/here") is None
    for _offset, quotes in islice(venue_market(SAMPLES[venue], seed=1), 3):
        assert set(quotes.numbers[PriceKind.MARK]) == {*SAMPLES[venue].instruments, *SAMPLES[venue].options}
