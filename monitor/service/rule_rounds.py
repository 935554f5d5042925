"""The alert policy's rules over the whole book: round and round, in slices, with a small share of the core.

A pool is evaluated exactly. Its liquidation prices are solved only where they can matter: where headroom is small against its positions.
A round over a large book takes as long as its share of the core allows; levels and their events do not wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Protocol

from monitor.alerting.rules import Limits, PoolMemory, PoolSnapshot, PositionSnapshot, RuleReading, evaluate_rules
from monitor.margin.health import PoolHealth, evaluate
from monitor.margin.liquidation import report
from monitor.margin.numbers import EXACT, ZERO, exact_of_float
from monitor.margin.pools import MarginPool
from monitor.margin.positions import PositionHealth
from monitor.margin.prices import PriceKind
from monitor.service.evaluator_stage import EvaluatorStage

__all__ = ["Listener", "RuleRounds"]

SLICE = 20
SHARE = 0.1
NEARER = Decimal(2)
"""A price move of d changes headroom by less than this times d times the gross notional: maintenance may rise with it, in steps."""


class Listener(Protocol):
    """Who is told of the readings: the alert policy."""

    async def read(self, snapshot: PoolSnapshot, readings: Sequence[RuleReading]) -> None:
        """Takes the readings of one pool."""
        ...


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
        *,
        interval_s: float = 5.0,
        doze: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.round_s = 0.0
        self.readings = 0
        self.solved = 0
        self._evaluator, self._limits, self._listener = evaluator, limits, listener
        self._interval_s, self._doze = interval_s, doze
        self._memories: dict[tuple[str, str], PoolMemory] = {}
        bounds = limits["distance"].bounds if "distance" in limits else ()
        self._widest = max((bound for bound in bounds if bound is not None), default=None)

    async def run(self) -> None:
        """Goes round the book for ever."""
        while True:
            started = time.monotonic()
            accounts = list(self._evaluator.book)
            slices = max(1, -(-len(accounts) // SLICE))
            for index in range(slices):
                began = time.monotonic()
                for account in accounts[index * SLICE : (index + 1) * SLICE]:
                    await self._read(account)
                spent = time.monotonic() - began
                await self._doze(max(self._interval_s / slices - spent, spent * (1 / SHARE - 1), 0.0))
            book = self._evaluator.book
            self._memories = {key: memory for key, memory in self._memories.items() if key[0] in book}
            self.round_s = time.monotonic() - started

    async def _read(self, account: str) -> None:
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
            await self._listener.read(snapshot, readings)

    def _snapshot(self, pool: MarginPool, unknown: str | None) -> PoolSnapshot:
        evaluator = self._evaluator
        prices, now = evaluator.store.prices(pool.account.venue), evaluator.now()
        health = evaluate(pool, prices, now)
        if self._widest is not None and health.unknown is None and unknown is None and self._may_be_near(pool, health):
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
        assert self._widest is not None
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
