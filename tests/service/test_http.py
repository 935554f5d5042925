"""HTTP: status codes and bodies, asked over a real socket."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import orjson
import pytest

from monitor.alerting.policy import Firing, Silence
from monitor.errors import ConfigError, LedgerUnavailable
from monitor.margin.levels import Level
from monitor.page.what_if import Changes
from monitor.service.http import AccountQuery, Check, HttpServer, build_app

FIRING = Firing(
    account="a",
    pool="cross",
    about="level",
    severity=Level.LIQUIDATION,
    since_ms=5,
    unknown=None,
    acknowledged_until_ms=None,
    silenced=False,
    told={"desk": Level.MARGIN_CALL},
)


class Fixed:
    """Readings that do not change."""

    def __init__(self, *, ready: bool) -> None:
        self.is_ready = ready
        self.number = 1
        self.watchers = 0
        self.asked: list[tuple[str, Any]] = []
        now_ms = int(time.time() * 1000)
        ended = Silence(id="ended", reason="r", author="a", from_ms=1, until_ms=2)
        self.stored = [ended, replace(ended, id="held", from_ms=now_ms, until_ms=now_ms + 60_000)]

    def live(self) -> Sequence[Check]:
        return [Check("evaluator", True)]

    def ready(self) -> Sequence[Check]:
        return [Check("ledger", True), Check("feeds", self.is_ready, "binance_usdm has 0 of 2 symbols")]

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"m 1\n", "text/plain"

    def accounts(self, query: AccountQuery) -> dict[str, Any] | None:
        return {"limit": query.limit, "order": query.order} if self.is_ready else None

    async def account(self, account_id: str) -> dict[str, Any] | None:
        return {"id": account_id} if account_id == "a" else None

    async def events(self, limit: int) -> list[dict[str, Any]]:
        return [{"n": limit}]

    def feeds(self) -> dict[str, Any]:
        return {}

    def firing(self) -> Sequence[Firing] | None:
        return [FIRING] if self.is_ready else None

    async def silences(self) -> Sequence[Silence]:
        if not self.is_ready:
            raise LedgerUnavailable("away")
        return self.stored

    async def ask(self, kind: str, data: bytes) -> None:
        self.asked.append((kind, orjson.loads(data) if data.startswith(b"{") else data))

    def history(self, account_id: str) -> list[tuple[float, float | None]]:
        return [(1.0, 0.5), (2.0, None)]

    def explain(self, account_id: str) -> list[dict[str, Any]] | None:
        return [] if account_id == "a" else None

    async def what_if(self, account_id: str, changes: Changes) -> dict[str, Any] | None:
        return {"move": str(changes.move)} if account_id == "a" else None

    def version(self) -> tuple[int, ...] | None:
        return (self.number,) if self.is_ready else None

    def page(self, query: AccountQuery) -> dict[str, Any] | None:
        return {"limit": query.limit, "n": self.number} if self.is_ready else None

    def status(self) -> dict[str, Any]:
        return {"ready": self.is_ready}

    def written(self) -> int:
        return self.number

    async def latest(self, limit: int) -> list[dict[str, Any]]:
        return [{"n": self.number}]

    async def account_live(self, account_id: str) -> dict[str, Any] | None:
        return {"id": account_id}


@asynccontextmanager
async def serving(*, ready: bool = True) -> AsyncIterator[HttpServer]:
    """A running server on a free port."""
    server = HttpServer(build_app(Fixed(ready=ready)), host="127.0.0.1", port=0)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(server.run())
        yield server
        server.stop()


async def get(server: HttpServer, target: str, method: str = "GET", body: bytes = b"", kind: str = "") -> tuple[int, bytes]:
    """Asks one thing on a new connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    more = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n" if body else ""
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n".encode() + body)
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


async def test_health_is_told_by_status_and_in_words() -> None:
    """A failed check turns the status to 503 and is named, with its detail."""
    async with serving(ready=False) as server:
        assert await get(server, "/livez") == (200, b"ok\n")
        assert await get(server, "/readyz") == (503, b"[-]feeds failed: binance_usdm has 0 of 2 symbols\n")
        status, body = await get(server, "/-/ready?verbose")
        assert (status, body.splitlines()) == (
            503,
            [b"[+]ledger ok", b"[-]feeds failed: binance_usdm has 0 of 2 symbols", b"failed"],
        )
        assert (await get(server, "/api/accounts"))[0] == 503


