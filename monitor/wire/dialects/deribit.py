"""Deribit's JSON-RPC as a server: subscriptions answered with the channels accepted, heartbeats with test requests."""

from __future__ import annotations

from typing import Any

import orjson

from monitor.margin.prices import PriceKind
from monitor.wire.dialects.base import Heard, numbers_of
from monitor.wire.quotes import Quotes
from monitor.wire.venues.deribit import index_of, is_option

__all__ = ["DeribitDialect", "DeribitPeer"]


class DeribitPeer:
    """One connection.

    Attributes:
        unanswered: Test requests sent and not yet answered; the venue closes after one.
    """

    def __init__(self) -> None:
        self.topics: dict[str, None] = {}
        self.refuse: set[str] = set()
        self.unanswered = 0
        self._heartbeat_ms: int | None = None
        self._tested_ms: int | None = None

    def greeting(self) -> list[bytes]:
        """Nothing."""
        return []

    def hear(self, message: bytes, latest: Quotes) -> Heard:
        """public/subscribe, public/unsubscribe, public/set_heartbeat, public/test."""
        del latest
        try:
            body = orjson.loads(message)
            method, params, request = body["method"], body.get("params", {}), body.get("id")
            interval = int(params.get("interval", 30))
            channels = [channel for channel in params.get("channels", []) if type(channel) is str]
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            return Heard([orjson.dumps({"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": None})])
        result: Any
        if method == "public/subscribe":
            result = [channel for channel in channels if channel not in self.refuse]
            self.topics.update(dict.fromkeys(result))
        elif method == "public/unsubscribe":
            for channel in channels:
                self.topics.pop(channel, None)
            result = channels
        elif method == "public/set_heartbeat":
            self._heartbeat_ms = max(10, interval) * 1000
            result = "ok"
        elif method == "public/test":
            self.unanswered = 0
            result = {"version": "1.2.26"}
        else:
            return Heard([orjson.dumps({"jsonrpc": "2.0", "id": request, "error": {"code": -32601, "message": "Method not found"}})])
        return Heard(
            [orjson.dumps({"jsonrpc": "2.0", "id": request, "result": result, "usIn": 1, "usOut": 2, "usDiff": 1, "testnet": False})]
        )

    def frames(self, quotes: Quotes) -> list[bytes]:
        """One notification a channel, and a test request when the heartbeat is due."""
        frames = []
        if self._heartbeat_ms is not None:
            if self._tested_ms is None:
                self._tested_ms = quotes.time_ms
            elif quotes.time_ms - self._tested_ms >= self._heartbeat_ms:
                self._tested_ms = quotes.time_ms
                self.unanswered += 1
                frames.append(_notification("heartbeat", {"type": "test_request"}))
        for channel in self.topics:
            data = self._data(channel, quotes)
            if data:
                frames.append(_notification("subscription", {"channel": channel, "data": data}))
        return frames

    @staticmethod
    def _data(channel: str, quotes: Quotes) -> Any:
        marks, volatilities = numbers_of(quotes, PriceKind.MARK), numbers_of(quotes, PriceKind.VOLATILITY)
        kind, _, rest = channel.partition(".")
        if kind == "ticker":
            name = rest.rpartition(".")[0]
            if name not in marks:
                return None
            row: dict[str, Any] = {"instrument_name": name, "timestamp": quotes.time_ms, "state": "open", "mark_price": float(marks[name])}
            if name in volatilities:
                row["mark_iv"] = float(volatilities[name]) * 100
                row["underlying_price"] = float(numbers_of(quotes, PriceKind.FORWARD)[name])
            elif name in (rates := numbers_of(quotes, PriceKind.FUNDING_RATE)):
                row["current_funding"] = float(rates[name])
            return row
        if kind == "markprice":
            index = rest.partition(".")[2]
            return [
                {
                    "instrument_name": name,
                    "mark_price": float(price),
                    "iv": float(volatilities.get(name, "0.5")),
                    "timestamp": quotes.time_ms,
                }
                for name, price in marks.items()
                if is_option(name) and index_of(name) == index
            ]
        if kind == "deribit_price_index":
            asset = rest.removesuffix("_usd").upper()
            price = numbers_of(quotes, PriceKind.INDEX).get(asset)
            return {"index_name": rest, "price": float(price), "timestamp": quotes.time_ms} if price is not None else None
        return None


def _notification(method: str, params: dict[str, Any]) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "method": method, "params": params})


class DeribitDialect:
    """The server."""

    venue = "deribit"
    messages_per_s: int | None = None
    connects: tuple[int, float] | None = None
    session_s: float | None = None
    ping_interval_s: float | None = None

    def peer(self, target: str) -> DeribitPeer | None:
        """`/ws/api/v2`."""
        return DeribitPeer() if target == "/ws/api/v2" else None
