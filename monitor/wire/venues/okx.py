"""OKX v5 public channels: mark price by instrument, index by asset, funding rate, volatility and forward of all options of a family.

`{"arg": {"channel", "instId" | "instFamily"}, "data": [...]}`, numbers as strings, `ts` ms as a string. Channels: `mark-price` (every 200
ms on change, every 10 s otherwise), `index-tickers` (100 ms; `<asset>-USD` is the price of the asset in USD), `funding-rate`
(`fundingTime`: when that rate is paid), `opt-summary` (`markVol` a fraction, `fwdPx`). The keep-alive is the bare text `ping`, answered
`pong`.

Source: OKX API v5, "Mark price channel", "Index tickers channel", "Funding rate channel", "Option summary channel", "WebSocket"; read
2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from monitor.errors import CodecError
from monitor.margin.prices import PriceKind
from monitor.wire.columns import Columns, column
from monitor.wire.frames import Confirmed, Decoded, Denied, Ending, Fault, Notice, Pong, Topic, Wanted, read_json, text_ms

__all__ = ["VENUE", "OkxCodec", "codec", "family_of", "topics"]

VENUE = "okx"
_OPTION = re.compile(r"([A-Z0-9]+-[A-Z0-9_]+)-\d{6}-[0-9.]+-[CP]", re.ASCII)
_CLOSING = ("64008",)
_NAMED = re.compile(r"channel:\s*([a-z-]+),\s*(?:instId|instFamily):\s*([A-Za-z0-9_.-]+)")


def family_of(name: str) -> str | None:
    """The family of an option, `BTC-USD-250328-92000-C` -> `BTC-USD`; None for what is no option."""
    match = _OPTION.fullmatch(name)
    return match[1] if match is not None else None


def topics(wanted: Wanted) -> tuple[Topic, ...]:
    """A mark for each instrument, an index for each asset; when wanted, the funding rate of swaps and one summary a family of options."""
    plan = [
        Topic(key=f"mark-price:{name}", endpoint="public", supplies=((PriceKind.MARK, (name,)),), interval_s=10.0)
        for name in sorted(wanted.instruments)
    ]
    plan += [
        Topic(key=f"index-tickers:{asset}-USD", endpoint="public", supplies=((PriceKind.INDEX, (asset,)),), interval_s=10.0)
        for asset in sorted(wanted.assets)
    ]
    if PriceKind.FUNDING_RATE in wanted.kinds:
        plan += [Topic(key=f"funding-rate:{name}", endpoint="public") for name in sorted(wanted.instruments) if name.endswith("-SWAP")]
    kinds = [kind for kind in (PriceKind.VOLATILITY, PriceKind.FORWARD) if kind in wanted.kinds]
    if kinds:
        families: dict[str, list[str]] = {}
        for name in sorted(wanted.instruments):
            family = family_of(name)
            if family is not None:
                families.setdefault(family, []).append(name)
        for family, names in families.items():
            supplies = tuple((kind, tuple(names)) for kind in kinds)
            plan.append(Topic(key=f"opt-summary:{family}", endpoint="public", supplies=supplies, interval_s=5.0))
    return tuple(plan)


class OkxCodec:
    """One connection."""

    def __init__(self) -> None:
        self.venue = VENUE
        self._columns = Columns(VENUE)

    def decode(self, frame: bytes, received_at_ns: int) -> Decoded:
        """Marks, indices by asset, funding rates and times (when changed), volatilities, forwards; events and pongs. Raises CodecError."""
        decoded = Decoded(received_at_ns)
        if frame == b"pong":
            decoded.controls.append(Pong())
            return decoded
        body = read_json(VENUE, frame)
        if type(body) is not dict:
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "not an object")
        if "event" in body:
            self._event(body, decoded)
            return decoded
        arg, items = body.get("arg"), body.get("data")
        if type(arg) is not dict or type(items) is not list:
            raise CodecError(VENUE, Fault.UNKNOWN_MESSAGE, frame)
        if not all(type(item) is dict for item in items):
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "data holds what is no object")
        self._data(arg.get("channel"), items, decoded, frame)
        return decoded

    def _data(self, channel: object, items: list[Any], decoded: Decoded, frame: bytes) -> None:
        names, times = column(items, "instId"), [text_ms(time) for time in column(items, "ts")]
        if channel == "mark-price":
            self._columns.prices(decoded, PriceKind.MARK, names, column(items, "markPx"), times)
        elif channel == "index-tickers":
            kept = [index for index, name in enumerate(names) if type(name) is not str or name.endswith("-USD")]
            assets = [names[index][:-4] if type(names[index]) is str else None for index in kept]
            values = column(items, "idxPx")
            self._columns.prices(decoded, PriceKind.INDEX, assets, [values[index] for index in kept], [times[index] for index in kept])
        elif channel == "funding-rate":
            self._columns.rates(decoded, PriceKind.FUNDING_RATE, names, column(items, "fundingRate"), times)
            self._columns.moments(decoded, PriceKind.FUNDING_TIME, names, column(items, "fundingTime"), times)
        elif channel == "opt-summary":
            self._columns.prices(decoded, PriceKind.VOLATILITY, names, column(items, "markVol"), times)
            self._columns.prices(decoded, PriceKind.FORWARD, names, column(items, "fwdPx"), times)
        else:
            raise CodecError(VENUE, Fault.UNKNOWN_MESSAGE, frame, f"channel {str(channel)[:40]!r}")

    @staticmethod
    def _event(body: dict[str, Any], decoded: Decoded) -> None:
        event, text = body["event"], f"{body.get('code', '')}: {body.get('msg', '')}"[:300]
        arg = body.get("arg")
        topic = _topic_of(arg) if type(arg) is dict else None
        if event == "subscribe" and topic is not None:
            decoded.controls.append(Confirmed(topics=(topic,)))
        elif event == "error":
            named = _NAMED.search(text)
            request = body.get("id")
            number = int(request) if type(request) is str and request.isascii() and request.isdigit() and len(request) < 10 else None
            decoded.controls.append(Denied(request=number, topics=(f"{named[1]}:{named[2]}",) if named is not None else (), text=text))
        elif event == "notice" and body.get("code") in _CLOSING:
            decoded.controls.append(Ending(text))
        else:
            decoded.controls.append(Notice(f"{str(event)[:40]} {text}"))

    def opening(self) -> Sequence[bytes]:
        """Nothing is said before subscribing."""
        return ()

    def subscribe(self, topics: Sequence[str], request: int) -> bytes:
        """`{"id": "n", "op": "subscribe", "args": [{"channel", "instId"}, ...]}`."""
        return orjson.dumps({"id": str(request), "op": "subscribe", "args": [_arg_of(topic) for topic in topics]})

    def unsubscribe(self, topics: Sequence[str], request: int) -> bytes:
        """The same with `unsubscribe`."""
        return orjson.dumps({"id": str(request), "op": "unsubscribe", "args": [_arg_of(topic) for topic in topics]})

    def ping(self, request: int) -> bytes | None:
        """The bare text `ping`."""
        del request
        return b"ping"


def _arg_of(topic: str) -> dict[str, str]:
    channel, _, name = topic.partition(":")
    return {"channel": channel, "instFamily" if channel == "opt-summary" else "instId": name}


def _topic_of(arg: dict[str, Any]) -> str | None:
    channel, name = arg.get("channel"), arg.get("instId") or arg.get("instFamily")
    return f"{channel}:{name}" if type(channel) is str and type(name) is str else None


def codec() -> OkxCodec:
    """A codec for one connection."""
    return OkxCodec()
