"""What moves by itself: prices and other numbers by kind and name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

__all__ = ["NO_PRICES", "PriceKind", "Prices"]


class PriceKind(StrEnum):
    """Kinds of number a feed or a document's `prices` can carry."""

    MARK = "mark"
    INDEX = "index"
    SMOOTHED = "smoothed"
    FORWARD = "forward"
    VOLATILITY = "volatility"
    INTEREST_RATE = "interest_rate"
    FUNDING_RATE = "funding_rate"
    FUNDING_TIME = "funding_time"
    """When the funding rate is next paid, ms since 1970: for people and for those who read the cache; no evaluation uses it."""
    OPEN_INTEREST = "open_interest"
    DEPOSITS = "deposits"
    BORROWS = "borrows"
    STALE = "stale"
    """Not a price: names are `<kind>:<name>`, the number is 1 when that price must not be used any more and 0 when it may be again."""

    __hash__ = str.__hash__  # Enum's own is a Python function; kinds are keys on the way of every tick


Table = Mapping[str, Decimal]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """One reading of the numbers of one venue. Absent names are missing, and make what needs them unknown.

    Attributes:
        mark: By instrument, > 0; an inverse option's in coin.
        index: By asset, in the account's valuation currency, > 0.
        smoothed: By asset (Drift 5-minute average, Mango stable price).
        forward, volatility: By option, for one without mark. interest_rate: by settle asset.
        funding_rate, open_interest: By instrument. deposits, borrows: By asset.
    """

    mark: Table = field(default_factory=dict)
    index: Table = field(default_factory=dict)
    smoothed: Table = field(default_factory=dict)
    forward: Table = field(default_factory=dict)
    volatility: Table = field(default_factory=dict)
    interest_rate: Table = field(default_factory=dict)
    funding_rate: Table = field(default_factory=dict)
    open_interest: Table = field(default_factory=dict)
    deposits: Table = field(default_factory=dict)
    borrows: Table = field(default_factory=dict)


NO_PRICES = Prices()
