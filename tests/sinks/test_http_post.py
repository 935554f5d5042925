"""The HTTP client: bounded in time and size, to checked addresses only, no redirects."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.sinks.base import Reason
from monitor.sinks.http_post import Answer, HttpFailure, Networks, PostOptions, Target, delivery_of, post, retry_after_s
from monitor.wire.rows import Delivered, Refused, Unavailable
from tests.support.certificates import Authority, needs_openssl
from tests.support.http_server import Behaviour, answering, receiver

LOOPBACK = Networks.of(["127.0.0.0/8"])


def options(**changes: Any) -> PostOptions:
    """Loopback allowed, short waits."""
    return PostOptions(**{"networks": LOOPBACK, "timeout_s": 2.0, **changes})


async def ask(behaviour: Behaviour, **changes: Any) -> Answer:
    """One POST to a server that behaves so."""
    async with receiver(behaviour) as server:
        return await post(Target.of(f"http://127.0.0.1:{server.port}/hook?a=1"), b"{}", {"X-A": "b"}, options(**changes))


async def test_a_post_is_what_was_asked_for() -> None:
    """Method, path with query, host, length, headers and body; one connection, which is closed."""
    async with receiver(answering("HTTP/1.1 204 No Content\nX-Y: z\n\n")) as server:
        answer = await post(Target.of(f"http://127.0.0.1:{server.port}/hook?a=1"), b'{"x":1}', {"X-A": "b"}, options())

    assert (answer.status, answer.headers["x-y"]) == (204, "z")
    request = server.requests[0]
    assert request.line == "POST /hook?a=1 HTTP/1.1"
    assert request.headers == {"host": f"127.0.0.1:{server.port}", "connection": "close", "content-length": "7", "x-a": "b"}
    assert request.body == b'{"x":1}'


async def test_an_error_brings_a_little_of_its_body_cleaned() -> None:
    """The detail is one harmless line."""
    answer = await ask(answering("HTTP/1.1 422 Unprocessable\nContent-Length: 40\n\nno such\nfield \x1b[31m and much more"))

    assert answer.detail == "no such\\r\\nfield \\x1b[31m and much more"


async def test_interim_answers_are_skipped() -> None:
    """100 Continue and 103 Early Hints come before the answer."""
    answer = await ask(answering("HTTP/1.1 103 Early Hints\n\nHTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\n\n"))

    assert answer.status == 200


async def slow(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Never answers."""
    await asyncio.Event().wait()


async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and then."""
    for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.02)


async def endless_head(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Headers without end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


async def endless_body(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An error whose body never ends."""
    writer.write(b"HTTP/1.1 500 Oh\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A TCP reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def silent_end(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Closes without a word."""


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (slow, Reason.TIMEOUT),
        (trickle, Reason.TIMEOUT),
        (endless_head, Reason.TOO_LARGE),
        (reset, Reason.CLOSED),
        (silent_end, Reason.CLOSED),
        (answering("220 smtp.example ESMTP\n\n"), Reason.PROTOCOL),
        (answering("HTTP/1.1 2000 OK\n\n"), Reason.PROTOCOL),
        (answering("HTTP/2 200\n\n"), Reason.PROTOCOL),
        (answering("HTTP/1.1 200 OK\nhalf"), Reason.PROTOCOL),
        (answering("HTTP/1.1 100 Continue\n\n" * 9), Reason.PROTOCOL),
    ],
)
async def test_a_bad_answer_is_a_reason(behaviour: Behaviour, reason: Reason) -> None:
    """Slow, endless, reset, silent, of another protocol: each has its reason, and none takes longer than allowed."""
    with pytest.raises(HttpFailure) as caught:
        await ask(behaviour, timeout_s=0.5)

    assert caught.value.reason is reason
    assert "hook" not in caught.value.detail


async def test_an_endless_body_is_not_read() -> None:
    """The status counts; the body is left unread after a little of it."""
    answer = await ask(endless_body)

    assert (answer.status, len(answer.detail)) == (500, 160)


async def test_nobody_listens() -> None:
    """A refused connection and an unknown name are unreachable."""
    for url in ("http://127.0.0.1:1/", "https://name.invalid/"):
        with pytest.raises(HttpFailure) as caught:
            await post(Target.of(url), b"", {}, options())
        assert caught.value.reason is Reason.UNREACHABLE


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:1/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[2002:a9fe:a9fe::]/",
        "https://2130706433/",
        "https://localhost/",
        "http://93.184.215.14/",
    ],
)
async def test_an_address_that_may_not_be_called_is_not_called(url: str) -> None:
    """Private, loopback, link-local, multicast, in any spelling; and a public one without TLS."""
    with pytest.raises(HttpFailure) as caught:
        await post(Target.of(url), b"", {}, PostOptions(timeout_s=2.0))

    assert caught.value.reason in {Reason.ADDRESS, Reason.UNREACHABLE}
    assert caught.value.reason is Reason.ADDRESS or "2130706433" in url


