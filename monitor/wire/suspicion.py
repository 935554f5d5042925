"""Prices that look wrong: marked as such, never held back.

The venue's own price is what liquidates, also when it is a bad print, so an account there is judged by it at once. What a suspicion adds
is a tag on the event and a reference price to value the account at a second time: at the median of the other venues it may be well.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from monitor.margin.numbers import exact_of_float
from monitor.margin.prices import PriceKind
from monitor.wire.markets import Market, asset_of, perpetual_of
from monitor.wire.prices import PriceBatch

__all__ = ["DEFAULT_LIMITS", "Medians", "Suspicion", "SuspicionKind", "SuspicionLimits", "SuspicionWatch", "suspicions"]

Medians = Mapping[str, Mapping[str, Decimal]]
"""Kind (mark, index) -> name -> the median of the other venues' prices for the same asset, scaled to this name's contract."""

_WATCHED = (PriceKind.MARK, PriceKind.INDEX)


class SuspicionKind(StrEnum):
    """What is strange about a price. The text is a tag on events."""

    JUMP = "jump"
    AGAINST_INDEX = "against_index"
    AGAINST_MEDIAN = "venue_deviation"
    SINGLE_SOURCE = "single_source"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspicionLimits:
    """From which relative deviation on a price is strange.

    Attributes:
        jump: Against the number before. index: against the index price of its asset. median: against the median of other venues.
        peers: Venues that are needed for a median.
        peer_age_ms: Numbers of other venues older than this do not count.
        jump_shown_ms: So long a jump stands among the strange prices.
    """

    jump: float = 0.10
    index: float = 0.05
    median: float = 0.03
    peers: int = 2
    peer_age_ms: int = 10_000
    jump_shown_ms: int = 60_000


DEFAULT_LIMITS = SuspicionLimits()


@dataclass(frozen=True, slots=True)
class Suspicion:
    """One reason to doubt a price.

    `deviation` = price / reference - 1. The reference is the number before, the index or the median; of a single source the price itself.
    """

    kind: SuspicionKind
    price: float
    reference: float
    deviation: float


def suspicions(
    price: float,
    *,
    previous: float | None,
    index: float | None = None,
    peers: Sequence[float] = (),
    limits: SuspicionLimits = DEFAULT_LIMITS,
) -> tuple[Suspicion, ...]:
    """Everything strange about one price, > 0; empty for an ordinary one.

    A jump that the other venues' median does not contradict is still told as a jump: a real crash looks like one. A strange price of a
    market that fewer than `limits.peers` other venues know is tagged `single_source`: nobody can say whether it is right.
    """
    found = []
    if previous is not None and abs(price / previous - 1) > limits.jump:
        found.append(Suspicion(SuspicionKind.JUMP, price, previous, price / previous - 1))
    if index is not None and abs(price / index - 1) > limits.index:
        found.append(Suspicion(SuspicionKind.AGAINST_INDEX, price, index, price / index - 1))
    if len(peers) >= limits.peers:
        median = statistics.median(peers)
        if abs(price / median - 1) > limits.median:
            found.append(Suspicion(SuspicionKind.AGAINST_MEDIAN, price, median, price / median - 1))
    elif found:
        found.append(Suspicion(SuspicionKind.SINGLE_SOURCE, price, price, 0.0))
    return tuple(found)


@dataclass(slots=True)
class _Series:
    """The last prices of one venue and kind, by name: price, receive time in ms, market (None: no perpetual), jumps and when they were."""

    last: dict[str, float] = field(default_factory=dict)
    at_ms: dict[str, int] = field(default_factory=dict)
    market: dict[str, Market | None] = field(default_factory=dict)
    jumps: dict[str, tuple[Suspicion, int]] = field(default_factory=dict)


class SuspicionWatch:
    """Remembers the last prices of all venues, and tells what is strange about one. Changes no batch.

    To remember a batch is cheap (`take`, on the way of every tick); to compare a price with those of the other venues is not, and is
    done for those that matter: the one that made an event (`look`), the inputs of a pool (`medians`), all when somebody asks (`standing`).
    """

    def __init__(self, limits: SuspicionLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._series: dict[tuple[str, PriceKind], _Series] = {}
        self._names: dict[tuple[PriceKind, str], dict[str, list[str]]] = {}

    def look(self, batch: PriceBatch, place: int) -> tuple[Suspicion, ...]:
        """What is strange about the number at this place of a batch that is not taken yet. Marks and indices only."""
        if batch.kind not in _WATCHED:
            return ()
        name, price = batch.names[place], batch.prices[place]
        series = self._series.get((batch.venue, batch.kind))
        previous = series.last.get(name) if series is not None else None
        return self._strange(batch.venue, batch.kind, name, price, previous, batch.received_at_ns // 1_000_000)

    def take(self, batch: PriceBatch) -> None:
        """Remembers a batch."""
        if batch.kind not in _WATCHED:
            return
        key = (batch.venue, batch.kind)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        names, prices, last = batch.names, batch.prices, series.last
        now_ms = batch.received_at_ns // 1_000_000
        limit = self._limits.jump
        for name, price, before in [
            (name, price, before)
            for name, price, before in zip(names, prices, map(last.get, names), strict=True)
            if before and abs(price / before - 1) > limit
        ]:
            series.jumps[name] = (Suspicion(SuspicionKind.JUMP, price, before, price / before - 1), now_ms)
        last.update(zip(names, prices, strict=True))
        series.at_ms.update(dict.fromkeys(names, now_ms))
        if len(series.market) < len(last):
            for name in names:
                if name not in series.market:
                    market = series.market[name] = _market_of(batch.venue, batch.kind, name)
                    if market is not None:
                        self._names.setdefault((batch.kind, market.base), {}).setdefault(batch.venue, []).append(name)

    def medians(self, venue: str, names: Mapping[str, Iterable[str]], now_ms: int) -> dict[str, dict[str, Decimal]]:
        """Of the names of one venue, by kind, those that enough other venues know, each with their median. Kinds without are left out."""
        found: dict[str, dict[str, Decimal]] = {}
        for kind in _WATCHED:
            for name in names.get(kind.value, ()):
                market = self._market(venue, kind, name)
                peers = self._peers(venue, kind, market, now_ms)
                if len(peers) >= self._limits.peers:
                    found.setdefault(kind.value, {})[name] = exact_of_float(statistics.median(peers))
        return found

    def standing(self, now_ms: int) -> Iterator[tuple[str, PriceKind, str, tuple[Suspicion, ...]]]:
        """(venue, kind, name, what is strange) of every last price that is young, jumps for as long as they are shown."""
        for (venue, kind), series in self._series.items():
            for name, (_, at_ms) in list(series.jumps.items()):
                if now_ms - at_ms > self._limits.jump_shown_ms:
                    del series.jumps[name]
            for name, price in series.last.items():
                jump = series.jumps.get(name)
                if now_ms - series.at_ms[name] <= self._limits.peer_age_ms:
                    previous = jump[0].reference if jump is not None else None
                    strange = self._strange(venue, kind, name, price, previous, now_ms)
                    if strange:
                        yield venue, kind, name, strange

    def _strange(self, venue: str, kind: PriceKind, name: str, price: float, previous: float | None, now_ms: int) -> tuple[Suspicion, ...]:
        market = self._market(venue, kind, name)
        index = None
        if kind is PriceKind.MARK and market is not None:
            indices = self._series.get((venue, PriceKind.INDEX))
            index = indices.last.get(market.base) if indices is not None else None
        return suspicions(
            price,
            previous=previous or None,
            index=index * market.coins if index and market is not None else None,
            peers=self._peers(venue, kind, market, now_ms),
            limits=self._limits,
        )

    def _market(self, venue: str, kind: PriceKind, name: str) -> Market | None:
        series = self._series.get((venue, kind))
        return series.market[name] if series is not None and name in series.market else _market_of(venue, kind, name)

    def _peers(self, venue: str, kind: PriceKind, market: Market | None, now_ms: int) -> list[float]:
        """One price of this market a venue, of the other venues that have a young one."""
        peers: list[float] = []
        if market is None:
            return peers
        oldest = now_ms - self._limits.peer_age_ms
        for other, names in self._names.get((kind, market.base), {}).items():
            if other != venue:
                series = self._series[other, kind]
                young = [
                    series.last[name] / known.coins
                    for name in names
                    if series.at_ms[name] >= oldest and series.last[name] > 0 and (known := series.market[name]) is not None
                ]
                if young:
                    peers.append(statistics.median(young) * market.coins)
        return peers


def _market_of(venue: str, kind: PriceKind, name: str) -> Market | None:
    return Market(asset_of(name), 1) if kind is PriceKind.INDEX else perpetual_of(venue, name)
