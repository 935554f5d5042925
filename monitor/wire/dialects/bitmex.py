"""BitMEX's realtime server: a welcome, a partial of whole rows on subscription, then rows of what changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from monitor.margin.prices import PriceKind
from monitor.wire.dialects.base import Changes, Heard, numbers_of
from monitor.wire.quotes import Quotes

__all__ = ["BitmexDialect", "BitmexPeer"]


class BitmexPeer:
    """One connection."""

    def __init__(self) -> None:
        self.topics: dict[str, None] = {}
        self.refuse: set[str] = set()
        self._changes = Changes()

    def greeting(self) -> list[bytes]:
        """The welcome."""
        return [orjson.dumps({"info": "Welcome to the BitMEX Realtime API.", "version": "2.0.0", "limit": {"remaining": 39}})]

    def hear(self, message: bytes, latest: Quotes) -> Heard:
        """`ping`, subscribe, unsubscribe."""
        if message == b"ping":
            return Heard([b"pong"])
        try:
            body = orjson.loads(message)
            operation, args = body["op"], [name for name in body["args"] if type(name) is str]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return Heard([orjson.dumps({"status": 400, "error": "Unrecognized request.", "meta": {}, "request": {}})])
        replies = []
        for topic in args:
            if operation == "unsubscribe":
                self.topics.pop(topic, None)
                replies.append(orjson.dumps({"success": True, "unsubscribe": topic, "request": body}))
            elif topic in self.refuse or topic.partition(":")[0] != "instrument":
                error = {"status": 400, "error": f"Unknown table: {topic}", "meta": {}, "request": {"op": operation, "args": [topic]}}
                replies.append(orjson.dumps(error))
            elif topic in self.topics:
                error = {"status": 400, "error": "You are already subscribed to this topic: " + topic, "meta": {}}
                replies.append(orjson.dumps({**error, "request": {"op": operation, "args": [topic]}}))
            else:
                self.topics[topic] = None
                replies.append(orjson.dumps({"success": True, "subscribe": topic, "request": body}))
                rows = [self._row(name, latest, whole=True) for name in self._names(topic, latest)]
                replies.append(orjson.dumps({"table": "instrument", "action": "partial", "keys": ["symbol"], "data": rows}))
        return Heard(replies)

    @staticmethod
    def _names(topic: str, quotes: Quotes) -> list[str]:
        wanted = topic.partition(":")[2]
        return [name for name in numbers_of(quotes, PriceKind.MARK) if not wanted or name == wanted]

    def _row(self, name: str, quotes: Quotes, *, whole: bool) -> dict[str, Any]:
        """What changed of one instrument; a whole row also says what the instrument is."""
        row: dict[str, Any] = {"symbol": name}
        if whole:
            self._changes.forget(name)
            perpetual = name.endswith(("USD", "USDT"))
            quote = "USDT" if name.endswith("USDT") else "USD"
            row |= {"typ": "FFWCSX" if perpetual else "FFCCSX", "underlying": name.removesuffix(quote), "quoteCurrency": quote}
        for kind, field in ((PriceKind.MARK, "markPrice"), (PriceKind.FUNDING_RATE, "fundingRate")):
            text = self._changes.take(quotes, kind, name)
            if text is not None:
                row[field] = float(text)
        moment = self._changes.take(quotes, PriceKind.FUNDING_TIME, name)
        if moment is not None:
            row["fundingTimestamp"] = _iso(int(moment))
        index = numbers_of(quotes, PriceKind.INDEX).get(name.removesuffix("USD"))
        if index is not None and name.endswith("USD") and (whole or "markPrice" in row):
            row["indicativeSettlePrice"] = float(index)
        if len(row) > 1:
            row["timestamp"] = _iso(quotes.time_ms)
        return row

    def frames(self, quotes: Quotes) -> list[bytes]:
        """One update with the rows that changed."""
        frames = []
        for topic in self.topics:
            rows = [row for name in self._names(topic, quotes) if len(row := self._row(name, quotes, whole=False)) > 1]
            if rows:
                frames.append(orjson.dumps({"table": "instrument", "action": "update", "data": rows}))
        return frames


def _iso(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class BitmexDialect:
    """The server."""

    venue = "bitmex"
    messages_per_s: int | None = None
    connects: tuple[int, float] | None = (20, 3600.0)
    session_s: float | None = None
    ping_interval_s: float | None = None

    def peer(self, target: str) -> BitmexPeer | None:
        """`/realtime`."""
        return BitmexPeer() if target.partition("?")[0] == "/realtime" else None
