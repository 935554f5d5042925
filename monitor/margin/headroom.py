"""Headroom of a worked pool as something moves: a mark, all prices, a deposit, or the part of a position still held.

theta * equity - rho * requirement: (1, 1) is the headroom of liquidation, (1, 0) equity, (a threshold, 1) that of a level. What does not
move is one constant, taken from the evaluation; what moves is built from the schedules, without the venue's rounding of amounts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from monitor.margin.collateral import worth_pieces
from monitor.margin.courses import Course, Node, Poly
from monitor.margin.numbers import ZERO
from monitor.margin.pools import MarginPool
from monitor.margin.positions import Priced, size_premium
from monitor.margin.prices import Prices
from monitor.margin.risk_courses import Share, UnitCourse
from monitor.margin.schedules import Pieces, Tier, pieces_of_row
from monitor.margin.worked import Worked

__all__ = ["Headroom", "Motion", "NotPolynomial"]

ONE = Decimal(1)
HALVES = (ZERO,)
"""One level at 0: below, above."""


class NotPolynomial(ArithmeticError):
    """A course that is not piecewise polynomial of degree 2: a search has to do."""


@dataclass(frozen=True, slots=True)
class Motion:
    """How one leg changes along t.

    Attributes:
        v0, v1: Signed value v0 + v1 * t, settle asset.
        k0, k1: Part of the position still held: k0 + k1 * t; what is closed is realised at the present mark.
    """

    state: Priced
    v0: Decimal
    v1: Decimal
    k0: Decimal = ONE
    k1: Decimal = ZERO


@dataclass(slots=True)
class _Amount:
    """The amount of one asset along t: x0 + x1 * t + outputs of nodes."""

    x0: Decimal
    x1: Decimal
    children: list[tuple[Decimal, Node]]


@dataclass(slots=True)
class _Net:
    """Margins of the longs and of the shorts of one underlying along t, pool's currency."""

    sides: dict[bool, _Amount]
    now: Decimal


