"""Bybit v5 public tickers of linear, inverse and option contracts; index prices in USD put together from three pairs.

`{"topic": "tickers.<symbol>", "type": "snapshot" | "delta", "data": {"symbol", "markPrice", "indexPrice", "fundingRate", ...}, "ts":
ms}`. A delta carries the fields that changed. One without `markPrice` says that the mark stands: it is handed on again when it was last
handed on a second ago or more, so that a quiet market is not taken for a silent one. Options send snapshots only; they add `markPriceIv`
(fraction) and `underlyingPrice`.

`indexPrice` is that of the pair. In USD, as the venue values collateral: index of A = A/USDT * (BTC/USD / BTC/USDT), where BTC/USD is the
index of the inverse contract BTCUSD; USDT itself BTC/USD / BTC/USDT, USDC likewise from BTCPERP.

Source: Bybit v5 documentation, "Ticker" and "Connect"; "Glossary" of the unified account for the USD index; read 2026-11-20.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from monitor.errors import CodecError
from monitor.margin.prices import PriceKind
from monitor.wire.columns import Columns
from monitor.wire.frames import Confirmed, Decoded, Denied, Fault, Notice, Pong, Topic, Wanted, is_time, read_json
from monitor.wire.price_text import BadNumber, price_of
from monitor.wire.prices import PriceBatch

__all__ = ["VENUE", "BybitCodec", "UsdIndices", "codec", "endpoint_of", "topics"]

VENUE = "bybit"
REPEAT_MS = 1_000
_OPTION = re.compile(r"[A-Z0-9]+-\d{1,2}[A-Z]{3}\d\d-[0-9.]+-[CP](-USDT)?", re.ASCII)
_INVERSE = re.compile(r"[A-Z0-9]+USD([FGHJKMNQUVXZ]\d\d)?", re.ASCII)
_NAMED_TOPIC = re.compile(r"topic:\s*(\S+)")


def endpoint_of(name: str) -> str:
    """Which address serves an instrument: `option`, `inverse` (quoted in USD) or `linear`, by its spelling."""
    if _OPTION.fullmatch(name):
        return "option"
    return "inverse" if _INVERSE.fullmatch(name) else "linear"


def pair_of(name: str) -> str | None:
    """The pair whose index a perpetual's `indexPrice` is: BTCUSDT -> BTC/USDT, BTCPERP -> BTC/USDC, BTCUSD -> BTC/USD; None for others."""
    for ending, quote in (("USDT", "USDT"), ("PERP", "USDC"), ("USD", "USD")):
        if name.endswith(ending) and len(name) > len(ending) and "-" not in name:
            return f"{name[: -len(ending)]}/{quote}"
    return None


def topics(wanted: Wanted) -> tuple[Topic, ...]:
    """A ticker for each instrument; for each asset the tickers its USD index is made of.

    Cadence 100 ms on change. A market whose ticker has nothing to say for 15 s is taken for silent (nominal 5 s).
    """
    supplies: dict[str, list[tuple[PriceKind, tuple[str, ...]]]] = {}
    for name in wanted.instruments:
        kinds = [PriceKind.MARK]
        if endpoint_of(name) == "option":
            kinds += [kind for kind in (PriceKind.VOLATILITY, PriceKind.FORWARD) if kind in wanted.kinds]
        supplies.setdefault(name, []).extend((kind, (name,)) for kind in kinds)
    for asset in wanted.assets:
        if asset == "BTC":
            supplies.setdefault("BTCUSD", []).append((PriceKind.INDEX, ("BTC",)))
            continue
        own = {"USDT": "BTCUSDT", "USDC": "BTCPERP"}.get(asset, f"{asset}USDT")
        supplies.setdefault(own, []).append((PriceKind.INDEX, (asset,)))
        supplies.setdefault("BTCUSD", [])
        if asset != "USDC":
            supplies.setdefault("BTCUSDT", [])
    return tuple(
        Topic(key=f"tickers.{name}", endpoint=endpoint_of(name), supplies=tuple(supplied), interval_s=5.0)
        for name, supplied in sorted(supplies.items())
    )


