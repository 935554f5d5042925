"""What an amount of an asset counts for: weights by slice, debts, borrowing margins, on the maintenance and on the initial side."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from monitor.margin.instruments import ONE_WEIGHT, Asset
from monitor.margin.numbers import ZERO
from monitor.margin.prices import Prices
from monitor.margin.schedules import Pieces, Tier, WeightTable
from monitor.margin.venues import VenueRules

__all__ = [
    "Borrowing",
    "Side",
    "borrowing",
    "debt_of",
    "effective_weight",
    "holding_weight",
    "initial_holding_weight",
    "scaled",
    "worth_pieces",
]

ONE = Decimal(1)
PREMIUM = Decimal("1.1")
FOUR_FIFTHS = Decimal("0.8")


@dataclass(frozen=True, slots=True)
class Side:
    """Prices of one asset on one side of the account, in the valuation currency.

    Attributes:
        asset: For a holding: on the initial side the lower of index and smoothed price.
        liability: For a debt: on the initial side the higher of the two.
    """

    asset: Decimal
    liability: Decimal


def effective_weight(table: WeightTable, amount: Decimal, *, initial: bool) -> Decimal:
    """Mean weight of `amount` >= 0 over its slices; the first slice's for 0."""
    rows = table.rows
    if len(rows) == 1 or amount <= rows[1].floor:
        row = rows[0]
        return row.initial_weight if initial and row.initial_weight is not None else row.weight
    return table.weighted(amount, initial=initial) / amount


def scaled(weight: Decimal, numerator: Decimal, denominator: Decimal, rules: VenueRules) -> Decimal:
    """Weight * numerator / denominator, truncated to the venue's weight quantum where it has one."""
    result = weight * numerator / denominator
    return result if rules.weight_quantum is None else result.quantize(rules.weight_quantum, ROUND_DOWN)


def holding_weight(asset: Asset, amount: Decimal, rules: VenueRules, *, initial: bool) -> Decimal:
    """Weight of a holding of `amount` >= 0 by slices, then the size discount 1.1 / (1 + f * sqrt(amount)).

    Deposit scaling and the user's own limit come after: `initial_holding_weight`.
    """
    weight = ONE if asset.weights is ONE_WEIGHT else effective_weight(asset.weights, amount, initial=initial)
    if not asset.size_factor:
        return weight
    if rules.asset_weight is not None:
        return rules.asset_weight(weight, asset.size_factor, amount)
    return min(weight, PREMIUM / (1 + asset.size_factor * amount.sqrt()))


def _debt_weight(asset: Asset, amount: Decimal, rules: VenueRules, *, initial: bool) -> Decimal:
    weight = ONE if asset.debt_weights is ONE_WEIGHT else effective_weight(asset.debt_weights, amount, initial=initial)
    if not asset.size_factor:
        return weight
    if rules.debt_weight is not None:
        return rules.debt_weight(weight, asset.size_factor, amount)
    return max(weight, FOUR_FIFTHS * weight + asset.size_factor * amount.sqrt())


def initial_holding_weight(
    asset: Asset, weight: Decimal, rules: VenueRules, prices: Prices, price: Decimal, minimum: Decimal
) -> Decimal | None:
    """A holding's initial weight with deposit scaling and the user's own limit; None when the venue's deposits are not known.

    Scaling: start / (deposits * price) where that value is above `deposit_scale_start`.
    """
    start = asset.deposit_scale_start
    if start is not None:
        deposits = prices.deposits.get(asset.name)
        if deposits is None:
            return None
        total = deposits * price
        if total > start:
            weight = scaled(weight, start, total, rules)
    if rules.ratio_limits_weights and minimum and asset.name != rules.quote_asset:
        weight = min(weight, max(ZERO, ONE - minimum))
    return weight


def debt_of(
    asset: Asset, amount: Decimal, rules: VenueRules, prices: Prices, price: Decimal, minimum: Decimal, *, initial: bool
) -> Decimal | None:
    """Weight of a debt of `amount` > 0; None when the venue's borrows are not known and needed. A debt is never discounted.

    Scaling on the initial side: (borrows * price) / start where that value is above `borrow_scale_start`.
    """
    weight = _debt_weight(asset, amount, rules, initial=initial)
    if not initial:
        return weight
    start = asset.borrow_scale_start
    if start is not None:
        borrows = prices.borrows.get(asset.name)
        if borrows is None:
            return None
        total = borrows * price
        if total > start:
            weight = scaled(weight, total, start, rules)
    if rules.ratio_limits_weights and minimum and asset.name != rules.quote_asset:
        weight = max(weight, ONE + minimum)
    return weight


