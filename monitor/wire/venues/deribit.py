"""Deribit JSON-RPC notifications: tickers, the marks of all options of an index on one channel, index prices.

`ticker.<instrument>.100ms`: `mark_price` (an inverse option's in coin), `timestamp`, `current_funding`; options add `mark_iv` (percent,
here a fraction) and `underlying_price` (the forward). `markprice.options.<index>`: an array of {instrument_name, mark_price, iv (a
fraction), timestamp}. `deribit_price_index.<index>`: {index_name, price, timestamp}. Numbers are bare JSON numbers.

The server is asked for heartbeats and sends `test_request`, which must be answered by `public/test`, else it closes.

Source: docs.deribit.com, "ticker", "markprice.options", "deribit_price_index", "public/subscribe", "public/set_heartbeat"; read
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
from monitor.wire.frames import Confirmed, Decoded, Denied, Fault, Notice, Reply, Topic, Wanted, read_json
from monitor.wire.price_text import number_of

__all__ = ["HEARTBEAT_S", "VENUE", "DeribitCodec", "codec", "index_of", "is_option", "topics"]

VENUE = "deribit"
HEARTBEAT_S = 15
_OPTION = re.compile(r"([A-Z0-9]+(?:_[A-Z0-9]+)?)-\d{1,2}[A-Z]{3}\d\d-[0-9d]+-[CP]", re.ASCII)
_OPENING_REQUEST = 900_000_001
_TEST_REQUEST = 900_000_002


def is_option(name: str) -> bool:
    """Whether an instrument is an option, by its spelling: `BTC-25DEC26-100000-C`, `XRP_USDC-27SEP24-0d6-C`."""
    return _OPTION.fullmatch(name) is not None


def index_of(name: str) -> str:
    """The index that an instrument follows: `BTC-...` -> btc_usd, `SOL_USDC-...` -> sol_usdc."""
    underlying = name.split("-", 1)[0].lower()
    return underlying if "_" in underlying else f"{underlying}_usd"


def topics(wanted: Wanted) -> tuple[Topic, ...]:
    """A ticker for each future; one channel an index for the marks and volatilities of options; an index for each asset.

    Forwards come on the options' tickers alone: with kind `forward` wanted each option has its ticker, and the array channel is not needed.
    """
    plan, by_index = [], dict[str, list[str]]()
    for name in sorted(wanted.instruments):
        if not is_option(name):
            plan.append(Topic(key=f"ticker.{name}.100ms", endpoint="ws", supplies=((PriceKind.MARK, (name,)),), interval_s=5.0))
        elif PriceKind.FORWARD in wanted.kinds:
            each = tuple((kind, (name,)) for kind in (PriceKind.MARK, PriceKind.VOLATILITY, PriceKind.FORWARD))
            plan.append(Topic(key=f"ticker.{name}.100ms", endpoint="ws", supplies=each, interval_s=5.0))
        else:
            by_index.setdefault(index_of(name), []).append(name)
    for index, names in sorted(by_index.items()):
        kinds = (PriceKind.MARK, PriceKind.VOLATILITY) if PriceKind.VOLATILITY in wanted.kinds else (PriceKind.MARK,)
        supplies = tuple((kind, tuple(names)) for kind in kinds)
        plan.append(Topic(key=f"markprice.options.{index}", endpoint="ws", supplies=supplies, interval_s=2.0))
    for asset in sorted(wanted.assets):
        key = f"deribit_price_index.{asset.lower()}_usd"
        plan.append(Topic(key=key, endpoint="ws", supplies=((PriceKind.INDEX, (asset,)),), interval_s=2.0))
    return tuple(plan)


class DeribitCodec:
    """One connection. Answers name the channels accepted; those of the request that they leave out were refused."""

    def __init__(self) -> None:
        self.venue = VENUE
        self._columns = Columns(VENUE)

    def decode(self, frame: bytes, received_at_ns: int) -> Decoded:
        """Marks, indices by asset, funding rates (when changed), volatilities, forwards; answers and heartbeats. Raises CodecError."""
        body = read_json(VENUE, frame)
        if type(body) is not dict:
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "not an object")
        decoded = Decoded(received_at_ns)
        method, params = body.get("method"), body.get("params")
        if method == "subscription" and type(params) is dict and type(params.get("channel")) is str:
            self._data(params["channel"], params.get("data"), decoded, frame)
        elif method == "heartbeat" and type(params) is dict:
            if params.get("type") == "test_request":
                decoded.controls.append(Reply(_request("public/test", {}, _TEST_REQUEST)))
        elif "id" in body:
            self._answer(body, decoded)
        else:
            raise CodecError(VENUE, Fault.UNKNOWN_MESSAGE, frame)
        return decoded

    def _data(self, channel: str, data: Any, decoded: Decoded, frame: bytes) -> None:
        name = channel.split(".", 1)[0]
        if name == "ticker" and type(data) is dict:
            self._ticker(data, decoded)
        elif name == "markprice" and type(data) is list:
            names, times = column(data, "instrument_name"), column(data, "timestamp")
            self._columns.prices(decoded, PriceKind.MARK, names, column(data, "mark_price"), times)
            volatilities = column(data, "iv")
            given = [index for index, value in enumerate(volatilities) if value]
            self._columns.prices(
                decoded,
                PriceKind.VOLATILITY,
                [names[index] for index in given],
                [volatilities[index] for index in given],
                [times[index] for index in given],
            )
        elif name == "deribit_price_index" and type(data) is dict:
            index = data.get("index_name")
            if type(index) is str and index.endswith("_usd"):
                self._columns.prices(decoded, PriceKind.INDEX, [index[:-4].upper()], [data.get("price")], [data.get("timestamp")])
        elif name in {"ticker", "markprice", "deribit_price_index"}:
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, f"data of {name}")
        else:
            raise CodecError(VENUE, Fault.UNKNOWN_MESSAGE, frame, f"channel {channel[:40]!r}")

    def _ticker(self, data: dict[str, Any], decoded: Decoded) -> None:
        names, times = [data.get("instrument_name")], [data.get("timestamp")]
        self._columns.prices(decoded, PriceKind.MARK, names, [data.get("mark_price")], times)
        if not decoded.batches:  # an instrument without a good mark has nothing else to say
            return
        if data.get("current_funding") is not None:
            self._columns.rates(decoded, PriceKind.FUNDING_RATE, names, [data["current_funding"]], times)
        percent = number_of(data.get("mark_iv"))
        if percent:
            self._columns.prices(decoded, PriceKind.VOLATILITY, names, [percent / 100], times)
            self._columns.prices(decoded, PriceKind.FORWARD, names, [data.get("underlying_price")], times)

    @staticmethod
    def _answer(body: dict[str, Any], decoded: Decoded) -> None:
        request, result, error = body["id"], body.get("result"), body.get("error")
        number = request if type(request) is int else None
        if type(error) is dict:
            decoded.controls.append(Denied(request=number, text=f"{error.get('code')}: {error.get('message')}"[:200]))
        elif type(result) is list:
            named = tuple(channel for channel in result if type(channel) is str)
            decoded.controls.append(Confirmed(number, named) if named else Denied(number, text="no such channel"))
        else:
            decoded.controls.append(Notice(f"answer {number}"))

    def opening(self) -> Sequence[bytes]:
        """Asks the server for heartbeats."""
        return (_request("public/set_heartbeat", {"interval": HEARTBEAT_S}, _OPENING_REQUEST),)

    def subscribe(self, topics: Sequence[str], request: int) -> bytes:
        """`public/subscribe` of channels."""
        return _request("public/subscribe", {"channels": list(topics)}, request)

    def unsubscribe(self, topics: Sequence[str], request: int) -> bytes:
        """`public/unsubscribe` of channels."""
        return _request("public/unsubscribe", {"channels": list(topics)}, request)

    def ping(self, request: int) -> bytes | None:
        """None: the server's heartbeats do it."""
        del request
        return None


def _request(method: str, params: dict[str, Any], request: int) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": request, "method": method, "params": params})


def codec() -> DeribitCodec:
    """A codec for one connection."""
    return DeribitCodec()
