"""Numbers of a market at one moment, written the way a venue writes them: what tapes hold and simulators send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monitor.margin.prices import PriceKind

__all__ = ["Quotes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotes:
    """One moment.

    Attributes:
        time_ms: Event time, ms since 1970.
        numbers: Kind -> name -> decimal text. The text is sent as it stands: digits of a recorded price are kept.
    """

    time_ms: int
    numbers: Mapping[PriceKind, Mapping[str, str]]