async def test_the_api_answers_json_and_refuses_what_it_does_not_know() -> None:
    """Pages, single accounts, wrong parameters and other methods."""
    async with serving() as server:
        status, body = await get(server, "/api/accounts?limit=7")
        assert (status, orjson.loads(body)) == (200, {"limit": 7, "order": "danger"})
        assert orjson.loads((await get(server, "/api/accounts/a"))[1]) == {"id": "a"}
        assert (await get(server, "/api/accounts/b"))[0] == 404
        for wrong in ("limit=x", "limit=-1", "limit=1001", "order=size"):
            assert (await get(server, f"/api/accounts?{wrong}"))[0] == 400, wrong
        assert (await get(server, "/api/accounts", "POST"))[0] == 405
        assert (await get(server, "/nothing"))[0] == 404
        assert (await get(server, "/metrics"))[1] == b"m 1\n"
        assert orjson.loads((await get(server, "/api/accounts/a/history"))[1]) == {"points": [[1.0, 0.5], [2.0, None]]}
        assert orjson.loads((await get(server, "/api/accounts/a/explain"))[1]) == {"sections": []}
        assert (await get(server, "/api/accounts/b/explain"))[0] == 404
        assert orjson.loads((await get(server, "/api/what-if?account=a&move=-10"))[1]) == {"move": "-10"}
        assert (await get(server, "/api/what-if?account=b"))[0] == 404
        for wrong in ("move=-51", "move=x", "trade=BTCUSDT", "nothing=1", "deposit=USDT:1e99"):
            assert (await get(server, f"/api/what-if?account=a&{wrong}"))[0] == 400, wrong


@asynccontextmanager
async def telling(*, ready: bool = True, token: str | None = None) -> AsyncIterator[tuple[HttpServer, Fixed]]:
    """A server whose readings note what they are told."""
    readings = Fixed(ready=ready)
    server = HttpServer(build_app(readings, token=token), host="127.0.0.1", port=0)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(server.run())
        yield server, readings
        server.stop()


async def test_people_tell_the_policy_what_they_have_seen() -> None:
    """What stands is listed; a silence is added and ended, an alert acknowledged: each is a request to whoever decides."""
    wanted = {"reason": "maintenance", "author": "me", "for": "2h", "account": "desk-*", "up_to": "liquidation"}
    async with telling() as (server, readings):
        status, said = await get(server, "/api/silences", "POST", orjson.dumps(wanted), "application/json; charset=utf-8")
        (_, silence), silence_id = readings.asked.pop(), orjson.loads(said)["id"]
        listed = orjson.loads((await get(server, "/api/silences"))[1])["silences"]
        assert (await get(server, "/api/silences/held", "DELETE"))[0] == 202
        assert (await get(server, "/api/silences/other", "DELETE"))[0] == 404
        seen = await get(server, "/api/acknowledgements", "POST", b'{"account":"a","about":"level"}', "application/json")
        firing = orjson.loads((await get(server, "/api/alerts"))[1])["alerts"]

    assert (status, silence["id"], silence["account"], silence["up_to"]) == (202, silence_id, "desk-*", "liquidation")
    assert silence["until_ms"] - silence["from_ms"] == 2 * 3_600_000
    assert [each["id"] for each in listed] == ["held"]
    assert seen[0] == 202
    assert readings.asked == [("unsilence", b"held"), ("acknowledge", {"account": "a", "pool": "*", "about": "level"})]
    assert [(each["account"], each["severity"], each["told"]) for each in firing] == [("a", "liquidation", {"desk": "margin_call"})]