def test_allowed_networks_are_allowed_and_no_others() -> None:
    """A private network by name, also for plain HTTP; the rest stays closed."""
    networks = Networks.of(["10.1.0.0/16", "::1"])

    for text, plain, secure in (
        ("10.1.2.3", True, True),
        ("10.2.0.1", False, False),
        ("::1", True, True),
        ("::ffff:10.1.2.3", True, True),
        ("169.254.169.254", False, False),
        ("93.184.215.14", False, True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", False, True),
    ):
        address = ipaddress.ip_address(text)
        assert (networks.permit(address, is_secure=False), networks.permit(address, is_secure=True)) == (plain, secure), text


@given(st.ip_addresses())
def test_what_is_not_public_is_never_permitted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Without allowed networks: nothing over plain HTTP, and over TLS nothing that Python does not call global."""
    assert not Networks().permit(address, is_secure=False)
    assert not Networks().permit(address, is_secure=True) or address.is_global


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/",
        "file:///etc/passwd",
        "example.org",
        "https://",
        "https://user:pass@example.org/",
        "https://example.org/#x",
        "https://example.org/a b",
        "https://exämple.org/",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://example.org:x/",
        "https://example.org/\r\nX: y",
        "https://exa mple.org/",
    ],
)
def test_an_address_that_cannot_be_used(url: str) -> None:
    """Other schemes, secrets in the address, fragments, blanks, ports that are none."""
    with pytest.raises(ValueError, match=r"address|host name|port|Port|URL|IPv6"):
        Target.of(url)


def test_a_target_does_not_print_its_path() -> None:
    """Paths of webhooks hold secrets; logs get scheme, host and port."""
    target = Target.of("https://hooks.example.org/T00/secret?key=1")

    assert str(target) == "https://hooks.example.org:443"
    assert (target.path, target.host_header) == ("/T00/secret?key=1", "hooks.example.org")
    assert Target.of("http://[::1]:8080").host_header == "[::1]:8080"
    assert Target.of("https://example.org").path == "/"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0", 0.0),
        ("999999", 3600.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 37.0),
        ("Sun, 06 Nov 1994 08:48:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        ("٣", None),
        ("Sun, 99 Nov 1994 08:49:37 GMT", None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    """Seconds or a date, at most an hour."""
    assert retry_after_s(header, 784_111_740.0) == seconds


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Delivered()),
        (204, Delivered()),
        (301, Unavailable(Reason.REDIRECT, detail="301: redirects are not followed, set the final address")),
        (308, Unavailable(Reason.REDIRECT, detail="308: redirects are not followed, set the final address")),
        (400, Refused(Reason.REJECTED, "400 why")),
        (401, Unavailable(Reason.DENIED, 5.0, "401 why")),
        (404, Unavailable(Reason.REJECTED, 5.0, "404 why")),
        (410, Unavailable(Reason.REJECTED, 5.0, "410 why")),
        (413, Refused(Reason.TOO_LARGE, "413 why")),
        (422, Refused(Reason.REJECTED, "422 why")),
        (429, Unavailable(Reason.BUSY, 5.0, "429 why")),
        (500, Unavailable(Reason.SERVER_ERROR, 5.0, "500 why")),
        (503, Unavailable(Reason.BUSY, 5.0, "503 why")),
        (599, Unavailable(Reason.SERVER_ERROR, 5.0, "599 why")),
    ],
)
def test_what_a_status_means(status: int, expected: object) -> None:
    """Refused only where the status speaks of this row; what would meet every row is the receiver's trouble."""
    assert delivery_of(Answer(status, {"retry-after": "5"}, "why"), 0.0) == expected


@needs_openssl
async def test_only_a_good_certificate_is_talked_to(tmp_path: Path) -> None:
    """Unknown authority, other host, expired: TLS, and not a byte of the request is sent."""
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    good = ours.server_context("good", "IP:127.0.0.1")
    other = ours.server_context("other", "DNS:elsewhere.example")
    outcomes: list[object] = []
    requests = 0
    for context, trust in ((good, ours), (good, theirs), (other, ours)):
        async with receiver(answering("HTTP/1.1 200 OK\n\n"), tls=context) as server:
            try:
                answer = await post(Target.of(f"https://127.0.0.1:{server.port}/"), b"x", {}, options(tls=trust.client_context()))
                outcomes.append(answer.status)
            except HttpFailure as failure:
                outcomes.append(failure.reason)
            requests += len(server.requests)

    assert outcomes == [200, Reason.TLS, Reason.TLS]
    assert requests == 1


async def test_a_plain_port_spoken_to_with_tls_is_a_tls_failure() -> None:
    """HTTPS to a server without it."""
    async with receiver(answering("HTTP/1.1 400 Bad\n\n")) as server:
        with pytest.raises(HttpFailure) as caught:
            await post(Target.of(f"https://127.0.0.1:{server.port}/"), b"x", {}, options(timeout_s=1.0))

    assert caught.value.reason in {Reason.TLS, Reason.TIMEOUT, Reason.CLOSED}


async def test_a_cancelled_post_closes_its_connection() -> None:
    """Cancelling ends the connection at once."""
    ended = asyncio.Event()

    async def wait_for_end(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            ended.set()

    async with receiver(wait_for_end) as server:
        task = asyncio.create_task(post(Target.of(f"http://127.0.0.1:{server.port}/"), b"", {}, options()))
        async with asyncio.timeout(5):
            while not server.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            await ended.wait()

    assert task.cancelled()
