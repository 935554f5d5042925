"""HTTP: the live page, metrics, health and the API, served from the daemon's own event loop.

`/livez` says whether to restart the process (its evaluator makes progress); `/readyz` whether to rely on it (accounts loaded, prices
fresh, ledger writable); `?verbose` lists the checks. Aliases: `/healthz`, `/-/healthy`, `/-/ready`. Nothing here changes an account or a
setting: what people tell the alert policy (`http_policy`) is all that can be written, beside the login form.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from monitor.errors import ConfigError, RefusedError
from monitor.page.assets import assets
from monitor.page.what_if import Changes, changes_of
from monitor.service.http_guard import Guard
from monitor.service.http_policy import PolicyReadings, policy_routes
from monitor.service.http_query import MAX_PAGE, AccountQuery, whole
from monitor.service.stream import MOST_WATCHERS, LiveReadings, live_stream

__all__ = ["AccountQuery", "Check", "HttpServer", "Readings", "Tls", "build_app"]

LIVE_ROWS = 200
WHAT_IFS = 4
"""So many what-if questions are worked on at a time; each is some milliseconds of one core."""


class Check(NamedTuple):
    """One line of `/readyz?verbose`."""

    name: str
    passed: bool
    detail: str = ""


class Tls(NamedTuple):
    """Files in PEM form. `client_authority`: who signs the certificates that clients must show; None: none are asked for."""

    certificate: Path
    key: Path
    client_authority: Path | None = None


class Readings(LiveReadings, PolicyReadings, Protocol):
    """What the HTTP layer asks of the daemon. Every answer is immediate: nothing here waits for Redis, except for events."""

    def live(self) -> Sequence[Check]:
        """Checks of `/livez`."""

    def ready(self) -> Sequence[Check]:
        """Checks of `/readyz`."""

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition for an Accept header, and its content type."""

    def accounts(self, query: AccountQuery) -> dict[str, Any] | None:
        """One page of accounts, worst first; None where this process holds none."""

    async def account(self, account_id: str) -> dict[str, Any] | None:
        """One account in full: the result document's account, its events and its document's version; None if unknown."""

    async def events(self, limit: int) -> list[dict[str, Any]]:
        """The newest events, newest first."""

    def feeds(self) -> dict[str, Any]:
        """State of every venue's feed."""

    def history(self, account_id: str) -> list[tuple[float, float | None]]:
        """Margin ratios of an account over time."""

    def explain(self, account_id: str) -> list[dict[str, Any]] | None:
        """Every term of an account's sums; None if unknown. Raises RefusedError."""

    async def what_if(self, account_id: str, changes: Changes) -> dict[str, Any] | None:
        """An account after some changes; None if unknown. Raises RefusedError."""


