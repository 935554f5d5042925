"""Who may ask over HTTP: tokens, cookies, names of the host, other sites, and what the daemon refuses to do without them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from monitor.service.http import HttpServer, Tls
from monitor.service.http_guard import COOKIE, Guard
from tests.support.certificates import Authority, needs_openssl

TOKEN = "correct horse battery staple"


@asynccontextmanager
async def guarded(
    *, token: str | None = TOKEN, hosts: Sequence[str] = (), secure: bool = False, tls: Tls | None = None
) -> AsyncIterator[HttpServer]:
    """A server with a secret at every path, behind a guard."""

    async def secret(_request: Request) -> Response:
        return PlainTextResponse("secret")

    middleware = [Middleware(Guard, token=token, hosts=hosts, secure=secure)]
    app = Starlette(routes=[Route("/{path:path}", secret, methods=["GET", "POST"])], middleware=middleware)
    app.state.closing = asyncio.Event()
    server = HttpServer(app, host="127.0.0.1", port=0, tls=tls)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(server.run())
        yield server
        server.stop()


async def ask(
    server: HttpServer, path: str, headers: Mapping[str, str] | None = None, *, body: str | None = None
) -> tuple[int, dict[str, str], str]:
    """(status, headers, body) of one request. With a body it is a form."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    sent = {"Host": f"127.0.0.1:{server.port}", "Connection": "close", **(headers or {})}
    if body is not None:
        sent |= {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(body))}
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n" + (body or "")).encode())
    head, _, text = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    status, *rest = head.split("\r\n")
    return int(status.split()[1]), {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}, text


async def test_without_the_token_nothing_but_the_probes_is_told() -> None:
    """Every path is closed; the probes are open; the token as a bearer opens all of them, a wrong one none."""
    async with guarded() as server:
        for path in ("/api/accounts", "/metrics", "/static/app.js", "/livez/../metrics", "/anything"):
            status, headers, text = await ask(server, path)
            assert (status, headers["www-authenticate"]) == (401, "Bearer"), path
            assert "secret" not in text
        for path in ("/livez", "/readyz", "/healthz", "/-/healthy", "/-/ready"):
            assert (await ask(server, path))[0] == 200, path
        assert (await ask(server, "/metrics", {"Authorization": f"Bearer {TOKEN}"}))[2] == "secret"
        for wrong in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"):
            assert (await ask(server, "/metrics", {"Authorization": wrong}))[0] == 401, wrong


async def test_the_form_leaves_a_cookie_that_scripts_cannot_read() -> None:
    """The right token gives an HttpOnly, SameSite cookie that opens the page; the token itself is not in it."""
    async with guarded() as server:
        status, headers, _ = await ask(server, "/", {"Accept": "text/html"})
        assert (status, headers["location"]) == (303, "/login")
        status, headers, _ = await ask(server, "/login", body="token=" + TOKEN.replace(" ", "+"))
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"]
        assert {"httponly", "samesite=strict", "path=/"} <= {part.strip().lower() for part in cookie.split(";")}
        assert TOKEN not in cookie
        crumb = cookie.split(";")[0]
        assert (await ask(server, "/api/accounts", {"Cookie": crumb}))[2] == "secret"
        later = re.sub(r"=(\d+)\.", lambda found: f"={int(found[1]) + 60}.", crumb)
        for forged in (crumb[:-1], later, f"{COOKIE}=", f"{COOKIE}=99999999999.", f"{COOKIE}={TOKEN}"):
            assert (await ask(server, "/api/accounts", {"Cookie": forged}))[0] == 401, forged


async def test_a_wrong_token_in_the_form_leaves_no_cookie() -> None:
    """It is sent back to the form; a body without end is refused."""
    async with guarded() as server:
        status, headers, _ = await ask(server, "/login", body="token=wrong")
        assert (status, headers["location"], "set-cookie" in headers) == (303, "/login?wrong", False)
        assert (await ask(server, "/login", body="token=" + "x" * 10_000))[0] == 413


async def test_over_tls_the_cookie_stays_there() -> None:
    """`secure` is in the cookie when the server speaks TLS."""
    async with guarded(secure=True) as server:
        _, headers, _ = await ask(server, "/login", body="token=" + TOKEN.replace(" ", "+"))
        assert "secure" in {part.strip().lower() for part in headers["set-cookie"].split(";")}


async def test_without_a_token_only_the_names_of_loopback_are_answered() -> None:
    """A name of somebody else's that resolves to 127.0.0.1 gets nothing (DNS rebinding)."""
    async with guarded(token=None, hosts=("monitor.internal",)) as server:
        for host in ("127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:9464", "monitor.internal:9464"):
            assert (await ask(server, "/", {"Host": host}))[2] == "secret", host
        for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:9464", "[::2]", ""):
            status, _, text = await ask(server, "/", {"Host": host})
            assert (status, "secret" in text) == (421, False), host
        assert (await ask(server, "/livez", {"Host": "10.0.0.7:9464"}))[0] == 200


async def test_other_sites_cannot_read_along() -> None:
    """A browser that asks for another site is refused; every answer says that nothing from outside may be loaded."""
    async with guarded(token=None) as server:
        assert (await ask(server, "/", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}))[0] == 403
        status, headers, _ = await ask(server, "/", {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"})
        assert status == 200
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert "access-control-allow-origin" not in headers


@needs_openssl
async def test_mutual_tls_asks_for_a_certificate(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A client without a certificate of the authority does not get as far as HTTP; one with it does."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    certificate, key = authority.issue("server", "IP:127.0.0.1")
    async with guarded(token=None, tls=Tls(certificate, key, authority.certificate)) as server:
        bare = authority.client_context()
        known = authority.client_context()
        known.load_cert_chain(*authority.issue("client", "DNS:client"))
        for context, wanted in ((bare, False), (known, True)):
            text = b""
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
                writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                text = await reader.read()
                writer.close()
            except OSError:  # ssl.SSLError and resets
                pass
            assert (b"secret" in text) is wanted