@dataclass(frozen=True, slots=True)
class Borrowing:
    """Margins on a debt, in the asset itself; `initial` None where the tables lack the rate."""

    initial: Decimal | None
    maintenance: Decimal


NO_BORROWING = Borrowing(ZERO, ZERO)


def _row_margin(row: Tier, amount: Decimal) -> Borrowing:
    assert row.maintenance_rate is not None and row.deduction is not None
    maintenance = max(ZERO, amount * (row.maintenance_rate + row.slope * amount) - row.deduction)
    rate = row.initial_rate
    if rate is None and row.max_leverage is not None:
        rate = ONE / row.max_leverage
    return Borrowing(None if rate is None else amount * (rate + row.slope * amount), maintenance)


def borrowing(asset: Asset, debt: Decimal) -> Borrowing:
    """Margins on a debt > 0 by the asset's `borrow_tiers`, in the asset: amount * rate - deduction of its row.

    Nothing without tiers.
    """
    return NO_BORROWING if asset.borrow_tiers is None else _row_margin(asset.borrow_tiers.at(debt), debt)


def _slices(table: WeightTable) -> list[tuple[Decimal, Decimal, Decimal]]:
    """Rows (floor, k0, k1): above the floor the weighted amount is k0 + k1 * amount."""
    rows: list[tuple[Decimal, Decimal, Decimal]] = []
    for row in table.rows:
        if rows:
            _, k0, k1 = rows[-1]
            rows.append((row.floor, k0 + (k1 - row.weight) * row.floor, row.weight))
        else:
            rows.append((row.floor, ZERO, row.weight))
    return rows


def worth_pieces(
    asset: Asset, rules: VenueRules, *, collateral: bool, borrows: bool, equity_factor: Decimal, requirement_factor: Decimal
) -> tuple[tuple[Decimal, ...], Pieces]:
    """Levels and pieces of what an amount x of an asset adds to headroom, per unit of its price, maintenance side.

    x >= 0: equity_factor * weighted amount. x < 0: the weighted debt, in equity or requirement as the rules say, its borrowing margin and
    the fee of buying it back. Without the size premium, which is not piecewise polynomial.

    Args:
        borrows: Borrowing margins and repaying fees apply (cross pools).
        equity_factor, requirement_factor: Headroom is equity_factor * equity - requirement_factor * requirement.
    """
    below: list[tuple[Decimal, tuple[Decimal, Decimal, Decimal]]] = []
    debts = _slices(asset.debt_weights)
    tiers = asset.borrow_tiers if borrows else None
    starts = sorted({floor for floor, _, _ in debts} | ({ZERO, *tiers.levels} if tiers is not None else set()))
    fee = asset.taker_fee if borrows else ZERO
    owed_factor = requirement_factor if rules.debts == "requirement" else equity_factor
    for start in starts:
        _, k0, k1 = next(row for row in reversed(debts) if row[0] <= start)
        c0, c1, c2 = -owed_factor * k0, -owed_factor * k1, ZERO
        if tiers is not None:
            b0, b1, b2 = tiers.pieces[bisect_right(tiers.levels, start)]
            margin = requirement_factor * (ONE + fee)
            c0, c1, c2 = c0 - margin * b0, c1 - margin * b1, -margin * b2
        if fee:
            c1 -= requirement_factor * fee
        below.append((start, (c0, -c1, c2)))  # in x = -debt
    levels = [-start for start, _ in reversed(below)]
    pieces = [piece for _, piece in reversed(below)]
    if collateral:
        above = _slices(asset.weights)
        levels += [floor for floor, _, _ in above[1:]]
        pieces += [(equity_factor * k0, equity_factor * k1, ZERO) for _, k0, k1 in above]
    else:
        pieces.append((ZERO, ZERO, ZERO))
    return tuple(levels), tuple(pieces)
