"""Chat over apprise, against a local server that takes apprise's own json:// form."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from monitor.alerting.messages import Markup
from monitor.sinks.base import Reason, Sink
from monitor.sinks.chat import ChatSink
from monitor.wire.rows import Delivered, Refused, Row, Unavailable
from tests.support.events import row
from tests.support.http_server import Behaviour, Receiver, answering, receiver

has_apprise = importlib.util.find_spec("apprise") is not None
needs_apprise = pytest.mark.skipif(not has_apprise, reason="needs apprise (the optional extra `chat`)")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of apprise's own imports
OK = answering("HTTP/1.1 200 OK\nContent-Length: 0\n\n")


@asynccontextmanager
async def chat(*behaviours: Behaviour, **options: Any) -> AsyncIterator[tuple[ChatSink, Receiver]]:
    """A sink and its receiver."""
    async with receiver(*behaviours) as server:
        sink = ChatSink(f"json://127.0.0.1:{server.port}/T0K3N", **options)
        await sink.open()
        yield sink, server
        await sink.close()


@needs_apprise
async def test_an_event_is_told_in_full() -> None:
    """Title and text of the message arrive."""
    async with chat(OK) as (sink, server):
        assert isinstance(sink, Sink)
        assert await sink.deliver(row()) == Delivered()

    body = orjson.loads(server.requests[0].body)
    assert body["title"] == "MARGIN CALL acme-1 cross:USDT"
    assert "Margin ratio 82.16%" in body["message"]


@needs_apprise
async def test_a_notice_is_told_as_it_was_made_and_only_here() -> None:
    """The policy's text or Markdown, for the sinks it names."""
    notice = {"kind": "notice", "sinks": ["chat"], "title": "2 alerts", "text": "plain", "markdown": "**bold**"}
    other = Row(partition=0, seq=2, token=1, body=orjson.dumps({**notice, "sinks": ["mail"]}), hash="")
    async with chat(OK, markup=Markup.MARKDOWN) as (sink, server):
        for each in (Row(partition=0, seq=1, token=1, body=orjson.dumps(notice), hash=""), other):
            assert await sink.deliver(each) == Delivered()

    assert len(server.requests) == 1
    body = orjson.loads(server.requests[0].body)
    assert body["title"] == "2 alerts"
    assert "bold" in body["message"]


@needs_apprise
async def test_a_service_that_says_no_is_unavailable() -> None:
    """Apprise tells success or not; what did not arrive is offered again."""
    async with chat(answering("HTTP/1.1 500 Oh\nContent-Length: 0\n\n"), OK) as (sink, _):
        first = await sink.deliver(row())
        second = await sink.deliver(row())

    assert isinstance(first, Unavailable)
    assert (first.reason, second) == (Reason.SERVER_ERROR, Delivered())


@needs_apprise
async def test_a_service_that_hangs_holds_up_nobody_else() -> None:
    """The row times out, the next offer does not queue behind it, and closing does not wait."""
    release = asyncio.Event()

    async def hang(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with chat(hang, timeout_s=0.1) as (sink, _):
        answers = [await sink.deliver(row()), await sink.deliver(row())]
        async with asyncio.timeout(1):
            await sink.close()
        release.set()

    assert [answer.reason for answer in answers if isinstance(answer, Unavailable)] == [Reason.TIMEOUT, Reason.TIMEOUT]


@needs_apprise
async def test_a_row_that_cannot_be_read_is_refused() -> None:
    """It would go round in circles."""
    async with chat(OK) as (sink, _):
        assert isinstance(await sink.deliver(Row(partition=0, seq=1, token=1, body=b"[]", hash="")), Refused)


@needs_apprise
def test_an_unknown_address_is_refused_without_repeating_it() -> None:
    """Addresses hold secrets."""
    with pytest.raises(ValueError, match="an address that apprise knows") as caught:
        ChatSink("nosuch://T0K3N")
    assert "T0K3N" not in str(caught.value)


@pytest.mark.skipif(has_apprise, reason="apprise is installed")
def test_without_apprise_it_says_what_to_install() -> None:
    """The extra is named."""
    with pytest.raises(ValueError, match=r"margin-monitor\[chat\]"):
        ChatSink("json://127.0.0.1/")
