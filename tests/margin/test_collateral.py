"""What an amount of an asset counts for, on either side of zero."""

from __future__ import annotations

from decimal import Decimal
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from monitor.margin.collateral import Borrowing, borrowing, debt_of, holding_weight, initial_holding_weight, worth_pieces
from monitor.margin.instruments import Asset
from monitor.margin.numbers import ZERO
from monitor.margin.prices import NO_PRICES, Prices
from monitor.margin.schedules import Tier, TierTable, WeightRow, WeightTable
from monitor.margin.tables import HouseRules
from monitor.margin.venues.house import house_rules

D = Decimal
HOUSE = house_rules(HouseRules())
OWING = house_rules(HouseRules(debts="requirement"))


def slices(*rows: tuple[int, str]) -> WeightTable:
    """A table of (floor, weight)."""
    return WeightTable.of([WeightRow(floor=D(floor), weight=D(weight)) for floor, weight in rows])


BTC = Asset(
    name="BTC",
    weights=slices((0, "0.98"), (10, "0.95"), (20, "0")),
    debt_weights=slices((0, "1.02"), (5, "1.1")),
    borrow_tiers=TierTable.of(
        [Tier(floor=ZERO, maintenance_rate=D("0.02"), initial_rate=D("0.1")), Tier(floor=D(3), maintenance_rate=D("0.05"))]
    ),
    taker_fee=D("0.001"),
)


def test_the_weight_shown_is_the_mean_over_slices() -> None:
    """15 BTC: 10 at 0.98 and 5 at 0.95; a cap is a slice of weight 0."""
    assert holding_weight(BTC, D(15), HOUSE, initial=False) == D("0.97")
    assert holding_weight(BTC, D(10), HOUSE, initial=False) == D("0.98")
    assert holding_weight(BTC, D(40), HOUSE, initial=False) == (D("9.8") + D("9.5")) / 40


def test_borrowing_takes_the_row_the_debt_falls_in() -> None:
    """Margins on a debt, in the asset; an initial rate may be missing."""
    assert borrowing(BTC, D(2)) == Borrowing(D("0.2"), D("0.04"))
    assert borrowing(BTC, D(4)) == Borrowing(None, D("0.2") - D("0.09"))
    assert borrowing(Asset(name="X"), D(2)) == Borrowing(ZERO, ZERO)


def test_scaling_begins_above_its_start() -> None:
    """Initial weight * start / deposits; a debt's times borrows / start; unknown deposits make it unknown."""
    asset = Asset(name="X", weights=slices((0, "0.9")), deposit_scale_start=D(1000), borrow_scale_start=D(1000))
    at_start, above = Prices(deposits={"X": D(100)}, borrows={"X": D(100)}), Prices(deposits={"X": D(200)}, borrows={"X": D(400)})

    assert initial_holding_weight(asset, D("0.9"), HOUSE, at_start, D(10), ZERO) == D("0.9")
    assert initial_holding_weight(asset, D("0.9"), HOUSE, above, D(10), ZERO) == D("0.45")
    assert initial_holding_weight(asset, D("0.9"), HOUSE, NO_PRICES, D(10), ZERO) is None
    assert debt_of(asset, D(1), HOUSE, at_start, D(10), ZERO, initial=True) == 1
    assert debt_of(asset, D(1), HOUSE, above, D(10), ZERO, initial=True) == 4
    assert debt_of(asset, D(1), HOUSE, above, D(10), ZERO, initial=False) == 1
    assert debt_of(asset, D(1), HOUSE, NO_PRICES, D(10), ZERO, initial=True) is None


def worth(asset: Asset, x: Decimal, *, requirement: bool) -> Decimal:
    """Headroom of an amount by the words of the document."""
    if x >= 0:
        return asset.weights.weighted(x)
    owed = asset.debt_weights.weighted(-x)
    margin = borrowing(asset, -x).maintenance
    return -owed - margin - (-x + margin) * asset.taker_fee


@given(st.decimals(min_value=-20, max_value=60, places=3), st.booleans())
def test_pieces_say_what_weights_and_tiers_say(x: Decimal, requirement: bool) -> None:
    """The course of an amount through its slices, debts and borrowings is the evaluation's own."""
    rules = OWING if requirement else HOUSE
    levels, pieces = worth_pieces(BTC, rules, collateral=True, borrows=True, equity_factor=D(1), requirement_factor=D(1))

    k0, k1, k2 = pieces[sum(1 for level in levels if level < x)]

    assert k0 + x * (k1 + k2 * x) == worth(BTC, x, requirement=requirement)


@given(st.randoms(use_true_random=False))
def test_more_is_never_worth_less(r: Random) -> None:
    """The worth of an amount rises with it, whatever the slices."""
    floors = sorted(r.sample(range(1, 100), 2))
    asset = Asset(
        name="X",
        weights=slices((0, "1"), *((f, str(r.randint(0, 100) / 100)) for f in floors)),
        debt_weights=slices((0, "1"), *((f, str(1 + r.randint(0, 100) / 100)) for f in floors)),
    )
    levels, pieces = worth_pieces(asset, HOUSE, collateral=True, borrows=True, equity_factor=D(1), requirement_factor=D(1))

    assert all(k1 >= 0 for _, k1, _ in pieces)
    assert list(levels) == sorted(levels)


def test_collateral_switched_off_counts_nothing() -> None:
    """A holding counts 0, a debt in full."""
    levels, pieces = worth_pieces(BTC, HOUSE, collateral=False, borrows=False, equity_factor=D(1), requirement_factor=D(1))

    assert pieces[-1] == (ZERO, ZERO, ZERO)
    assert levels[-1] == 0
    assert pieces[-2][1] == D("1.02")
