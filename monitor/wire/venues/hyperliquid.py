"""Hyperliquid asset contexts: one channel carries every market of every dex, by position in the dex's universe.

`{"channel": "allDexsAssetCtxs", "data": {"ctxs": [[dex, [{"markPx", "oraclePx", "funding", ...}, ...]], ...]}}`: no names and no times.
The names are asked for over the same socket (`post` of the info request `allPerpMetas`) before subscribing, and again when a context has
no name: until they are there its numbers are left out (`no_universe`). A universe only grows at its end. The first dex, "", is the
venue's own (`BTC`); the others' names carry their dex (`xyz:GOLD`). `oraclePx` of the first dex is taken as the index of the coin, in
USD.

`allMids` are mid prices, not marks: never taken. `activeAssetCtx` (one coin) and `webData2` (a user's whole page) carry marks and are
read.

Source: hyperliquid.gitbook.io, "WebSocket: Subscriptions, Post requests, Timeouts and heartbeats", "Info endpoint: Perpetuals"; read
2026-11-20.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from monitor.errors import CodecError
from monitor.margin.prices import PriceKind
from monitor.wire.columns import Columns, column
from monitor.wire.frames import Confirmed, Control, Decoded, Denied, Fault, Notice, Pong, Reply, Topic, Wanted, is_time, read_json

__all__ = ["ALL_CONTEXTS", "VENUE", "HyperliquidCodec", "codec", "topics"]

VENUE = "hyperliquid"
ALL_CONTEXTS = "allDexsAssetCtxs"
_META_REQUEST = 900_000_001


def topics(wanted: Wanted) -> tuple[Topic, ...]:
    """One topic for everything. Its cadence is not published; 3 s are taken as nominal."""
    if not (wanted.instruments or wanted.everything or wanted.assets):
        return ()
    supplies = [(PriceKind.MARK, tuple(sorted(wanted.instruments)))]
    if wanted.assets:
        supplies.append((PriceKind.INDEX, tuple(sorted(wanted.assets))))
    return (
        Topic(
            key=ALL_CONTEXTS,
            endpoint="ws",
            supplies=tuple(supplies),
            interval_s=3.0,
            open_kind=PriceKind.MARK if wanted.everything else None,
        ),
    )


class HyperliquidCodec:
    """One connection. Knows the universes it was told on it."""

    def __init__(self) -> None:
        self.venue = VENUE
        self._columns = Columns(VENUE)
        self._universes: dict[str, list[Any]] = {}
        self._asked = True  # by `opening`
        self._asked_for: dict[str, int] = {}

    def decode(self, frame: bytes, received_at_ns: int) -> Decoded:
        """Marks, indices of coins, funding rates (when changed); universes, answers, pongs. Raises CodecError."""
        body = read_json(VENUE, frame)
        if type(body) is not dict or type(body.get("channel")) is not str:
            raise CodecError(VENUE, Fault.WRONG_SHAPE, frame, "no channel")
        decoded = Decoded(received_at_ns)
        channel, data = body["channel"], body.get("data")
        if channel == ALL_CONTEXTS and type(data) is dict and type(data.get("ctxs")) is list:
            for entry in data["ctxs"]:
                self._contexts(entry, decoded)
        elif channel == "post" and type(data) is dict:
            self._post(data, decoded)
        elif channel == "activeAssetCtx" and type(data) is dict:
            self._take("", [data.get("coin")], [data.get("ctx")], decoded)
        elif channel == "webData2" and type(data) is dict:
            self._page(data, decoded)
        elif channel == "subscriptionResponse" and type(data) is dict:
            self._answer(data, decoded)
        elif channel == "pong":
            decoded.controls.append(Pong())
        elif channel == "error":
            decoded.controls.append(_refusal(str(data)[:200]))
        elif channel == "allMids":
            decoded.controls.append(Notice("mid prices are not marks"))
        else:
            raise CodecError(VENUE, Fault.UNKNOWN_MESSAGE, frame, f"channel {channel[:40]!r}")
        return decoded

    def _contexts(self, entry: Any, decoded: Decoded) -> None:
        """One dex: `[name, [context, ...]]`."""
        if type(entry) is not list or len(entry) != 2 or type(entry[0]) is not str or type(entry[1]) is not list:
            decoded.reject(Fault.WRONG_SHAPE)
            return
        dex, contexts = entry
        names = self._universes.get(dex, [])
        if len(contexts) > len(names):
            for _ in range(len(contexts) - len(names)):
                decoded.reject(Fault.NO_UNIVERSE)
            if not self._asked and self._asked_for.get(dex) != len(contexts):
                self._asked, self._asked_for[dex] = True, len(contexts)
                decoded.controls.append(Reply(_META))
            contexts = contexts[: len(names)]
        self._take(dex, names[: len(contexts)], contexts, decoded)

    def _take(self, dex: str, names: list[Any], contexts: list[Any], decoded: Decoded, time: int = 0) -> None:
        marks = column(contexts, "markPx")
        if None in marks:  # a market without a mark (not yet open)
            kept = [index for index, mark in enumerate(marks) if mark is not None]
            names, contexts = [names[index] for index in kept], [contexts[index] for index in kept]
            marks = column(contexts, "markPx")
        if not names:
            return
        self._columns.prices(decoded, PriceKind.MARK, names, marks, time)
        self._columns.rates(decoded, PriceKind.FUNDING_RATE, names, column(contexts, "funding"), time)
        if dex == "":
            self._columns.prices(decoded, PriceKind.INDEX, names, column(contexts, "oraclePx"), time)

    def _page(self, data: dict[str, Any], decoded: Decoded) -> None:
        """`webData2`: contexts beside their universe, and the server's time."""
        meta, contexts = data.get("meta"), data.get("assetCtxs")
        if type(meta) is not dict or type(contexts) is not list:
            decoded.controls.append(Notice("a page without markets"))
            return
        names = _names(meta)
        time = data.get("serverTime")
        known = min(len(names), len(contexts))
        self._take("", names[:known], contexts[:known], decoded, time if type(time) is int and is_time(time, decoded.received_at_ns) else 0)

    def _post(self, data: dict[str, Any], decoded: Decoded) -> None:
        """The universes of all dexes. A dex is named by the part of its coins' names before the colon; the venue's own has none."""
        self._asked = False
        response = data.get("response")
        payload = response.get("payload") if type(response) is dict else None
        metas = payload.get("data") if type(payload) is dict else None
        if type(metas) is not list:
            decoded.controls.append(Notice(f"no universes: {payload!r}"[:200]))
            return
        for meta in metas:
            names = _names(meta[0] if type(meta) is list and meta else meta)  # a list carries the contexts beside
            if names and all(type(name) is str for name in names):
                self._universes[names[0].partition(":")[0] if ":" in names[0] else ""] = names
        decoded.controls.append(Notice(f"universes of {len(self._universes)} dexes"))

    @staticmethod
    def _answer(data: dict[str, Any], decoded: Decoded) -> None:
        subscription = data.get("subscription")
        topic = _topic(subscription) if type(subscription) is dict else None
        if topic is not None and data.get("method") == "subscribe":
            decoded.controls.append(Confirmed(topics=(topic,)))
        else:
            decoded.controls.append(Notice(str(data)[:200]))

    def opening(self) -> Sequence[bytes]:
        """Asks for the universes."""
        return (_META,)

    def subscribe(self, topics: Sequence[str], request: int) -> bytes:
        """One topic a message; the venue knows no other form."""
        del request
        return orjson.dumps({"method": "subscribe", "subscription": _subscription(topics)})

    def unsubscribe(self, topics: Sequence[str], request: int) -> bytes:
        """One topic a message."""
        del request
        return orjson.dumps({"method": "unsubscribe", "subscription": _subscription(topics)})

    def ping(self, request: int) -> bytes | None:
        """`{"method": "ping"}`."""
        del request
        return b'{"method":"ping"}'


