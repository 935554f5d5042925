"""What every sink must do, whatever it talks to: add yours to SINKS (docs/how-to/add-a-sink.md)."""

from __future__ import annotations

import asyncio
import importlib.util
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson
import pytest

from monitor.sinks.alertmanager import AlertmanagerOptions, AlertmanagerSink
from monitor.sinks.base import Reason, Sink
from monitor.sinks.chat import ChatSink
from monitor.sinks.console import ConsoleSink
from monitor.sinks.http_post import Networks, PostOptions
from monitor.sinks.mqtt import MqttOptions, MqttSink
from monitor.sinks.webhook import WebhookOptions, WebhookSink
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable
from tests.support.events import event, row
from tests.support.http_server import answering, receiver
from tests.support.mosquitto import Mosquitto, free_port, needs_mosquitto

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of apprise's own imports
OK = answering("HTTP/1.1 200 OK\nContent-Length: 0\n\n")


@dataclass(frozen=True)
class Made:
    """How to make a sink for a port; None for one that needs no port."""

    make: Callable[[int], Sink]
    is_mqtt: bool = False
    has_port: bool = True


def _post(port: int) -> PostOptions:
    del port
    return PostOptions(networks=Networks.of(["127.0.0.1"]), timeout_s=0.5)


SINKS = {
    "console": Made(lambda _port: ConsoleSink(io.StringIO()), has_port=False),
    "mqtt": Made(lambda port: MqttSink(MqttOptions(host="127.0.0.1", port=port, timeout_s=0.5)), is_mqtt=True),
    "webhook": Made(lambda port: WebhookSink(WebhookOptions(url=f"http://127.0.0.1:{port}/", secrets=("0" * 16,), post=_post(port)))),
    "alertmanager": Made(lambda port: AlertmanagerSink(AlertmanagerOptions(url=f"http://127.0.0.1:{port}", post=_post(port)))),
    "chat": Made(lambda port: ChatSink(f"json://127.0.0.1:{port}/", timeout_s=0.5)),
}

without_chat = pytest.mark.skipif(importlib.util.find_spec("apprise") is None, reason="needs apprise (the optional extra `chat`)")
MARKS = {"mqtt": needs_mosquitto, "chat": without_chat}
every_sink = pytest.mark.parametrize("name", [pytest.param(name, marks=[MARKS[name]] if name in MARKS else []) for name in SINKS])
every_far_sink = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[MARKS[name]] if name in MARKS else []) for name, made in SINKS.items() if made.has_port]
)


@asynccontextmanager
async def opened(name: str, mosquitto: Callable[[], Mosquitto]) -> AsyncIterator[Sink]:
    """The sink with a receiver that takes everything."""
    made = SINKS[name]
    async with receiver(OK) as server:
        sink = made.make(mosquitto().port if made.is_mqtt else server.port)
        await sink.open()
        try:
            yield sink
        finally:
            await sink.close()


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Callable[[], Mosquitto]:
    """A broker for those who ask."""
    return lambda: request.getfixturevalue("mosquitto")


@every_sink
async def test_it_has_the_form_of_a_sink(name: str, broker: Callable[[], Mosquitto]) -> None:
    """Name, counters, open, deliver, close."""
    async with opened(name, broker) as sink:
        assert isinstance(sink, Sink)
        assert sink.name == name


@every_sink
async def test_it_delivers_and_counts(name: str, broker: Callable[[], Mosquitto]) -> None:
    """Every kind of row arrives: levels up and down, unknown, known again, blind; and is counted once."""
    rows = [
        row(1),
        row(2, level="healthy", previous="margin_call"),
        row(3, unknown="stale"),
        row(4, previous_unknown="stale"),
        row(5, level="bankrupt", equity="-1", margin_ratio=None),
        row(6, group=None, venue=None, positions=[], cure=None, cause=None, rules=None),
        Row(partition=0, seq=7, token=1, body=b'{"id":"0/7-1","kind":"blind","from":null,"to":[1,2,3],"reason":"x","chain":"y"}', hash=""),
    ]
    async with opened(name, broker) as sink:
        assert [await sink.deliver(each) for each in rows] == [Delivered()] * len(rows)

    assert sink.statistics.delivered == len(rows)
    assert sink.statistics.in_flight == 0


