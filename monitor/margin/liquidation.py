"""At which prices a pool is liquidated or bankrupt, and what would bring it back: exact, on the model that `health` evaluates.

Liquidation price of a position: the mark nearest to the present one at which headroom (equity - maintenance - fees) changes sign while
all other marks and all index prices stand still. Tiers, slices of collateral and debts are picked anew there; both hedge legs of a symbol
move together. Rounded to the tick against the holder. Bankruptcy price: the same for equity (where a venue holds a fee at bankruptcy:
equity less that fee).

Solved in closed form, piece by piece (`monitor.margin.courses`); by a bracketed search where a requirement is not piecewise polynomial
(options repriced as their forward moves, size premiums as a position is reduced). The venue's rounding of amounts is left out of what
moves, so that a price is that of the venue's own formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

from monitor.margin.courses import Course, crossing, crossing_numeric
from monitor.margin.headroom import Headroom, Motion, NotPolynomial
from monitor.margin.health import PoolHealth, beyond, write_up
from monitor.margin.instruments import Instrument
from monitor.margin.levels import DEFAULT_THRESHOLDS, Level, Thresholds
from monitor.margin.numbers import EXACT, ZERO
from monitor.margin.pools import MarginPool
from monitor.margin.positions import Priced, size_leg
from monitor.margin.prices import Prices
from monitor.margin.worked import Worked
from monitor.margin.working import unknown_of, work

__all__ = [
    "Cure",
    "PoolMove",
    "PoolReport",
    "PositionPrices",
    "Reduction",
    "assess",
    "cure",
    "pool_move",
    "position_prices",
    "priced",
    "report",
]

ONE = Decimal(1)
CENTI_MICRO = Decimal("0.00000001")
"""Deposits and reductions are rounded up to it."""

DOWN = tuple(Decimal(n) / 10000 for n in (9800, 9500, 9000, 8300, 7300, 6000, 4500, 3000, 1500, 500, 1))
UP = tuple(Decimal(n) / 100 for n in (102, 105, 110, 118, 130, 160, 220, 400, 1000, 5000, 1000000))
"""Where a search that cannot be solved in closed form looks, as multiples of the present prices."""

COARSE = Decimal("1e-12")
"""How narrow a move of the whole pool is searched for: it is printed to 8 places."""


@dataclass(frozen=True, slots=True)
class PositionPrices:
    """Liquidation and bankruptcy price of one position; None: there is none above 0, or the pool is unknown.

    Attributes:
        liquidation_price: The nearer of `below` and `above`, rounded to the tick against the holder.
        bankruptcy_price: Likewise for equity.
        below, above: The nearest marks on either side of the present one at which headroom changes sign, not rounded.
    """

    liquidation_price: Decimal | None
    bankruptcy_price: Decimal | None
    below: Decimal | None
    above: Decimal | None


NONE = PositionPrices(None, None, None, None)


@dataclass(frozen=True, slots=True)
class PoolMove:
    """How far prices can move together before headroom changes sign, as fractions: -0.12 is 12 % down. None: never, or unknown."""

    down: Decimal | None
    up: Decimal | None


@dataclass(frozen=True, slots=True)
class Reduction:
    """The part of one position to close at its mark, signed against the position. None: closing all of it is not enough."""

    instrument: str
    side: str
    quantity: Decimal | None


@dataclass(frozen=True, slots=True)
class Cure:
    """What brings a pool below a level, each by itself. `deposit` is None when the pool is unknown.

    Attributes:
        below: The level it comes below.
        deposit: Cash in the pool's currency, 0 when nothing is needed; rounded up to 1e-8.
        reductions: By position, in the pool's order, rounded up to 1e-8; () when nothing is needed. Fees of trading are not counted.
    """

    below: Level
    deposit: Decimal | None
    reductions: tuple[Reduction, ...]


@dataclass(frozen=True, slots=True)
class PoolReport:
    """Everything an event says of a pool: health with its prices, how far the market can move, and what cures it."""

    health: PoolHealth
    move: PoolMove
    cure: Cure


class _Solver:
    """A worked pool and what its courses share. Call under the EXACT context, on a pool that is not unknown."""

    def __init__(self, pool: MarginPool, prices: Prices, as_of: datetime, worked: Worked) -> None:
        self.pool, self.prices, self.as_of, self.worked = pool, prices, as_of, worked
        self.rules = pool.rules
        maintenance = worked.maintenance
        assert worked.equity is not None and maintenance is not None and worked.fees is not None
        self.equity, self.requirement = worked.equity, maintenance + worked.fees
        at_entry = self.rules.isolated_price_at_entry and pool.isolated
        self.margins_move = not (self.rules.value_basis == "entry" or self.rules.held_maintenance or at_entry)
        self.standing = self._at_entry() if at_entry else self.requirement
        self.held_fee = self._held_fee()
        self.plain = (
            not pool.multi
            and not pool.portfolio
            and self.rules.debts == "equity"
            and self.rules.netting == "none"
            and not self.rules.margin_in_profit
            and not worked.worst
        )
        """Amounts count as they are and requirements add up: a single position's headroom moves one way only."""

    def _at_entry(self) -> Decimal:
        """Requirement of an isolated position on its value at entry (Bybit).

        Without the fee where the wallet is the default, which holds none.
        """
        (state,) = self.worked.priced
        leg = state.leg
        if leg.cost is None or leg.option or leg.instrument.tiers is None:
            return self.requirement
        sized = size_leg(leg, abs(leg.cost), None, self.rules, self.prices, ZERO, isolated=True)
        assert sized.row.deduction is not None
        kept = max(ZERO, sized.basis * sized.maintenance_rate - sized.row.deduction)
        return kept if self.pool.wallet_defaulted else kept + (state.fee or ZERO)

    def _held_fee(self) -> Decimal:
        """Closing fees that are owed at bankruptcy, pool's currency: where they are taken at the value there."""
        total = ZERO
        for state in self.worked.priced:
            by_pool = self.rules.fee_at_bankruptcy and not self.pool.multi and not self.pool.isolated and state.leg.leverage_rate is None
            rate = self.worked.rates[state.leg.settle][0]
            if (self.rules.closing_fee == "bankruptcy" or by_pool) and state.fee is not None and rate is not None:
                total += state.fee * rate
        return total

    # One symbol

    def symbol(self, states: Sequence[Priced]) -> PositionPrices:
        """Prices of the legs of one instrument, which move together."""
        below, above = self._roots(states, liquidation=True)
        mark = states[0].mark
        assert mark is not None
        headroom = self.equity - self.standing
        found = _nearest(mark, below, above)
        under, over = (None, None) if self.rules.margin_in_profit else self._roots(states, liquidation=False)
        tick = states[0].leg.instrument.tick_size
        bankrupt = _nearest(mark, under, over)
        return PositionPrices(
            _against(found, mark, tick, safe=headroom > 0), _against(bankrupt, mark, tick, safe=self.equity > 0), below, above
        )

    def _roots(self, states: Sequence[Priced], *, liquidation: bool) -> tuple[Decimal | None, Decimal | None]:
        """Changes of sign of headroom, or of equity, below and above the present mark."""
        leg = states[0].leg
        mark = states[0].mark
        assert mark is not None
        try:
            course = self._symbol_course(states, liquidation=liquidation)
        except NotPolynomial:
            return self._search(leg.name, mark, liquidation=liquidation)
        inverse = leg.inverse
        start = 1 / mark if inverse else mark
        ways = self._ways(states, liquidation=liquidation)
        roots: list[Decimal | None] = []
        for upwards in (False, True):
            if upwards not in ways:
                roots.append(None)
                continue
            grows = upwards != inverse
            t = crossing(course, start, 1 if grows else -1, None if grows else ZERO)
            roots.append(t if t is None or not inverse else 1 / t)
        return roots[0], roots[1]

    def _symbol_course(self, states: Sequence[Priced], *, liquidation: bool) -> Course:
        if liquidation:
            headroom = Headroom(self.pool, self.prices, self.as_of, self.worked, ONE, ONE, requirement=self.standing)
        else:
            headroom = Headroom(self.pool, self.prices, self.as_of, self.worked, ONE, ZERO, requirement=ZERO, constant=-self.held_fee)
        for state in states:
            units = state.leg.units
            headroom.move(Motion(state, ZERO, -units if state.leg.inverse else units), margins_move=self.margins_move)
        return headroom.course()

    def _ways(self, states: Sequence[Priced], *, liquidation: bool) -> tuple[bool, ...]:
        """Directions in which a change of sign is possible: True up. One for a single plain position, where headroom follows its profit."""
        (state, *others) = states
        leg = state.leg
        if others or not self.plain or leg.option or leg.instrument.profit_weight != 1:
            return (False, True)
        headroom = self.equity - (self.standing if liquidation else self.held_fee)
        if not headroom:
            return (False, True)
        exits = leg.taker_fee if self.rules.closing_fee == "mark" and leg.taker_fee else ZERO
        if liquidation and exits >= 1:
            return (False, True)
        if liquidation and self.margins_move:
            tiers = leg.instrument.tiers
            if tiers is None or leg.instrument.size_factor or not tiers.continuous or tiers.steepest is None:
                return (False, True)
            if tiers.steepest + exits >= 1:
                return (False, True)
        return (leg.long != (headroom > 0),)

    def _search(self, name: str, mark: Decimal, *, liquidation: bool) -> tuple[Decimal | None, Decimal | None]:
        """Below and above, by evaluating anew."""

        def at(price: Decimal) -> Decimal | None:
            return self._evaluated(replace(self.prices, mark={**self.prices.mark, name: price}), liquidation=liquidation)

        below = crossing_numeric(at, mark, [mark * factor for factor in DOWN])
        above = crossing_numeric(at, mark, [mark * factor for factor in UP])
        return below, above

    def _evaluated(self, prices: Prices, *, liquidation: bool = True, theta: Decimal = ONE) -> Decimal | None:
        worked = work(self.pool, prices, self.as_of)
        if worked.equity is None:
            return None
        if not liquidation:
            return worked.equity - self.held_fee
        maintenance = worked.maintenance
        if maintenance is None or worked.fees is None:
            return None
        return theta * worked.equity - maintenance - worked.fees

    def prices_of_legs(self) -> tuple[PositionPrices, ...]:
        """Prices of every leg, in the pool's order."""
        groups: dict[str, list[Priced]] = {}
        for state in self.worked.priced:
            groups.setdefault(state.leg.name, []).append(state)
        found = {name: self.symbol(states) for name, states in groups.items()}
        return tuple(found[state.leg.name] for state in self.worked.priced)

    # The whole pool

    def move(self, betas: Mapping[str, Decimal] | None, index_betas: Mapping[str, Decimal]) -> PoolMove:
        """How far all marks can move by s * beta (default: all by s), and index prices by s * theirs, before headroom changes sign."""
        moving = [state for state in self.worked.priced if betas is None or betas.get(state.leg.name)]
        if not moving and not index_betas:
            return PoolMove(None, None)
        largest = max((abs(beta) for beta in (betas or {}).values()), default=ZERO) if betas is not None else ONE
        largest = max([largest, *(abs(beta) for beta in index_betas.values())])
        if not largest:
            return PoolMove(None, None)
        try:
            course, reciprocal = self._pool_course(moving, betas, index_betas)
        except NotPolynomial:
            return self._pool_search(betas, index_betas, largest)
        floor = -1 / largest
        if reciprocal:
            falls, rises = crossing(course, ONE, 1, None), crossing(course, ONE, -1, ZERO)
            return PoolMove(None if falls is None else 1 / falls - 1, None if rises is None else 1 / rises - 1)
        ceiling = None if betas is None or min([*betas.values(), *index_betas.values(), ZERO]) >= 0 else 1 / largest
        return PoolMove(crossing(course, ZERO, -1, floor), crossing(course, ZERO, 1, ceiling))

    def _pool_course(
        self, moving: Sequence[Priced], betas: Mapping[str, Decimal] | None, index_betas: Mapping[str, Decimal]
    ) -> tuple[Course, bool]:
        """The course along s, or along 1/(1+s) where all that moves is inverse and moves alike."""
        if any(state.leg.option for state in moving) or (self.pool.portfolio and self.rules.scenarios_at_index):
            raise NotPolynomial
        held = {a: b for a, b in index_betas.items() if a in self.worked.worths and self.pool.multi and a != self.pool.currency}
        inverse = [state for state in moving if state.leg.inverse]
        reciprocal = bool(inverse)
        if reciprocal and (len(inverse) != len(moving) or betas is not None or held):
            raise NotPolynomial
        headroom = Headroom(self.pool, self.prices, self.as_of, self.worked, ONE, ONE)
        for state in moving:
            assert state.mark is not None
            value = state.leg.value(state.mark)
            beta = ONE if betas is None else betas[state.leg.name]
            motion = Motion(state, ZERO, value) if reciprocal else Motion(state, value, value * beta)
            headroom.move(motion, margins_move=self.rules.value_basis == "mark")
        for asset, beta in held.items():
            price = self.worked.worths[asset].price
            assert price is not None
            headroom.price(asset, price, price * beta)
        return headroom.course(), reciprocal

    def _pool_search(self, betas: Mapping[str, Decimal] | None, index_betas: Mapping[str, Decimal], largest: Decimal) -> PoolMove:
        """The same by evaluating anew. Options follow their forward where the model's inputs are there, else they stand still."""
        names = {state.leg.name: state.leg for state in self.worked.priced}

        def beta_of(name: str) -> Decimal:
            return ONE if betas is None else betas.get(name, ZERO)

        def at(s: Decimal) -> Decimal | None:
            mark = dict(self.prices.mark)
            forward = dict(self.prices.forward)
            for name, leg in names.items():
                factor = 1 + s * beta_of(name)
                if leg.option:
                    if name in forward and name in self.prices.volatility:
                        forward[name] *= factor
                        mark.pop(name, None)
                elif name in mark:
                    mark[name] *= factor
            index = dict(self.prices.index)
            for asset, beta in index_betas.items():
                if asset in index:
                    index[asset] *= 1 + s * beta
            return self._evaluated(replace(self.prices, mark=mark, forward=forward, index=index))

        falls = [(factor - 1) / largest for factor in DOWN]
        both_ways = betas is not None and min(betas.values(), default=ZERO) < 0
        rises = [-fall for fall in falls] if both_ways else [(factor - 1) / largest for factor in UP]
        return PoolMove(crossing_numeric(at, ZERO, falls, COARSE), crossing_numeric(at, ZERO, rises, COARSE))

    # Cures

    def cure(self, below: Level, thresholds: Thresholds) -> Cure:
        """Smallest deposit and reductions that bring the pool below a level (under its leave threshold)."""
        theta = thresholds.ladder()[below - 1].leave if below < Level.BANKRUPT else None
        held = theta if theta is not None else ONE
        need = ZERO if theta is None else self.requirement
        if held * self.equity > need:
            return Cure(below, ZERO, ())
        deposit = _above((need - held * self.equity) / held)
        if theta is None:
            return Cure(below, deposit, tuple(Reduction(s.leg.name, s.leg.position.side, None) for s in self.worked.priced))
        reductions = tuple(self._reduction(state, theta) for state in self.worked.priced)
        return Cure(below, deposit, reductions)

    def _reduction(self, state: Priced, theta: Decimal) -> Reduction:
        leg = state.leg
        quantity = leg.position.quantity
        kept = self._kept(state, theta)
        if kept is None:
            return Reduction(leg.name, leg.position.side, None)
        close = min(_above(abs(quantity) * (1 - kept)), abs(quantity))
        return Reduction(leg.name, leg.position.side, -close if quantity > 0 else close)

    def _kept(self, state: Priced, theta: Decimal) -> Decimal | None:
        """The largest part of a position that can stay: where headroom of the level turns positive as the part falls from 1 to 0."""
        assert state.value is not None
        # The venue's rounding, up to two units of 1e-6 of a position, is not in the course: it is asked for on top.
        cushion = Decimal("0.000004") if self.rules.value is not None or self.rules.margins is not None else ZERO
        try:
            if self.rules.worst_case_orders and self.pool.orders:
                raise NotPolynomial
            headroom = Headroom(self.pool, self.prices, self.as_of, self.worked, theta, ONE, constant=-cushion)
            headroom.move(Motion(state, ZERO, state.value, ZERO, ONE))
            return crossing(headroom.course(), ONE, -1, ZERO) if self._closing_helps(state, theta) else None
        except NotPolynomial:
            return crossing_numeric(lambda part: self._resized(state, part, theta), ONE, [Decimal(n) / 20 for n in range(19, -1, -1)])

    def _closing_helps(self, state: Priced, theta: Decimal) -> bool:
        """Quick test: whether closing all of a plain position can be enough."""
        if not self.plain or state.maintenance is None:
            return True
        own = state.maintenance + (state.exit_fee or ZERO)
        return theta * self.equity > self.requirement - own

    def _resized(self, state: Priced, part: Decimal, theta: Decimal) -> Decimal | None:
        """Headroom of the level with `part` of a position held and the profit of the rest in the wallet."""
        pool = reduced(self.pool, state, part)
        worked = work(pool, self.prices, self.as_of)
        maintenance = worked.maintenance
        if worked.equity is None or maintenance is None or worked.fees is None:
            return None
        return theta * worked.equity - maintenance - worked.fees


