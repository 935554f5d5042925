"""OKX v5 public WebSocket as a server: an event for each argument, errors by code, bare text pings."""

from __future__ import annotations

from typing import Any

import orjson

from monitor.margin.prices import PriceKind
from monitor.wire.dialects.base import Heard, numbers_of
from monitor.wire.quotes import Quotes
from monitor.wire.venues.okx import family_of

__all__ = ["OkxDialect", "OkxPeer"]


class OkxPeer:
    """One connection."""

    def __init__(self) -> None:
        self.topics: dict[str, None] = {}
        self.refuse: set[str] = set()

    def greeting(self) -> list[bytes]:
        """Nothing."""
        return []

    def hear(self, message: bytes, latest: Quotes) -> Heard:
        """`ping`, subscribe, unsubscribe. Arguments of one request are answered one by one."""
        del latest
        if message == b"ping":
            return Heard([b"pong"])
        try:
            body = orjson.loads(message)
            operation, args = body["op"], [(arg["channel"], arg.get("instId") or arg["instFamily"], arg) for arg in body["args"]]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            text = f"Invalid request: {message[:100].decode('utf-8', 'replace')}"
            return Heard([orjson.dumps({"event": "error", "code": "60012", "msg": text, "connId": "sim"})])
        replies = []
        for channel, name, arg in args:
            topic = f"{channel}:{name}"
            if operation == "subscribe" and topic in self.refuse:
                text = f"Wrong URL or channel:{channel},instId:{name} doesn't exist. Please use the correct URL, channel and parameters."
                replies.append(orjson.dumps({"event": "error", "code": "60018", "msg": text, "connId": "sim"}))
                continue
            if operation == "subscribe":
                self.topics[topic] = None
            else:
                self.topics.pop(topic, None)
            replies.append(orjson.dumps({"event": operation, "arg": arg, "connId": "sim"}))
        return Heard(replies)

    def frames(self, quotes: Quotes) -> list[bytes]:
        """One push a topic."""
        frames = []
        for topic in self.topics:
            channel, _, name = topic.partition(":")
            rows = self._rows(channel, name, quotes)
            if rows:
                arg = {"channel": channel, "instFamily" if channel == "opt-summary" else "instId": name}
                frames.append(orjson.dumps({"arg": arg, "data": rows}))
        return frames

    @staticmethod
    def _rows(channel: str, name: str, quotes: Quotes) -> list[dict[str, Any]]:
        stamp = str(quotes.time_ms)
        if channel == "opt-summary":
            volatilities, forwards = numbers_of(quotes, PriceKind.VOLATILITY), numbers_of(quotes, PriceKind.FORWARD)
            return [
                {"instId": option, "uly": name, "markVol": text, "fwdPx": forwards.get(option, ""), "ts": stamp}
                for option, text in volatilities.items()
                if family_of(option) == name
            ]
        kind, field = {
            "mark-price": (PriceKind.MARK, "markPx"),
            "index-tickers": (PriceKind.INDEX, "idxPx"),
            "funding-rate": (PriceKind.FUNDING_RATE, "fundingRate"),
        }.get(channel, (PriceKind.MARK, ""))
        key = name.removesuffix("-USD") if channel == "index-tickers" else name
        text = numbers_of(quotes, kind).get(key) if field else None
        if text is None:
            return []
        row = {"instId": name, field: text, "ts": stamp}
        if kind is PriceKind.FUNDING_RATE:
            row["fundingTime"] = numbers_of(quotes, PriceKind.FUNDING_TIME).get(name, "")
        return [row]


class OkxDialect:
    """The server."""

    venue = "okx"
    messages_per_s: int | None = None
    connects: tuple[int, float] | None = (3, 1.0)
    session_s: float | None = None
    ping_interval_s: float | None = None

    def peer(self, target: str) -> OkxPeer | None:
        """`/ws/v5/public`."""
        return OkxPeer() if target == "/ws/v5/public" else None
