"""The last price of everything, by venue, kind and name: what exact evaluations and people read.

The engine has its own columns. This store follows the same messages, and can be advanced tick by tick inside a message, so that an event is
computed from the prices as they stood at its tick.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from decimal import Decimal

from monitor.margin.numbers import exact_of_float
from monitor.margin.prices import PriceKind, Prices
from monitor.wire.prices import PriceBatch

__all__ = ["PriceStore"]


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

    def prices(self, venue: str) -> Prices:
        """All numbers of a venue as exact decimals."""
        view = self._views.get(venue)
        if view is None:
            tables = {field.name: PriceKind(field.name) for field in fields(Prices)}
            for kind in tables.values():
                self._prices.setdefault((venue, kind), {})
                self._times.setdefault((venue, kind), {})
            view = Prices(**{name: _Exact(self._prices[venue, kind]) for name, kind in tables.items()})
            self._views[venue] = view
        return view

    def count(self, venue: str) -> int:
        """How many names of a venue have a mark price."""
        return len(self._prices.get((venue, PriceKind.MARK), {}))
