"""The last price of everything, by venue, kind and name: what exact evaluations and people read.

The engine has its own columns. This store follows the same messages, and can be advanced tick by tick inside a message, so that an event is
computed from the prices as they stood at its tick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal

from monitor.margin.numbers import exact_of_float
from monitor.margin.prices import PriceKind, Prices
from monitor.wire.prices import PriceBatch

__all__ = ["Moment", "PriceStore"]


class _Exact(Mapping[str, Decimal]):
    """Floats read as the decimals that they print."""

    __slots__ = ("_floats",)

    def __init__(self, floats: Mapping[str, float]) -> None:
        self._floats = floats

    def __getitem__(self, name: str) -> Decimal:
        return exact_of_float(self._floats[name])

    def __contains__(self, name: object) -> bool:
        return name in self._floats

    def __iter__(self) -> Iterator[str]:
        return iter(self._floats)

    def __len__(self) -> int:
        return len(self._floats)


class _Advanced(Mapping[str, float]):
    """Prices with the first ones of a batch over them."""

    __slots__ = ("_before", "_count", "_places", "_prices")

    def __init__(self, before: Mapping[str, float], places: Mapping[str, int], prices: Sequence[float], count: int) -> None:
        self._before, self._places, self._prices, self._count = before, places, prices, count

    def __getitem__(self, name: str) -> float:
        place = self._places.get(name)
        return self._before[name] if place is None or place >= self._count else self._prices[place]

    def __contains__(self, name: object) -> bool:
        return name in self._before or self._places.get(name, self._count) < self._count  # type: ignore[call-overload]

    def __iter__(self) -> Iterator[str]:
        yield from self._before
        yield from (name for name, place in self._places.items() if place < self._count and name not in self._before)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass(frozen=True, slots=True)
class Moment:
    """The prices of one venue before a batch, kept, and the batch: what they were at each of its ticks can be asked later.

    Attributes:
        before: By kind. places: Of the batch's names in it.
    """

    batch: PriceBatch
    before: Mapping[PriceKind, Mapping[str, float]]
    places: Mapping[str, int]

    def at(self, tick: int) -> Prices:
        """Exact prices right after this tick of the batch."""
        table = _Advanced(self.before[self.batch.kind], self.places, self.batch.prices, tick + 1)
        return _prices_of({**self.before, self.batch.kind: table})


def _prices_of(tables: Mapping[PriceKind, Mapping[str, float]]) -> Prices:
    return Prices(**{field.name: _Exact(tables[PriceKind(field.name)]) for field in fields(Prices)})


class PriceStore:
    """Prices by venue and kind. `prices(venue)` is a live view: read it before the next message, or copy what is needed."""

    def __init__(self) -> None:
        self._prices: dict[tuple[str, PriceKind], dict[str, float]] = {}
        self._times: dict[tuple[str, PriceKind], dict[str, int]] = {}
        self._views: dict[str, Prices] = {}

    def take(self, batch: PriceBatch, start: int = 0, end: int | None = None) -> None:
        """Takes the prices of a batch, or those from `start` up to `end` (exclusive)."""
        key = (batch.venue, batch.kind)
        if key not in self._prices:
            self._prices[key], self._times[key] = {}, {}
        names = batch.names[start:end] if start or end is not None else batch.names
        prices = batch.prices[start:end] if start or end is not None else batch.prices
        times = batch.venue_times_ms[start:end] if start or end is not None else batch.venue_times_ms
        self._prices[key].update(zip(names, prices, strict=True))
        self._times[key].update(zip(names, times, strict=True))

    def forget(self, venue: str, kind: PriceKind, name: str) -> None:
        """Takes a price away: it must not be used any more."""
        self._prices.get((venue, kind), {}).pop(name, None)

    def price(self, venue: str, kind: PriceKind, name: str) -> float | None:
        """The last price, or None."""
        return self._prices.get((venue, kind), {}).get(name)

    def time_ms(self, venue: str, kind: PriceKind, name: str) -> int:
        """The venue's time of the last price; 0 where there is none."""
        return self._times.get((venue, kind), {}).get(name, 0)

    def names(self, venue: str) -> list[tuple[PriceKind, str]]:
        """Everything there is a number of."""
        return [(kind, name) for (held, kind), table in self._prices.items() if held == venue for name in table]

    def venues(self) -> set[str]:
        """Venues with at least one number."""
        return {venue for (venue, _), table in self._prices.items() if table}

    def prices(self, venue: str) -> Prices:
        """All numbers of a venue as exact decimals."""
        view = self._views.get(venue)
        if view is None:
            view = self._views[venue] = _prices_of(self._tables(venue))
        return view

    def moment(self, batch: PriceBatch) -> Moment:
        """The prices as they stand now, before this batch is taken."""
        before = {kind: dict(table) for kind, table in self._tables(batch.venue).items()}
        return Moment(batch, before, {name: place for place, name in enumerate(batch.names)})

    def _tables(self, venue: str) -> dict[PriceKind, dict[str, float]]:
        """The live tables of a venue, one for every kind that an evaluation can use."""
        kinds = [PriceKind(field.name) for field in fields(Prices)]
        for kind in kinds:
            self._times.setdefault((venue, kind), {})
        return {kind: self._prices.setdefault((venue, kind), {}) for kind in kinds}

    def count(self, venue: str) -> int:
        """How many names of a venue have a mark price."""
        return len(self._prices.get((venue, PriceKind.MARK), {}))
