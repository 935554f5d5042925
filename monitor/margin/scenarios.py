"""Portfolio margin: what the positions of one underlying lose when it moves, and the margins taken for that.

Per underlying (risk unit), in the pool's currency; m one of `price_moves`, x one of `extreme_moves`:

    scenario_pnl(m) = sum of the legs' profit at move m; what is above 0 counts times `profit_offset`
    price_charge    = max(0, -min over m of scenario_pnl(m))
    extreme_charge  = extreme_factor * max(0, -min over x of the sum of the legs' profit at move x)
    basis_charge    = sum over legs of |delta| * max(basis_floor, basis_annualised * years to the leg's expiry)
    minimum_charge  = minimum_charge rate * |sum of delta|
    charge          = max(max(price_charge, extreme_charge) + basis_charge, minimum_charge)
    maintenance     = maintenance_factor * charge,   initial = initial_factor * charge

Profit of one leg at move k, settle asset; u signed units, p its mark (or the index of the underlying, see `at_index`):

    linear, quanto  u p k                    delta  u p
    inverse         (u / p) k / (1 + k)      delta  u / p
    option          u (V(F (1 + k)) - V(F)), V by Black-76 at the same volatility and time; of an inverse option V is in coin
                                             delta  u F dV/dF (linear), u dV/dF of the quote price (inverse: in coin)

In a multi_asset pool both times the index price of the settle asset as it stands: that it moves with the underlying belongs to the
collateral.

Left out, because no venue publishes the form: moves of volatility (Deribit and OKX have them for options), Deribit's delta shock (a unit
above its threshold is unknown), OKX MR2, MR3 and MR5. Where there are options, the requirement is therefore at most the venue's, not it.

Sources: support.deribit.com 25944756247837 and the simulate responses of docs.deribit.com (price range, roll shock, factors: reproduced to
5e-9); OKX API v5 documentation, position builder (MR1, MR4, MR6, MR7 reproduced to 1e-9); read 2026-11-20.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext

from monitor.margin.instruments import Kind, Risk
from monitor.margin.legs import Leg
from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.options import Black76, model_of, years_between
from monitor.margin.prices import Prices

__all__ = ["RiskUnit", "risk_units"]

ONE = Decimal(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskUnit:
    """One underlying of a pool under portfolio margin, in the pool's currency. Charges and margins are >= 0; profit and delta are signed.

    Attributes:
        underlying: Its asset.
        delta: Net value that moves with the underlying: the sum over legs.
        scenario_pnl: Per price move, in their order, after `profit_offset`; () when unknown.
        missing: Which input keeps the unit from being known, or None. Then every number is None.
    """

    underlying: str
    delta: Decimal | None = None
    scenario_pnl: tuple[Decimal, ...] = ()
    price_charge: Decimal | None = None
    extreme_charge: Decimal | None = None
    basis_charge: Decimal | None = None
    minimum_charge: Decimal | None = None
    charge: Decimal | None = None
    initial_margin: Decimal | None = None
    maintenance_margin: Decimal | None = None
    missing: str | None = None


def risk_units(
    legs: Sequence[Leg],
    prices: Prices,
    risk: Mapping[str, Risk],
    as_of: datetime,
    *,
    currency: str,
    valuation_currency: str,
    at_index: bool,
) -> tuple[RiskUnit, ...]:
    """The risk units of one pool's cross positions, in the order in which underlyings are first held.

    Args:
        legs: The pool's positions.
        prices: Marks of futures; forward and volatility of options; index of settle assets where `currency` is another one, and of
            underlyings where `at_index`.
        risk: Scenarios by underlying.
        as_of: UTC; for the time to expiry.
        currency: The pool's: its settle asset (single_asset) or the valuation currency (multi_asset).
        valuation_currency: What index prices are in; its own is 1.
        at_index: Scenario profit of futures is taken from the index price of the underlying (OKX; inferred from its example) and not from
            their mark (Deribit). Delta is always at mark.
    """
    units: dict[str, list[Leg]] = {}
    nameless: dict[str, RiskUnit] = {}
    for leg in legs:
        underlying = leg.instrument.underlying
        if underlying is None:
            nameless[leg.name] = RiskUnit(underlying=leg.name, missing=f"underlying of {leg.name} is missing: portfolio margin needs it")
        else:
            units.setdefault(underlying, []).append(leg)
    money = _Money(prices, currency, valuation_currency)
    with localcontext(EXACT):
        known = [_unit(underlying, held, money, risk.get(underlying), as_of, at_index) for underlying, held in units.items()]
    return (*known, *nameless.values())


@dataclass(frozen=True, slots=True)
class _Money:
    """Prices, and what an asset is worth in the pool's currency."""

    prices: Prices
    currency: str
    valuation_currency: str

    def index(self, asset: str) -> Decimal | str:
        """Index price of an asset in the valuation currency; or, as a text, that it is missing."""
        if asset == self.valuation_currency:
            return ONE
        price = self.prices.index.get(asset)
        return f"index price of {asset} is missing" if price is None else price

    def rate(self, asset: str) -> Decimal | str:
        """Units of the pool's currency per unit of the asset; or, as a text, what is missing."""
        if asset == self.currency:
            return ONE
        price, own = self.index(asset), self.index(self.currency)
        if isinstance(price, str):
            return price
        return own if isinstance(own, str) else price / own


