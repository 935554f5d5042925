"""MQTT against a real broker: kills, freezes, denials, take-overs, and what is left on the retained topics."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
from hypothesis import given
from hypothesis import strategies as st

from monitor.margin.levels import Level
from monitor.sinks.base import Reason, Sink
from monitor.sinks.mqtt import MqttOptions, MqttSink, topic_level
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable
from tests.support.certificates import Authority, needs_openssl
from tests.support.events import event, row
from tests.support.mosquitto import Mosquitto, needs_mosquitto
from tests.support.waiting import until

pytestmark = needs_mosquitto


def fast(low: float, high: float) -> float:
    """Jitter that hardly waits."""
    return min(low, 0.02) + high * 0


@contextlib.asynccontextmanager
async def sink_on(port: int, **options: Any) -> AsyncIterator[MqttSink]:
    """A started sink that reconnects quickly."""
    sink = MqttSink(MqttOptions(host="127.0.0.1", port=port, **{"timeout_s": 5.0, **options}), uniform=fast)
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


async def retained(port: int, pattern: str, count: int) -> dict[str, dict[str, Any]]:
    """The retained messages under a pattern, by topic."""
    found: dict[str, dict[str, Any]] = {}
    async with asyncio.timeout(5), aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe(pattern)
        async for message in client.messages:
            if message.retain:
                found[str(message.topic)] = orjson.loads(message.payload)
            if len(found) == count:
                return found
    raise AssertionError("the broker went away")


class Subscriber:
    """Collects what arrives, over as many broker lives as there are."""

    def __init__(self, port: int, pattern: str) -> None:
        self._port, self._pattern = port, pattern
        self.messages: list[tuple[str, bytes]] = []
        self.is_subscribed = False

    async def run(self) -> None:
        """Subscribes again whenever the broker is back; a persistent session keeps what comes in between."""
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with aiomqtt.Client("127.0.0.1", self._port, identifier="subscriber", clean_session=False) as client:
                    await client.subscribe(self._pattern, qos=1)
                    self.is_subscribed = True
                    async for message in client.messages:
                        assert isinstance(message.payload, bytes)
                        self.messages.append((str(message.topic), message.payload))
            self.is_subscribed = False
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def subscribed(port: int, pattern: str) -> AsyncIterator[Subscriber]:
    """A subscriber beside the test."""
    subscriber = Subscriber(port, pattern)
    task = asyncio.create_task(subscriber.run())
    try:
        await until(lambda: subscriber.is_subscribed)
        yield subscriber
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def deliver_all(sink: Sink, rows: list[Row], at_once: int = 8) -> None:
    """What the worker does, in short: several in flight, from the first that did not arrive again and again."""
    first = 0
    while first < len(rows):
        answers: list[Delivery] = await asyncio.gather(*(sink.deliver(each) for each in rows[first : first + at_once]))
        for answer in answers:
            if isinstance(answer, Unavailable):
                break
            first += 1


async def test_an_event_arrives_as_it_stands_in_the_ledger(mosquitto: Mosquitto) -> None:
    """The event topic carries the row's own bytes, so that a receiver can check the chain."""
    async with sink_on(mosquitto.port) as sink, subscribed(mosquitto.port, "margin/+/+/event") as subscriber:
        assert await sink.deliver(row()) == Delivered()
        await until(lambda: len(subscriber.messages) == 1)

    assert subscriber.messages == [("margin/desk-a/acme-1/event", row().body)]


async def test_the_present_level_is_retained(mosquitto: Mosquitto) -> None:
    """An account's level is the worst of its pools, not the last one; pools above healthy are named, and the one that moved."""
    async with sink_on(mosquitto.port) as sink:
        await sink.deliver(row(1, pool="isolated:X/Y", level="liquidation", previous="watch"))
        await sink.deliver(row(2, level="healthy", previous="watch"))
        (found,) = (await retained(mosquitto.port, "margin/+/+/level", 1)).values()
        await sink.deliver(row(3, pool="isolated:X/Y", level="healthy", previous="liquidation"))
        (after,) = (await retained(mosquitto.port, "margin/+/+/level", 1)).values()

    assert found["level"] == "liquidation"
    assert {pool: each["level"] for pool, each in found["pools"].items()} == {"cross:USDT": "healthy", "isolated:X/Y": "liquidation"}
    assert (found["rev"], found["seq"], found["token"], found["id"]) == (3, 2, row().token, row(2).id)
    assert after["level"] == "healthy"
    assert list(after["pools"]) == ["isolated:X/Y"]