def reduced(pool: MarginPool, state: Priced, part: Decimal) -> MarginPool:
    """The pool with only `part` of one position left; what the rest realises at its mark, without fees, goes into the wallet."""
    leg = state.leg
    assert state.value is not None
    gone = ONE - part
    funding = leg.position.unsettled_funding
    if leg.option or pool.is_cash:
        realised = state.value * gone
    else:
        assert state.pnl is not None
        realised = state.pnl * gone
    realised += funding * gone
    legs = []
    for other in pool.legs:
        if other is not leg:
            legs.append(other)
        elif part:
            quantity = leg.position.quantity * part
            legs.append(
                replace(
                    leg,
                    units=leg.units * part,
                    cost=None if leg.cost is None else leg.cost * part,
                    position=replace(leg.position, quantity=quantity, unsettled_funding=funding * part),
                )
            )
    holdings = tuple(
        replace(holding, amount=holding.amount + realised) if holding.name == leg.settle and holding.amount is not None else holding
        for holding in pool.holdings
    )
    return replace(pool, legs=tuple(legs), holdings=holdings)


def _nearest(mark: Decimal, below: Decimal | None, above: Decimal | None) -> Decimal | None:
    if below is None or above is None:
        return above if below is None else below
    return below if mark - below <= above - mark else above


