"""The charge of one risk unit as its legs move: the maxima of portfolio margin as a chain of hinges.

In a scenario, profit and delta of a future are proportional to its value, and those of an option do not depend on its own mark. So along a
course every scenario's outcome is affine in t, and the charge (formula in `monitor.margin.scenarios`) is a piecewise linear function: a
maximum is a + max(0, b - a).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from monitor.margin.courses import Node
from monitor.margin.instruments import Kind, Risk
from monitor.margin.legs import Leg
from monitor.margin.numbers import ZERO
from monitor.margin.pools import MarginPool
from monitor.margin.prices import Prices
from monitor.margin.scenarios import RiskUnit, risk_units

__all__ = ["Share", "UnitCourse"]

ONE = Decimal(1)
HALVES = (ZERO,)
HINGE = ((ZERO, ZERO, ZERO), (ZERO, ONE, ZERO))
ABSOLUTE = ((ZERO, -ONE, ZERO), (ZERO, ONE, ZERO))

Inputs = list[tuple[Decimal, Node]]


@dataclass(frozen=True, slots=True)
class Share:
    """What a leg's part in its unit is multiplied by along t: value r0 + r1*t (1 now), and the part of it still held k0 + k1*t."""

    leg: Leg
    r0: Decimal
    r1: Decimal
    k0: Decimal
    k1: Decimal


@dataclass(slots=True)
class _Sum:
    """An affine function of t."""

    x0: Decimal
    x1: Decimal = ZERO

    def scale(self, part: Decimal, first: Decimal, second: Decimal) -> None:
        """Puts part * (first + second * t) in place of part."""
        self.x0 += part * (first - ONE)
        self.x1 += part * second


class UnitCourse:
    """The maintenance margin of one underlying along a course. Call under the EXACT context; the unit must be known.

    Args:
        pool, prices, as_of: What was evaluated.
        underlying: Of the unit.
    """

    def __init__(self, pool: MarginPool, prices: Prices, as_of: datetime, underlying: str) -> None:
        self.pool, self.prices, self.as_of, self.underlying = pool, prices, as_of, underlying
        self.risk = pool.tables.risk[underlying]
        self.shares: list[Share] = []

    def _raw(self, legs: Sequence[Leg]) -> RiskUnit:
        """Outcomes of some legs in all price moves, then all extreme ones, with profits in full."""
        moves = (*self.risk.price_moves, *self.risk.extreme_moves)
        plain: Risk = replace(
            self.risk, price_moves=moves, extreme_moves=(), profit_offset=ONE, delta_shock_threshold=None, minimum_charge=ZERO
        )
        (unit,) = risk_units(
            legs,
            self.prices,
            {self.underlying: plain},
            self.as_of,
            currency=self.pool.currency,
            valuation_currency=self.pool.account.valuation_currency,
            at_index=self.pool.rules.scenarios_at_index,
        )
        assert unit.missing is None
        return unit

    def build(self) -> tuple[list[Node], Decimal, Decimal, Inputs]:
        """Nodes in order, and the margin as c0 + c1 * t + their weighted outputs."""
        legs = [leg for leg in self.pool.legs if leg.instrument.underlying == self.underlying]
        whole = self._raw(legs)
        assert whole.delta is not None and whole.basis_charge is not None
        outcomes = [_Sum(profit) for profit in whole.scenario_pnl]
        delta, basis = _Sum(whole.delta), _Sum(whole.basis_charge)
        for share in self.shares:
            own = self._raw([share.leg])
            assert own.delta is not None and own.basis_charge is not None
            first, second = self._factor(share, outcome=True)
            for outcome, part in zip(outcomes, own.scenario_pnl, strict=True):
                outcome.scale(part, first, second)
            first, second = self._factor(share, outcome=False)
            delta.scale(own.delta, first, second)
            basis.scale(own.basis_charge, first, second)
        return self._charge(outcomes, delta, basis)

    def _factor(self, share: Share, *, outcome: bool) -> tuple[Decimal, Decimal]:
        """What a leg's outcomes, or its delta, are multiplied by: its value, unless they do not follow its mark."""
        leg = share.leg
        quanto = leg.instrument.kind in {Kind.QUANTO_PERPETUAL, Kind.QUANTO_FUTURE}
        at_index = outcome and self.pool.rules.scenarios_at_index and not quanto
        return (share.k0, share.k1) if leg.option or at_index else (share.r0, share.r1)

    def _charge(self, outcomes: Sequence[_Sum], delta: _Sum, basis: _Sum) -> tuple[list[Node], Decimal, Decimal, Inputs]:
        """max(max(price, extreme) + basis, minimum) times the maintenance factor."""
        risk = self.risk
        nodes: list[Node] = []
        count = len(risk.price_moves)
        offset = -risk.profit_offset
        price = self._largest(nodes, outcomes[:count], ((ZERO, -ONE, ZERO), (ZERO, offset, ZERO)))
        extreme = self._largest(nodes, outcomes[count:], ((ZERO, -ONE, ZERO), (ZERO, -ONE, ZERO)))
        factor = risk.extreme_factor if risk.extreme_factor is not None else ZERO
        far: Inputs = [(factor * weight, node) for weight, node in extreme]
        if far:
            over = Node(HALVES, HINGE, ZERO, ZERO, [*far, *((-weight, node) for weight, node in price)])
            nodes.append(over)
            price = [*price, (ONE, over)]
        if risk.minimum_charge:
            size = Node(HALVES, ABSOLUTE, delta.x0, delta.x1)
            nodes.append(size)
            below: Inputs = [(risk.minimum_charge, size), *((-weight, node) for weight, node in price)]
            short = Node(HALVES, HINGE, -basis.x0, -basis.x1, below)
            nodes.append(short)
            price = [*price, (ONE, short)]
        kept = risk.maintenance_factor
        return nodes, kept * basis.x0, kept * basis.x1, [(kept * weight, node) for weight, node in price]

    @staticmethod
    def _largest(nodes: list[Node], outcomes: Sequence[_Sum], loss: tuple[tuple[Decimal, Decimal, Decimal], ...]) -> Inputs:
        """max(0, the losses): each loss adds what it exceeds the largest before it by."""
        found: Inputs = []
        for outcome in outcomes:
            node = Node(HALVES, loss, outcome.x0, outcome.x1)
            excess = Node(HALVES, HINGE, ZERO, ZERO, [(ONE, node), *((-weight, before) for weight, before in found)])
            nodes += [node, excess]
            found.append((ONE, excess))
        return found