async def test_pools_from_before_this_process_count(mosquitto: Mosquitto) -> None:
    """A pool that went bad before a restart still keeps the account's retained level from being healthy."""
    async with sink_on(mosquitto.port) as sink:
        sink.adopt(account="acme-1", group="desk-a", pool="isolated:A", level=Level.MARGIN_CALL, unknown=None)
        sink.adopt(account="acme-2", group="desk-a", pool="isolated:A", level=Level.HEALTHY, unknown="stale")
        await sink.deliver(row(1, level="healthy", previous="watch"))
        await sink.deliver(row(2, account="acme-2", level="watch", previous="healthy"))
        found = await retained(mosquitto.port, "margin/+/+/level", 2)

    assert found["margin/desk-a/acme-1/level"]["level"] == "margin_call"
    level = found["margin/desk-a/acme-2/level"]
    assert (level["level"], level["last_level"], level["unknown"]) == (None, "watch", "stale")


async def test_an_account_that_changes_its_group_leaves_no_level_behind(mosquitto: Mosquitto) -> None:
    """The old group's retained margin call is taken away: that desk is no longer responsible."""
    async with sink_on(mosquitto.port) as sink:
        await sink.deliver(row(1))
        await sink.deliver(row(2, group="desk-b", level="watch", previous="margin_call"))
        found = await retained(mosquitto.port, "margin/+/+/level", 1)

    assert set(found) == {"margin/desk-b/acme-1/level"}


async def test_a_retained_level_never_says_healthy_while_it_is_unknown(mosquitto: Mosquitto) -> None:
    """While the verdict is unknown the level is null, and the last one is named as the last one."""
    async with sink_on(mosquitto.port) as sink:
        await sink.deliver(row(level="healthy", previous="healthy", unknown="mark BTCUSDT is stale"))
        found = await retained(mosquitto.port, "margin/+/+/level", 1)

    level = found["margin/desk-a/acme-1/level"]
    assert (level["level"], level["last_level"], level["unknown"]) == (None, "healthy", "mark BTCUSDT is stale")
    assert "margin_ratio" not in level["pools"]["cross:USDT"]


async def test_rows_without_account_or_group_have_a_topic(mosquitto: Mosquitto) -> None:
    """No group is `-`, and so is no account: a blind row can be heard too."""
    blind = Row(partition=0, seq=9, token=1, body=b'{"id":"0/9-1","kind":"blind"}', hash="")
    async with sink_on(mosquitto.port) as sink, subscribed(mosquitto.port, "margin/+/+/event") as subscriber:
        assert [await sink.deliver(each) for each in (row(group=None), blind)] == [Delivered(), Delivered()]
        await until(lambda: len(subscriber.messages) == 2)

    assert [topic for topic, _ in subscriber.messages] == ["margin/-/acme-1/event", "margin/-/-/event"]


@given(st.text(max_size=100), st.text(max_size=100))
def test_a_name_is_one_level_of_a_topic(first: str, other: str) -> None:
    """No name makes a second level or a wildcard, and two names never share a topic."""
    level = topic_level(first)

    assert level
    assert not set(level) & set("/+#$\0 ")
    assert level.isascii()
    assert level != "-" or not first
    assert (topic_level(other) == level) == (other == first)


async def test_nothing_is_lost_or_out_of_order_when_the_broker_is_killed(tmp_path: Path) -> None:
    """Over kills of the broker every row arrives, in the order of its account, and the retained levels are the last ones."""
    broker = Mosquitto(tmp_path, "persistence true", "autosave_interval 1", "autosave_on_changes true")
    broker.start()
    rng = random.Random(7)
    rows = [row(seq, account=f"a{rng.randrange(20)}", pool="cross", rev=seq) for seq in range(1, 301)]
    try:
        async with (
            sink_on(broker.port) as sink,
            subscribed(broker.port, "margin/#") as subscriber,
            asyncio.TaskGroup() as group,
        ):
            delivering = group.create_task(deliver_all(sink, rows))
            for part in (0.2, 0.5, 0.8):
                await until(lambda part=part: sink.statistics.delivered > len(rows) * part)  # type: ignore[misc]
                broker.kill()
                await until(lambda: not sink.is_connected)
                broker.start()
            await until(delivering.done, within_s=30)
            await until(lambda: any(topic.endswith("/event") and orjson.loads(body)["rev"] == 300 for topic, body in subscriber.messages))
        levels = await retained_of(broker, rows)
    finally:
        broker.kill()

    last = {event(**orjson.loads(each.body))["account"]: each.seq for each in rows}
    assert {account: level["rev"] for account, level in levels.items()} == last
    assert sink.statistics.connects >= 4
    heard: dict[str, list[int]] = {}
    for topic, body in subscriber.messages:
        if topic.endswith("/event"):
            heard.setdefault(topic, []).append(orjson.loads(body)["rev"])
    for each in rows:
        body = orjson.loads(each.body)
        assert each.seq in heard[f"margin/desk-a/{body['account']}/event"]
    for revisions in heard.values():
        firsts = list(dict.fromkeys(revisions))
        assert firsts == sorted(firsts)