@dataclass(frozen=True, slots=True)
class _Exposure:
    """One leg ready for scenarios, pool currency.

    Attributes:
        delta: Signed.
        years: To expiry; 0 for a perpetual.
        linear: Value in the scenarios of a linear leg: profit = linear * k.
        inverse: Of an inverse leg: profit = inverse * k / (1 + k).
        option: Model, forward, price there and money per unit of price, or None.
    """

    delta: Decimal
    years: Decimal
    linear: Decimal = ZERO
    inverse: Decimal = ZERO
    option: tuple[Black76, Decimal, Decimal, Decimal] | None = None

    def profit(self, move: Decimal) -> Decimal:
        """Profit when the underlying moves by the fraction `move` > -1."""
        if self.option is None:
            return self.linear * move + self.inverse * move / (ONE + move)
        model, forward, price, money = self.option
        return money * (model.price(forward * (ONE + move)) - price)


def _exposure(leg: Leg, money: _Money, as_of: datetime, at_index: bool) -> _Exposure | str:
    """The exposure of a leg, or what is missing for it."""
    instrument = leg.instrument
    rate = money.rate(leg.settle)
    if isinstance(rate, str):
        return rate
    years = ZERO if instrument.expiry is None else years_between(as_of, instrument.expiry)
    if leg.option:
        found = model_of(instrument, money.prices, as_of)
        if isinstance(found, str):
            return found
        model, forward = found
        delta = leg.units * model.delta(forward)
        if instrument.kind is Kind.LINEAR_OPTION:
            delta *= forward
        return _Exposure(delta * rate, years, option=(model, forward, model.price(forward), leg.units * rate))
    mark = money.prices.mark.get(leg.name)
    if mark is None:
        return f"mark price of {leg.name} is missing"
    delta = (leg.units / mark if leg.inverse else leg.units * mark) * rate
    base = delta
    if at_index:
        assert instrument.underlying is not None
        if leg.inverse:  # priced in the quote currency, which is the valuation currency
            index = money.index(instrument.underlying)
            if isinstance(index, str):
                return index
            base = leg.units * rate / index
        elif instrument.kind not in {Kind.QUANTO_PERPETUAL, Kind.QUANTO_FUTURE}:
            index = money.rate(instrument.underlying)
            if isinstance(index, str):
                return index
            base = leg.units * index
    return _Exposure(delta, years, inverse=base) if leg.inverse else _Exposure(delta, years, linear=base)


def _unit(underlying: str, legs: Sequence[Leg], money: _Money, risk: Risk | None, as_of: datetime, at_index: bool) -> RiskUnit:
    if risk is None:
        return RiskUnit(underlying=underlying, missing=f"risk scenarios of {underlying} are missing")
    exposures: list[_Exposure] = []
    for leg in legs:
        exposure = _exposure(leg, money, as_of, at_index)
        if isinstance(exposure, str):
            return RiskUnit(underlying=underlying, missing=exposure)
        exposures.append(exposure)
    delta = sum((exposure.delta for exposure in exposures), ZERO)
    shocked = _delta_shock(underlying, delta, money, risk)
    if shocked is not None:
        return RiskUnit(underlying=underlying, missing=shocked)
    outcomes = [sum((exposure.profit(move) for exposure in exposures), ZERO) for move in risk.price_moves]
    scenario_pnl = tuple(profit * risk.profit_offset if profit > 0 else profit for profit in outcomes)
    price_charge = max(ZERO, -min(scenario_pnl))
    extreme_charge = ZERO
    if risk.extreme_moves:
        assert risk.extreme_factor is not None
        worst = min(sum((exposure.profit(move) for exposure in exposures), ZERO) for move in risk.extreme_moves)
        extreme_charge = risk.extreme_factor * max(ZERO, -worst)
    basis_charge = sum(
        (abs(exposure.delta) * max(risk.basis_floor, risk.basis_annualised * exposure.years) for exposure in exposures), ZERO
    )
    minimum_charge = risk.minimum_charge * abs(delta)
    charge = max(max(price_charge, extreme_charge) + basis_charge, minimum_charge)
    return RiskUnit(
        underlying=underlying,
        delta=delta,
        scenario_pnl=scenario_pnl,
        price_charge=price_charge,
        extreme_charge=extreme_charge,
        basis_charge=basis_charge,
        minimum_charge=minimum_charge,
        charge=charge,
        initial_margin=risk.initial_factor * charge,
        maintenance_margin=risk.maintenance_factor * charge,
    )


def _delta_shock(underlying: str, delta: Decimal, money: _Money, risk: Risk) -> str | None:
    """Why the unit is unknown, when its delta in the valuation currency is above the threshold of a shock whose form is not published."""
    if risk.delta_shock_threshold is None:
        return None
    index = money.index(money.currency)
    if isinstance(index, str):
        return f"{index}: it decides whether the delta shock of {underlying} applies"
    if abs(delta) * index > risk.delta_shock_threshold:
        return f"delta of {underlying} is above {risk.delta_shock_threshold}: the form of the delta shock there is not published"
    return None