def _against(price: Decimal | None, mark: Decimal, tick: Decimal | None, *, safe: bool) -> Decimal | None:
    """Rounds a price to the tick against the holder.

    Towards the mark while the pool is safe, away from it when it has to get back there.
    """
    if price is None or price <= 0:
        return None
    if tick is None:
        return price
    upwards = (price < mark) == safe
    rounded = (price / tick).to_integral_value(ROUND_CEILING if upwards else ROUND_FLOOR) * tick
    return rounded if rounded > 0 else None


def _above(amount: Decimal) -> Decimal:
    """The next multiple of 1e-8 strictly above: at the amount itself the threshold is still met."""
    return amount.quantize(CENTI_MICRO, ROUND_FLOOR) + CENTI_MICRO


def assess(
    pool: MarginPool, prices: Prices, as_of: datetime, current: Level = Level.HEALTHY, thresholds: Thresholds = DEFAULT_THRESHOLDS
) -> PoolHealth:
    """Health of one pool with the prices of its positions: `evaluate` and `position_prices`, worked out once."""
    try:
        with localcontext(EXACT):
            worked = work(pool, prices, as_of)
            if unknown_of(pool, worked) is not None or not pool.legs:
                return write_up(pool, worked, current, thresholds)
            legs = _Solver(pool, prices, as_of, worked).prices_of_legs()
            return write_up(pool, worked, current, thresholds, [(leg.liquidation_price, leg.bankruptcy_price) for leg in legs])
    except ArithmeticError:
        return beyond(pool)


