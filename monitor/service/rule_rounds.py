"""The alert policy's rules over the whole book: round and round, in slices, with a small share of the core.

A pool is evaluated exactly. Its liquidation prices are solved only where they can matter: where headroom is small against its positions, or
where a stop has to fire before them. A round over a large book takes as long as its share of the core allows; levels and their events do
not wait for it.

What is found goes to whoever alerts, in this process or another, through the cache: at once what has changed, and once in `TELL_ALL_S` all
that stands (`ledger.readings`).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Protocol

from monitor.alerting.readings import Item, Mark, PoolReadings, readings_of
from monitor.alerting.rules import Limits, PoolMemory, PoolSnapshot, PositionSnapshot, Protection, evaluate_rules
from monitor.errors import LedgerUnavailable
from monitor.margin.accounts import Order
from monitor.margin.health import PoolHealth, evaluate
from monitor.margin.liquidation import report
from monitor.margin.numbers import EXACT, ZERO, exact_of_float
from monitor.margin.pools import MarginPool
from monitor.margin.positions import PositionHealth
from monitor.margin.prices import PriceKind
from monitor.service.evaluator_stage import EvaluatorStage
from monitor.service.logs import log

__all__ = ["Listener", "RuleRounds"]

SLICE = 20
SHARE = 0.1
NEARER = Decimal(2)
"""A price move of d changes headroom by less than this times d times the gross notional: maintenance may rise with it, in steps."""
TELL_ALL_S = 120.0
"""How often all that stands is told anew, for a listener that has missed some of it."""


class Listener(Protocol):
    """Who takes the readings."""

    async def remembered(self) -> Sequence[PoolReadings]:
        """What was told last, by whoever read the book before: the rules go on from there."""
        ...

    async def tell(self, items: Mapping[int, Sequence[Item]]) -> None:
        """Takes items by partition, in order. Raises LedgerUnavailable when it could not: they are told again."""
        ...


NOTHING: tuple[object, ...] = (None,)
"""What a known pool says of which no rule warns."""


class RuleRounds:
    """Reads every pool by the rules until cancelled.

    Attributes:
        round_s: How long the last round took. readings: pools read, ever. solved: of these, how often liquidation prices were solved.
    """

    def __init__(
        self,
        evaluator: EvaluatorStage,
        limits: Mapping[str, Limits],
        listener: Listener,
        partition_of: Callable[[str], int],
        *,
        interval_s: float = 5.0,
        doze: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.round_s = 0.0
        self.readings = 0
        self.solved = 0
        self._evaluator, self._limits, self._listener, self._partition_of = evaluator, limits, listener, partition_of
        self._interval_s, self._doze, self._clock = interval_s, doze, clock
        self._memories: dict[tuple[str, str], PoolMemory] = {}
        self._told: dict[tuple[str, str], tuple[object, ...]] = {}
        self._all_told_at = float("-inf")
        bounds = limits["distance"].bounds if "distance" in limits else ()
        self._widest = max((bound for bound in bounds if bound is not None), default=None)

    async def run(self) -> None:
        """Goes round the book for ever."""
        self._memories = {(each.account, each.pool): each.memory() for each in await self._listener.remembered()}
        while True:
            began = self._clock()
            tells_all = began - self._all_told_at >= TELL_ALL_S
            try:
                await self._round(tells_all=tells_all)
            except LedgerUnavailable as error:
                log.warning("readings_not_told", error=str(error))
                self._all_told_at = float("-inf")  # nobody knows what has arrived
                await self._doze(1.0)
                continue
            if tells_all:
                self._all_told_at = began
            self.round_s = self._clock() - began

    async def _round(self, *, tells_all: bool) -> None:
        """Reads every pool once. Raises LedgerUnavailable."""
        if tells_all:
            self._told.clear()
            await self._listener.tell({number: [Mark.BEGIN] for number in self._evaluator.committers})
        accounts = list(self._evaluator.book)
        slices = max(1, -(-len(accounts) // SLICE))
        for index in range(slices):
            began = self._clock()
            found: dict[int, list[Item]] = defaultdict(list)
            for account in accounts[index * SLICE : (index + 1) * SLICE]:
                found[self._partition_of(account)] += self._read(account)
            if any(found.values()):
                await self._listener.tell(found)
            spent = self._clock() - began
            await self._doze(max(self._interval_s / slices - spent, spent * (1 / SHARE - 1), 0.0))
        if tells_all:
            await self._listener.tell({number: [Mark.END] for number in self._evaluator.committers})
        book = self._evaluator.book
        self._memories = {key: memory for key, memory in self._memories.items() if key[0] in book}
        self._told = {key: said for key, said in self._told.items() if key[0] in book}

    def _read(self, account: str) -> Iterable[PoolReadings]:
        """What is to be told of the pools of an account: what has changed since it was told."""
        evaluator = self._evaluator
        if account not in evaluator.book:
            return
        verdicts = evaluator.engine.verdicts(account)
        for name, pool in evaluator.book.held(account, evaluator.now()).pools.items():
            unknown = verdicts[name][1] if name in verdicts else None
            snapshot = self._snapshot(pool, evaluator.holds.get(account) or unknown)
            readings, memory = evaluate_rules(self._limits, snapshot, self._memories.get((account, name), PoolMemory()))
            self._memories[account, name] = memory
            self.readings += 1
            told = readings_of(snapshot, readings, memory)
            keeps_high = "drawdown" in self._limits and (account, name) not in self._told  # the next process must know it
            if told.says() != self._told.get((account, name), NOTHING) or keeps_high:
                self._told[account, name] = told.says()
                yield told

    def _snapshot(self, pool: MarginPool, unknown: str | None) -> PoolSnapshot:
        evaluator = self._evaluator
        prices, now = evaluator.store.prices(pool.account.venue), evaluator.now()
        health = evaluate(pool, prices, now)
        orders = _closing_orders(pool) if self._limits.keys() & {"without_stop", "without_target"} else {}
        needs_prices = self._may_be_near(pool, health)
        if "without_stop" in self._limits:
            needs_prices = needs_prices or any(_stops(each, orders) for each in health.positions)
        if needs_prices and health.unknown is None and unknown is None:
            self.solved += 1
            health = report(pool, prices, now).health
        legs = {(leg.position.instrument, leg.position.side): leg for leg in pool.legs}
        positions = []
        for position in health.positions:
            leg = legs.get((position.instrument, position.side))
            instrument = leg.instrument if leg is not None else None
            worth = self._worth(pool, instrument.settle if instrument is not None else pool.currency)
            notional = position.notional * worth if position.notional is not None and worth is not None else None
            positions.append(
                PositionSnapshot(
                    instrument=position.instrument,
                    underlying=(instrument.underlying if instrument is not None else None) or position.instrument,
                    quantity=position.quantity,
                    mark_price=position.mark_price,
                    notional=notional,
                    liquidation_price=position.liquidation_price,
                    stops=_stops(position, orders),
                    targets=_targets(position, orders),
                    delta=None if notional is None or position.option_value is not None else notional.copy_sign(position.quantity),
                )
            )
        return PoolSnapshot(
            account=pool.account.id,
            group=pool.account.group or "",
            venue=pool.account.venue,
            pool=pool.name,
            currency=health.currency,
            at_ms=int(now.timestamp() * 1000),
            unknown=unknown or health.unknown,
            equity=health.equity,
            margin_ratio=health.margin_ratio,
            leverage=health.leverage,
            positions=tuple(positions),
        )

    def _may_be_near(self, pool: MarginPool, health: PoolHealth) -> bool:
        """Whether a liquidation price can lie within the widest limit. True where only the solver can tell."""
        if self._widest is None:
            return False
        is_plain = all(leg.instrument.settle == health.currency and not leg.option and not leg.inverse for leg in pool.legs)
        if not is_plain or health.headroom is None:
            return True
        with localcontext(EXACT):
            return any(health.headroom <= _gross(health.positions, each) * self._widest * NEARER for each in health.positions)

    def _worth(self, pool: MarginPool, settle: str) -> Decimal | None:
        """What one unit of a settle asset is worth in the pool's currency; None where there is no price."""
        if settle == pool.currency:
            return Decimal(1)
        price = self._evaluator.store.price(pool.account.venue, PriceKind.INDEX, settle)
        return exact_of_float(price) if price is not None else None


