"""BitMEX table `instrument`: one topic carries marks, next funding rates and index prices of every contract.

`{"table": "instrument", "action": "partial" | "insert" | "update" | "delete", "data": [{"symbol", "markPrice", "fundingRate",
"fundingTimestamp", "indicativeSettlePrice", "timestamp", ...}]}`. A partial has whole rows, an update what changed.
`indicativeSettlePrice` of a perpetual quoted in USD is the index price of its underlying (named by the venue: XBT); which rows those are
is remembered from the partial. Numbers are bare JSON numbers, times ISO UTC.

The keep-alive is the bare text `ping`, answered `pong`.

Source: bitmex.com/app/wsAPI, "Subscribe", "Response format", "Heartbeats"; API explorer, Instrument; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from monitor.errors import CodecError
from monitor.margin.prices import PriceKind
from monitor.wire.columns import Columns, column
from monitor.wire.frames import Confirmed, Decoded, Denied, Fault, Notice, Pong, Topic, Wanted, iso_ms, read_json

__all__ = ["INSTRUMENTS", "VENUE", "BitmexCodec", "codec", "topics"]

VENUE = "bitmex"
INSTRUMENTS = "instrument"
_PERPETUAL = "FFWCSX"


def topics(wanted: Wanted) -> tuple[Topic, ...]:
    """One topic for everything. Only changes are sent: a mark that stands for 60 s is taken for silent (nominal 20 s)."""
    if not (wanted.instruments or wanted.everything or wanted.assets):
        return ()
    supplies = [(PriceKind.MARK, tuple(sorted(wanted.instruments)))]
    if wanted.assets:
        supplies.append((PriceKind.INDEX, tuple(sorted(wanted.assets))))
    return (
        Topic(
            key=INSTRUMENTS,
            endpoint="ws",
            supplies=tuple(supplies),
            interval_s=20.0,
            open_kind=PriceKind.MARK if wanted.everything else None,
        ),
    )


class BitmexCodec:
    """One connection. Knows from the partial which contract gives the index of which asset."""

    def __init__(self) -> None:
        self.venue = VENUE
        self._columns = Columns(VENUE)
        self._assets: dict[str, str] = {}

    def decode(self, frame: bytes, received_at_ns: int) -> Decoded:
        """Marks, indices by asset, funding rates and times (when changed); answers and pongs. Raises CodecError."""
        decoded = Decoded(received_at_ns)
        if frame == b"pong":
            decoded.controls.append(Pong())
            return decoded
        body = read_json(VENUE, frame)
        if type(body) is not dict:
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "not an object")
        if body.get("table") == INSTRUMENTS:
            rows = body.get("data")
            if type(rows) is not list or not all(type(row) is dict for row in rows):
                raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "data is no array of rows")
            if body.get("action") in ("partial", "insert", "update"):
                self._rows(rows, decoded)
            elif body.get("action") != "delete":
                raise CodecError(VENUE, Fault.UNKNOWN_MESSAGE, frame, "action")
        elif not self._answer(body, decoded):
            raise CodecError(VENUE, Fault.UNKNOWN_MESSAGE, frame)
        return decoded

    def _rows(self, rows: list[Any], decoded: Decoded) -> None:
        for row in rows:
            name, asset = row.get("symbol"), row.get("underlying")
            if row.get("typ") == _PERPETUAL and row.get("quoteCurrency") == "USD" and type(name) is str and type(asset) is str:
                self._assets[name] = asset
        marked = [row for row in rows if row.get("markPrice") is not None]
        if marked:
            names, times = column(marked, "symbol"), [iso_ms(moment) for moment in column(marked, "timestamp")]
            self._columns.prices(decoded, PriceKind.MARK, names, column(marked, "markPrice"), times)
        funded = [row for row in rows if row.get("fundingRate") is not None]
        if funded:
            self._columns.rates(decoded, PriceKind.FUNDING_RATE, column(funded, "symbol"), column(funded, "fundingRate"), 0)
        timed = [row for row in rows if row.get("fundingTimestamp") is not None]
        if timed:
            self._columns.moments(decoded, PriceKind.FUNDING_TIME, column(timed, "symbol"), column(timed, "fundingTimestamp"), 0)
        settled = [row for row in rows if row.get("indicativeSettlePrice") is not None and self._is_known(row.get("symbol"))]
        if settled:
            assets, times = [self._assets[row["symbol"]] for row in settled], [iso_ms(row.get("timestamp")) for row in settled]
            self._columns.prices(decoded, PriceKind.INDEX, assets, column(settled, "indicativeSettlePrice"), times)

    def _is_known(self, name: object) -> bool:
        return type(name) is str and name in self._assets

    @staticmethod
    def _answer(body: dict[str, Any], decoded: Decoded) -> bool:
        if "error" in body:
            request = body.get("request")
            named = request.get("args") if type(request) is dict else None
            names = tuple(name for name in named if type(name) is str) if type(named) is list else ()
            text = str(body["error"])[:200]
            known = "already subscribed" in text
            decoded.controls.append(Confirmed(topics=names) if known else Denied(topics=names, text=text))
        elif body.get("success") is True and type(body.get("subscribe")) is str:
            decoded.controls.append(Confirmed(topics=(body["subscribe"],)))
        elif "info" in body or "unsubscribe" in body:
            decoded.controls.append(Notice(str(body.get("info", "unsubscribed"))[:200]))
        else:
            return False
        return True

    def opening(self) -> Sequence[bytes]:
        """Nothing is said before subscribing."""
        return ()

    def subscribe(self, topics: Sequence[str], request: int) -> bytes:
        """`{"op": "subscribe", "args": [...]}`."""
        del request
        return orjson.dumps({"op": "subscribe", "args": list(topics)})

    def unsubscribe(self, topics: Sequence[str], request: int) -> bytes:
        """`{"op": "unsubscribe", "args": [...]}`."""
        del request
        return orjson.dumps({"op": "unsubscribe", "args": list(topics)})

    def ping(self, request: int) -> bytes | None:
        """The bare text `ping`."""
        del request
        return b"ping"


def codec() -> BitmexCodec:
    """A codec for one connection."""
    return BitmexCodec()
