"""Random margin pools of every additive kind, and their evaluation in fractions. Shares no arithmetic with the product.

amount_k    = wallet_k + sum over legs settled in k of q*(m - e), or q*(1/e - 1/m) where inverse
equity      = sum_k P_k * worth_k(amount_k);      worth: each slice its own weight; a debt in full or dearer
requirement = sum_k P_k * ask_k * sum over legs of max(0, n*rate(n) - deduction(n)) + fee*n;   n = |q|*m or |q|/m
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction

from monitor.engine.terms import Holding, Leg, PoolTerms, schedule_of_tiers, schedule_of_weights
from monitor.margin.prices import PriceKind, Prices
from monitor.margin.schedules import Tier, TierTable, WeightRow, WeightTable

__all__ = ["LADDER", "ExactAsset", "ExactLeg", "ExactPool", "Tape", "evaluate_source", "random_pool", "random_tiers"]

LADDER = ((Fraction(65, 100), Fraction(60, 100)), (Fraction(80, 100), Fraction(75, 100)), (Fraction(1), Fraction(95, 100)))
"""(enter, leave) of watch, margin_call and liquidation: the shipped defaults, written down again on purpose."""

Tiers = tuple[tuple[Fraction, Fraction, Fraction], ...]
Slices = tuple[tuple[Fraction, Fraction], ...]


@dataclass(frozen=True)
class ExactLeg:
    """A position: signed quantity, entry, and the tiers (floor, rate, deduction) it is held by."""

    instrument: str
    quantity: Fraction
    entry: Fraction
    tiers: Tiers
    inverse: bool = False
    fee: Fraction = Fraction(0)

    def profit(self, mark: Fraction) -> Fraction:
        """In the settle asset."""
        if self.inverse:
            return self.quantity * (1 / self.entry - 1 / mark)
        return self.quantity * (mark - self.entry)

    def margin(self, mark: Fraction) -> Fraction:
        """Maintenance and fee in the settle asset."""
        size = abs(self.quantity) / mark if self.inverse else abs(self.quantity) * mark
        _, rate, deduction = next(row for row in reversed(self.tiers) if size > row[0] or row[0] == 0)
        return max(Fraction(0), size * rate - deduction) + self.fee * size


@dataclass(frozen=True)
class ExactAsset:
    """Balance of an asset with its slices (floor, weight); `index` None: price 1, everything in full."""

    name: str
    wallet: Fraction
    legs: tuple[ExactLeg, ...]
    index: str | None = None
    weights: Slices = ((Fraction(0), Fraction(1)),)
    debts: Slices = ((Fraction(0), Fraction(1)),)
    ask: Fraction = Fraction(1)


@dataclass(frozen=True)
class ExactPool:
    """A pool with one asset at price 1 (single) or with several."""

    account: str
    name: str
    assets: tuple[ExactAsset, ...]
    multi: bool = False

    @property
    def instruments(self) -> tuple[str, ...]:
        """Instruments of all legs, each once."""
        return tuple(dict.fromkeys(leg.instrument for asset in self.assets for leg in asset.legs))

    @property
    def indices(self) -> tuple[str, ...]:
        """Assets whose index price counts."""
        return tuple(asset.index for asset in self.assets if asset.index is not None)

    def evaluate(self, marks: Mapping[str, Fraction], indices: Mapping[str, Fraction]) -> tuple[Fraction, Fraction] | None:
        """(equity, requirement), or None while a price is missing."""
        equity = requirement = Fraction(0)
        for asset in self.assets:
            price = Fraction(1)
            if asset.index is not None:
                if asset.index not in indices:
                    return None
                price = indices[asset.index]
            amount, margin = asset.wallet, Fraction(0)
            for leg in asset.legs:
                if leg.instrument not in marks:
                    return None
                amount += leg.profit(marks[leg.instrument])
                margin += leg.margin(marks[leg.instrument])
            equity += price * (_sliced(amount, asset.weights) if amount >= 0 else -_sliced(-amount, asset.debts))
            requirement += price * asset.ask * margin
        return equity, requirement

    def level(self, before: int, marks: Mapping[str, Fraction], indices: Mapping[str, Fraction]) -> int:
        """Level after `before`; -1 while a price is missing."""
        result = self.evaluate(marks, indices)
        if result is None:
            return -1
        equity, requirement = result
        if equity <= 0:
            return 4
        for number in (3, 2, 1):
            enter, leave = LADDER[number - 1]
            if (leave if before >= number else enter) * equity <= requirement:
                return number
        return 0

    def terms(self) -> PoolTerms:
        """The engine's form of the pool, with the pool itself as what the exact core is given."""
        holdings = []
        for asset in self.assets:
            cost = sum((leg.quantity / leg.entry if leg.inverse else -leg.quantity * leg.entry for leg in asset.legs), Fraction(0))
            legs = tuple(
                Leg(
                    kind=PriceKind.MARK,
                    name=leg.instrument,
                    slope=float(-leg.quantity if leg.inverse else leg.quantity),
                    inverse=leg.inverse,
                    schedule=_schedule(leg.tiers, leg.fee),
                )
                for leg in asset.legs
            )
            holdings.append(
                Holding(
                    amount=float(asset.wallet + cost),
                    legs=legs,
                    index=asset.index,
                    ask=float(asset.ask),
                    weights=_weights(asset.weights),
                    debts=_weights(asset.debts),
                )
            )
        if self.multi:
            return PoolTerms(name=self.name, venue="v", holdings=tuple(holdings), source=self)
        return PoolTerms(name=self.name, venue="v", constant=holdings[0].amount, legs=holdings[0].legs, source=self)