async def retained_of(broker: Mosquitto, rows: list[Row]) -> dict[str, dict[str, Any]]:
    """The retained level of every account of the rows."""
    accounts = {orjson.loads(each.body)["account"] for each in rows}
    found = await retained(broker.port, "margin/+/+/level", len(accounts))
    return {topic.split("/")[2]: level for topic, level in found.items()}


async def test_a_broker_that_was_away_is_used_as_soon_as_it_is_back(tmp_path: Path) -> None:
    """A row offered while the broker is away is unavailable, not refused; once it is back the next offer succeeds."""
    broker = Mosquitto(tmp_path)
    async with sink_on(broker.port, timeout_s=0.3) as sink:
        answer = await sink.deliver(row())
        broker.start()
        try:
            await deliver_all(sink, [row()])
        finally:
            broker.kill()

    assert isinstance(answer, Unavailable)
    assert answer.reason == Reason.UNREACHABLE
    assert sink.statistics.delivered == 1


async def test_a_frozen_broker_times_out_and_recovers(mosquitto: Mosquitto) -> None:
    """Without an acknowledgement in time the row counts as not delivered; when the broker wakes up it arrives."""
    async with sink_on(mosquitto.port, timeout_s=0.3) as sink:
        assert await sink.deliver(row(1)) == Delivered()
        mosquitto.freeze()
        answer = await sink.deliver(row(2))
        mosquitto.thaw()
        await deliver_all(sink, [row(2)])

    assert isinstance(answer, Unavailable)
    assert answer.reason == Reason.TIMEOUT


async def test_closing_takes_no_longer_than_two_seconds_even_when_the_broker_is_frozen(mosquitto: Mosquitto) -> None:
    """Shutdown does not wait for a broker that does not answer."""
    sink = MqttSink(MqttOptions(host="127.0.0.1", port=mosquitto.port), uniform=fast)
    await sink.open()
    await until(lambda: sink.is_connected)
    mosquitto.freeze()
    try:
        async with asyncio.timeout(2):
            await sink.close()
    finally:
        mosquitto.thaw()


async def test_a_denied_topic_refuses_that_row_only(tmp_path: Path) -> None:
    """A topic that the broker's ACL denies is refused with its name; other accounts go on."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite margin/#\ntopic deny margin/desk-a/secret/#\n")
    broker = Mosquitto(tmp_path / "broker", f"acl_file {acl}")
    broker.start()
    try:
        async with sink_on(broker.port) as sink:
            answers = [await sink.deliver(row(1, account="secret")), await sink.deliver(row(2))]
    finally:
        broker.kill()

    assert isinstance(answers[0], Refused)
    assert answers[0].reason == Reason.DENIED
    assert "margin/desk-a/secret/event" in answers[0].detail
    assert answers[1] == Delivered()


async def test_a_broker_that_denies_everything_parks_nothing(tmp_path: Path) -> None:
    """When not even the status may be written, the account is wrong, not the row: unavailable, until somebody repairs the ACL."""
    acl = tmp_path / "acl"
    acl.write_text("topic read margin/#\n")
    broker = Mosquitto(tmp_path / "broker", f"acl_file {acl}")
    broker.start()
    try:
        async with sink_on(broker.port, timeout_s=0.5) as sink:
            await until(lambda: sink.last_error.reason == Reason.DENIED)
            answer = await sink.deliver(row())
            acl.write_text("topic readwrite margin/#\n")
            broker.reload()
            await deliver_all(sink, [row()])
    finally:
        broker.kill()

    assert isinstance(answer, Unavailable)
    assert answer.reason == Reason.DENIED


async def test_a_wrong_password_is_denied(tmp_path: Path) -> None:
    """The broker's no to our credentials is told as denied."""
    passwords = tmp_path / "passwords"
    command = shutil.which("mosquitto_passwd")
    assert command is not None
    subprocess.run([command, "-b", "-c", str(passwords), "monitor", "right"], check=True, capture_output=True)  # noqa: ASYNC221 - takes 2 ms
    broker = Mosquitto(tmp_path / "broker", f"password_file {passwords}", anonymous=False)
    broker.start()
    try:
        async with sink_on(broker.port, username="monitor", password="wrong", timeout_s=0.5) as sink:
            answer = await sink.deliver(row())
        async with sink_on(broker.port, username="monitor", password="right") as sink:
            good = await sink.deliver(row())
    finally:
        broker.kill()

    assert isinstance(answer, Unavailable)
    assert answer.reason == Reason.DENIED
    assert good == Delivered()


