"""Prices that look wrong: marked as such, never held back.

The venue's own price is what liquidates, also when it is a bad print, so an account there is judged by it at once. What a suspicion adds
is a tag on the event and a reference price to value the account at a second time: at the median of the other venues it may be well.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from monitor.margin.prices import PriceKind
from monitor.wire.markets import asset_of, perpetual_of
from monitor.wire.prices import PriceBatch

__all__ = ["DEFAULT_LIMITS", "Suspicion", "SuspicionKind", "SuspicionLimits", "SuspicionWatch", "suspicions"]


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
    """

    jump: float = 0.10
    index: float = 0.05
    median: float = 0.03
    peers: int = 2
    peer_age_ms: int = 10_000


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


class SuspicionWatch:
    """Remembers the last prices of all venues and tells what is strange in each batch. Changes no batch; holds one number a name."""

    def __init__(self, limits: SuspicionLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._last: dict[tuple[str, PriceKind, str], float] = {}
        self._coins: dict[tuple[str, PriceKind], dict[str, dict[str, tuple[float, int]]]] = {}

    def take(self, batch: PriceBatch) -> dict[str, tuple[Suspicion, ...]]:
        """Name -> what is strange about its number in this batch; names with nothing are left out. Marks and indices only."""
        if batch.kind not in {PriceKind.MARK, PriceKind.INDEX}:
            return {}
        now_ms = batch.received_at_ns // 1_000_000
        found = {}
        for name, price in zip(batch.names, batch.prices, strict=True):
            key = (batch.venue, batch.kind, name)
            previous = self._last.get(key)
            self._last[key] = price
            coin, coins = self._coin_of(batch, name)
            peers: list[float] = []
            index = None
            if coin is not None:
                peers = [other * coins for other in self._others(batch, coin, now_ms)]
                if batch.kind is PriceKind.MARK:
                    of_index = self._last.get((batch.venue, PriceKind.INDEX, coin))
                    index = of_index * coins if of_index is not None else None
                self._coins.setdefault((coin, batch.kind), {}).setdefault(batch.venue, {})[name] = (price / coins, now_ms)
            strange = suspicions(price, previous=previous, index=index, peers=peers, limits=self._limits)
            if strange:
                found[name] = strange
        return found

    @staticmethod
    def _coin_of(batch: PriceBatch, name: str) -> tuple[str | None, int]:
        if batch.kind is PriceKind.INDEX:
            return asset_of(name), 1
        market = perpetual_of(batch.venue, name)
        return (market.base, market.coins) if market is not None else (None, 1)

    def _others(self, batch: PriceBatch, coin: str, now_ms: int) -> Iterable[float]:
        """One price of this coin a venue, of the other venues that have a young one."""
        oldest = now_ms - self._limits.peer_age_ms
        for venue, prices in self._coins.get((coin, batch.kind), {}).items():
            young = [price for price, at_ms in prices.values() if at_ms >= oldest]
            if venue != batch.venue and young:
                yield statistics.median(young)