def _gross(positions: Sequence[PositionHealth], one: PositionHealth) -> Decimal:
    """Gross notional of everything in one instrument: hedge legs move together."""
    return sum((each.notional or ZERO for each in positions if each.instrument == one.instrument), ZERO)


def _closing_orders(pool: MarginPool) -> dict[str, list[Order]]:
    """The account's open orders that would close part of a position of the pool, by instrument."""
    signs = {leg.name: leg.position.quantity > 0 for leg in pool.legs}
    found: dict[str, list[Order]] = {name: [] for name in signs}
    for order in pool.account.orders:
        if order.instrument in signs and (order.side == "sell") is signs[order.instrument]:
            found[order.instrument].append(order)
    return found


def _stops(position: PositionHealth, orders: Mapping[str, Sequence[Order]]) -> tuple[Protection, ...] | None:
    """The stop-loss orders of a position; None where the document does not tell.

    A resting order that closes on the losing side of the mark can only be a stop: a plain one there would have been filled.
    """
    return _protections(position, orders, is_stop=True)


def _targets(position: PositionHealth, orders: Mapping[str, Sequence[Order]]) -> tuple[Protection, ...] | None:
    """The take-profit orders of a position: those that close it on the winning side of the mark. None where the document does not tell."""
    return _protections(position, orders, is_stop=False)


def _protections(position: PositionHealth, orders: Mapping[str, Sequence[Order]], *, is_stop: bool) -> tuple[Protection, ...] | None:
    found: list[Protection] = []
    for order in orders.get(position.instrument, ()):
        if order.quantity is None or order.price is None or position.mark_price is None or position.side != "both":
            return None  # a notional without a price; or a hedge leg, which the order may open on the other side as well
        is_below = order.price < position.mark_price
        if is_below is (is_stop is (position.quantity > 0)):
            found.append(Protection(order.quantity, order.price))
    return tuple(found)