async def test_a_taken_over_session_comes_back_and_delivers(mosquitto: Mosquitto) -> None:
    """Another client with our id throws us out; we come back after a pause, and no row is lost."""
    async with sink_on(mosquitto.port) as sink:
        await sink.deliver(row(1))
        async with aiomqtt.Client("127.0.0.1", mosquitto.port, identifier="margin-monitor", protocol=aiomqtt.ProtocolVersion.V5):
            await until(lambda: sink.last_error.reason == Reason.CLOSED)
            await until(lambda: sink.statistics.connects >= 2)
        await deliver_all(sink, [row(2)])

    assert sink.statistics.delivered == 2


async def test_a_process_that_does_not_lead_does_not_connect(mosquitto: Mosquitto) -> None:
    """Before each connection the sink asks whether it may; a deposed leader stays away, and connects without a back-off when it leads."""
    leads = False
    options = MqttOptions(host="127.0.0.1", port=mosquitto.port, timeout_s=0.3)
    sink = MqttSink(options, may_connect=lambda: leads, uniform=lambda _least, _most: 600.0)
    await sink.open()
    try:
        answer = await sink.deliver(row())
        connects = sink.statistics.connects
        leads = True
        await deliver_all(sink, [row()])
    finally:
        await sink.close()

    assert isinstance(answer, Unavailable)
    assert (answer.reason, connects) == (Reason.NOT_LEADING, 0)


async def test_our_death_and_our_farewell_can_be_told_apart(mosquitto: Mosquitto) -> None:
    """Online with the heartbeat while we live; offline by farewell when we leave, by will when the connection is lost."""
    async with sink_on(mosquitto.port, heartbeat_s=0.05) as sink:
        await sink.deliver(row(17))
        async with asyncio.timeout(5):
            while not (online := await retained(mosquitto.port, "margin/status", 1))["margin/status"]["delivered"]:
                pass
    farewell = await retained(mosquitto.port, "margin/status", 1)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DYING_CLIENT, str(mosquitto.port)), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"delivered\n"
    process.kill()
    await process.wait()
    async with asyncio.timeout(5):
        while "lost" not in (will := await retained(mosquitto.port, "margin/status", 1))["margin/status"].get("why", ""):
            pass

    assert abs(online["margin/status"].pop("at_ms") / 1000 - time.time()) < 30
    assert online["margin/status"] == {
        "status": "online",
        "client_id": "margin-monitor",
        "delivered": {"0": {"seq": 17, "token": row().token, "hash": row(17).hash}},
    }
    assert farewell["margin/status"]["status"] == "offline"
    assert farewell["margin/status"]["why"] == "closed"
    assert will["margin/status"]["status"] == "offline"