@pytest.mark.parametrize(
    ("path", "body", "kind", "status"),
    [
        ("/api/silences", b'{"reason":"r","author":"a","for":"2h"}', "text/plain", 415),
        ("/api/silences", b"reason=r&author=a", "application/x-www-form-urlencoded", 415),
        ("/api/silences", b"{", "application/json", 400),
        ("/api/silences", b"[]", "application/json", 400),
        ("/api/silences", b'{"reason":"r","author":"a"}', "application/json", 400),
        ("/api/silences", b'{"reason":"r","author":"a","for":"2x"}', "application/json", 400),
        ("/api/silences", b'{"reason":"r","author":"a","for":"31d"}', "application/json", 400),
        ("/api/silences", b'{"reason":" ","author":"a","for":"2h"}', "application/json", 400),
        ("/api/silences", b'{"reason":"r","author":"a","for":"2h","up_to":"worst"}', "application/json", 400),
        ("/api/silences", b'{"reason":"r","author":"a","for":"2h","accounts":"x"}', "application/json", 400),
        ("/api/silences", b'{"reason":"r","author":"a","for":"2h","account":7}', "application/json", 400),
        ("/api/silences", b'{"reason":"' + b"r" * 5000 + b'"}', "application/json", 413),
        ("/api/acknowledgements", b'{"pool":"cross"}', "application/json", 400),
    ],
)
async def test_what_makes_no_sense_is_not_written(path: str, body: bytes, kind: str, status: int) -> None:
    """It is refused with what was expected; a form of another page cannot even ask."""
    async with telling() as (server, readings):
        assert (await get(server, path, "POST", body, kind))[0] == status
    assert readings.asked == []


async def test_nobody_without_the_token_silences_anything() -> None:
    """The writing requests are guarded as the others are; where the ledger is away or no policy runs, that is said."""
    async with telling(token="0123456789abcdef") as (server, readings):
        answers = [
            await get(server, "/api/silences", "POST", b'{"reason":"r","author":"a","for":"2h"}', "application/json"),
            await get(server, "/api/silences/held", "DELETE"),
            await get(server, "/api/acknowledgements", "POST", b'{"account":"a"}', "application/json"),
            await get(server, "/api/silences"),
        ]
    async with telling(ready=False) as (server, _):
        away = [await get(server, "/api/silences"), await get(server, "/api/alerts")]

    assert [status for status, _ in answers] == [401] * 4
    assert readings.asked == []
    assert [status for status, _ in away] == [503, 503]


async def test_the_page_is_served_whole_and_from_here_alone() -> None:
    """Every file the page names is there, and the policy of every answer lets nothing in from elsewhere."""
    async with serving() as server:
        status, page = await get(server, "/")
        assert status == 200
        for path in set(re.findall(rb'(?:href|src)="(/static/[^"]+)"', page)):
            assert (await get(server, path.decode()))[0] == 200, path
        assert b"http:" not in page and b"https:" not in page
        assert (await get(server, "/static/nothing.js"))[0] == 404
        assert (await get(server, "/static/../index.html"))[0] == 404


async def test_the_stream_tells_what_has_changed_and_ends_with_the_server() -> None:
    """The first look shows everything; later ones what is new; stopping the server ends it within its grace."""
    readings = Fixed(ready=True)
    server = HttpServer(build_app(readings), host="127.0.0.1", port=0)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(server.run())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /api/live?limit=9999&level=watch HTTP/1.1\r\nHost: localhost\r\n\r\n".replace(b"9999", b"999"))
        text = await reader.readuntil(b'event: board\ndata: {"limit":200,"n":1}')
        assert b"text/event-stream" in text and b'event: status\ndata: {"ready":true}' in text
        await reader.readuntil(b'event: events\ndata: [{"n":1}]')
        assert readings.watchers == 1
        readings.number = 2
        await reader.readuntil(b'event: board\ndata: {"limit":200,"n":2}')
        server.stop()
        await reader.read()
        writer.close()
    assert readings.watchers == 0


async def test_a_taken_port_is_an_error_at_start() -> None:
    """The error names the key and the address."""
    async with serving() as server:
        with pytest.raises(ConfigError, match=rf"http\.port: 127\.0\.0\.1:{server.port}: expected a free address"):
            HttpServer(build_app(Fixed(ready=True)), host="127.0.0.1", port=server.port)