def build_app(readings: Readings, *, token: str | None = None, hosts: Sequence[str] = (), secure: bool = False) -> Starlette:
    """The ASGI application. `token`, `hosts`, `secure`: see `Guard`. Setting `app.state.closing` ends its streams."""
    static = assets()
    closing = asyncio.Event()
    trying = asyncio.Semaphore(WHAT_IFS)

    def file(name: str, request: Request) -> Response:
        asset = static.get(name)
        if asset is None:
            raise HTTPException(404, f"no file {name!r}")
        headers = {"etag": asset.tag, "cache-control": "no-cache"}
        if request.headers.get("if-none-match") == asset.tag:
            return Response(status_code=304, headers=headers)
        return Response(asset.data, media_type=asset.content_type, headers=headers)

    async def page(request: Request) -> Response:
        """The live page."""
        return file("index.html", request)

    async def login(request: Request) -> Response:
        """The form that takes the token."""
        return file("login.html", request)

    async def asset(request: Request) -> Response:
        """A file of the page."""
        return file(request.path_params["path"], request)

    async def live_events(request: Request) -> Response:
        """Server-sent events: `board` (one page of accounts, as /api/accounts), `status`, `events`, `account`; at most 32 readers.

        account: This account in full in place of the board. The other parameters are those of /api/accounts.
        """
        if readings.watchers >= MOST_WATCHERS:
            raise HTTPException(503, f"{MOST_WATCHERS} readers are here already")
        query = AccountQuery(request.query_params)
        query.limit = min(query.limit, LIVE_ROWS)
        stream = live_stream(readings, query, request.query_params.get("account"), closing)
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def history(request: Request) -> Response:
        """Margin ratio over time as `points` of (time in s, ratio or null), of the worst accounts and of those looked at lately."""
        return _json({"points": readings.history(request.path_params["id"])})

    async def explain(request: Request) -> Response:
        """Every term of an account's sums at the present prices, as `margin-monitor evaluate --explain` tells them; 404 if unknown."""
        try:
            found = readings.explain(request.path_params["id"])
        except RefusedError as error:
            raise HTTPException(409, str(error)) from None
        if found is None:
            raise HTTPException(404, f"no account {request.path_params['id']!r}")
        return _json({"sections": found})

    async def what_if(request: Request) -> Response:
        """An account after some changes, exactly: `account` as `evaluate` has it, the `document` that was evaluated, `moves` by pool.

        account: Whose.
        move: Percent by which all prices move, -50 to 50; `ASSET:PERCENT` for one underlying. May be given again, like the following ones.
        trade: `INSTRUMENT:QUANTITY`, signed, at the mark price.
        close: An instrument: every position in it is closed at the mark price.
        deposit: `ASSET:AMOUNT`; negative takes out.
        """
        if trying.locked():
            raise HTTPException(429, "busy with other questions: ask again")
        pairs = [(key, value) for key, value in request.query_params.multi_items() if key != "account"]
        account_id = request.query_params.get("account", "")
        try:
            async with trying:
                found = await readings.what_if(account_id, changes_of(pairs))
        except RefusedError as error:
            raise HTTPException(400, str(error)) from None
        if found is None:
            raise HTTPException(404, f"no account {account_id!r}")
        return _json(found)

    async def live(request: Request) -> Response:
        """200 while the process makes progress; restart it when it is 503.

        verbose: A line for each check.
        """
        return _checks(request, readings.live())

    async def ready(request: Request) -> Response:
        """200 while it can be relied on: accounts loaded, prices fresh, ledger writable; else 503 with what fails.

        verbose: A line for each check, also for those that pass.
        """
        return _checks(request, readings.ready())

    async def metrics(request: Request) -> Response:
        """Prometheus metrics, as text or OpenMetrics, whichever the Accept header asks for."""
        body, content_type = readings.metrics(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type})

    async def accounts(request: Request) -> Response:
        """One page of accounts: `total`, `offset` and `accounts`, each with its pools, levels and margin ratios; 503 without the evaluator.

        order: `danger` (worst first, the default) or `id`.
        limit: At most 1000; 50 by default.
        offset: Accounts to leave out before the page.
        group: Only this group.
        venue: Only this venue.
        level: Only this level: healthy, watch, margin_call, liquidation, bankrupt, or unknown.
        search: Only ids with this in them, whatever the case.
        """
        page = readings.accounts(AccountQuery(request.query_params))
        if page is None:
            raise HTTPException(503, "no accounts here: this process does not run the evaluator stage")
        return _json(page)

    async def account(request: Request) -> Response:
        """One account in full, evaluated exactly at the present prices: every term, its document, its last events; 404 if unknown."""
        found = await readings.account(request.path_params["id"])
        if found is None:
            raise HTTPException(404, f"no account {request.path_params['id']!r}")
        return _json(found)

    async def events(request: Request) -> Response:
        """The newest events of the partitions held here, newest first.

        limit: At most 1000; 50 by default.
        """
        return _json({"events": await readings.events(whole(request.query_params, "limit", 50, MAX_PAGE))})

    async def feeds(_request: Request) -> Response:
        """State of each venue's feed: readiness, stale and missing symbols, messages, reconnects, delay and clock skew."""
        return _json(readings.feeds())

    async def on_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _json({"error": error.detail}, status=error.status_code)

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/login", login),
            Route("/static/{path:path}", asset),
            *(Route(path, live) for path in ("/livez", "/healthz", "/-/healthy")),
            *(Route(path, ready) for path in ("/readyz", "/-/ready")),
            Route("/metrics", metrics),
            Route("/api/accounts", accounts),
            Route("/api/accounts/{id}/history", history),
            Route("/api/accounts/{id}/explain", explain),
            Route("/api/accounts/{id}", account),
            Route("/api/what-if", what_if),
            Route("/api/live", live_events),
            Route("/api/events", events),
            Route("/api/feeds", feeds),
            *policy_routes(readings),
        ],
        exception_handlers={HTTPException: on_error},
        middleware=[Middleware(Guard, token=token, hosts=hosts, secure=secure)],
    )
    app.state.closing = closing
    return app


class HttpServer:
    """Serves an application on one address until told to stop. The socket is bound at once, so a taken port is an error at start."""

    def __init__(self, app: Starlette, *, host: str, port: int, tls: Tls | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((host, port))
            self._socket.listen(128)
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                source="settings", key="http.port", value=f"{host}:{port}", expected=f"a free address ({error.strerror})"
            ) from None
        self.port: int = self._socket.getsockname()[1]
        self.address = f"{'http' if tls is None else 'https'}://{f'[{host}]' if ':' in host else host}:{self.port}"
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2, limit_concurrency=256)
        if tls is not None:
            config.ssl_certfile, config.ssl_keyfile = str(tls.certificate), str(tls.key)
            if tls.client_authority is not None:
                config.ssl_ca_certs, config.ssl_cert_reqs = str(tls.client_authority), ssl.CERT_REQUIRED
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            self._socket.close()
            raise ConfigError(
                source="settings", key="http.tls_cert_file", value=str(error), expected="a certificate, its key and authorities in PEM form"
            ) from None
        self._server, self._closing = _Server(config), app.state.closing

    async def run(self) -> None:
        """Serves until cancelled or `stop` is called."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            if self._server.started and not self._server.should_exit:
                await self._server.shutdown(sockets=[self._socket])
            self._socket.close()

    def stop(self) -> None:
        """Lets `run` end, and the streams."""
        self._closing.set()
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """Leaves the signals to the daemon."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def _checks(request: Request, checks: Sequence[Check]) -> Response:
    passed = all(check.passed for check in checks)
    lines = [f"[{'+' if ok else '-'}]{name} {'ok' if ok else 'failed'}{': ' + detail if detail else ''}" for name, ok, detail in checks]
    failed = [line for line, check in zip(lines, checks, strict=True) if not check.passed]
    text = "\n".join([*lines, "ok" if passed else "failed"]) if "verbose" in request.query_params else "\n".join(failed) or "ok"
    return PlainTextResponse(text + "\n", status_code=200 if passed else 503)


def _json(body: Any, *, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")