class BybitCodec:
    """One connection to one of the three addresses. Remembers the last mark of each symbol, because deltas leave out what stands."""

    def __init__(self) -> None:
        self.venue = VENUE
        self._columns = Columns(VENUE)
        self._last: dict[tuple[PriceKind, str], tuple[float, int]] = {}

    def decode(self, frame: bytes, received_at_ns: int) -> Decoded:
        """Mark, index (named by pair), funding rate and time, option volatility and forward; answers and pongs. Raises CodecError."""
        body = read_json(VENUE, frame)
        if type(body) is not dict:
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "not an object")
        decoded = Decoded(received_at_ns)
        topic = body.get("topic")
        if type(topic) is str and topic.startswith("tickers."):
            self._ticker(body, decoded, frame)
        elif not self._answer(body, decoded):
            raise CodecError(VENUE, Fault.UNKNOWN_MESSAGE, frame)
        return decoded

    def _ticker(self, body: dict[str, Any], decoded: Decoded, frame: bytes) -> None:
        data, time = body.get("data"), body.get("ts")
        if type(data) is not dict:
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "data is no object")
        name = data.get("symbol")
        if not self._columns.admits(name, decoded):
            return
        if type(time) is not int or not is_time(time, decoded.received_at_ns):
            decoded.reject(Fault.BAD_TIME)
            return
        self._standing(decoded, PriceKind.MARK, name, data.get("markPrice"), time)
        pair = pair_of(name)
        if pair is not None and data.get("indexPrice") != "":  # a contract before its market has none
            self._standing(decoded, PriceKind.INDEX, pair, data.get("indexPrice"), time)
        if data.get("fundingRate"):
            self._columns.rates(decoded, PriceKind.FUNDING_RATE, [name], [data["fundingRate"]], time)
        if data.get("nextFundingTime"):
            self._columns.moments(decoded, PriceKind.FUNDING_TIME, [name], [data["nextFundingTime"]], time)
        if data.get("markPriceIv"):
            self._optional(decoded, PriceKind.VOLATILITY, name, data["markPriceIv"], time)
            if data.get("underlyingPrice"):
                self._optional(decoded, PriceKind.FORWARD, name, data["underlyingPrice"], time)

    def _standing(self, decoded: Decoded, kind: PriceKind, name: str, value: object, time: int) -> None:
        """A price that a message may leave out because it stands: then it is handed on again once a second."""
        if value is None:
            price, handed_on = self._last.get((kind, name), (0.0, time))
            if time - handed_on < REPEAT_MS:
                return
        else:
            read = price_of(value)
            if isinstance(read, BadNumber):
                decoded.reject(read.value)
                return
            price = read
        self._last[kind, name] = (price, time)
        self._give(decoded, kind, name, price, time)

    def _optional(self, decoded: Decoded, kind: PriceKind, name: str, value: object, time: int) -> None:
        price = price_of(value)
        if isinstance(price, BadNumber):
            decoded.reject(price.value)
        else:
            self._give(decoded, kind, name, price, time)

    @staticmethod
    def _give(decoded: Decoded, kind: PriceKind, name: str, price: float, time: int) -> None:
        decoded.batches.append(
            PriceBatch(venue=VENUE, kind=kind, names=[name], prices=[price], venue_times_ms=[time], received_at_ns=decoded.received_at_ns)
        )

    @staticmethod
    def _answer(body: dict[str, Any], decoded: Decoded) -> bool:
        """Whether this answers a request. Options answer in another form (COMMAND_RESP) than the two others."""
        operation, text = body.get("op"), str(body.get("ret_msg", ""))
        if operation == "pong" or text == "pong":
            decoded.controls.append(Pong())
            return True
        if body.get("type") == "COMMAND_RESP" and type(body.get("data")) is dict:
            data = body["data"]
            for key, control in (("successTopics", Confirmed), ("failTopics", Denied)):
                named = data.get(key)
                if type(named) is list and named:
                    decoded.controls.append(control(topics=tuple(topic for topic in named if type(topic) is str)))
            return True
        if operation == "unsubscribe":
            decoded.controls.append(Notice(f"unsubscribe: {text}"[:200]))
            return True
        if operation != "subscribe" or type(body.get("success")) is not bool:
            return False
        request = _number_of(body.get("req_id"))
        named_topic = _NAMED_TOPIC.search(text)
        topics_named = (named_topic[1],) if named_topic is not None else ()
        if body["success"]:
            decoded.controls.append(Confirmed(request=request))
        elif "already subscribed" in text and topics_named:
            decoded.controls.append(Confirmed(topics=topics_named))
        else:
            decoded.controls.append(Denied(request=request, topics=topics_named, text=text[:200]))
        return True

    def opening(self) -> Sequence[bytes]:
        """Nothing is said before subscribing."""
        return ()

    def subscribe(self, topics: Sequence[str], request: int) -> bytes:
        """`{"req_id": "n", "op": "subscribe", "args": [...]}`."""
        return orjson.dumps({"req_id": str(request), "op": "subscribe", "args": list(topics)})

    def unsubscribe(self, topics: Sequence[str], request: int) -> bytes:
        """`{"req_id": "n", "op": "unsubscribe", "args": [...]}`."""
        return orjson.dumps({"req_id": str(request), "op": "unsubscribe", "args": list(topics)})

    def ping(self, request: int) -> bytes | None:
        """`{"req_id": "n", "op": "ping"}`."""
        return orjson.dumps({"req_id": str(request), "op": "ping"})