def _with_prices(health: PoolHealth, found: Sequence[PositionPrices]) -> PoolHealth:
    return replace(
        health,
        positions=tuple(
            replace(position, liquidation_price=prices.liquidation_price, bankruptcy_price=prices.bankruptcy_price)
            for position, prices in zip(health.positions, found, strict=True)
        ),
    )


def _known(pool: MarginPool, prices: Prices, as_of: datetime) -> _Solver | None:
    worked = work(pool, prices, as_of)
    return None if unknown_of(pool, worked) is not None else _Solver(pool, prices, as_of, worked)


def position_prices(pool: MarginPool, prices: Prices, as_of: datetime) -> tuple[PositionPrices, ...]:
    """Liquidation and bankruptcy price of every position, in the pool's order; none of an unknown pool."""
    try:
        with localcontext(EXACT):
            solver = _known(pool, prices, as_of)
            return tuple(NONE for _ in pool.legs) if solver is None else solver.prices_of_legs()
    except ArithmeticError:
        return tuple(NONE for _ in pool.legs)


def priced(pool: MarginPool, health: PoolHealth, prices: Prices, as_of: datetime) -> PoolHealth:
    """An evaluation with the prices of its positions filled in. `health` must be that pool's at those prices."""
    if health.unknown is not None or not pool.legs:
        return health
    return _with_prices(health, position_prices(pool, prices, as_of))


