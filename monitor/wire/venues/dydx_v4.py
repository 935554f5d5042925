"""dYdX v4 markets: one channel carries oracle prices, open interest and funding of every market.

`subscribed`: `contents.markets` {ticker: {oraclePrice, openInterest, nextFundingRate, ...}}, without times. Then `channel_data` (or
`channel_batch_data`, an array of contents): `contents.oraclePrices` {ticker: {oraclePrice, effectiveAt}} and `contents.trading` {ticker:
{openInterest, nextFundingRate, ...}}, each with what changed. The oracle price is what margin is counted with: kind mark. Open interest
scales the initial margin (units of the base asset).

Source: dYdX indexer documentation, "Websocket API, v4_markets"; v4-chain `indexer`; read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from monitor.errors import CodecError
from monitor.margin.prices import PriceKind
from monitor.wire.columns import Columns, column
from monitor.wire.frames import Confirmed, Decoded, Denied, Fault, Notice, Topic, Wanted, iso_ms, read_json

__all__ = ["MARKETS", "VENUE", "DydxCodec", "codec", "topics"]

VENUE = "dydx_v4"
MARKETS = "v4_markets"


def topics(wanted: Wanted) -> tuple[Topic, ...]:
    """One topic for everything.

    An oracle price is sent when it changed by more than the market's minimum: a name may be quiet for minutes. It is taken for silent after
    5 minutes (nominal 100 s); a connection without any market's price for 30 s is dropped, and its successor brings the whole state.
    """
    if not (wanted.instruments or wanted.everything):
        return ()
    names = tuple(sorted(wanted.instruments))
    supplies = [(PriceKind.MARK, names)]
    return (
        Topic(
            key=MARKETS,
            endpoint="ws",
            supplies=tuple(supplies),
            interval_s=100.0,
            open_kind=PriceKind.MARK if wanted.everything else None,
        ),
    )


class DydxCodec:
    """One connection."""

    def __init__(self) -> None:
        self.venue = VENUE
        self._columns = Columns(VENUE)

    def decode(self, frame: bytes, received_at_ns: int) -> Decoded:
        """Oracle prices as marks, open interest and funding rates (when changed), answers. Raises CodecError."""
        body = read_json(VENUE, frame)
        if type(body) is not dict:
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "not an object")
        decoded = Decoded(received_at_ns)
        kind, contents = body.get("type"), body.get("contents")
        if kind == "subscribed":
            decoded.controls.append(Confirmed(topics=(str(body.get("channel")),)))
            if body.get("channel") == MARKETS:
                self._contents(contents, decoded, frame)
        elif kind in ("channel_data", "channel_batch_data") and body.get("channel") == MARKETS:
            for part in contents if type(contents) is list else [contents]:
                self._contents(part, decoded, frame)
        elif kind == "error":
            decoded.controls.append(Denied(topics=(MARKETS,), text=str(body.get("message"))[:200]))
        elif kind in ("connected", "unsubscribed", "pong"):
            decoded.controls.append(Notice(str(kind)))
        else:
            raise CodecError(VENUE, Fault.UNKNOWN_MESSAGE, frame, f"type {str(kind)[:40]!r}")
        return decoded

    def _contents(self, contents: Any, decoded: Decoded, frame: bytes) -> None:
        if type(contents) is not dict:
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "contents is no object")
        for section in ("markets", "oraclePrices", "trading"):
            rows = contents.get(section)
            if rows is None:
                continue
            if type(rows) is not dict or not all(type(row) is dict for row in rows.values()):
                raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, section)
            self._rows(rows, decoded, timed=section == "oraclePrices")

    def _rows(self, rows: dict[str, Any], decoded: Decoded, *, timed: bool) -> None:
        priced = {name: row for name, row in rows.items() if row.get("oraclePrice") is not None}
        if priced:
            items = list(priced.values())
            times: list[Any] | int = [iso_ms(moment) for moment in column(items, "effectiveAt")] if timed else 0
            self._columns.prices(decoded, PriceKind.MARK, list(priced), column(items, "oraclePrice"), times)
        names, items = list(rows), list(rows.values())
        self._columns.rates(decoded, PriceKind.OPEN_INTEREST, names, column(items, "openInterest"), 0)
        self._columns.rates(decoded, PriceKind.FUNDING_RATE, names, column(items, "nextFundingRate"), 0)

    def opening(self) -> Sequence[bytes]:
        """Nothing is said before subscribing."""
        return ()

    def subscribe(self, topics: Sequence[str], request: int) -> bytes:
        """One channel a message."""
        del request
        [channel] = topics
        return orjson.dumps({"type": "subscribe", "channel": channel})

    def unsubscribe(self, topics: Sequence[str], request: int) -> bytes:
        """One channel a message."""
        del request
        [channel] = topics
        return orjson.dumps({"type": "unsubscribe", "channel": channel})

    def ping(self, request: int) -> bytes | None:
        """None: the server sends WebSocket pings."""
        del request
        return None


def codec() -> DydxCodec:
    """A codec for one connection."""
    return DydxCodec()
