"""Binance futures as a server: SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS with numbered answers, mark price and asset index streams.

Like the exchange it confirms any well-formed stream name, also of a symbol that does not exist: nothing then ever comes on it.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from monitor.margin.prices import PriceKind
from monitor.wire.dialects.base import Heard, numbers_of
from monitor.wire.quotes import Quotes

__all__ = ["BinanceDialect", "BinancePeer", "binance_coinm", "binance_usdm"]

_STREAM = re.compile(r"!?[A-Za-z0-9_]{1,40}(@[A-Za-z0-9]{1,20}){1,2}", re.ASCII)
_MARK = re.compile(r"([a-z0-9_]+)@markPrice(@1s)?", re.ASCII)
_INDEX = re.compile(r"([a-z0-9_]+)@indexPrice", re.ASCII)
_FUNDING_PERIOD_MS = 8 * 3_600_000


class BinancePeer:
    """One connection: bare frames on `/ws`, `{"stream", "data"}` on `/stream`."""

    def __init__(self, *, combined: bool, topics: list[str]) -> None:
        self.combined = combined
        self.topics: dict[str, None] = dict.fromkeys(topics)
        self.refuse: set[str] = set()

    def greeting(self) -> list[bytes]:
        """Nothing."""
        return []

    def hear(self, message: bytes, latest: Quotes) -> Heard:
        """Answers `{"result": null, "id": n}`, or an error with its code."""
        del latest
        try:
            body = orjson.loads(message)
        except orjson.JSONDecodeError:
            return _error(3, "Invalid JSON: expected value at line 1 column 1", None)
        request = body.get("id") if type(body) is dict else None
        if type(request) is not int or request < 0:
            return _error(2, "Invalid request: request ID must be an unsigned integer", None)
        method, params = body.get("method"), body.get("params", [])
        if method == "LIST_SUBSCRIPTIONS":
            return Heard([orjson.dumps({"result": list(self.topics), "id": request})])
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return _error(2, f"Invalid request: unknown variant `{method}`", request)
        if type(params) is not list or not params or not all(type(name) is str and _STREAM.fullmatch(name) for name in params):
            return _error(2, "Invalid request: invalid stream", request)
        if not self.refuse.isdisjoint(params):
            return _error(2, "Invalid request: no such stream", request)
        for name in params:
            if method == "SUBSCRIBE":
                self.topics[name] = None
            else:
                self.topics.pop(name, None)
        return Heard([orjson.dumps({"result": None, "id": request})])

    def frames(self, quotes: Quotes) -> list[bytes]:
        """One frame a subscribed stream that has something."""
        frames = []
        for topic in self.topics:
            data = self._data(topic, quotes)
            if data:
                frames.append(orjson.dumps({"stream": topic, "data": data} if self.combined else data))
        return frames

    @staticmethod
    def _data(topic: str, quotes: Quotes) -> Any:
        marks = numbers_of(quotes, PriceKind.MARK)
        indices = numbers_of(quotes, PriceKind.INDEX)
        if topic in {"!markPrice@arr", "!markPrice@arr@1s"}:
            rates = numbers_of(quotes, PriceKind.FUNDING_RATE)
            return [_mark(name, price, rates.get(name, "0.00010000"), quotes.time_ms) for name, price in marks.items()]
        if topic in {"!assetIndex@arr", "!assetIndex@arr@1s"}:
            return [_asset(asset, price, quotes.time_ms) for asset, price in indices.items()]
        if (match := _MARK.fullmatch(topic)) is not None:
            name = match[1].upper()
            if name in marks:
                rates = numbers_of(quotes, PriceKind.FUNDING_RATE)
                return _mark(name, marks[name], rates.get(name, "0.00010000"), quotes.time_ms)
            rates = numbers_of(quotes, PriceKind.FUNDING_RATE)
            return [  # COIN-M: all contracts of a pair
                _mark(other, price, rates.get(other, ""), quotes.time_ms) for other, price in marks.items() if other.startswith(name + "_")
            ]
        if (match := _INDEX.fullmatch(topic)) is not None:
            asset = match[1].upper().removesuffix("USD")
            if asset in indices:
                return {"e": "indexPriceUpdate", "E": quotes.time_ms, "s": asset + "USD", "p": indices[asset]}
        return None


def _mark(name: str, price: str, rate: str, time_ms: int) -> dict[str, Any]:
    return {
        "e": "markPriceUpdate",
        "E": time_ms,
        "s": name,
        "p": price,
        "ap": price,
        "P": price,
        "i": price,
        "r": rate,
        "T": (time_ms // _FUNDING_PERIOD_MS + 1) * _FUNDING_PERIOD_MS if rate else 0,
    }


def _asset(asset: str, price: str, time_ms: int) -> dict[str, Any]:
    return {"e": "assetIndexUpdate", "E": time_ms, "s": asset + "USD", "i": price, "b": "0.05000000", "a": "0.05000000"}


def _error(code: int, text: str, request: int | None) -> Heard:
    answer: dict[str, Any] = {"error": {"code": code, "msg": text}}
    if request is not None:
        answer["id"] = request
    return Heard([orjson.dumps(answer)])


class BinanceDialect:
    """The server. USD-M streams live under `/market`, COIN-M's under the root."""

    messages_per_s: int | None = 10
    connects: tuple[int, float] | None = (300, 300.0)
    session_s: float | None = 86_400.0
    ping_interval_s: float | None = 180.0

    def __init__(self, venue: str, prefix: str) -> None:
        self.venue, self._prefix = venue, prefix

    def peer(self, target: str) -> BinancePeer | None:
        """`/ws`, `/ws/<stream>`, `/stream`, `/stream?streams=<a>/<b>`, all after the category's prefix."""
        path, _, query = target.partition("?")
        if not path.startswith(self._prefix):
            return None
        path = path[len(self._prefix) :]
        if path == "/ws":
            return BinancePeer(combined=False, topics=[])
        if path.startswith("/ws/"):
            return BinancePeer(combined=False, topics=[name for name in path[4:].split("/") if name])
        if path == "/stream":
            streams = query.removeprefix("streams=") if query.startswith("streams=") else ""
            return BinancePeer(combined=True, topics=[name for name in streams.split("/") if name])
        return None


def binance_usdm() -> BinanceDialect:
    """USD-M, market data category."""
    return BinanceDialect("binance_usdm", "/market")


def binance_coinm() -> BinanceDialect:
    """COIN-M."""
    return BinanceDialect("binance_coinm", "")
