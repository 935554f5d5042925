"""Columns of a venue's frame -> price batches: every name, number and time checked, bad items left out and counted, the others used.

The usual frame (names seen before, all numbers good, one time) takes the short way, whose cost is a few list passes in C; the long way asks
item by item and gives the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from monitor.margin.prices import PriceKind
from monitor.wire.frames import EARLIEST_MS, Decoded, Fault, is_name, is_time, moment_of
from monitor.wire.price_text import BadNumber, number_of, price_of, prices_of
from monitor.wire.prices import PriceBatch

__all__ = ["MOST_NAMES", "Columns", "column"]

_NOTHING: dict[Any, Any] = {}

MOST_NAMES = 50_000
"""Names one connection may bring, over all kinds; more is a venue gone wrong, not a market."""


def column(items: Sequence[Any], key: str) -> list[Any]:
    """One field of every item, None where an item is no object or lacks it."""
    try:
        return [item[key] for item in items]
    except (KeyError, TypeError, IndexError):
        return [item.get(key) if type(item) is dict else None for item in items]


class Columns:
    """Makes the batches of one connection. Remembers the names checked, and the last rates: one is handed on when it changes."""

    __slots__ = ("_as_sent", "_known", "_last_names", "_rates", "_whole", "venue")

    def __init__(self, venue: str) -> None:
        self.venue = venue
        self._known: set[str] = set()
        self._last_names: dict[PriceKind, list[str]] = {}
        self._rates: dict[PriceKind, dict[str, float]] = {}
        self._as_sent: dict[PriceKind, dict[Any, Any]] = {}
        self._whole: dict[PriceKind, tuple[list[Any], list[Any]]] = {}

    def price(self, decoded: Decoded, kind: PriceKind, name: Any, value: Any, time: Any) -> bool:
        """Adds a batch of one price, as `prices` would, in half the time. Returns whether it was a good one."""
        if not self.admits(name, decoded):
            return False
        if not is_time(time, decoded.received_at_ns):
            decoded.reject(Fault.BAD_TIME)
            return False
        good = price_of(value)
        if type(good) is not float:
            decoded.reject(str(good))
            return False
        decoded.batches.append(
            PriceBatch(
                venue=self.venue, kind=kind, names=[name], prices=[good], venue_times_ms=[time], received_at_ns=decoded.received_at_ns
            )
        )
        return True

    def prices(self, decoded: Decoded, kind: PriceKind, names: list[Any], values: list[Any], times: list[Any] | int) -> None:
        """Adds a batch of prices (finite, > 0). `times`: of each item, or one for all (0: the venue gives none).

        A name that comes twice in a frame counts once, with its last good value. Frames with the same names share one list of them: it is
        never changed.
        """
        batch_times = _shared_times(times, len(names), decoded.received_at_ns)
        if batch_times is not None:
            good = prices_of(values)
            last = self._last_names.get(kind)
            if last == names:
                names = last
            if good is not None and (names is last or self._all_known(names)):
                if names:
                    self._last_names[kind] = names
                    decoded.batches.append(
                        PriceBatch(
                            venue=self.venue,
                            kind=kind,
                            names=names,
                            prices=good,
                            venue_times_ms=batch_times,
                            received_at_ns=decoded.received_at_ns,
                        )
                    )
                return
        self._slowly(decoded, kind, names, values, times)

    def _all_known(self, names: list[Any]) -> bool:
        try:
            return self._known.issuperset(names) and (len(names) == 1 or len(set(names)) == len(names))
        except TypeError:
            return False

    def _slowly(self, decoded: Decoded, kind: PriceKind, names: list[Any], values: list[Any], times: list[Any] | int) -> None:
        taken: dict[str, tuple[float, int]] = {}
        for index, name in enumerate(names):
            if not self.admits(name, decoded):
                continue
            time = times if type(times) is int else times[index]  # type: ignore[index]
            if (time != 0 or type(times) is not int) and not is_time(time, decoded.received_at_ns):
                decoded.reject(Fault.BAD_TIME)
                continue
            price = price_of(values[index])
            if isinstance(price, BadNumber):
                decoded.reject(price.value)
                continue
            taken.pop(name, None)
            taken[name] = (price, time)
        self._emit(decoded, kind, taken)

    def rates(self, decoded: Decoded, kind: PriceKind, names: list[Any], values: list[Any], times: list[Any] | int) -> None:
        """Adds a batch of numbers of either sign, of the names whose number changed. An empty string or null stands for none."""
        self._changed(decoded, kind, names, values, times, absent=(None, ""), read=number_of, fault=Fault.NOT_A_NUMBER)

    def moments(self, decoded: Decoded, kind: PriceKind, names: list[Any], values: list[Any], times: list[Any] | int) -> None:
        """Adds a batch of moments (ms since 1970), of the names whose moment changed. An empty string, null or 0 stands for none."""
        self._changed(decoded, kind, names, values, times, absent=(None, "", 0, "0"), read=moment_of, fault=Fault.BAD_TIME)

    def _changed(
        self,
        decoded: Decoded,
        kind: PriceKind,
        names: list[Any],
        values: list[Any],
        times: list[Any] | int,
        *,
        absent: tuple[Any, ...],
        read: Callable[[object], float | None],
        fault: Fault,
    ) -> None:
        if len(names) > 1 and self._whole.get(kind) == (names, values):
            return  # a frame that says what the one before said
        as_sent = self._as_sent.setdefault(kind, {})
        try:
            changed = [index for index, name in enumerate(names) if as_sent.get(name) != values[index]]
        except TypeError:  # a name that cannot be one
            changed = list(range(len(names)))
        if not changed:
            return
        last = self._rates.setdefault(kind, {})
        taken: dict[str, tuple[float, int]] = {}
        for index in changed:
            name, value = names[index], values[index]
            if value in absent:
                continue
            number = read(value)
            if number is None:
                decoded.reject(fault)
                continue
            try:
                if last.get(name) == number:
                    continue
            except TypeError:
                decoded.reject(Fault.BAD_NAME)
                continue
            if not self.admits(name, decoded):
                continue
            time = times if type(times) is int else times[index]  # type: ignore[index]
            if type(time) is not int or (time != 0 and not is_time(time, decoded.received_at_ns)):
                decoded.reject(Fault.BAD_TIME)
                continue
            last[name] = number
            as_sent[name] = value
            taken[name] = (number, time)
        if decoded.rejected is None:
            self._whole[kind] = (names, values)
        self._emit(decoded, kind, taken)

    def stands(self, kind: PriceKind, name: Any, value: Any) -> bool:
        """Whether this rate is the one handed on last, as it was sent: then `rates` would add nothing."""
        return type(name) is str and value is not None and self._as_sent.get(kind, _NOTHING).get(name) == value

    def admits(self, name: Any, decoded: Decoded) -> TypeGuard[str]:
        """Whether this is a name, counted if it is not. Remembers it."""
        try:
            if name in self._known:
                return True
        except TypeError:
            decoded.reject(Fault.BAD_NAME)
            return False
        if not is_name(name):
            decoded.reject(Fault.BAD_NAME)
            return False
        if len(self._known) >= MOST_NAMES:
            decoded.reject(Fault.TOO_MANY_NAMES)
            return False
        self._known.add(name)
        return True

    def _emit(self, decoded: Decoded, kind: PriceKind, taken: dict[str, tuple[float, int]]) -> None:
        if taken:
            decoded.batches.append(
                PriceBatch(
                    venue=self.venue,
                    kind=kind,
                    names=list(taken),
                    prices=[price for price, _time in taken.values()],
                    venue_times_ms=[time for _price, time in taken.values()],
                    received_at_ns=decoded.received_at_ns,
                )
            )


def _shared_times(times: list[Any] | int, count: int, received_at_ns: int) -> list[int] | None:
    """The times as a list when all items share a good one (or there is none, 0), else None."""
    if type(times) is int:
        return [times] * count if times == 0 or is_time(times, received_at_ns) else None
    if not times:  # an empty frame
        return []
    first = times[0]  # type: ignore[index]
    if type(first) is int and first >= EARLIEST_MS and times.count(first) == count and is_time(first, received_at_ns):  # type: ignore[union-attr]
        return [first] * count
    if not all(is_time(time, received_at_ns) for time in times):  # type: ignore[union-attr]
        return None
    return times  # type: ignore[return-value]
