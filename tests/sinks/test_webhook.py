"""Webhooks: signed, repeatable, honest about what became of a row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.sinks.base import Reason, Sink
from monitor.sinks.http_post import Networks, PostOptions
from monitor.sinks.webhook import ID_HEADER, SIGNATURE_HEADER, WebhookOptions, WebhookSink, is_signed_by, signature
from monitor.wire.rows import Delivered, Refused, Row, Unavailable
from tests.support.events import event, row
from tests.support.http_server import Behaviour, Receiver, answering, receiver

SECRET = "0123456789abcdef"
OK = answering("HTTP/1.1 200 OK\n\n")


@asynccontextmanager
async def webhook(*behaviours: Behaviour, **options: Any) -> AsyncIterator[tuple[WebhookSink, Receiver]]:
    """A sink and its receiver."""
    async with receiver(*behaviours) as server:
        values: dict[str, Any] = {
            "url": f"http://127.0.0.1:{server.port}/hook",
            "secrets": (SECRET,),
            "post": PostOptions(networks=Networks.of(["127.0.0.1"]), timeout_s=1.0),
        }
        sink = WebhookSink(WebhookOptions(**{**values, **options}), clock=lambda: 1_795_214_857.5)
        await sink.open()
        yield sink, server
        await sink.close()


async def test_a_row_arrives_signed_and_as_it_stands_in_the_ledger() -> None:
    """Body, id and signature; the receiver can check that nobody else sent it, and when."""
    async with webhook(OK) as (sink, server):
        assert isinstance(sink, Sink)
        assert await sink.deliver(row()) == Delivered()

    request = server.requests[0]
    assert request.body == row().body
    assert request.headers[ID_HEADER.lower()] == row().id
    header = request.headers[SIGNATURE_HEADER.lower()]
    assert is_signed_by(SECRET, header, request.body, 1_795_214_900)
    assert not is_signed_by("another secret!!", header, request.body, 1_795_214_900)
    assert not is_signed_by(SECRET, header, request.body + b" ", 1_795_214_900)
    assert not is_signed_by(SECRET, header, request.body, 1_795_214_857 + 301)
    assert not is_signed_by(SECRET, header, request.body, 1_795_214_857 - 301)


async def test_two_secrets_while_one_replaces_the_other() -> None:
    """Old and new receivers both find their signature."""
    async with webhook(OK, secrets=(SECRET, "fedcba9876543210")) as (sink, server):
        await sink.deliver(row())

    header = server.requests[0].headers[SIGNATURE_HEADER.lower()]
    assert all(is_signed_by(secret, header, row().body, 1_795_214_857) for secret in (SECRET, "fedcba9876543210"))


@given(st.text(max_size=60))
def test_a_made_up_signature_is_none(header: str) -> None:
    """No header but the right one passes, and none breaks the check."""
    assert not is_signed_by(SECRET, header, b"body", 0)
    assert not is_signed_by(SECRET, signature((SECRET,), b"body", 0).replace("v1=", "v0=") + "," + header, b"body", 0)


async def test_a_receiver_that_asks_for_time_gets_it() -> None:
    """429 and 503 with Retry-After: unavailable, with the wait."""
    slow_down = answering("HTTP/1.1 429 Too Many Requests\nRetry-After: 7\nContent-Length: 0\n\n")
    async with webhook(slow_down, OK) as (sink, _):
        first = await sink.deliver(row())
        second = await sink.deliver(row())

    assert isinstance(first, Unavailable)
    assert (first.reason, first.retry_after_s) == (Reason.BUSY, 7.0)
    assert second == Delivered()


async def test_a_redirect_is_not_followed() -> None:
    """301 to somewhere else: nothing goes there, nothing is parked."""
    async with receiver(OK) as elsewhere:
        moved = answering(f"HTTP/1.1 301 Moved\nLocation: http://127.0.0.1:{elsewhere.port}/\nContent-Length: 0\n\n")
        async with webhook(moved) as (sink, _):
            answer = await sink.deliver(row())

    assert isinstance(answer, Unavailable)
    assert answer.reason == Reason.REDIRECT
    assert elsewhere.connections == 0


async def test_what_the_receiver_will_never_take_is_refused() -> None:
    """422 with its words goes to the dead letters."""
    async with webhook(answering("HTTP/1.1 422 No\nContent-Length: 9\n\nbad field")) as (sink, _):
        answer = await sink.deliver(row())

    assert answer == Refused(Reason.REJECTED, "422 bad field")
    assert sink.statistics.refused == {Reason.REJECTED: 1}


async def test_a_receiver_that_is_away_or_slow_is_unavailable() -> None:
    """No listener, no answer: the row is offered again."""

    async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with webhook(never, post=PostOptions(networks=Networks.of(["127.0.0.1"]), timeout_s=0.2)) as (sink, _):
        slow = await sink.deliver(row())
    gone = await sink.deliver(row())

    assert isinstance(slow, Unavailable)
    assert isinstance(gone, Unavailable)
    assert (slow.reason, gone.reason) == (Reason.TIMEOUT, Reason.UNREACHABLE)
    assert sink.statistics.in_flight == 0


async def test_private_addresses_are_closed_unless_allowed() -> None:
    """Without the permission not even a connection is made."""
    async with webhook(OK, post=PostOptions(timeout_s=1.0)) as (sink, server):
        answer = await sink.deliver(row())

    assert isinstance(answer, Unavailable)
    assert answer.reason == Reason.ADDRESS
    assert server.connections == 0


async def test_a_long_event_is_shortened_to_the_limit() -> None:
    """Positions and inputs are left out, named, and the shortened body is what is signed."""
    positions = [{**event()["positions"][0], "instrument": f"I{i}"} for i in range(200)]
    async with webhook(OK, max_body_bytes=4096) as (sink, server):
        assert await sink.deliver(row(positions=positions)) == Delivered()

    request = server.requests[0]
    assert len(request.body) <= 4096
    assert orjson.loads(request.body)["truncated"] == ["inputs", "positions"]
    assert is_signed_by(SECRET, request.headers[SIGNATURE_HEADER.lower()], request.body, 1_795_214_857)
    assert sink.statistics.trimmed == 1


async def test_a_notice_goes_only_to_the_sinks_it_names() -> None:
    """Another sink's notice is passed over without a request."""
    mine, other = (
        Row(partition=0, seq=1, token=1, body=orjson.dumps({"id": "0/1-1", "kind": "notice", "sinks": sinks}), hash="")
        for sinks in (["webhook"], ["chat"])
    )
    async with webhook(OK) as (sink, server):
        assert [await sink.deliver(each) for each in (mine, other)] == [Delivered(), Delivered()]

    assert [request.body for request in server.requests] == [mine.body]


async def test_a_row_that_cannot_be_read_is_refused() -> None:
    """It would go round in circles."""
    async with webhook(OK) as (sink, _):
        assert isinstance(await sink.deliver(Row(partition=0, seq=1, token=1, body=b"x", hash="")), Refused)


@pytest.mark.parametrize("wrong", [{"secrets": ()}, {"secrets": ("short",)}, {"url": "ftp://x/"}])
def test_options_that_cannot_work(wrong: dict[str, Any]) -> None:
    """No secret, a short one, another scheme."""
    with pytest.raises(ValueError, match=r"secret|https"):
        WebhookSink(WebhookOptions(**{"url": "https://example.org/", "secrets": (SECRET,), **wrong}))


def test_secrets_are_not_printed() -> None:
    """Options can be logged."""
    text = repr(WebhookOptions(url="https://example.org/T0K3N", secrets=(SECRET,), headers={"Authorization": "Bearer abc"}))

    assert not any(secret in text for secret in (SECRET, "T0K3N", "abc"))
