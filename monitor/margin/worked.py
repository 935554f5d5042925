"""A pool at given prices, before it is written up: what `health`, `liquidation` and `headroom` share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from monitor.margin.collateral import Borrowing
from monitor.margin.numbers import ZERO
from monitor.margin.pools import Holding, MarginPool
from monitor.margin.positions import Priced, Term
from monitor.margin.prices import Prices
from monitor.margin.scenarios import RiskUnit

__all__ = ["AssetWorth", "Worked", "index_of", "margin_sums", "plus", "times", "total"]

ONE = Decimal(1)


@dataclass(slots=True)
class AssetWorth:
    """One asset of a pool at given prices.

    Attributes:
        wallet: What was stated, or the default of an isolated wallet.
        profit, initial_profit: What positions and adjustments add to it, with profit weights.
        raw: wallet + profit without weights + value of options: what it is worth unhaircut, in the asset.
        price: Index in the pool's currency; `low` and `high`: the worse of it and the smoothed price for a holding and for a debt.
        value, initial_value: Signed worth in the pool's currency; part of equity, or of the requirement where `owed`.
        owed, initial_owed: What the asset adds to the requirements as a debt, pool's currency, >= 0.
        net: Where margin is taken out of profit: the amount that has the asset's weight, in the asset.
        borrow: Margins on the debt, pool's currency.
        repay_fee: Fee of buying the debt back, pool's currency.
        missing: Why equity cannot be told; `missing_initial` the same of the initial side.
    """

    holding: Holding
    wallet: Decimal | None
    profit: Decimal | None = None
    initial_profit: Decimal | None = None
    raw: Decimal | None = None
    amount: Decimal | None = None
    price: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    weight: Decimal | None = None
    initial_weight: Decimal | None = None
    value: Decimal | None = None
    initial_value: Decimal | None = None
    owed: Decimal | None = None
    initial_owed: Decimal | None = None
    net: Decimal | None = None
    borrow: Borrowing | None = None
    repay_fee: Decimal = ZERO
    missing: str | None = None
    missing_initial: str | None = None


@dataclass(slots=True)
class Worked:
    """A pool at given prices, before it is written up: what `evaluate`, `margins` and `liquidation` share.

    Amounts are in the pool's currency unless said otherwise.

    Attributes:
        priced: The legs, in the pool's order, in their settle assets.
        worths: By asset.
        rates: By settle asset: what a requirement of one unit counts for, on the maintenance and on the initial side.
        worst: Open orders that count as filled: (leg held or None, leg as if filled), priced.
        missing: Reasons why equity or requirement cannot be told, the first first.
    """

    priced: list[Priced]
    worths: dict[str, AssetWorth]
    rates: dict[str, tuple[Decimal | None, Decimal | None]]
    worst: list[tuple[Priced | None, Priced]]
    equity: Decimal | None
    initial_equity: Decimal | None
    net_value: Decimal | None
    terms: list[Term]
    fees: Decimal | None
    risk_units: tuple[RiskUnit, ...]
    missing: list[str]

    @property
    def maintenance(self) -> Decimal | None:
        """Sum of the terms' maintenance margins."""
        return total(term.maintenance_margin for term in self.terms)


def plus(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    """The sum, or None when either is unknown."""
    return None if first is None or second is None else first + second


def times(first: Decimal | None, second: Decimal | None) -> Decimal | None:
    """The product, or None when either is unknown."""
    return None if first is None or second is None else first * second


def total(parts: Iterable[Decimal | None]) -> Decimal | None:
    """The sum of all, or None when one is unknown."""
    found = ZERO
    for part in parts:
        if part is None:
            return None
        found += part
    return found


def index_of(pool: MarginPool, prices: Prices, asset: str) -> Decimal | None:
    """Price of an asset in the pool's currency."""
    return ONE if not pool.multi or asset == pool.currency else prices.index.get(asset)


def margin_sums(worked: Worked, states: Iterable[Priced]) -> tuple[Decimal | None, Decimal | None]:
    """(initial, maintenance) of legs in the pool's currency."""
    initial: Decimal | None = ZERO
    maintenance: Decimal | None = ZERO
    for state in states:
        rate, initial_rate = worked.rates[state.leg.instrument.settle]
        initial = plus(initial, times(state.initial, initial_rate))
        maintenance = plus(maintenance, times(state.maintenance, rate))
    return initial, maintenance
