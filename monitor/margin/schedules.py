"""Piecewise-linear schedules: maintenance tiers by size, collateral and debt weights by slice.

A row starts above its floor: it applies to sizes `floor < x <= next floor`, the last without end; the first floor is 0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext

from monitor.margin.numbers import EXACT, ZERO

__all__ = ["Pieces", "Tier", "TierTable", "WeightRow", "WeightTable", "pieces_of_row"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One row of a maintenance schedule.

    maintenance margin = max(0, value * (maintenance_rate + slope * value) - deduction); rates are fractions, >= 0.

    Attributes:
        floor: Size above which the row applies; notional in the settle asset, or quantity (see `Instrument.tier_unit`).
        maintenance_rate: None only where `max_leverage` gives it (Hyperliquid): 1 / (2 * max_leverage).
        initial_rate: Rate to open; else 1 / max_leverage; else unknown.
        deduction: In the settle asset, >= 0. Never None inside a TierTable.
        slope: Added to both rates per unit of notional (Deribit futures).
    """

    floor: Decimal
    maintenance_rate: Decimal | None = None
    initial_rate: Decimal | None = None
    max_leverage: Decimal | None = None
    deduction: Decimal | None = None
    slope: Decimal = ZERO


Pieces = tuple[tuple[Decimal, Decimal, Decimal], ...]
"""Coefficients (k0, k1, k2) of k0 + k1*x + k2*x^2, one per interval."""


def pieces_of_row(rate: Decimal, slope: Decimal, deduction: Decimal, floor: Decimal, end: Decimal | None) -> list[tuple[Decimal, Pieces]]:
    """Pieces of max(0, x * (rate + slope*x) - deduction) on floor < x <= end: [(start, (coefficients,)), ...].

    One piece, or a zero one before it.
    """
    curve = (-deduction, rate, slope)
    if floor * (rate + slope * floor) >= deduction:
        return [(floor, (curve,))]
    if slope:
        zero: Decimal | None = ((rate * rate + 4 * slope * deduction).sqrt() - rate) / (2 * slope)
    else:
        zero = deduction / rate if rate else None
    nothing = (ZERO, ZERO, ZERO)
    if zero is None or (end is not None and zero >= end):
        return [(floor, (nothing,))]
    return [(floor, (nothing,)), (zero, (curve,))]


@dataclass(frozen=True, slots=True)
class TierTable:
    """Ascending tiers with every maintenance rate and deduction filled in. Build with `of`.

    Attributes:
        levels: Sizes at which the maintenance margin changes its formula, ascending; one fewer than `pieces`.
        pieces: Its formula between them, for rows picked by notional.
        continuous: It never jumps.
        steepest: Its largest slope: the greatest rate where no row has a `slope`, else None.
    """

    rows: tuple[Tier, ...]
    floors: tuple[Decimal, ...]
    levels: tuple[Decimal, ...] = field(init=False, repr=False, compare=False)
    pieces: Pieces = field(init=False, repr=False, compare=False)
    continuous: bool = field(init=False, repr=False, compare=False)
    steepest: Decimal | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts: list[Decimal] = []
        pieces: list[tuple[Decimal, Decimal, Decimal]] = []
        with localcontext(EXACT):
            for index, row in enumerate(self.rows):
                assert row.maintenance_rate is not None and row.deduction is not None
                end = self.rows[index + 1].floor if index + 1 < len(self.rows) else None
                for start, (curve,) in pieces_of_row(row.maintenance_rate, row.slope, row.deduction, row.floor, end):
                    if not pieces or pieces[-1] != curve:
                        starts.append(start)
                        pieces.append(curve)
            object.__setattr__(self, "levels", tuple(starts[1:]))
            object.__setattr__(self, "pieces", tuple(pieces))
            jumps = (
                (a0 + a1 * x + a2 * x * x) != (b0 + b1 * x + b2 * x * x)
                for x, (a0, a1, a2), (b0, b1, b2) in zip(starts[1:], pieces, pieces[1:], strict=False)
            )
            object.__setattr__(self, "continuous", not any(jumps))
        rates = [row.maintenance_rate for row in self.rows if row.maintenance_rate is not None]
        object.__setattr__(self, "steepest", None if any(row.slope for row in self.rows) else max(rates))

    @classmethod
    def of(cls, rows: Sequence[Tier]) -> TierTable:
        """Fills rates from leverage and derives missing deductions so that maintenance is continuous.

        d_n = d_(n-1) + floor_n * (rate_n - rate_(n-1)), first 0.

        Raises:
            ValueError: No row, first floor not 0, floors that do not rise, or a row without rate and leverage.
        """
        if not rows or rows[0].floor != 0:
            raise ValueError("the first floor must be 0")
        filled: list[Tier] = []
        with localcontext(EXACT):
            for row in rows:
                rate = row.maintenance_rate
                if rate is None:
                    if row.max_leverage is None:
                        raise ValueError(f"the row at floor {row.floor} has neither maintenance_rate nor max_leverage")
                    rate = 1 / (2 * row.max_leverage)
                deduction = row.deduction
                if filled:
                    before = filled[-1]
                    if row.floor <= before.floor:
                        raise ValueError(f"floors must rise: {row.floor} after {before.floor}")
                    if deduction is None:
                        assert before.deduction is not None and before.maintenance_rate is not None
                        deduction = before.deduction + row.floor * (rate - before.maintenance_rate)
                elif deduction is None:
                    deduction = ZERO
                filled.append(
                    Tier(
                        floor=row.floor,
                        maintenance_rate=rate,
                        initial_rate=row.initial_rate,
                        max_leverage=row.max_leverage,
                        deduction=deduction,
                        slope=row.slope,
                    )
                )
        return cls(tuple(filled), tuple(row.floor for row in filled))

    def at(self, size: Decimal) -> Tier:
        """The row for `size` >= 0: floor < size <= next floor; the first row for 0."""
        return self.rows[max(0, bisect_left(self.floors, size) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightRow:
    """One slice of an asset: `weight` applies to the part of the amount above `floor` and up to the next floor.

    `initial_weight` is used on the initial side; None means the same as `weight`.
    """

    floor: Decimal
    weight: Decimal
    initial_weight: Decimal | None = None


@dataclass(frozen=True, slots=True)
class WeightTable:
    """Ascending slices, each with its own weight (marginal, not whole-amount). Build with `of`."""

    rows: tuple[WeightRow, ...]

    @classmethod
    def of(cls, rows: Sequence[WeightRow]) -> WeightTable:
        """Checks the rows. Raises ValueError: no row, first floor not 0, floors that do not rise."""
        if not rows or rows[0].floor != 0:
            raise ValueError("the first floor must be 0")
        for before, row in zip(rows, rows[1:], strict=False):
            if row.floor <= before.floor:
                raise ValueError(f"floors must rise: {row.floor} after {before.floor}")
        return cls(tuple(rows))

    def weighted(self, amount: Decimal, *, initial: bool = False) -> Decimal:
        """Sum over slices of (part of |amount| inside the slice) * weight, for amount >= 0. Same unit as `amount`."""
        total = ZERO
        for index, row in enumerate(self.rows):
            if amount <= row.floor:
                break
            end = self.rows[index + 1].floor if index + 1 < len(self.rows) else amount
            weight = row.initial_weight if initial and row.initial_weight is not None else row.weight
            total += (min(amount, end) - row.floor) * weight
        return total
