"""Tiers and slices: a row starts above its floor, deductions make maintenance continuous, pieces say the same as rows."""

from __future__ import annotations

from decimal import Decimal, localcontext
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.schedules import Tier, TierTable, WeightRow, WeightTable
from tests.support.pool_zoo import random_tiers

randoms = st.randoms(use_true_random=False)


def by_rows(table: TierTable, size: Decimal) -> Decimal:
    """Maintenance by the words of the document: the row's rate and slope, less its deduction, never below 0."""
    row = table.at(size)
    assert row.maintenance_rate is not None and row.deduction is not None
    return max(ZERO, size * (row.maintenance_rate + row.slope * size) - row.deduction)


def by_pieces(table: TierTable, size: Decimal) -> Decimal:
    """The same by levels and pieces."""
    k0, k1, k2 = table.pieces[sum(1 for level in table.levels if level < size)]
    return k0 + size * (k1 + k2 * size)


def test_a_row_starts_above_its_floor() -> None:
    """At a floor itself the row below applies."""
    table = TierTable.of([Tier(floor=Decimal(f), maintenance_rate=Decimal(r)) for f, r in ((0, "0.01"), (100, "0.02"))])

    assert table.at(Decimal(100)).maintenance_rate == Decimal("0.01")
    assert table.at(Decimal("100.00000001")).maintenance_rate == Decimal("0.02")
    assert table.at(ZERO).maintenance_rate == Decimal("0.01")


def test_missing_deductions_are_derived() -> None:
    """d_n = d_(n-1) + floor_n * (rate_n - rate_(n-1)), from a given one too."""
    table = TierTable.of(
        [
            Tier(floor=ZERO, maintenance_rate=Decimal("0.005"), deduction=Decimal(50)),
            Tier(floor=Decimal(250_000), maintenance_rate=Decimal("0.01")),
        ]
    )

    assert table.rows[1].deduction == 50 + 250_000 * Decimal("0.005")


def test_leverage_gives_the_rate() -> None:
    """Without a rate it is 1 / (2 * max leverage)."""
    table = TierTable.of([Tier(floor=ZERO, max_leverage=Decimal(40))])

    assert table.rows[0].maintenance_rate == Decimal("0.0125")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [Tier(floor=Decimal(1), maintenance_rate=ZERO)],
        [Tier(floor=ZERO)],
        [Tier(floor=ZERO, maintenance_rate=ZERO), Tier(floor=ZERO, maintenance_rate=ZERO)],
    ],
)
def test_tables_that_cannot_be_are_refused(rows: list[Tier]) -> None:
    """No row, a first floor above 0, no rate, floors that do not rise."""
    with pytest.raises(ValueError, match=r"floor|rate"):
        TierTable.of(rows)


@given(randoms, st.decimals(min_value=0, max_value=3_000_000, places=3))
def test_pieces_say_what_rows_say(r: Random, size: Decimal) -> None:
    """Levels and pieces are the schedule, with the floor of 0 as a piece of its own."""
    table = random_tiers(r, whole=r.random() < 0.5)
    with localcontext(EXACT):
        assert by_pieces(table, size) == by_rows(table, size)
        for level in table.levels:
            assert by_pieces(table, level) == by_rows(table, level)


@given(randoms, st.decimals(min_value=0, max_value=3_000_000, places=3), st.decimals(min_value=0, max_value=1000, places=3))
def test_maintenance_is_continuous_and_rises(r: Random, size: Decimal, more: Decimal) -> None:
    """With derived deductions a larger position never needs less, and at a floor nothing jumps."""
    table = random_tiers(r)
    with localcontext(EXACT):
        rates = [row.maintenance_rate for row in table.rows if row.maintenance_rate is not None]
        grown = by_rows(table, size + more) - by_rows(table, size)

        assert table.continuous
        assert 0 <= grown <= more * max(rates)
        assert table.steepest == max(rates)


def test_a_schedule_for_the_whole_position_jumps() -> None:
    """Deduction 0 in every row is not continuous, and is known not to be."""
    rows = [Tier(floor=Decimal(f), maintenance_rate=Decimal(r), deduction=ZERO) for f, r in ((0, "0.01"), (100, "0.02"))]

    assert not TierTable.of(rows).continuous


def test_a_deduction_larger_than_the_margin_leaves_nothing() -> None:
    """Maintenance is never negative: below deduction / rate it is 0, and that is a level."""
    table = TierTable.of([Tier(floor=ZERO, maintenance_rate=Decimal("0.1"), deduction=Decimal(135_365))])

    assert table.levels == (Decimal(1_353_650),)
    assert by_pieces(table, Decimal(1000)) == 0


def test_a_slope_makes_a_parabola() -> None:
    """Deribit futures: 2 % and 0.5 % per 100 of size, the whole position."""
    table = TierTable.of([Tier(floor=ZERO, maintenance_rate=Decimal("0.02"), slope=Decimal("0.00005"))])

    assert by_pieces(table, Decimal(25)) == Decimal("0.53125")
    assert table.steepest is None


@given(randoms, st.decimals(min_value=0, max_value=100_000, places=4))
def test_each_slice_has_its_own_weight(r: Random, amount: Decimal) -> None:
    """The weighted amount is the sum over slices."""
    floors = [0, *sorted(r.sample(range(1, 50_000), 3))]
    weights = [Decimal(r.randint(0, 100)) / 100 for _ in floors]
    table = WeightTable.of([WeightRow(floor=Decimal(f), weight=w) for f, w in zip(floors, weights, strict=True)])
    ends = [*map(Decimal, floors[1:]), Decimal("Infinity")]

    expected = sum(max(ZERO, min(amount, end) - floor) * w for floor, end, w in zip(floors, ends, weights, strict=True))

    assert table.weighted(amount) == expected
    assert table.weighted(amount, initial=True) == expected


@pytest.mark.parametrize("floors", [[], [1], [0, 0], [0, 5, 3]])
def test_slices_that_cannot_be_are_refused(floors: list[int]) -> None:
    """No slice, a first floor above 0, floors that do not rise."""
    with pytest.raises(ValueError, match="floor"):
        WeightTable.of([WeightRow(floor=Decimal(f), weight=ZERO) for f in floors])
