"""The live page's stream of server-sent events: the page of accounts somebody looks at, the status, new events, one account in full.

Each kind is sent when it has changed, and the status twice a second in any case, so that a reader knows within seconds that a line is dead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol

import orjson

from monitor.service.http_query import AccountQuery

__all__ = ["MOST_WATCHERS", "LiveReadings", "live_stream"]

LOOK_S = 0.1
ACCOUNT_S = 0.4
EVENTS_S = 0.3
STATUS_S = 0.5
EVENTS_SHOWN = 60
MOST_WATCHERS = 32


class LiveReadings(Protocol):
    """What the stream asks of the daemon."""

    watchers: int

    def version(self) -> tuple[int, ...] | None:
        """Changes with every price, document and verdict; None while there are no accounts here."""

    def page(self, query: AccountQuery) -> dict[str, Any] | None:
        """One page of accounts with distances to liquidation."""

    def status(self) -> dict[str, Any]:
        """The head of the page."""

    def written(self) -> int:
        """Changes with every event."""

    async def latest(self, limit: int) -> list[dict[str, Any]]:
        """The newest events in short."""

    async def account_live(self, account_id: str) -> dict[str, Any] | None:
        """One account in full."""


async def live_stream(readings: LiveReadings, query: AccountQuery, account: str | None, closing: asyncio.Event) -> AsyncIterator[bytes]:
    """Server-sent events until the reader goes or the server closes."""
    seen: tuple[int, ...] | None = None
    sent: dict[str, bytes] = {}
    due = dict.fromkeys(("status", "events", "account"), 0.0)
    written = -1

    def message(kind: str, body: Any) -> bytes:
        data = orjson.dumps(body)
        if sent.get(kind) == data:
            return b""
        sent[kind] = data
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

    readings.watchers += 1
    try:
        yield b"retry: 1000\n\n"
        while not closing.is_set():
            now, version = time.monotonic(), readings.version()
            if now >= due["status"]:
                due["status"] = now + STATUS_S
                yield message("status", readings.status())
            if account is not None and now >= due["account"]:
                due["account"] = now + ACCOUNT_S
                yield message("account", await readings.account_live(account))
            elif account is None and version is not None and (version != seen or now + LOOK_S >= due["status"]):
                seen = version
                yield message("board", readings.page(query))
            if now >= due["events"] and readings.written() != written:
                due["events"] = now + EVENTS_S
                written = readings.written()
                yield message("events", await readings.latest(EVENTS_SHOWN))
            await asyncio.sleep(LOOK_S)
    finally:
        readings.watchers -= 1