_COINS: dict[int, tuple[Mapping[str, Instrument], frozenset[str]]] = {}
"""By identity of an instrument table, which is kept beside it: a table of a venue has hundreds of rows and is asked for at every event."""


def _coins(instruments: Mapping[str, Instrument]) -> frozenset[str]:
    """Assets that an instrument has as underlying, or that settle an inverse one."""
    known = _COINS.get(id(instruments))
    if known is not None and known[0] is instruments:
        return known[1]
    rows = instruments.values()
    underlyings = {row.underlying for row in rows if row.underlying is not None}
    found = frozenset(underlyings | {row.settle for row in rows if row.kind.value.startswith("inverse")})
    if len(_COINS) >= 64:
        _COINS.clear()
    _COINS[id(instruments)] = (instruments, found)
    return found


def market_index_betas(pool: MarginPool) -> dict[str, Decimal]:
    """Index prices that move with the market, each by as much: of coins held as collateral, and of what options and scenarios are on.

    Coins are assets that an instrument of the tables has as underlying, or that settle an inverse one; cash and stable coins stand still.
    """
    coins = _coins(pool.tables.instruments)
    moving = {holding.name for holding in pool.holdings if pool.multi and holding.name in coins}
    moving |= {leg.instrument.underlying for leg in pool.legs if leg.instrument.underlying and (leg.option or pool.portfolio)}
    return dict.fromkeys(sorted(moving - {pool.currency if pool.multi else pool.account.valuation_currency}), ONE)


