"""Kraken Futures as a server: an event for each product, an alert for one it does not have, one ticker a product."""

from __future__ import annotations

import orjson

from monitor.margin.prices import PriceKind
from monitor.wire.dialects.base import Heard, numbers_of
from monitor.wire.quotes import Quotes

__all__ = ["KrakenFuturesDialect", "KrakenFuturesPeer"]


class KrakenFuturesPeer:
    """One connection."""

    def __init__(self) -> None:
        self.topics: dict[str, None] = {}
        self.refuse: set[str] = set()

    def greeting(self) -> list[bytes]:
        """`{"event": "info", "version": 1}`."""
        return [b'{"event":"info","version":1}']

    def hear(self, message: bytes, latest: Quotes) -> Heard:
        """Subscribe and unsubscribe."""
        del latest
        try:
            body = orjson.loads(message)
            event, feed, products = body["event"], body["feed"], [name for name in body["product_ids"] if type(name) is str]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return Heard([b'{"event":"alert","message":"Bad websocket message"}'])
        replies = []
        for name in products:
            topic = f"{feed}:{name}"
            if event == "unsubscribe":
                self.topics.pop(topic, None)
                replies.append(orjson.dumps({"event": "unsubscribed", "feed": feed, "product_ids": [name]}))
            elif topic in self.refuse:
                replies.append(orjson.dumps({"event": "alert", "message": f"Couldn't subscribe to invalid product `{name}`"}))
            else:
                self.topics[topic] = None
                replies.append(orjson.dumps({"event": "subscribed", "feed": feed, "product_ids": [name]}))
        return Heard(replies)

    def frames(self, quotes: Quotes) -> list[bytes]:
        """One ticker a product."""
        marks, indices = numbers_of(quotes, PriceKind.MARK), numbers_of(quotes, PriceKind.INDEX)
        rates, moments = numbers_of(quotes, PriceKind.FUNDING_RATE), numbers_of(quotes, PriceKind.FUNDING_TIME)
        frames = []
        for topic in self.topics:
            feed, _, name = topic.partition(":")
            if feed == "ticker" and name in marks:
                base = name[3:].partition("_")[0].removesuffix("USD")
                row = {"time": quotes.time_ms, "product_id": name, "feed": "ticker", "pair": f"{base}:USD", "suspended": False}
                row |= {"markPrice": float(marks[name]), "index": float(indices.get(base, marks[name]))}
                if name in rates:
                    row["relative_funding_rate"] = float(rates[name])
                if name in moments:
                    row["next_funding_rate_time"] = int(moments[name])
                frames.append(orjson.dumps(row))
        return frames


class KrakenFuturesDialect:
    """The server."""

    venue = "kraken_futures"
    messages_per_s: int | None = 100
    connects: tuple[int, float] | None = None
    session_s: float | None = None
    ping_interval_s: float | None = None

    def peer(self, target: str) -> KrakenFuturesPeer | None:
        """`/ws/v1`."""
        return KrakenFuturesPeer() if target == "/ws/v1" else None