_META = orjson.dumps({"method": "post", "id": _META_REQUEST, "request": {"type": "info", "payload": {"type": "allPerpMetas"}}})


def _names(meta: Any) -> list[Any]:
    universe = meta.get("universe") if type(meta) is dict else None
    return column(universe, "name") if type(universe) is list else []


def _refusal(text: str) -> Control:
    """An error: its text holds the subscription that it is about as JSON, if it is about one."""
    try:
        subscription = orjson.loads(text[text.index("{") : text.rindex("}") + 1])
    except ValueError:
        return Denied(text=text)
    topic = _topic(subscription) if type(subscription) is dict else None
    if topic is None:
        return Denied(text=text)
    return Confirmed(topics=(topic,)) if "already subscribed" in text.lower() else Denied(topics=(topic,), text=text)


def _topic(subscription: dict[str, Any]) -> str | None:
    kind, coin = subscription.get("type"), subscription.get("coin")
    return None if type(kind) is not str else f"{kind}:{coin}" if coin else kind


def _subscription(topics: Sequence[str]) -> dict[str, str]:
    [topic] = topics
    kind, _, coin = topic.partition(":")
    return {"type": kind, "coin": coin} if coin else {"type": kind}


def codec() -> HyperliquidCodec:
    """A codec for one connection."""
    return HyperliquidCodec()
