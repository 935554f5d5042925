"""Cuts an account into margin pools: the positions and collateral that stand in for each other.

A cross account is one pool (multi_asset), or one per settle asset (single_asset); each isolated position is a pool of its own.
The pool is the unit of evaluation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext

from monitor.errors import RefusedError
from monitor.margin.accounts import Account, Adjustment, Order, Position
from monitor.margin.instruments import Asset, Instrument
from monitor.margin.legs import Leg, leg_of
from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.tables import Tables
from monitor.margin.venues import MULTI, VenueRules, mode_of, rules_of

__all__ = ["Holding", "MarginPool", "cut"]


@dataclass(frozen=True, slots=True)
class Holding:
    """What a pool holds of one asset before profit.

    Attributes:
        amount: Wallet balance, or cash after paying for the notional (see `MarginPool.is_cash`); None: not stated.
        collateral: False: a holding counts 0, a debt in full.
        asset: The asset's table entry; defaults where there is none.
    """

    name: str
    amount: Decimal | None
    collateral: bool
    asset: Asset


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginPool:
    """One pool of one account, ready to be priced. Everything in it stands still while prices move.

    Attributes:
        name: `cross`, `cross:USDT`, `isolated:X` or `isolated:X:long`.
        currency: Settle asset (single_asset, isolated) or valuation currency (multi_asset).
        multi: Amounts of several assets are valued in `currency`.
        isolated: One isolated position.
        legs: The positions, in the account's order.
        holdings: By asset; complete: every asset that a leg, an order or an adjustment of the pool settles in is there.
        is_cash: Amounts are after paying for the notional: equity = amount + sum of signed values.
        wallet_defaulted: An isolated wallet was not stated and is the initial margin at entry.
        unknown: Why the pool cannot be judged whatever the prices are, or None.
        orders, order_instruments: Open orders, each beside its instrument.
        adjustments: Sums that no listed row explains.
        rules: The rule set in force; `tables`: where instruments and assets were looked up.
    """

    account: Account
    name: str
    currency: str
    multi: bool
    isolated: bool
    legs: tuple[Leg, ...]
    holdings: tuple[Holding, ...]
    is_cash: bool
    wallet_defaulted: bool
    unknown: str | None
    orders: tuple[Order, ...]
    order_instruments: tuple[Instrument, ...]
    adjustments: tuple[Adjustment, ...]
    rules: VenueRules
    tables: Tables

    @property
    def positions(self) -> tuple[Position, ...]:
        """The pool's positions, in the account's order."""
        return tuple(leg.position for leg in self.legs)

    @property
    def portfolio(self) -> bool:
        """True under portfolio margin: requirements come from scenarios. An isolated position is never part of them."""
        return not self.isolated and self.account.margin_model == "portfolio"


def _instrument(tables: Tables, name: str, path: str) -> Instrument:
    instrument = tables.instruments.get(name)
    if instrument is None:
        raise RefusedError(path, name, "an instrument of the document or of the configured tables")
    return instrument


def _holdings(account: Account, tables: Tables, assets: Iterable[str], only: str | None) -> tuple[Holding, ...]:
    """Rows of the stated balances, then a row for every other asset the pool touches (amount 0, or None where balances were not stated)."""
    rows: dict[str, Holding] = {}
    for balance in account.balances or ():
        if only is None or balance.asset == only:
            amount = balance.wallet if balance.wallet is not None else balance.cash
            entry = tables.assets.get(balance.asset)
            rows[balance.asset] = Holding(balance.asset, amount, balance.collateral, entry or Asset(name=balance.asset))
    absent = None if account.balances is None else ZERO
    for name in assets:
        if name not in rows:
            rows[name] = Holding(name, absent, True, tables.assets.get(name) or Asset(name=name))
    return tuple(rows.values())


def _isolated_name(position: Position) -> str:
    name = f"isolated:{position.instrument}"
    return name if position.side == "both" else f"{name}:{position.side}"


def cut(account: Account, tables: Tables, as_of: datetime) -> tuple[MarginPool, ...]:
    """The account's pools: cross first (in the order its assets are first named), then isolated (in the order of the positions).

    Args:
        account: One account.
        tables: Of its venue; the document's own entries already over the configured ones.
        as_of: UTC; picks the rule set in force.

    Returns:
        At least one pool for any account that holds something. An account with neither positions nor balances has one in multi_asset and
        none in single_asset.

    Raises:
        RefusedError: An instrument, rule set or mode that is not there: a reader would have refused the document.
    """
    rules = rules_of(account, tables, as_of)
    multi = mode_of(account, rules) == MULTI
    with localcontext(EXACT):
        legs = tuple(
            leg_of(account, i, _instrument(tables, position.instrument, f"/account/positions/{i}/instrument"), rules.value)
            for i, position in enumerate(account.positions)
        )
    order_instruments = tuple(
        _instrument(tables, order.instrument, f"/account/orders/{i}/instrument") for i, order in enumerate(account.orders)
    )
    is_cash = any(balance.cash is not None for balance in account.balances or ())
    unknown = "balances are not stated" if account.balances is None else None
    cross = [leg for leg in legs if not leg.position.is_isolated]

    def pool(name: str, currency: str, only: str | None, members: Iterable[Leg]) -> MarginPool:
        chosen = tuple(members)
        kept = [(o, i) for o, i in zip(account.orders, order_instruments, strict=True) if only is None or i.settle == only]
        adjustments = tuple(a for a in account.adjustments if only is None or a.asset == only)
        assets = [leg.settle for leg in chosen] + [i.settle for _, i in kept] + [a.asset for a in adjustments]
        return MarginPool(
            account=account,
            name=name,
            currency=currency,
            multi=only is None,
            isolated=False,
            legs=chosen,
            holdings=_holdings(account, tables, assets if only is None else [only], only),
            is_cash=is_cash,
            wallet_defaulted=False,
            unknown=unknown,
            orders=tuple(o for o, _ in kept),
            order_instruments=tuple(i for _, i in kept),
            adjustments=adjustments,
            rules=rules,
            tables=tables,
        )

    pools: list[MarginPool] = []
    if multi:
        if cross or account.balances or account.orders or account.adjustments or not legs:
            pools.append(pool("cross", account.valuation_currency, None, cross))
    else:
        named = [balance.asset for balance in account.balances or ()]
        named += [leg.settle for leg in cross] + [i.settle for i in order_instruments] + [a.asset for a in account.adjustments]
        pools += [pool(f"cross:{a}", a, a, (leg for leg in cross if leg.settle == a)) for a in dict.fromkeys(named)]
    pools += [_isolated(account, leg, rules, tables) for leg in legs if leg.position.is_isolated]
    return tuple(pools)


def _isolated(account: Account, leg: Leg, rules: VenueRules, tables: Tables) -> MarginPool:
    """The pool of one isolated position, in its settle asset.

    Where neither wallet nor cash is stated the wallet is the initial margin at entry, which `health` works out: amount None,
    `wallet_defaulted`.
    """
    position = leg.position
    amount = position.isolated_wallet if position.isolated_wallet is not None else position.isolated_cash
    asset = Asset(name=leg.settle)
    return MarginPool(
        account=account,
        name=_isolated_name(position),
        currency=leg.settle,
        multi=False,
        isolated=True,
        legs=(leg,),
        holdings=(Holding(leg.settle, amount, True, asset),),
        is_cash=position.isolated_wallet is None and position.isolated_cash is not None,
        wallet_defaulted=amount is None,
        unknown=None,
        orders=(),
        order_instruments=(),
        adjustments=(),
        rules=rules,
        tables=tables,
    )