DYING_CLIENT = """
import asyncio, sys
from monitor.sinks.mqtt import MqttOptions, MqttSink
from tests.support.events import row

async def main():
    sink = MqttSink(MqttOptions(host="127.0.0.1", port=int(sys.argv[1])))
    await sink.open()
    await sink.deliver(row())
    print("delivered", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_large_event_is_shortened_not_lost(tmp_path: Path) -> None:
    """When the broker limits packets, the long lists are left out and named; level, cure and id still arrive."""
    broker = Mosquitto(tmp_path, "max_packet_size 4096")
    broker.start()
    positions = [{**event()["positions"][0], "instrument": f"I{i}"} for i in range(100)]
    try:
        async with sink_on(broker.port) as sink, subscribed(broker.port, "margin/+/+/event") as subscriber:
            assert await sink.deliver(row(positions=positions)) == Delivered()
            await until(lambda: len(subscriber.messages) == 1)
            too_large = await sink.deliver(row(2, account="b", venue="x" * 5000))
            after = await sink.deliver(row(3, account="b"))
    finally:
        broker.kill()

    body = orjson.loads(subscriber.messages[0][1])
    assert body["truncated"] == ["inputs", "positions"]
    assert (body["level"], body["cure"]["deposit"], body["id"]) == ("margin_call", "27723.301", row().id)
    assert isinstance(too_large, Refused)
    assert too_large.reason == Reason.TOO_LARGE
    assert after == Delivered()


async def test_a_later_row_of_an_account_never_overtakes_a_cancelled_one(mosquitto: Mosquitto) -> None:
    """When an earlier row of the account was given up, the later one waiting behind it is not sent; a new offer is."""
    async with sink_on(mosquitto.port, timeout_s=30.0) as sink:
        await until(lambda: sink.is_connected)
        mosquitto.freeze()
        first, second = (asyncio.create_task(sink.deliver(row(seq))) for seq in (1, 2))
        await until(lambda: sink.statistics.in_flight == 2)
        first.cancel()
        answer = await second
        mosquitto.thaw()
        await deliver_all(sink, [row(1), row(2)])

    assert isinstance(answer, Unavailable)
    assert answer.reason == Reason.EARLIER
    assert sink.statistics.in_flight == 0


@needs_openssl
async def test_a_broker_with_a_strange_certificate_gets_nothing(tmp_path: Path) -> None:
    """TLS: a certificate of an unknown authority or for another host is refused; the right one is taken."""
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    certificate, key = ours.issue("broker", "IP:127.0.0.1")
    other, other_key = ours.issue("other", "DNS:elsewhere.example")
    answers: list[Delivery] = []
    for chain, chain_key, context in (
        (certificate, key, ours.client_context()),
        (certificate, key, theirs.client_context()),
        (other, other_key, ours.client_context()),
    ):
        broker = Mosquitto(tmp_path / f"broker{len(answers)}", f"certfile {chain}", f"keyfile {chain_key}")
        broker.start()
        try:
            async with sink_on(broker.port, tls=context, timeout_s=1.0) as sink:
                answers.append(await sink.deliver(row()))
        finally:
            broker.kill()

    assert answers[0] == Delivered()
    assert [answer.reason for answer in answers[1:] if isinstance(answer, Unavailable)] == [Reason.TLS, Reason.TLS]


async def test_a_port_that_does_not_speak_mqtt_is_given_up_in_time() -> None:
    """A server that accepts and says nothing does not hold a row for ever, and nothing is left open."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with sink_on(port, timeout_s=0.3) as sink:
        answer = await sink.deliver(row())
        again = await sink.deliver(row())
    server.close()

    assert isinstance(answer, Unavailable)
    assert isinstance(again, Unavailable)
    assert again.reason == Reason.TIMEOUT


def test_the_password_is_not_printed() -> None:
    """Options can be logged."""
    assert "hunter2" not in repr(MqttOptions(host="h", username="u", password="hunter2"))


async def test_a_row_does_not_wait_for_delayed_acknowledgements(mosquitto: Mosquitto) -> None:
    """Mosquitto with its default settings and the kernel's delayed acknowledgements would make 40 ms a row; a row takes a few."""
    loop = asyncio.get_running_loop()
    async with sink_on(mosquitto.port) as sink:
        await sink.deliver(row(0))
        took = []
        for seq in range(1, 31):
            began = loop.time()
            assert await sink.deliver(row(seq)) == Delivered()
            took.append(loop.time() - began)

    assert sorted(took)[len(took) // 2] < 0.025


async def test_a_batch_is_counted_to_its_first_gap(tmp_path: Path) -> None:
    """A batch says how many of its rows have arrived from the first on; a refused one in the middle is the gap."""
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite margin/#\ntopic deny margin/desk-a/secret/#\n")
    broker = Mosquitto(tmp_path / "broker", f"acl_file {acl}")
    broker.start()
    try:
        async with sink_on(broker.port) as sink:
            await until(lambda: sink.is_connected)
            rows = [row(seq, account="secret" if seq == 4 else f"a{seq}") for seq in range(1, 7)]
            counts = [await sink.deliver_batch(rows), await sink.deliver_batch(rows[4:]), await sink.deliver_batch(rows[3:])]
    finally:
        broker.kill()

    assert counts == [3, 2, 0]
