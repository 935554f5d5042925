"""HTTP: metrics, health and the read-only API, served from the daemon's own event loop.

`/livez` says whether to restart the process (its evaluator makes progress); `/readyz` whether to rely on it (accounts loaded, prices
fresh, ledger writable); `?verbose` lists the checks. Aliases: `/healthz`, `/-/healthy`, `/-/ready`. Only GET and HEAD exist.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from monitor.errors import ConfigError

__all__ = ["AccountQuery", "Check", "HttpServer", "Readings", "build_app"]

MAX_PAGE = 1_000


class Check(NamedTuple):
    """One line of `/readyz?verbose`."""

    name: str
    passed: bool
    detail: str = ""


class AccountQuery:
    """What a reader asks of the account list."""

    __slots__ = ("group", "level", "limit", "offset", "order", "search", "venue")

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self.limit = _whole(parameters, "limit", 50, MAX_PAGE)
        self.offset = _whole(parameters, "offset", 0, 10**9)
        self.order = parameters.get("order", "danger")
        if self.order not in ("danger", "id"):
            raise HTTPException(400, f"order: {self.order!r}: expected danger or id")
        self.group = parameters.get("group")
        self.venue = parameters.get("venue")
        self.level = parameters.get("level")
        self.search = parameters.get("search")


class Readings(Protocol):
    """What the HTTP layer asks of the daemon. Every answer is immediate: nothing here waits for Redis, except `account` and `events`."""

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


def build_app(readings: Readings) -> Starlette:
    """The ASGI application."""

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
        return _json({"events": await readings.events(_whole(request.query_params, "limit", 50, MAX_PAGE))})

    async def feeds(_request: Request) -> Response:
        """State of each venue's feed: readiness, stale and missing symbols, messages, reconnects, delay and clock skew."""
        return _json(readings.feeds())

    async def on_error(_request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _json({"error": error.detail}, status=error.status_code)

    return Starlette(
        routes=[
            *(Route(path, live) for path in ("/livez", "/healthz", "/-/healthy")),
            *(Route(path, ready) for path in ("/readyz", "/-/ready")),
            Route("/metrics", metrics),
            Route("/api/accounts", accounts),
            Route("/api/accounts/{id}", account),
            Route("/api/events", events),
            Route("/api/feeds", feeds),
        ],
        exception_handlers={HTTPException: on_error},
    )


class HttpServer:
    """Serves an application on one address until told to stop. The socket is bound at once, so a taken port is an error at start."""

    def __init__(self, app: Starlette, *, host: str, port: int) -> None:
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
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2, limit_concurrency=256)
        self._server = _Server(config)

    async def run(self) -> None:
        """Serves until cancelled or `stop` is called."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            if self._server.started and not self._server.should_exit:
                await self._server.shutdown(sockets=[self._socket])
            self._socket.close()

    def stop(self) -> None:
        """Lets `run` end."""
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


def _whole(parameters: Mapping[str, str], name: str, default: int, highest: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or int(text) > highest:
        raise HTTPException(400, f"{name}: {text!r}: expected a whole number from 0 to {highest}")
    return int(text)
