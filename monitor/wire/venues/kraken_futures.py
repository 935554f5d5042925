"""Kraken Futures feed `ticker`: mark price, index price of the pair, relative funding rate, one message a product.

`{"feed": "ticker", "product_id": "PF_XBTUSD", "time": ms, "markPrice", "index", "pair": "XBT:USD", "relative_funding_rate",
"next_funding_rate_time": ms, ...}`, bare JSON numbers, at most one a second. `index` of a pair in USD is the price of its base in USD, in
the venue's spelling (XBT).

WebSocket pings keep the connection; the venue asks for one a minute at least.

Source: docs.kraken.com, "Futures WebSocket: Ticker, Introduction"; read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from monitor.errors import CodecError
from monitor.margin.prices import PriceKind
from monitor.wire.columns import Columns
from monitor.wire.frames import Confirmed, Decoded, Denied, Fault, Notice, Topic, Wanted, read_json

__all__ = ["VENUE", "KrakenFuturesCodec", "codec", "topics"]

VENUE = "kraken_futures"
_INVALID_PRODUCT = re.compile(r"invalid product `([A-Za-z0-9_]+)`")


def topics(wanted: Wanted) -> tuple[Topic, ...]:
    """A ticker for each product, and the perpetual of each asset for its index. 15 s without one are silence (nominal 5 s)."""
    supplies: dict[str, list[tuple[PriceKind, tuple[str, ...]]]] = {}
    for name in wanted.instruments:
        supplies.setdefault(name, []).append((PriceKind.MARK, (name,)))
    for asset in wanted.assets:
        supplies.setdefault(f"PF_{asset}USD", []).append((PriceKind.INDEX, (asset,)))
    return tuple(
        Topic(key=f"ticker:{name}", endpoint="ws", supplies=tuple(supplied), interval_s=5.0) for name, supplied in sorted(supplies.items())
    )


class KrakenFuturesCodec:
    """One connection."""

    def __init__(self) -> None:
        self.venue = VENUE
        self._columns = Columns(VENUE)

    def decode(self, frame: bytes, received_at_ns: int) -> Decoded:
        """Marks, indices by asset, funding rates and times (when changed); events. Raises CodecError."""
        body = read_json(VENUE, frame)
        if type(body) is not dict:
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "not an object")
        decoded = Decoded(received_at_ns)
        if "event" in body:
            self._event(body, decoded)
        elif body.get("feed") == "ticker":
            self._ticker(body, decoded)
        elif body.get("feed") == "heartbeat":
            decoded.controls.append(Notice("heartbeat"))
        else:
            raise CodecError(VENUE, Fault.UNKNOWN_MESSAGE, frame, f"feed {str(body.get('feed'))[:40]!r}")
        return decoded

    def _ticker(self, body: dict[str, Any], decoded: Decoded) -> None:
        names, times = [body.get("product_id")], [body.get("time")]
        self._columns.prices(decoded, PriceKind.MARK, names, [body.get("markPrice")], times)
        if not decoded.batches:
            return
        self._columns.rates(decoded, PriceKind.FUNDING_RATE, names, [body.get("relative_funding_rate")], times)
        self._columns.moments(decoded, PriceKind.FUNDING_TIME, names, [body.get("next_funding_rate_time")], times)
        pair = body.get("pair")
        if type(pair) is str and pair.endswith(":USD") and body.get("index") is not None:
            self._columns.prices(decoded, PriceKind.INDEX, [pair[:-4]], [body["index"]], times)

    @staticmethod
    def _event(body: dict[str, Any], decoded: Decoded) -> None:
        event, products = body["event"], body.get("product_ids")
        keys = tuple(f"{body.get('feed')}:{name}" for name in products if type(name) is str) if type(products) is list else ()
        text = f"{str(event)[:40]} {body.get('message', '')}"[:200]
        if event == "subscribed":
            decoded.controls.append(Confirmed(topics=keys))
        elif event == "subscribed_failed":
            decoded.controls.append(Denied(topics=keys, text=text))
        elif event == "alert" and (invalid := _INVALID_PRODUCT.search(text)) is not None:
            decoded.controls.append(Denied(topics=(f"ticker:{invalid[1]}",), text=text))
        else:
            decoded.controls.append(Notice(text))

    def opening(self) -> Sequence[bytes]:
        """Nothing is said before subscribing."""
        return ()

    def subscribe(self, topics: Sequence[str], request: int) -> bytes:
        """`{"event": "subscribe", "feed": "ticker", "product_ids": [...]}`."""
        del request
        return _message("subscribe", topics)

    def unsubscribe(self, topics: Sequence[str], request: int) -> bytes:
        """The same with `unsubscribe`."""
        del request
        return _message("unsubscribe", topics)

    def ping(self, request: int) -> bytes | None:
        """None: WebSocket pings do it."""
        del request
        return None


def _message(event: str, topics: Sequence[str]) -> bytes:
    return orjson.dumps({"event": event, "feed": "ticker", "product_ids": [topic.partition(":")[2] for topic in topics]})


def codec() -> KrakenFuturesCodec:
    """A codec for one connection."""
    return KrakenFuturesCodec()
