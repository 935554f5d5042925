"""Frames of both Binance futures markets: mark price, asset index and index price events, answers to requests.

Event `markPriceUpdate`: `s` symbol, `p` mark price, `i` index price of the instrument (not of an asset: not taken), `r` funding rate (""
on delivery contracts), `T` next funding time in ms (0 there), `E` event time ms. `assetIndexUpdate`: `s` asset + "USD", `i` index price
in USD. `indexPriceUpdate` (COIN-M): `p` index price of the pair, whose name was `i` until June 2026 and is `s` since. `st` (since June
2026): 1 USD-M, 2 COIN-M; all-market streams may carry both markets since then, and each codec takes its own only. Frames come bare
(`/ws`) or as `{"stream", "data"}` (`/stream`), single or as an array.

Source: Binance developer documentation, "Mark Price Stream", "Mark Price Stream for All market", "Multi-Assets Mode Asset Index", "Live
Subscribing/Unsubscribing to streams", as carried by several client libraries; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from monitor.errors import CodecError
from monitor.margin.prices import PriceKind
from monitor.wire.columns import Columns, column
from monitor.wire.frames import Confirmed, Decoded, Denied, Fault, Notice, read_json

__all__ = ["BinanceCodec"]


class BinanceCodec:
    """One connection to Binance futures. The connection's requests are numbered; answers carry the number and no topic."""

    def __init__(self, venue: str, symbol_type: int) -> None:
        self.venue = venue
        self._foreign = tuple({1, 2} - {symbol_type})
        self._columns = Columns(venue)

    def decode(self, frame: bytes, received_at_ns: int) -> Decoded:
        """Marks, funding rates and their times (when changed), asset indices, and answers to requests. Raises CodecError."""
        body = read_json(self.venue, frame)
        decoded = Decoded(received_at_ns)
        if type(body) is dict and "data" in body:
            body = body["data"]
        if type(body) is list:
            self._array(body, decoded, frame)
        elif type(body) is not dict:
            raise CodecError(self.venue, Fault.WRONG_SHAPE, frame, "neither an object nor an array")
        elif body.get("e") == "markPriceUpdate" and body.get("st") not in self._foreign:
            self._mark(body, decoded)
        elif "e" in body:
            self._array([body], decoded, frame)
        elif not self._answer(body, decoded):
            raise CodecError(self.venue, Fault.UNKNOWN_MESSAGE, frame)
        return decoded

    def _array(self, items: list[Any], decoded: Decoded, frame: bytes) -> None:
        """Events of one frame. A frame that mixes kinds of event is cut by kind."""
        events = column(items, "e")
        if items and type(events[0]) is str and events.count(events[0]) == len(events):
            self._events(events[0], items, decoded, frame)
            return
        kinds = {event for event in events if type(event) is str}
        if items and not kinds:
            raise CodecError(self.venue, Fault.WRONG_SHAPE, frame, "no event has a type")
        for kind in sorted(kinds):
            same = [item for item, event in zip(items, events, strict=True) if event == kind]
            self._events(kind, same, decoded, frame)
        for event in events:
            if type(event) is not str:
                decoded.reject(Fault.WRONG_SHAPE)

    def _mark(self, event: dict[str, Any], decoded: Decoded) -> None:
        """A single mark price event: the way of streams of one symbol."""
        columns, name, time = self._columns, event.get("s"), event.get("E")
        if not columns.price(decoded, PriceKind.MARK, name, event.get("p"), time):
            return
        if not columns.stands(PriceKind.FUNDING_RATE, name, rate := event.get("r")):
            columns.rates(decoded, PriceKind.FUNDING_RATE, [name], [rate], [time])
        if not columns.stands(PriceKind.FUNDING_TIME, name, moment := event.get("T")):
            columns.moments(decoded, PriceKind.FUNDING_TIME, [name], [moment], [time])

    def _events(self, event: str, items: list[Any], decoded: Decoded, frame: bytes) -> None:
        items = self._own(items)
        names, times = column(items, "s"), column(items, "E")
        if event == "markPriceUpdate":
            self._columns.prices(decoded, PriceKind.MARK, names, column(items, "p"), times)
            self._columns.rates(decoded, PriceKind.FUNDING_RATE, names, column(items, "r"), times)
            self._columns.moments(decoded, PriceKind.FUNDING_TIME, names, column(items, "T"), times)
        elif event == "assetIndexUpdate":
            assets = [name[:-3] if type(name) is str and name.endswith("USD") else None for name in names]
            self._columns.prices(decoded, PriceKind.INDEX, assets, column(items, "i"), times)
        elif event == "indexPriceUpdate":
            pairs = [name if name is not None else item.get("i") for name, item in zip(names, items, strict=True)]
            assets = [pair[:-3] if type(pair) is str and pair.endswith("USD") else None for pair in pairs]
            self._columns.prices(decoded, PriceKind.INDEX, assets, column(items, "p"), times)
        else:
            raise CodecError(self.venue, Fault.UNKNOWN_MESSAGE, frame, f"event {event[:40]!r}")

    def _own(self, items: list[Any]) -> list[Any]:
        """The items of this market; the other one's are left out, which is no fault."""
        types = [item.get("st") for item in items]
        if types.count(None) == len(items) or not any(symbol_type in self._foreign for symbol_type in types):
            return items
        return [item for item, symbol_type in zip(items, types, strict=True) if symbol_type not in self._foreign]

    @staticmethod
    def _answer(body: dict[str, Any], decoded: Decoded) -> bool:
        """Whether this is the answer to a request. Errors come as {"error": {"code", "msg"}} or {"code", "msg"}, id optional."""
        request = body.get("id")
        number = request if type(request) is int else None
        error = body["error"] if type(body.get("error")) is dict else body
        if "code" in error:
            decoded.controls.append(Denied(request=number, text=f"{error.get('code')}: {error.get('msg')}"[:200]))
        elif "result" in body and body["result"] is None and number is not None:
            decoded.controls.append(Confirmed(request=number))
        elif "result" in body:
            decoded.controls.append(Notice(f"subscriptions: {body['result']}"[:200]))
        else:
            return False
        return True

    def opening(self) -> Sequence[bytes]:
        """Nothing is said before subscribing."""
        return ()

    def subscribe(self, topics: Sequence[str], request: int) -> bytes:
        """`{"method": "SUBSCRIBE", "params": [...], "id": n}`."""
        return orjson.dumps({"method": "SUBSCRIBE", "params": list(topics), "id": request})

    def unsubscribe(self, topics: Sequence[str], request: int) -> bytes:
        """`{"method": "UNSUBSCRIBE", "params": [...], "id": n}`."""
        return orjson.dumps({"method": "UNSUBSCRIBE", "params": list(topics), "id": request})

    def ping(self, request: int) -> bytes | None:
        """None: the server sends WebSocket pings, which the library answers."""
        del request
        return None