@every_sink
async def test_the_same_row_twice_is_taken_twice(name: str, broker: Callable[[], Mosquitto]) -> None:
    """At least once: a copy is delivered like the first, the receiver tells them by the id."""
    async with opened(name, broker) as sink:
        assert [await sink.deliver(row()), await sink.deliver(row())] == [Delivered(), Delivered()]


@every_sink
async def test_a_notice_for_others_is_passed_over(name: str, broker: Callable[[], Mosquitto]) -> None:
    """It counts as delivered, so that the cursor moves on, and nobody hears of it."""
    notice = {"id": "0/1-1", "kind": "notice", "route": "r", "sinks": ["somebody else"], "title": "t", "text": "t", "markdown": "t"}
    async with opened(name, broker) as sink:
        assert await sink.deliver(Row(partition=0, seq=1, token=1, body=orjson.dumps(notice), hash="")) == Delivered()

    assert sink.statistics.delivered == 0


@every_sink
async def test_a_notice_for_it_is_taken(name: str, broker: Callable[[], Mosquitto]) -> None:
    """A finished notice that names the sink."""
    notice = {"id": "0/1-1", "kind": "notice", "route": "r", "sinks": [name], "title": "t", "text": "t", "markdown": "t", "items": []}
    async with opened(name, broker) as sink:
        assert await sink.deliver(Row(partition=0, seq=1, token=1, body=orjson.dumps(notice), hash="")) == Delivered()


@every_sink
@pytest.mark.parametrize("data", [b"", b"[1]", b"\xff", b'"x"', b"{"])
async def test_bytes_that_are_no_row_are_refused(name: str, data: bytes, broker: Callable[[], Mosquitto]) -> None:
    """They go to the dead letters; offered again they would block everything behind them for ever."""
    async with opened(name, broker) as sink:
        answer = await sink.deliver(Row(partition=0, seq=1, token=1, body=data, hash=""))

    assert isinstance(answer, Refused)
    assert sink.statistics.refused.total() == 1


@every_sink
async def test_hostile_content_arrives(name: str, broker: Callable[[], Mosquitto]) -> None:
    """Names with markup, line breaks and control characters, and a very long list of positions, are delivered like any other."""
    positions = [{**event()["positions"][0], "instrument": f"I{i}\x1b[31m\n@everyone"} for i in range(300)]
    async with opened(name, broker) as sink:
        assert await sink.deliver(row(positions=positions, group="<b>+/#\x00\n", cause={"kind": "x\ny", "z": "\u202e"})) == Delivered()


@every_far_sink
async def test_a_receiver_that_is_away_is_unavailable_and_may_be_closed(name: str) -> None:
    """No listener: unavailable with a known reason, within its time; closing takes no longer than two seconds."""
    sink = SINKS[name].make(free_port())
    await sink.open()
    try:
        async with asyncio.timeout(5):
            answer: Delivery = await sink.deliver(row())
    finally:
        async with asyncio.timeout(2):
            await sink.close()

    assert isinstance(answer, Unavailable)
    assert answer.reason in set(Reason)
    assert sink.statistics.unavailable == {answer.reason: 1}
    assert sink.statistics.in_flight == 0


@every_far_sink
async def test_a_cancelled_delivery_leaves_nothing_behind(name: str) -> None:
    """The worker may cancel at any point; afterwards the sink works on."""

    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with receiver(hang) as server:
        sink = SINKS[name].make(server.port)
        await sink.open()
        try:
            task = asyncio.create_task(sink.deliver(row()))
            for _ in range(20):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            answer = await sink.deliver(row())
        finally:
            await sink.close()

    assert task.cancelled()
    assert isinstance(answer, Unavailable)
    assert sink.statistics.in_flight == 0
