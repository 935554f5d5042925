"""The connection: every outcome is an answer or not known, and no answer goes astray."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import hiredis
import pytest

from monitor.errors import ConfigError, LedgerBroken, LedgerUnavailable
from monitor.ledger.connection import ConnectionLost, Endpoint, Link, Moved, Refusal, Wire, fault_of, raise_faults
from monitor.ledger.server import CACHE_SETTINGS
from tests.support.certificates import Authority, needs_openssl
from tests.support.redis import Redis, redis_server

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _strange_server(folder: Path, talk: Talk) -> AsyncIterator[Endpoint]:
    """A server on a unix socket that says whatever the test wants, after the greeting of a new connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"margin-monitor\r\n")
        writer.write(b"+OK\r\n")
        try:
            await talk(reader, writer)
        finally:
            writer.transport.abort()

    path = folder / "strange.sock"
    server = await asyncio.start_unix_server(serve, path)
    try:
        yield Endpoint(path=str(path))
    finally:
        server.close()


async def test_replies_come_in_the_order_of_the_commands(redis: Redis) -> None:
    """Many commands go out in one write; error replies are values among the others."""
    replies = await redis.exchange(("SET", "k", b"\x00\xff"), ("LPUSH", "k", "x"), ("GET", "k"), ("INCRBY", "n", 5))

    assert replies[0] == b"OK" or str(replies[0]) == "OK"
    assert isinstance(replies[1], hiredis.ReplyError)
    assert replies[2:] == [b"\x00\xff", 5]


async def test_a_large_exchange_passes_whole(redis: Redis) -> None:
    """Replies that arrive in many pieces are put together."""
    values = [bytes([index % 256]) * 100_000 for index in range(50)]

    replies = await redis.exchange(*(("SET", f"k{i}", value) for i, value in enumerate(values)), *(("GET", f"k{i}") for i in range(50)))

    assert replies[50:] == values


async def test_a_cancelled_request_never_answers_another(redis: Redis) -> None:
    """2,000 requests are cancelled in flight, on connections that are used as long as they are open; no later one gets a foreign answer."""
    draw = random.Random(7)
    await redis.exchange(*(("SET", f"k{index}", f"v{index}") for index in range(100)))
    wire = await redis.link().open()
    cancelled = 0
    for _ in range(2000):
        if wire.closed:
            wire = await redis.link().open()
        index = draw.randrange(100)
        request = asyncio.ensure_future(wire.call("GET", f"k{index}", timeout_s=5.0))
        for _ in range(draw.randrange(1, 5)):
            await asyncio.sleep(0)
        if request.cancel():
            cancelled += 1
        try:
            assert await request == b"v%d" % index
        except asyncio.CancelledError:
            assert wire.closed
    wire.close()

    assert cancelled > 500


async def test_no_answer_in_time_closes_the_connection(tmp_path: Path) -> None:
    """The late answer must not be taken for that of the next request."""

    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with _strange_server(tmp_path, silent) as endpoint:
        wire = await Wire.connect(endpoint, timeout_s=5.0)
        with pytest.raises(ConnectionLost, match=r"no answer in 0\.05 s"):
            await wire.call("PING", timeout_s=0.05)

        assert wire.closed
        with pytest.raises(ConnectionLost):
            await wire.call("PING", timeout_s=5.0)


async def test_a_closed_connection_is_told_at_once(tmp_path: Path) -> None:
    """When the other side hangs up, a waiting request does not wait for its time-out."""

    async def rude(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(1)

    async with _strange_server(tmp_path, rude) as endpoint:
        wire = await Wire.connect(endpoint, timeout_s=5.0)
        with pytest.raises(ConnectionLost):
            await wire.call("PING", timeout_s=60.0)


async def _ping_twice(wire: Wire) -> None:
    """One answer too many may come with the first or only be noticed by the second."""
    await wire.call("PING", timeout_s=5.0)
    await wire.call("PING", timeout_s=5.0)


@pytest.mark.parametrize("answer", [b"+PONG\r\n+MORE\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x01\x02"])
async def test_what_is_no_answer_closes_the_connection(tmp_path: Path, answer: bytes) -> None:
    """One answer too many, or something that is not Redis at all."""

    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"PING\r\n")
        writer.write(answer)
        await reader.read()

    async with _strange_server(tmp_path, odd) as endpoint:
        wire = await Wire.connect(endpoint, timeout_s=5.0)
        with pytest.raises(ConnectionLost):
            await _ping_twice(wire)

        assert wire.closed


async def test_nobody_there_is_connection_lost(tmp_path: Path) -> None:
    """A missing socket names the address."""
    with pytest.raises(ConnectionLost, match=r"nobody\.sock"):
        await Wire.connect(Endpoint(path=str(tmp_path / "nobody.sock")), timeout_s=1.0)


