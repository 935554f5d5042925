"""Hyperliquid as a server: the universes on request, contexts of every market by position, one subscription a message."""

from __future__ import annotations

from typing import Any

import orjson

from monitor.margin.prices import PriceKind
from monitor.wire.dialects.base import Heard, numbers_of
from monitor.wire.quotes import Quotes

__all__ = ["HyperliquidDialect", "HyperliquidPeer"]


class HyperliquidPeer:
    """One connection. The universes are the server's: names of the market in the order they first came, by dex."""

    def __init__(self, universes: dict[str, dict[str, str]]) -> None:
        self.topics: dict[str, None] = {}
        self.refuse: set[str] = set()
        self._universes = universes

    def greeting(self) -> list[bytes]:
        """Nothing."""
        return []

    def hear(self, message: bytes, latest: Quotes) -> Heard:
        """Subscribe, unsubscribe, ping, and the post of the info request allPerpMetas."""
        try:
            body = orjson.loads(message)
            method, subscription = body["method"], body.get("subscription") or {}
            topic = ":".join(str(part) for part in (subscription.get("type"), subscription.get("coin")) if part)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            return Heard([orjson.dumps({"channel": "error", "data": f"Error parsing JSON into valid websocket request: {message[:60]!r}"})])
        if method == "ping":
            return Heard([b'{"channel":"pong"}'])
        if method == "post":
            self._learn(latest)
            metas = [{"universe": [{"name": name} for name in names]} for names in self._universes.values()]
            payload = {"type": "allPerpMetas", "data": metas}
            return Heard(
                [orjson.dumps({"channel": "post", "data": {"id": body.get("id"), "response": {"type": "info", "payload": payload}}})]
            )
        if topic in self.refuse:
            return Heard([orjson.dumps({"channel": "error", "data": f"Invalid subscription {orjson.dumps(subscription).decode()}"})])
        if method == "subscribe":
            self.topics[topic] = None
        else:
            self.topics.pop(topic, None)
        return Heard([orjson.dumps({"channel": "subscriptionResponse", "data": {"method": method, "subscription": subscription}})])

    def _learn(self, quotes: Quotes) -> None:
        for name, price in numbers_of(quotes, PriceKind.MARK).items():
            dex = name.partition(":")[0] if ":" in name else ""
            self._universes.setdefault(dex, {})[name] = price

    def frames(self, quotes: Quotes) -> list[bytes]:
        """All contexts. A market that the quotes leave out keeps its last mark: its place in the array has to be filled."""
        if "allDexsAssetCtxs" not in self.topics or not numbers_of(quotes, PriceKind.MARK):
            return []
        self._learn(quotes)
        indices, rates = numbers_of(quotes, PriceKind.INDEX), numbers_of(quotes, PriceKind.FUNDING_RATE)
        contexts: list[Any] = [
            [
                dex,
                [
                    {"funding": rates.get(name, "0.0000125"), "openInterest": "1", "oraclePx": indices.get(name, price), "markPx": price}
                    for name, price in names.items()
                ],
            ]
            for dex, names in self._universes.items()
        ]
        return [orjson.dumps({"channel": "allDexsAssetCtxs", "data": {"ctxs": contexts}})]


class HyperliquidDialect:
    """The server."""

    venue = "hyperliquid"
    messages_per_s: int | None = 34
    connects: tuple[int, float] | None = (30, 60.0)
    session_s: float | None = None
    ping_interval_s: float | None = None

    def __init__(self) -> None:
        self._universes: dict[str, dict[str, str]] = {}

    def peer(self, target: str) -> HyperliquidPeer | None:
        """`/ws`."""
        return HyperliquidPeer(self._universes) if target == "/ws" else None
