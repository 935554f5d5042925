"""dYdX v4's indexer as a server: the whole state of all markets on subscription, then what changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from monitor.margin.prices import PriceKind
from monitor.wire.dialects.base import Changes, Heard, numbers_of
from monitor.wire.quotes import Quotes

__all__ = ["DydxDialect", "DydxPeer"]


class DydxPeer:
    """One connection."""

    def __init__(self) -> None:
        self.topics: dict[str, None] = {}
        self.refuse: set[str] = set()
        self._changes = Changes()
        self._messages = 0

    def _say(self, kind: str, **fields: Any) -> bytes:
        self._messages += 1
        return orjson.dumps({"type": kind, "connection_id": "sim", "message_id": self._messages - 1, **fields})

    def greeting(self) -> list[bytes]:
        """`connected`."""
        return [self._say("connected")]

    def hear(self, message: bytes, latest: Quotes) -> Heard:
        """Subscribe (answered with the state) and unsubscribe."""
        try:
            body = orjson.loads(message)
            kind, channel = body["type"], body["channel"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return Heard([self._say("error", message="Invalid message: could not parse")])
        if kind == "unsubscribe":
            self.topics.pop(channel, None)
            return Heard([self._say("unsubscribed", channel=channel)])
        if channel != "v4_markets" or channel in self.refuse:
            return Heard([self._say("error", message=f"Invalid subscription: channel '{channel}' not found")])
        self.topics[channel] = None
        markets = {}
        for name in numbers_of(latest, PriceKind.MARK):
            market: dict[str, Any] = {"ticker": name, "status": "ACTIVE"}
            for kind_of_number, field in _FIELDS.items():
                text = self._changes.take(latest, kind_of_number, name)
                if text is not None:
                    market[field] = text
            markets[name] = market
        return Heard([self._say("subscribed", channel=channel, contents={"markets": markets})])

    def frames(self, quotes: Quotes) -> list[bytes]:
        """Oracle prices and parameters that changed, in one message; none when nothing did."""
        if "v4_markets" not in self.topics:
            return []
        moment = datetime.fromtimestamp(quotes.time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        prices, trading = {}, dict[str, dict[str, str]]()
        for name in numbers_of(quotes, PriceKind.MARK):
            price = self._changes.take(quotes, PriceKind.MARK, name)
            if price is not None:
                prices[name] = {"oraclePrice": price, "effectiveAt": moment, "effectiveAtHeight": "1", "marketId": 0}
        for kind in (PriceKind.OPEN_INTEREST, PriceKind.FUNDING_RATE):
            for name in numbers_of(quotes, kind):
                text = self._changes.take(quotes, kind, name)
                if text is not None:
                    trading.setdefault(name, {})[_FIELDS[kind]] = text
        contents: dict[str, Any] = {}
        if prices:
            contents["oraclePrices"] = prices
        if trading:
            contents["trading"] = trading
        return [self._say("channel_data", channel="v4_markets", version="1.0.0", contents=contents)] if contents else []


_FIELDS = {PriceKind.MARK: "oraclePrice", PriceKind.OPEN_INTEREST: "openInterest", PriceKind.FUNDING_RATE: "nextFundingRate"}


class DydxDialect:
    """The server."""

    venue = "dydx_v4"
    messages_per_s: int | None = None
    connects: tuple[int, float] | None = None
    session_s: float | None = None
    ping_interval_s: float | None = 30.0

    def peer(self, target: str) -> DydxPeer | None:
        """`/v4/ws`."""
        return DydxPeer() if target == "/v4/ws" else None