def _number_of(value: object) -> int | None:
    return int(value) if type(value) is str and value.isascii() and value.isdigit() and len(value) < 10 else None


class UsdIndices:
    """Index prices of pairs -> index prices of assets in USD. One for all connections of the venue.

    The three prices come in messages of their own: the result is right within the move of BTC between them. Its event time is the
    oldest of the inputs': an index made with a standing BTC price is as old as that price.
    """

    def __init__(self) -> None:
        self._pairs: dict[str, tuple[float, int]] = {}

    def derive(self, batches: list[PriceBatch]) -> list[PriceBatch]:
        """The batches, those of kind index turned from pairs into assets; left out while an input has never come."""
        derived = []
        for batch in batches:
            if batch.kind is not PriceKind.INDEX:
                derived.append(batch)
                continue
            for pair, price, time in zip(batch.names, batch.prices, batch.venue_times_ms, strict=True):
                self._pairs[pair] = (price, time)
                made = self._asset(pair)
                if made is not None:
                    asset, value, made_at = made
                    derived.append(
                        PriceBatch(
                            venue=batch.venue,
                            kind=PriceKind.INDEX,
                            names=[asset],
                            prices=[value],
                            venue_times_ms=[made_at],
                            received_at_ns=batch.received_at_ns,
                        )
                    )
        return derived

    def _asset(self, pair: str) -> tuple[str, float, int] | None:
        """(asset, USD price, time) that this pair's price gives, or None."""
        base, quote = pair.split("/")
        price, time = self._pairs[pair]
        if quote == "USD":
            return ("BTC", price, time) if base == "BTC" else None
        bitcoin, cross = self._pairs.get("BTC/USD"), self._pairs.get(f"BTC/{quote}")
        if bitcoin is None or cross is None:
            return None
        stable, stable_at = bitcoin[0] / cross[0], min(bitcoin[1], cross[1])
        if base == "BTC":
            return quote, stable, stable_at
        return (base, price * stable, min(time, stable_at)) if quote == "USDT" else None


def codec(_endpoint: str) -> BybitCodec:
    """A codec for one connection to any of the three addresses."""
    return BybitCodec()
