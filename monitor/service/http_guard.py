"""Who may ask: the token or its cookie, the Host header, and headers that keep a browser from doing more than the page needs.

The token is the bearer of a request's Authorization header, or was given once in the login form, which leaves a cookie that no script can
read: `<expiry>.<HMAC of the expiry under the token>`. `/livez` and `/readyz` (and their aliases) are open: probes have no secrets.
Without a token the daemon listens on loopback only, and answers only to the names of loopback, so that no page from elsewhere can have a
name of its own resolved to 127.0.0.1 and read along (DNS rebinding). With client certificates TLS has asked before anything gets here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monitor.page.assets import POLICY

__all__ = ["COOKIE", "OPEN", "Guard"]

COOKIE = "margin_monitor"
SESSION_S = 12 * 3600
OPEN = frozenset({"/livez", "/healthz", "/-/healthy", "/readyz", "/-/ready"})
FORM = frozenset({"/login", "/static/login.html", "/static/style.css", "/static/icon.svg"})
"""What the login form is made of."""

FORM_BYTES = 4_096
WRONG_S = 0.5
"""A wrong token waits so long for its answer."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware before every route.

    Args:
        token: None: nobody is asked for one.
        hosts: Names beside loopback's by which the daemon may be asked while it has no token.
        secure: The cookie travels over TLS only.
    """

    def __init__(self, app: ASGIApp, *, token: str | None = None, hosts: Sequence[str] = (), secure: bool = False) -> None:
        self._app, self._token, self._secure = app, token, secure
        self._hosts = frozenset({"localhost", "127.0.0.1", "::1", *(host.lower() for host in hosts)})
        self._all_hosts = token is not None or "*" in hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers, or hands on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = await self._answer(scope, receive)
        await (self._app if answer is None else answer)(scope, receive, with_headers)

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        """What is answered here; None where the request may go on."""
        headers, path = Headers(scope=scope), scope["path"]
        if path in OPEN:
            return None
        if not self._all_hosts and _name(headers.get("host", "")) not in self._hosts:
            return PlainTextResponse("this address is not one that the daemon goes by: http.allowed_hosts\n", 421)
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            return PlainTextResponse("not for other sites\n", 403)
        if self._token is None:
            return RedirectResponse("/", 303) if path == "/login" else None
        if path == "/login" and scope["method"] == "POST":
            return await self._log_in(Request(scope, receive))
        if path in FORM or self._is_known(headers):
            return None
        if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse("/login", 303)
        return PlainTextResponse("a token is needed: Authorization: Bearer ...\n", 401, headers={"www-authenticate": "Bearer"})

    def _is_known(self, headers: Headers) -> bool:
        assert self._token is not None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return _same(given.strip(), self._token)
        try:
            crumb = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        if crumb is None:
            return False
        expiry, _, seal = crumb.value.partition(".")
        return _same(seal, self._seal(expiry)) and expiry.isdigit() and int(expiry) > time.time()

    def _seal(self, expiry: str) -> str:
        assert self._token is not None
        return hmac.new(self._token.encode(), b"page:" + expiry.encode(), hashlib.sha256).hexdigest()

    async def _log_in(self, request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES:
                return PlainTextResponse("too much\n", 413)
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0].strip()
        assert self._token is not None
        if not _same(given, self._token):
            await asyncio.sleep(WRONG_S)
            return RedirectResponse("/login?wrong", 303)
        expiry = str(int(time.time()) + SESSION_S)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE, f"{expiry}.{self._seal(expiry)}", max_age=SESSION_S, httponly=True, samesite="strict", secure=self._secure, path="/"
        )
        return answer


def _same(given: str, wanted: str) -> bool:
    """Compares in a time that tells nothing, not even the length."""
    return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), hashlib.sha256(wanted.encode()).digest())


def _name(host: str) -> str:
    """The name of a Host header, without port and brackets, in lower case."""
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|([^:\[\]]+)(?::\d+)?", host)
    return "" if found is None else (found[1] or found[2]).lower()