def pool_move(
    pool: MarginPool,
    prices: Prices,
    as_of: datetime,
    *,
    betas: Mapping[str, Decimal] | None = None,
    index_betas: Mapping[str, Decimal] | None = None,
) -> PoolMove:
    """How far the market can move before the pool's headroom changes sign.

    Mark i is at mark_i * (1 + s * beta_i), index price a at index_a * (1 + s * beta_a); the answer is the s nearest to 0 on either side.

    Args:
        betas: By instrument; absent ones stand still. None: every mark by s, the same percentage.
        index_betas: By asset. None: with `betas` none; without, the coins among the collateral by s (`market_index_betas`).
    """
    if index_betas is None:
        index_betas = market_index_betas(pool) if betas is None else {}
    try:
        with localcontext(EXACT):
            solver = _known(pool, prices, as_of)
            return PoolMove(None, None) if solver is None else solver.move(betas, index_betas)
    except ArithmeticError:
        return PoolMove(None, None)


def cure(pool: MarginPool, prices: Prices, as_of: datetime, below: Level, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> Cure:
    """The smallest deposit, and the smallest part of each position to close, that bring the pool below a level.

    Below: leave threshold * equity > requirement, so that hysteresis lets it go; below bankrupt: equity > 0. In a multi-asset pool the
    deposit is cash of full weight in the valuation currency.

    Raises:
        ValueError: `below` is healthy: there is nothing below it.
    """
    if below is Level.HEALTHY:
        raise ValueError("nothing is below healthy")
    try:
        with localcontext(EXACT):
            solver = _known(pool, prices, as_of)
            return Cure(below, None, ()) if solver is None else solver.cure(below, thresholds)
    except ArithmeticError:
        return Cure(below, None, ())


def report(
    pool: MarginPool,
    prices: Prices,
    as_of: datetime,
    *,
    current: Level = Level.HEALTHY,
    thresholds: Thresholds = DEFAULT_THRESHOLDS,
    below: Level | None = None,
) -> PoolReport:
    """Health with prices, market move and cure of one pool, worked out once: what an event needs.

    Args:
        below: The level the cure comes below; None: the level found, at least `Level.WATCH`.
    """
    try:
        with localcontext(EXACT):
            worked = work(pool, prices, as_of)
            if unknown_of(pool, worked) is not None:
                return _silent(write_up(pool, worked, current, thresholds), below)
            solver = _Solver(pool, prices, as_of, worked)
            found = [(leg.liquidation_price, leg.bankruptcy_price) for leg in solver.prices_of_legs()]
            health = write_up(pool, worked, current, thresholds, found)
            target = below if below is not None else max(health.level or Level.WATCH, Level.WATCH)
            return PoolReport(health, solver.move(None, market_index_betas(pool)), solver.cure(target, thresholds))
    except ArithmeticError:
        return _silent(beyond(pool), below)


def _silent(health: PoolHealth, below: Level | None) -> PoolReport:
    """The report of a pool that is not known."""
    return PoolReport(health, PoolMove(None, None), Cure(below or Level.WATCH, None, ()))