async def test_a_wrong_password_is_a_refusal_that_does_not_repeat_it() -> None:
    """The code is Redis's own; the password stands nowhere."""
    async with redis_server({**CACHE_SETTINGS, "aclfile": ""}) as redis:
        await redis.exchange(("ACL", "SETUSER", "risk", "on", ">s3cret-1", "~*", "+@all"))
        good = Endpoint.parse(redis.url, username="risk", password="s3cret-1")
        wire = await Wire.connect(good, timeout_s=5.0)
        assert await wire.call("ACL", "WHOAMI", timeout_s=5.0) == b"risk"
        wire.close()

        with pytest.raises(Refusal) as found:
            await Wire.connect(Endpoint.parse(redis.url, username="risk", password="s3cret-2"), timeout_s=5.0)

    assert found.value.code == "WRONGPASS"
    assert "s3cret" not in f"{found.value} {good} {good!r}"


async def test_the_database_of_the_address_is_selected(redis: Redis) -> None:
    """Keys of one database are not seen in another."""
    wire = await Wire.connect(Endpoint.parse(f"{redis.url}?db=3"), timeout_s=5.0)
    await wire.call("SET", "k", "three", timeout_s=5.0)
    wire.close()

    assert await redis.call("GET", "k") is None
    assert (await redis.exchange(("SELECT", 3), ("GET", "k")))[1] == b"three"


@needs_openssl
async def test_tls_checks_the_certificate(tmp_path: Path) -> None:
    """With the right authority it connects, with the system's alone it refuses."""
    authority = Authority(tmp_path / "tls")
    certificate, key = authority.issue("redis", "IP:127.0.0.1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        **CACHE_SETTINGS,
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-ca-cert-file": str(authority.certificate),
        "tls-auth-clients": "no",
    }
    async with redis_server(settings):
        url = f"rediss://127.0.0.1:{port}/0"
        wire = await Wire.connect(Endpoint.parse(url, ca_file=str(authority.certificate)), timeout_s=5.0)
        assert str(await wire.call("PING", timeout_s=5.0)) in {"PONG", "b'PONG'"}
        wire.close()

        with pytest.raises(ConnectionLost, match="certificate"):
            await Wire.connect(Endpoint.parse(url), timeout_s=5.0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h:7000/2", Endpoint(host="h", port=7000, database=2)),
        ("redis://h", Endpoint(host="h")),
        ("rediss://u:p%40@h:1/0", Endpoint(host="h", port=1, username="u", password="p@", tls=True)),
        ("unix:///tmp/r.sock?db=4", Endpoint(path="/tmp/r.sock", database=4)),
    ],
)
def test_addresses(url: str, expected: Endpoint) -> None:
    """Each form of an address."""
    assert Endpoint.parse(url) == expected


@pytest.mark.parametrize("url", ["http://h", "h:6379", "redis://h:port", "redis://h/db", "redis://h:70000", ""])
def test_a_bad_address_names_the_key_and_hides_the_password(url: str) -> None:
    """One line that says what was expected."""
    with pytest.raises(ConfigError, match="url") as found:
        Endpoint.parse(url.replace("//", "//user:s3cret@"))

    assert "s3cret" not in str(found.value)


def test_a_password_given_apart_wins() -> None:
    """Secrets come from files and the environment, not from the address."""
    assert Endpoint.parse("redis://u:old@h", password="new").password == "new"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", Refusal),
        ("MISCONF Redis is configured to save RDB snapshots", Refusal),
        ("EXECABORT Transaction discarded because of previous errors.", Refusal),
        ("READONLY You can't write against a read only replica.", Refusal),
        ("LOADING Redis is loading the dataset in memory", Refusal),
        ("NOPERM this user has no permissions", Refusal),
        ("CLUSTERDOWN Hash slot not served", Refusal),
        ("ASK 3999 127.0.0.1:6381", Refusal),
        ("MOVED 3999 127.0.0.1:6381", Moved),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", LedgerBroken),
        ("ERR The ID specified in XADD is equal or smaller than the target stream top item", LedgerBroken),
        ("CROSSSLOT Keys in request don't hash to the same slot", LedgerBroken),
    ],
)
def test_each_answer_has_its_error(text: str, kind: type[Exception]) -> None:
    """What may work later is unavailable; what the protocol does not allow is broken."""
    assert type(fault_of(hiredis.ReplyError(text))) is kind


def test_the_first_error_of_a_transaction_is_the_cause() -> None:
    """The EXECABORT at the end only says that there was one."""
    with pytest.raises(Moved):
        raise_faults([b"OK", hiredis.ReplyError("MOVED 1 h:2"), hiredis.ReplyError("EXECABORT ...")])


async def test_a_link_follows_a_slot_and_comes_back(tmp_path: Path) -> None:
    """MOVED names the next node; when that one is gone, the first is asked again."""
    link = Link(Endpoint(host="127.0.0.1", port=1, password="p"), timeout_s=1.0)

    link.follow(Moved("MOVED 5 127.0.0.2:2"))
    assert (link.endpoint.host, link.endpoint.port, link.endpoint.password) == ("127.0.0.2", 2, "p")

    link.follow(LedgerUnavailable("anything else"))
    assert link.endpoint.port == 2

    with pytest.raises(ConnectionLost):
        await link.open()
    assert link.endpoint.port == 1


def test_an_empty_host_in_moved_is_the_same_host() -> None:
    """Redis leaves it out when it does not know its own name."""
    link = Link(Endpoint(host="h", port=1))

    link.follow(Moved("MOVED 5 :7"))

    assert (link.endpoint.host, link.endpoint.port) == ("h", 7)