class Headroom:
    """Collects what moves, then gives the course. Call under the EXACT context, on a pool that is not unknown.

    Args:
        pool, prices, as_of, worked: A pool, and what its evaluation was made of and gave.
        theta, rho: Headroom is theta * equity - rho * requirement.
        requirement: Of the whole pool, where it is not the evaluated one.
        constant: Added to headroom.
    """

    def __init__(
        self,
        pool: MarginPool,
        prices: Prices,
        as_of: datetime,
        worked: Worked,
        theta: Decimal,
        rho: Decimal,
        *,
        requirement: Decimal | None = None,
        constant: Decimal = ZERO,
    ) -> None:
        self.pool, self.worked, self.rules = pool, worked, pool.rules
        self.prices, self.as_of = prices, as_of
        self.theta, self.rho = theta, rho
        if requirement is None:
            maintenance = worked.maintenance
            assert maintenance is not None and worked.fees is not None
            requirement = maintenance + worked.fees
        assert worked.equity is not None
        self.base0 = theta * worked.equity - rho * requirement + constant
        self.base1 = ZERO
        self.nodes: list[Node] = []
        self.sinks: list[tuple[Decimal, Node]] = []
        self.amounts: dict[str, _Amount] = {}
        self.nets: dict[str, _Net] = {}
        self.units: dict[str, UnitCourse] = {}
        self.indices: dict[str, tuple[Decimal, Decimal]] = {}
        self.filled = {(held or state).leg.name: state for held, state in worked.worst}
        if self.rules.margin_in_profit and (theta != 1 or rho != 1):
            raise NotPolynomial

    def move(self, motion: Motion, *, margins_move: bool = True) -> None:
        """Lets a leg change. `margins_move`: its maintenance changes with it; fees of closing at mark always do."""
        part = None
        if self.pool.portfolio:
            if self.rho and margins_move:
                self._move_unit(motion)
        elif self.rho:
            part = self._margin(motion, margins_move=margins_move)
        if self.rules.margin_in_profit:
            self._move_health(motion, part)
            return
        if part is not None:
            self._add_requirement(motion, part)
        self._move_profit(motion)

    def deposit(self, asset: str) -> None:
        """Adds t to the wallet of an asset."""
        self._amount(asset).x1 += ONE

    def price(self, asset: str, p0: Decimal, p1: Decimal) -> None:
        """Lets the index price of an asset be p0 + p1 * t, in the pool's currency. It must not be one that margins are in."""
        if self.rules.margin_in_profit or not self.rules.profit_joins_wallet:
            raise NotPolynomial
        if any(state.leg.settle == asset for state in self.worked.priced) or any(a.asset == asset for a in self.pool.adjustments):
            raise NotPolynomial
        self._amount(asset)
        self.indices[asset] = (p0, p1)

    def course(self) -> Course:
        """The course of everything added so far."""
        for net in self.nets.values():
            self._finish_net(net)
        for unit in self.units.values():
            self._finish_unit(unit)
        for asset, amount in self.amounts.items():
            self._finish_asset(asset, amount)
        return Course((self.base0, self.base1, ZERO), self.nodes, self.sinks)

    # Requirements

    def _margin(self, motion: Motion, *, margins_move: bool) -> tuple[Node | None, Decimal, Decimal]:
        """Maintenance and exit fee of a leg along t: (node or None, part at t = 0, slope of that part), settle asset."""
        state = self.filled.get(motion.state.leg.name, motion.state)
        leg = state.leg
        assert state.maintenance is not None and motion.state.value is not None
        if leg.option:
            return self._option_margin(motion)
        sign = 1 if motion.state.value >= 0 else -1
        ratio = sign * abs(leg.units / motion.state.leg.units)
        b0, b1 = motion.v0 * ratio, motion.v1 * ratio
        exit_rate = leg.taker_fee if self.rules.closing_fee == "mark" and leg.taker_fee else ZERO
        e0, e1 = b0 * exit_rate, b1 * exit_rate
        if not margins_move:
            return None, state.maintenance * motion.k0 + e0, state.maintenance * motion.k1 + e1
        if leg.instrument.tiers is None:
            raise NotPolynomial
        basis = abs(motion.state.value * ratio)
        if self.rules.value_basis == "entry":
            assert leg.cost is not None
            basis = abs(leg.cost)
            b0, b1 = basis * motion.k0, basis * motion.k1
        levels, pieces = self._schedule(state, motion, basis)
        rest = state.fee or ZERO
        if motion.k1:
            rest = state.maintenance - _value(levels, pieces, basis)
        return Node(levels, pieces, b0, b1), rest * motion.k0 + e0, rest * motion.k1 + e1

    def _schedule(self, state: Priced, motion: Motion, basis: Decimal) -> tuple[tuple[Decimal, ...], Pieces]:
        """Maintenance as a function of the value it is taken on."""
        instrument = state.leg.instrument
        tiers = instrument.tiers
        assert tiers is not None
        factor = instrument.size_factor
        if instrument.tier_unit == "notional" and not factor:
            return tiers.levels, tiers.pieces
        if factor and motion.k1:
            raise NotPolynomial
        quantity = abs(state.leg.position.quantity)
        rows: Sequence[Tier] = tiers.rows
        scale = ONE
        if instrument.tier_unit == "quantity":
            if motion.k1:
                scale = basis / quantity
            else:
                rows, scale = (tiers.at(quantity),), ZERO
        starts: list[Decimal] = []
        pieces: list[Poly] = []
        for place, row in enumerate(rows):
            assert row.maintenance_rate is not None and row.deduction is not None
            rate = size_premium(self.rules, row.maintenance_rate, factor, quantity) if factor else row.maintenance_rate
            end = rows[place + 1].floor * scale if place + 1 < len(rows) else None
            for start, (piece,) in pieces_of_row(rate, row.slope, row.deduction, row.floor * scale, end):
                starts.append(start)
                pieces.append(piece)
        return tuple(starts[1:]), tuple(pieces)

    def _option_margin(self, motion: Motion) -> tuple[Node | None, Decimal, Decimal]:
        """Maintenance of an option along t. A short one's is linear in its own mark on either side of the venue's kink."""
        state = motion.state
        leg = state.leg
        assert state.maintenance is not None and state.mark is not None
        if not state.maintenance or motion.k1:
            return None, state.maintenance * motion.k0, state.maintenance * motion.k1
        hook, underlying = self.rules.short_option, state.underlying
        assert hook is not None and underlying is not None

        def kept(mark: Decimal) -> Decimal:
            found = hook(leg, mark, underlying, state.row)
            assert found is not None
            return found[1]

        kink = None if self.rules.short_option_kink is None else self.rules.short_option_kink(leg, underlying)
        turn = kink or state.mark
        at_zero, at_turn, beyond = kept(ZERO), kept(turn), kept(turn * 2)
        low = (at_zero, (at_turn - at_zero) / turn, ZERO)
        high = (2 * at_turn - beyond, (beyond - at_turn) / turn, ZERO)
        levels: tuple[Decimal, ...] = () if kink is None else (kink,)
        node = Node(levels, (low,) if kink is None else (low, high), motion.v0 / leg.units, motion.v1 / leg.units)
        return node, ZERO, ZERO

    def _add_requirement(self, motion: Motion, part: tuple[Node | None, Decimal, Decimal]) -> None:
        """Puts a leg's moving maintenance and exit fee in place of the evaluated ones."""
        node, f0, f1 = part
        state = self.filled.get(motion.state.leg.name, motion.state)
        rate = self.worked.rates[state.leg.settle][0]
        assert rate is not None and state.maintenance is not None
        own = state.maintenance + (state.exit_fee or ZERO if self.rules.closing_fee == "mark" else ZERO)
        if self.rules.netting == "larger_side" and not self.pool.isolated:
            if self.rules.closing_fee == "mark":
                raise NotPolynomial
            side = self._net_of(state).sides[state.leg.long]
            side.x0 += rate * (f0 - own)
            side.x1 += rate * f1
            if node is not None:
                self.nodes.append(node)
                side.children.append((rate, node))
            return
        factor = self.rho * rate
        self.base0 += factor * (own - f0)
        self.base1 -= factor * f1
        if node is not None:
            self.nodes.append(node)
            self.sinks.append((-factor, node))

    def _move_unit(self, motion: Motion) -> None:
        """Lets a leg's part in its risk unit follow its value, and the fee of closing it follow its notional."""
        state = motion.state
        leg = state.leg
        underlying = leg.instrument.underlying
        assert underlying is not None and state.value is not None
        if underlying not in self.units:
            self.units[underlying] = UnitCourse(self.pool, self.prices, self.as_of, underlying)
        r0, r1 = (motion.k0, motion.k1) if leg.option else (motion.v0 / state.value, motion.v1 / state.value)
        share = Share(leg, r0, r1, motion.k0, motion.k1)
        self.units[underlying].shares.append(share)
        if self.rules.closing_fee == "mark" and state.exit_fee:
            rate = self.worked.worths[leg.settle].price
            assert rate is not None
            own = self.rho * rate * state.exit_fee
            self.base0 += own * (ONE - share.r0)
            self.base1 -= own * share.r1

    def _finish_unit(self, course: UnitCourse) -> None:
        """Puts a unit's moving margin in place of the evaluated one."""
        (unit,) = (unit for unit in self.worked.risk_units if unit.underlying == course.underlying)
        assert unit.maintenance_margin is not None
        nodes, c0, c1, inputs = course.build()
        self.nodes += nodes
        self.base0 += self.rho * (unit.maintenance_margin - c0)
        self.base1 -= self.rho * c1
        self.sinks.extend((-self.rho * weight, node) for weight, node in inputs)

    def _net_of(self, state: Priced) -> _Net:
        underlying = state.leg.instrument.underlying
        assert underlying is not None
        if underlying not in self.nets:
            sums = {True: ZERO, False: ZERO}
            for other in self.worked.priced:
                if other.leg.instrument.underlying == underlying:
                    rate = self.worked.rates[other.leg.settle][0]
                    assert rate is not None and other.maintenance is not None
                    sums[other.leg.long] += rate * other.maintenance
            self.nets[underlying] = _Net({side: _Amount(total, ZERO, []) for side, total in sums.items()}, max(sums.values()))
        return self.nets[underlying]

    def _finish_net(self, net: _Net) -> None:
        """max(longs, shorts) = shorts + max(0, longs - shorts)."""
        longs, shorts = net.sides[True], net.sides[False]
        self.base0 += self.rho * (net.now - shorts.x0)
        self.base1 -= self.rho * shorts.x1
        self.sinks.extend((-self.rho * factor, child) for factor, child in shorts.children)
        children = [*longs.children, *((-factor, child) for factor, child in shorts.children)]
        excess = Node(HALVES, ((ZERO, ZERO, ZERO), (ZERO, ONE, ZERO)), longs.x0 - shorts.x0, longs.x1 - shorts.x1, children)
        self.nodes.append(excess)
        self.sinks.append((-self.rho, excess))

    # Profit and assets

    def _amount(self, asset: str) -> _Amount:
        if asset not in self.amounts:
            worth = self.worked.worths[asset]
            joined = worth.amount if self.rules.profit_joins_wallet else worth.wallet
            now = worth.net if self.rules.margin_in_profit else joined
            assert now is not None
            self.amounts[asset] = _Amount(now, ZERO, [])
        return self.amounts[asset]

    def _move_profit(self, motion: Motion) -> None:
        """Adds the change of a leg's gain to its asset: value(t) - value now * part held, with the weight of profit where there is one."""
        state = motion.state
        leg = state.leg
        asset = leg.settle
        assert state.value is not None
        if leg.option and not self.rules.options_in_equity:
            if motion.k1:  # what is closed turns into cash
                amount = self._amount(asset)
                amount.x0 += state.value * (ONE - motion.k0)
                amount.x1 -= state.value * motion.k1
            return
        joined = self.rules.profit_joins_wallet
        weight = leg.instrument.profit_weight
        if weight == 1 and joined:
            amount = self._amount(asset)
            amount.x0 += motion.v0 - state.value * motion.k0
            amount.x1 += motion.v1 - state.value * motion.k1
            return
        if state.pnl is None or leg.cost is None:
            raise NotPolynomial
        profit = state.pnl + leg.position.unsettled_funding
        realised0, realised1 = (ONE - motion.k0) * profit, -motion.k1 * profit
        start = motion.v0 - (leg.cost - leg.position.unsettled_funding) * motion.k0
        slope = motion.v1 - (leg.cost - leg.position.unsettled_funding) * motion.k1
        node = Node(HALVES, ((ZERO, ONE, ZERO), (ZERO, weight, ZERO)), start, slope)
        self.nodes.append(node)
        now = profit * weight if profit > 0 else profit
        if realised0 or realised1 or joined:
            amount = self._amount(asset)
            amount.x0 += realised0
            amount.x1 += realised1
        if joined:
            amount.x0 -= now
            amount.children.append((ONE, node))
            return
        price = self.worked.worths[asset].price
        assert price is not None
        self.base0 -= self.theta * price * now
        self.sinks.append((self.theta * price, node))

    def _move_health(self, motion: Motion, part: tuple[Node | None, Decimal, Decimal] | None) -> None:
        """The same where margin is taken out of profit before its weight (`venues.mango`)."""
        state = motion.state
        leg = state.leg
        sized = self.filled.get(leg.name, state)
        if state.pnl is None or leg.cost is None or sized.maintenance is None or part is None:
            raise NotPolynomial
        node, f0, f1 = part
        if node is not None:
            self.nodes.append(node)
        profit = state.pnl + leg.position.unsettled_funding
        held = leg.cost - leg.position.unsettled_funding
        weight = leg.instrument.profit_weight
        health = Node(
            HALVES,
            ((ZERO, ONE, ZERO), (ZERO, weight, ZERO)),
            motion.v0 - held * motion.k0 - f0,
            motion.v1 - held * motion.k1 - f1,
            [] if node is None else [(-ONE, node)],
        )
        self.nodes.append(health)
        now = profit - sized.maintenance
        amount = self._amount(leg.settle)
        amount.x0 += (ONE - motion.k0) * profit - (now * weight if now > 0 else now)
        amount.x1 -= motion.k1 * profit
        amount.children.append((ONE, health))

    def _finish_asset(self, asset: str, amount: _Amount) -> None:
        """Puts the moving worth of an asset in place of the evaluated one."""
        moved = self.indices.get(asset)
        if not amount.x1 and not amount.children and moved is None:
            return
        pool, worth, rules = self.pool, self.worked.worths[asset], self.rules
        assert worth.value is not None and worth.price is not None
        value = worth.value
        if not rules.profit_joins_wallet and not rules.margin_in_profit:
            assert worth.profit is not None
            value -= worth.price * worth.profit
        owed = (worth.owed or ZERO) + worth.repay_fee + (ZERO if worth.borrow is None else worth.borrow.maintenance)
        self.base0 += self.rho * owed - self.theta * value
        if not pool.multi and rules.debts == "equity":
            self.base0 += self.theta * amount.x0
            self.base1 += self.theta * amount.x1
            self.sinks.extend((self.theta * factor, child) for factor, child in amount.children)
            return
        if worth.holding.asset.size_factor:
            raise NotPolynomial
        if pool.multi:
            levels, pieces = worth_pieces(
                worth.holding.asset,
                rules,
                collateral=worth.holding.collateral,
                borrows=not pool.isolated and not rules.margin_in_profit,
                equity_factor=self.theta,
                requirement_factor=self.rho,
            )
        else:
            levels, pieces = HALVES, ((ZERO, self.rho, ZERO), (ZERO, self.theta, ZERO))
        node = Node(levels, pieces, amount.x0, amount.x1, amount.children, moved or (worth.price, ZERO))
        self.nodes.append(node)
        self.sinks.append((ONE, node))


def _value(levels: tuple[Decimal, ...], pieces: Pieces, x: Decimal) -> Decimal:
    """The schedule at x; at a level itself the piece below."""
    k0, k1, k2 = pieces[sum(1 for level in levels if level < x)]
    return k0 + x * (k1 + k2 * x)
