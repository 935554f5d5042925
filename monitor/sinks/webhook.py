"""Rows as signed JSON to an address of the operator's own.

    POST <path>
    Content-Type: application/json
    X-Margin-Monitor-Id: <row id>                       the same in every copy: drop what you have seen
    X-Margin-Monitor-Signature: t=<unix seconds>,v1=<hex>   HMAC-SHA256 of "<t>." + body, one v1 for each secret in use

A receiver checks signature and age before it reads the body, answers 2xx when it has stored the row, 429 or 503 with Retry-After to slow us
down, 4xx for a row that it will never take.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from monitor.sinks.base import Reason, SinkStatistics, is_addressed_to, read_body, shortened
from monitor.sinks.http_post import HttpFailure, PostOptions, Target, delivery_of, post
from monitor.wire.rows import Delivered, Delivery, Refused, Row, Unavailable

__all__ = ["ID_HEADER", "SIGNATURE_HEADER", "WebhookOptions", "WebhookSink", "is_signed_by", "signature"]

ID_HEADER = "X-Margin-Monitor-Id"
SIGNATURE_HEADER = "X-Margin-Monitor-Signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOptions:
    """Where rows go and how they are signed.

    Attributes:
        secrets: Each signs; two while one replaces the other. At least one.
        headers: Sent along, e.g. an Authorization header.
        max_body_bytes: Above it inputs, then positions, then the cure are left out; `truncated` names them.
    """

    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    post: PostOptions = field(default_factory=PostOptions)
    max_body_bytes: int = 1_048_576


def signature(secrets: tuple[str, ...], body: bytes, at_s: int) -> str:
    """The value of the signature header."""
    signed = b"%d." % at_s + body
    return ",".join([f"t={at_s}", *(f"v1={hmac.new(secret.encode(), signed, sha256).hexdigest()}" for secret in secrets)])


def is_signed_by(secret: str, header: str, body: bytes, now_s: float, *, tolerance_s: float = 300.0) -> bool:
    """For receivers: whether the header signs this body with the secret, not longer ago (nor further ahead) than the tolerance."""
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdecimal()) or abs(now_s - int(times[0])) > tolerance_s:
        return False
    expected = hmac.new(secret.encode(), f"{times[0]}.".encode() + body, sha256).hexdigest()
    return any(hmac.compare_digest(value.encode(), expected.encode()) for name, _, value in parts if name == "v1")


class WebhookSink:
    """One address. Raises ValueError for options that cannot work, with what was expected."""

    def __init__(self, options: WebhookOptions, *, name: str = "webhook", clock: Callable[[], float] = time.time) -> None:
        if not options.secrets or not all(len(secret) >= 16 for secret in options.secrets):
            raise ValueError("a secret of at least 16 characters")
        self.name = name
        self.statistics = SinkStatistics()
        self._options, self._clock = options, clock
        self._target = Target.of(options.url)

    async def open(self) -> None:
        """Nothing to do: every row has its own connection."""

    async def deliver(self, row: Row) -> Delivery:
        """Posts one row. A notice for other sinks counts as delivered."""
        try:
            body = read_body(row)
        except ValueError as error:
            return self.statistics.count(Refused(Reason.REJECTED, str(error)))
        if not is_addressed_to(body, self.name):
            return Delivered()
        payload = shortened(row.body, body, self._options.max_body_bytes)
        self.statistics.trimmed += payload is not row.body
        now = self._clock()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "margin-monitor",
            ID_HEADER: row.id,
            SIGNATURE_HEADER: signature(self._options.secrets, payload, int(now)),
            **self._options.headers,
        }
        self.statistics.entered()
        try:
            answer = await post(self._target, payload, headers, self._options.post)
        except HttpFailure as failure:
            return self.statistics.count(Unavailable(failure.reason, detail=failure.detail))
        finally:
            self.statistics.in_flight -= 1
        return self.statistics.count(delivery_of(answer, now))

    async def close(self) -> None:
        """Nothing to do."""
