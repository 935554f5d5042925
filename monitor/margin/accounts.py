"""What an account holds: positions, balances, orders, adjustments. Values only; the words and signs are those of the portfolio document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from monitor.margin.numbers import ZERO

__all__ = ["MODES", "PORTFOLIO_MARGIN_VENUES", "VENUES", "Account", "Adjustment", "Balance", "Order", "Position"]

VENUES = (
    "binance_usdm",
    "binance_coinm",
    "bybit",
    "okx",
    "deribit",
    "hyperliquid",
    "dydx_v4",
    "bitmex",
    "kraken_futures",
    "drift",
    "mango_v4",
    "house",
)
"""Venues whose rules are built in; `house` is a broker's own, written in configuration."""

_SINGLE, _MULTI = "single_asset", "multi_asset"

MODES: Mapping[str, tuple[str, ...]] = {
    "binance_usdm": (_SINGLE, _MULTI),
    "binance_coinm": (_SINGLE,),
    "bybit": (_MULTI, _SINGLE),
    "okx": (_MULTI, _SINGLE),
    "deribit": (_SINGLE, _MULTI),
    "hyperliquid": (_SINGLE,),
    "dydx_v4": (_SINGLE,),
    "bitmex": (_SINGLE,),
    "kraken_futures": (_MULTI,),
    "drift": (_MULTI,),
    "mango_v4": (_MULTI,),
    "house": (_MULTI, _SINGLE),
}
"""Modes that a venue has, the default first. single_asset: a pool per settle asset; multi_asset: one pool, valued in one currency."""

PORTFOLIO_MARGIN_VENUES = frozenset(("okx", "deribit", "house"))
"""Venues with the margin model `portfolio`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A position. `quantity` is signed, long > 0, in the venue's own count, never 0; `side` is both, long or short."""

    instrument: str
    quantity: Decimal
    side: str = "both"
    entry_price: Decimal | None = None
    cost: Decimal | None = None
    leverage: Decimal | None = None
    margin_mode: str = "cross"
    isolated_wallet: Decimal | None = None
    isolated_cash: Decimal | None = None
    unsettled_funding: Decimal = ZERO

    @property
    def is_isolated(self) -> bool:
        """True when the position is a margin pool of its own."""
        return self.margin_mode == "isolated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Settled cash of one asset: exactly one of `wallet` (before unrealised profit) and `cash` (after paying for the notional)."""

    asset: str
    wallet: Decimal | None = None
    cash: Decimal | None = None
    collateral: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Open orders of one side: `notional`, or `quantity` at `price`."""

    instrument: str
    side: str
    quantity: Decimal | None = None
    price: Decimal | None = None
    notional: Decimal | None = None
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """A sum that no listed row explains, held still while prices move. None: not stated, counts 0."""

    name: str
    asset: str
    pnl: Decimal | None = None
    option_value: Decimal | None = None
    credit: Decimal | None = None
    notional: Decimal | None = None
    initial_margin: Decimal | None = None
    maintenance_margin: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One account, as one portfolio document says. `balances` None: the document did not say, so cross pools are unknown."""

    id: str
    venue: str
    positions: tuple[Position, ...]
    balances: tuple[Balance, ...] | None = None
    mode: str | None = None
    margin_model: str = "standard"
    group: str | None = None
    rules: str | None = None
    valuation_currency: str = "USD"
    taker_fee: Decimal | None = None
    minimum_initial_rate: Decimal = ZERO
    orders: tuple[Order, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()
