"""Bybit v5 public streams as a server: a snapshot on subscription, then deltas of what changed; options answer in their own form."""

from __future__ import annotations

from typing import Any

import orjson

from monitor.margin.prices import PriceKind
from monitor.wire.dialects.base import Changes, Heard, numbers_of
from monitor.wire.quotes import Quotes
from monitor.wire.venues.bybit import pair_of

__all__ = ["BybitDialect", "BybitPeer"]

_FIELDS = {
    PriceKind.MARK: "markPrice",
    PriceKind.FUNDING_RATE: "fundingRate",
    PriceKind.FUNDING_TIME: "nextFundingTime",
    PriceKind.VOLATILITY: "markPriceIv",
    PriceKind.FORWARD: "underlyingPrice",
    PriceKind.OPEN_INTEREST: "openInterest",
}


class BybitPeer:
    """One connection to one of the addresses."""

    def __init__(self, category: str) -> None:
        self.category = category
        self.topics: dict[str, None] = {}
        self.refuse: set[str] = set()
        self._changes = Changes()
        self._begun: set[str] = set()

    def greeting(self) -> list[bytes]:
        """Nothing."""
        return []

    def hear(self, message: bytes, latest: Quotes) -> Heard:
        """Subscribe, unsubscribe and ping. A request with one unknown topic is refused whole, except for options."""
        del latest
        try:
            body = orjson.loads(message)
            args = [topic for topic in body.get("args", []) if type(topic) is str]
        except (orjson.JSONDecodeError, AttributeError, TypeError):
            return Heard([orjson.dumps({"success": False, "ret_msg": "error:invalid json", "op": ""})])
        operation, request = body.get("op"), str(body.get("req_id", ""))
        if operation == "ping":
            answer: dict[str, Any] = {"success": True, "ret_msg": "pong", "conn_id": "sim", "req_id": request, "op": "ping"}
            return Heard([orjson.dumps({"args": ["1"], "op": "pong"} if self.category == "option" else answer)])
        if operation == "unsubscribe":
            for topic in args:
                self.topics.pop(topic, None)
                self._begun.discard(topic)
            return Heard([self._said(request, "unsubscribe", "")])
        if operation != "subscribe":
            return Heard([self._said(request, str(operation), "error:unknown op", success=False)])
        bad = [topic for topic in args if topic in self.refuse]
        good = [topic for topic in args if topic not in self.refuse]
        if self.category == "option":
            self.topics.update(dict.fromkeys(good))
            data = {"failTopics": bad, "successTopics": good}
            return Heard([orjson.dumps({"success": True, "conn_id": "sim", "data": data, "type": "COMMAND_RESP"})])
        if bad:
            return Heard([self._said(request, "subscribe", f"error:handler not found,topic:{bad[0]}", success=False)])
        for topic in args:
            if topic in self.topics:
                return Heard([self._said(request, "subscribe", f"error:already subscribed,topic:{topic}", success=False)])
        self.topics.update(dict.fromkeys(args))
        return Heard([self._said(request, "subscribe", "")])

    @staticmethod
    def _said(request: str, operation: str, text: str, *, success: bool = True) -> bytes:
        return orjson.dumps({"success": success, "ret_msg": text, "conn_id": "sim", "req_id": request, "op": operation})

    def frames(self, quotes: Quotes) -> list[bytes]:
        """One message a topic: everything the first time, then what changed; a quiet mark is told by another field's change."""
        frames = []
        marks, indices = numbers_of(quotes, PriceKind.MARK), numbers_of(quotes, PriceKind.INDEX)
        for topic in self.topics:
            name = topic.removeprefix("tickers.")
            if name not in marks:
                continue
            first = topic not in self._begun or self.category == "option"  # options send snapshots only
            if first:
                self._begun.add(topic)
                self._changes.forget(name)
            data = {"symbol": name}
            for kind, field in _FIELDS.items():
                text = self._changes.take(quotes, kind, name)
                if text is not None:
                    data[field] = text
            pair = pair_of(name)
            if pair is not None and (first or "markPrice" in data):
                data["indexPrice"] = indices.get(pair.split("/")[0], marks[name])
            data["turnover24h"] = str(quotes.time_ms)
            frames.append(
                orjson.dumps({"topic": topic, "type": "snapshot" if first else "delta", "data": data, "cs": 1, "ts": quotes.time_ms})
            )
        return frames


class BybitDialect:
    """The server."""

    venue = "bybit"
    messages_per_s: int | None = None
    connects: tuple[int, float] | None = (500, 300.0)
    session_s: float | None = None
    ping_interval_s: float | None = None

    def peer(self, target: str) -> BybitPeer | None:
        """`/v5/public/linear`, `/inverse`, `/option`."""
        prefix, _, category = target.rpartition("/")
        return BybitPeer(category) if prefix == "/v5/public" and category in {"linear", "inverse", "option"} else None