def _sliced(amount: Fraction, slices: Slices) -> Fraction:
    total = Fraction(0)
    for index, (floor, weight) in enumerate(slices):
        end = slices[index + 1][0] if index + 1 < len(slices) else amount
        if amount > floor:
            total += (min(amount, end) - floor) * weight
    return total


def _decimal(number: Fraction) -> Decimal:
    return Decimal(number.numerator) / Decimal(number.denominator)


def _schedule(tiers: Tiers, fee: Fraction):  # type: ignore[no-untyped-def]
    table = TierTable.of([Tier(floor=_decimal(f), maintenance_rate=_decimal(r), deduction=_decimal(d)) for f, r, d in tiers])
    schedule = schedule_of_tiers(table, fee=_decimal(fee))
    assert schedule is not None
    return schedule


def _weights(slices: Slices):  # type: ignore[no-untyped-def]
    if slices == ((Fraction(0), Fraction(1)),):
        return None
    return schedule_of_weights(WeightTable.of([WeightRow(floor=_decimal(f), weight=_decimal(w)) for f, w in slices]))


def evaluate_source(_account: str, _pool: str, source: object, prices: Prices) -> tuple[Decimal, Decimal] | str:
    """The exact evaluation that the engine asks for, answered by the fractions.

    Both numbers are scaled by one positive integer, so that they fit a Decimal exactly and every headroom keeps its sign.
    """
    assert isinstance(source, ExactPool)
    marks = {name: Fraction(price) for name, price in prices.mark.items()}
    indices = {name: Fraction(price) for name, price in prices.index.items()}
    result = source.evaluate(marks, indices)
    if result is None:
        return "no price"
    scale = result[0].denominator * result[1].denominator  # both times a positive number: no sign changes
    return Decimal(int(result[0] * scale)), Decimal(int(result[1] * scale))


def random_tiers(rng: random.Random, *, whole: bool = False) -> Tiers:
    """One to five tiers; continuous, or with the whole position at the row's rate. One table in four is steep, with rates up to 0.95."""
    rows: list[tuple[Fraction, Fraction, Fraction]] = []
    steep = rng.random() < 0.25
    floor, rate = Fraction(0), Fraction(rng.choice([4, 5, 8, 10]), 50 if steep else 1000)
    for _ in range(rng.randint(1, 5)):
        deduction = Fraction(0) if whole or not rows else rows[-1][2] + floor * (rate - rows[-1][1])
        rows.append((floor, rate, deduction))
        floor = (floor or Fraction(1000)) * rng.choice([2, 3, 5])
        rate = min(rate * Fraction(rng.choice([12, 15, 20]), 10) * (2 if steep else 1), Fraction(95, 100) if steep else Fraction(1, 2))
    return tuple(rows)


