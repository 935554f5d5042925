"""What people see and tell of the alert policy over HTTP: what stands, silences, acknowledgements.

A request is written to the ledger, from whichever process is asked, and the process that decides takes it within a second
(`ledger.requests`): the answer 202 says that it is written. A body has to be called JSON: a form of another site cannot send such a one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any, Protocol

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from monitor.alerting.policy import Firing, Silence
from monitor.alerting.requests import acknowledgement
from monitor.errors import ConfigError, LedgerUnavailable
from monitor.margin.levels import Level
from monitor.service.spans import end_ms

__all__ = ["PolicyReadings", "policy_routes"]

BODY_BYTES = 4_096
MATCHING = ("account", "pool", "group", "venue", "about")


class PolicyReadings(Protocol):
    """What is asked of the daemon."""

    def firing(self) -> Sequence[Firing] | None:
        """What stands above healthy by the policy of this process; None where it runs none."""

    async def silences(self) -> Sequence[Silence]:
        """Silences that are stored. Raises LedgerUnavailable."""

    async def ask(self, kind: str, data: bytes) -> None:
        """Puts a request to every policy of the ledger. Raises LedgerUnavailable."""


def policy_routes(readings: PolicyReadings) -> list[Route]:
    """The routes."""

    async def alerts(_request: Request) -> Response:
        """What stands above healthy as the alert policy sees it; 503 where this process runs no policy.

        Levels, what is unknown, and rules: since when, whom it was told, whether it is acknowledged or silenced.
        """
        found = readings.firing()
        if found is None:
            raise HTTPException(503, "no alert policy here: this process does not run the alerts stage, or alerts.policy is not set")
        return _json({"alerts": [_firing(each) for each in found]})

    async def silences(_request: Request) -> Response:
        """The silences in force, the one that ends first first."""
        now_ms = time.time_ns() // 1_000_000
        found = {each.id: each for each in await _stored(readings) if each.until_ms > now_ms}
        return _json({"silences": [orjson.loads(each.to_json()) for each in sorted(found.values(), key=lambda each: each.until_ms)]})

    async def add_silence(request: Request) -> Response:
        """Adds a silence; the body is a JSON object. 202 with its `id`; 400 for what makes no sense.

        reason: Why; required.
        author: Who; required.
        for: How long, as `30m`, `2h`, `3d`; at most 30 days. Or `until`.
        until: When it ends, with a zone: `2026-01-31T18:00:00Z`.
        account: Only these; a pattern with `*`. Likewise `pool`, `group`, `venue`, and `about` (level, unknown, blind, or a rule).
        up_to: The worst severity that it holds back: margin_call unless said otherwise.
        """
        body = await _body(request, {"reason", "author", "for", "until", "up_to", *MATCHING})
        now_ms = time.time_ns() // 1_000_000
        try:
            silence = Silence(
                id=secrets.token_hex(4),
                reason=body.get("reason", ""),
                author=body.get("author", ""),
                from_ms=now_ms,
                until_ms=end_ms(now_ms, body.get("for"), body.get("until")),
                up_to=Level.of(body.get("up_to", Level.MARGIN_CALL.word)),
                **{name: body[name] for name in MATCHING if name in body},
            )
        except ConfigError as error:
            raise HTTPException(400, f"for, until: expected {error.expected}") from None
        except (ValueError, KeyError) as error:
            raise HTTPException(400, str(error)) from None
        await _ask(readings, "silence", silence.to_json())
        return _json({"id": silence.id}, status=202)

    async def end_silence(request: Request) -> Response:
        """Ends a silence; what it held back and still stands is said. 202, or 404 when there is none of this id."""
        silence_id = request.path_params["id"]
        if silence_id not in {each.id for each in await _stored(readings)}:
            raise HTTPException(404, f"no silence {silence_id!r}")
        await _ask(readings, "unsilence", silence_id.encode())
        return _json({"id": silence_id}, status=202)

    async def acknowledge(request: Request) -> Response:
        """Somebody has seen it: no repeats and no escalation until it gets worse; the body is a JSON object. 202.

        It also ends when the thing is over, or `acknowledged_for` has passed.

        account: Whose; required; a pattern with `*`.
        pool: Only this pool; a pattern.
        about: Only this: level, unknown, or a rule; a pattern.
        """
        body = await _body(request, {"account", "pool", "about"})
        if not body.get("account"):
            raise HTTPException(400, "account: expected an account, or a pattern with *")
        await _ask(readings, "acknowledge", acknowledgement(body["account"], body.get("pool", "*"), body.get("about", "*")))
        return _json({"account": body["account"]}, status=202)

    return [
        Route("/api/alerts", alerts),
        Route("/api/silences", silences),
        Route("/api/silences", add_silence, methods=["POST"]),
        Route("/api/silences/{id}", end_silence, methods=["DELETE"]),
        Route("/api/acknowledgements", acknowledge, methods=["POST"]),
    ]


async def _body(request: Request, known: set[str]) -> dict[str, str]:
    """The JSON object of a request, all of whose values are texts. Raises HTTPException."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "content-type: expected application/json")
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_BYTES:
            raise HTTPException(413, f"expected at most {BODY_BYTES} bytes")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise HTTPException(400, f"not JSON: {error}") from None
    if not isinstance(body, dict) or not all(isinstance(value, str) for value in body.values()):
        raise HTTPException(400, "expected an object of texts")
    if unknown := body.keys() - known:
        raise HTTPException(400, f"{min(unknown)}: expected one of {', '.join(sorted(known))}")
    return body


async def _stored(readings: PolicyReadings) -> Sequence[Silence]:
    try:
        return await readings.silences()
    except LedgerUnavailable as error:
        raise HTTPException(503, f"the ledger cannot be read: {error}") from None


async def _ask(readings: PolicyReadings, kind: str, data: bytes) -> None:
    try:
        await readings.ask(kind, data)
    except LedgerUnavailable as error:
        raise HTTPException(503, f"the ledger cannot be written: {error}") from None


def _firing(each: Firing) -> dict[str, Any]:
    return {
        "account": each.account,
        "pool": each.pool,
        "about": each.about,
        "severity": each.severity.word,
        "since_ms": each.since_ms,
        "unknown": each.unknown,
        "acknowledged_until_ms": each.acknowledged_until_ms,
        "silenced": each.silenced,
        "told": {route: level.word for route, level in each.told.items()},
    }


def _json(body: Any, *, status: int = 200) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")