def random_pool(
    rng: random.Random,
    account: str,
    marks: Mapping[str, Fraction],
    indices: Mapping[str, Fraction],
    tiers: Mapping[str, Tiers],
    *,
    kind: str,
    ratio: float,
) -> ExactPool:
    """A pool whose margin ratio is about `ratio` at these prices. `kind`: linear, inverse, quanto, hedge, fee, isolated or multi.

    Instruments named `...:I` are inverse, all others linear or quanto (which pay alike, in the settle asset).
    """
    inverse_names = [name for name in marks if name.endswith(":I")]
    linear_names = [name for name in marks if not name.endswith(":I")]

    def leg(name: str, sign: int) -> ExactLeg:
        mark = marks[name]
        notional = Fraction(rng.choice([200, 1000, 3000, 12000, 60000])) * Fraction(rng.randint(500, 2000), 1000)
        floor = rng.choice(tiers[name])[0]
        if floor and rng.random() < 0.3:  # near the floor of a tier
            notional = floor * Fraction(rng.randint(99_000, 101_000), 100_000)
            if name in inverse_names:
                notional *= mark / 100
        entry = mark * Fraction(rng.randint(900, 1100), 1000)
        fee = Fraction(5, 10000) if kind == "fee" else Fraction(0)
        if name in inverse_names:
            return ExactLeg(name, _rounded(sign * notional * 100), _rounded(entry), tiers[name], inverse=True, fee=fee)
        return ExactLeg(name, _rounded(sign * notional / mark), _rounded(entry), tiers[name], fee=fee)

    def some(names: Sequence[str], most: int) -> list[ExactLeg]:
        chosen = rng.sample(names, min(len(names), rng.randint(1, most)))
        legs = []
        for name in chosen:
            sign = rng.choice([-1, 1])
            legs.append(leg(name, sign))
            if kind == "hedge":
                legs.append(leg(name, -sign))
        return legs

    if kind != "multi":
        legs = some(inverse_names if kind == "inverse" else linear_names, 1 if kind == "isolated" else 6)
        pool = ExactPool(account, "cross", (ExactAsset("USDT", Fraction(0), tuple(legs)),))
    else:
        assets: list[ExactAsset] = []
        for number, index in enumerate(rng.sample(list(indices), min(len(indices), 4))):
            if number == 0:
                legs = some(linear_names, 4)
            else:
                legs = some(inverse_names, 2) if rng.random() < 0.5 and inverse_names else []
                legs = [one for one in legs if all(one.instrument != other.instrument for asset in assets for other in asset.legs)]
            half = Fraction(rng.choice([50, 90, 95, 100]), 100)
            weights: Slices = ((Fraction(0), half), (Fraction(rng.choice([5, 500, 50000])), half / 2), (Fraction(10**6), Fraction(0)))
            debts: Slices = ((Fraction(0), Fraction(rng.choice([100, 105, 120]), 100)),)
            size = Fraction(rng.randint(-20, 100), 10) * 1000 / indices[index]
            wallet = Fraction(0) if number == 0 else _rounded(size)
            ask = Fraction(rng.choice([100, 105]), 100)
            assets.append(ExactAsset(index, wallet, tuple(legs), index, weights, debts, ask))
        pool = ExactPool(account, "cross", tuple(assets), multi=True)
    return _with_ratio(pool, Fraction(ratio), marks, indices)


def _rounded(number: Fraction) -> Fraction:
    """To 8 decimals, as a document would write it."""
    return Fraction(round(number * 10**8) or 1, 10**8)


def _with_ratio(pool: ExactPool, ratio: Fraction, marks: Mapping[str, Fraction], indices: Mapping[str, Fraction]) -> ExactPool:
    """The pool with the first asset's wallet set so that requirement / equity is about `ratio` (exactly, where its weights are 1)."""
    low, high = Fraction(-(10**9)), Fraction(10**9)

    def with_wallet(wallet: Fraction) -> ExactPool:
        first = pool.assets[0]
        changed = ExactAsset(first.name, wallet, first.legs, first.index, first.weights, first.debts, first.ask)
        return ExactPool(pool.account, pool.name, (changed, *pool.assets[1:]), pool.multi)

    if not pool.multi:
        result = pool.evaluate(marks, indices)
        assert result is not None
        equity, requirement = result
        return with_wallet(_rounded(pool.assets[0].wallet + requirement / ratio - equity))
    for _ in range(60):
        middle = (low + high) / 2
        result = with_wallet(middle).evaluate(marks, indices)
        assert result is not None
        if result[0] * ratio < result[1]:
            low = middle
        else:
            high = middle
    return with_wallet(_rounded(high))


@dataclass
class Tape:
    """The independent side of a comparison: prices one by one, levels of every pool, and the changes they make."""

    pools: dict[tuple[str, str], ExactPool] = field(default_factory=dict)
    levels: dict[tuple[str, str], int] = field(default_factory=dict)
    known: dict[tuple[str, str], bool] = field(default_factory=dict)
    marks: dict[str, Fraction] = field(default_factory=dict)
    indices: dict[str, Fraction] = field(default_factory=dict)

    def put(self, pool: ExactPool, level: int = 0) -> list[tuple[int, str, str, int, int]]:
        """Inserts or replaces; decides at once."""
        key = (pool.account, pool.name)
        self.pools[key] = pool
        self.levels.setdefault(key, level)
        self.known.setdefault(key, True)
        return self._decide(key, -1)

    def remove(self, key: tuple[str, str]) -> None:
        """Forgets a pool."""
        for table in (self.pools, self.levels, self.known):
            table.pop(key, None)

    def tick(self, number: int, kind: PriceKind, name: str, price: Fraction) -> list[tuple[int, str, str, int, int]]:
        """Sets a price and decides every pool that has it, by account and name."""
        table = self.marks if kind is PriceKind.MARK else self.indices
        if table.get(name) == price:
            return []
        table[name] = price
        found = []
        for key in sorted(self.pools):
            pool = self.pools[key]
            if name in (pool.instruments if kind is PriceKind.MARK else pool.indices):
                found += self._decide(key, number)
        return found

    def _decide(self, key: tuple[str, str], number: int) -> list[tuple[int, str, str, int, int]]:
        before = self.levels[key]
        after = self.pools[key].level(before, self.marks, self.indices)
        shown = before if self.known[key] else -1
        if after >= 0:
            self.levels[key] = after
        self.known[key] = after >= 0
        return [(number, *key, shown, after)] if shown != after else []
