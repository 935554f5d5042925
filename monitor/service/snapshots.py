"""Health snapshots: `health:<account>` in the cache, for readers that want every account's figures without asking the daemon.

The whole book goes round once in `interval_s`, or as fast as a tenth of the core allows; accounts whose level changed do not wait
for their turn, but a burst of them is no reason to hold up their events.

A snapshot is JSON: {"account", "venue", "group", "hold", "at_ns", "pools": [{"pool", "level", "unknown", "equity",
"requirement", "margin_ratio"}]}.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator

import orjson

from monitor.errors import LedgerUnavailable
from monitor.ledger.cache import HealthWriter
from monitor.margin.prices import PriceKind
from monitor.service.evaluator_stage import EvaluatorStage
from monitor.service.logs import log

__all__ = ["Snapshots", "snapshot"]

SLICE = 10
SHARE = 0.1
URGENT_SHARE = 0.25
URGENT_LOOK_S = 0.1
"""How often it is looked whether a level has changed."""


def snapshot(evaluator: EvaluatorStage, account: str, at_ns: int) -> bytes:
    """The present health of one account, from the engine's columns."""
    venue, group = evaluator.book.venue_and_group(account)
    hold = evaluator.holds.get(account)
    verdicts = evaluator.engine.verdicts(account)
    pools = [
        {
            "pool": view.pool,
            "level": view.level.word if view.level is not None else None,
            "unknown": verdicts[view.pool][1],
            "equity": view.equity,
            "requirement": view.requirement,
            "margin_ratio": view.ratio,
        }
        for view in evaluator.engine.views(account)
    ]
    return orjson.dumps({"account": account, "venue": venue, "group": group or None, "hold": hold, "at_ns": at_ns, "pools": pools})


class Snapshots:
    """Writes snapshots of an evaluator until cancelled.

    Attributes:
        round_s: How long the last round took. written: how many ever.
        sums: By (venue, group), equity and requirement in USD as the last round saw them. Pools whose currency has no price are left out.
    """

    def __init__(self, evaluator: EvaluatorStage, writer: HealthWriter, interval_s: float) -> None:
        self.sums: dict[tuple[str, str], tuple[float, float]] = {}
        self.round_s = 0.0
        self.written = 0
        self._evaluator, self._writer, self._interval_s = evaluator, writer, interval_s

    async def run(self) -> None:
        """Goes round the book for ever. A cache that is away costs a round, nothing else."""
        while True:
            started = time.monotonic()
            accounts = list(self._evaluator.book)
            slices = max(1, -(-len(accounts) // SLICE))
            sums: dict[tuple[str, str], tuple[float, float]] = {}
            for index in range(slices):
                began = time.monotonic()
                part = accounts[index * SLICE : (index + 1) * SLICE]
                await self._write(part)
                self._add(sums, part)
                spent = time.monotonic() - began
                await self._rest(max(self._interval_s / slices - spent, spent * (1 / SHARE - 1), 0.0))
            self.round_s, self.sums = time.monotonic() - started, sums

    def _add(self, sums: dict[tuple[str, str], tuple[float, float]], accounts: Iterable[str]) -> None:
        evaluator = self._evaluator
        for account in accounts:
            if account not in evaluator.book:
                continue
            key = evaluator.book.venue_and_group(account)
            equity, requirement = sums.get(key, (0.0, 0.0))
            for view in evaluator.engine.views(account):
                currency = evaluator.book.currency(account, view.pool)
                price = 1.0 if currency is None else evaluator.store.price(key[0], PriceKind.INDEX, currency)
                if price is not None and view.equity is not None and view.requirement is not None:
                    equity, requirement = equity + view.equity * price, requirement + view.requirement * price
            sums[key] = (equity, requirement)

    async def _rest(self, seconds: float) -> None:
        """Until the next slice is due; accounts whose level changed are written meanwhile."""
        until = time.monotonic() + seconds
        while True:
            began = time.monotonic()
            urgent = self._urgent()
            await self._write(urgent)
            now = time.monotonic()
            pause = (now - began) * (1 / URGENT_SHARE - 1) if urgent else URGENT_LOOK_S
            await asyncio.sleep(max(0.0, min(pause, until - now)))
            if time.monotonic() >= until:
                return

    def _urgent(self) -> list[str]:
        """Some of the accounts whose level changed."""
        changed = self._evaluator.observer.changed
        return [changed.pop() for _ in range(min(SLICE, len(changed)))]

    async def _write(self, accounts: Iterable[str]) -> None:
        try:
            self.written += await self._writer.write(self._pairs(accounts))
        except LedgerUnavailable as error:
            log.warning("snapshots_not_written", error=str(error))
            await asyncio.sleep(1.0)

    def _pairs(self, accounts: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        at_ns = time.time_ns()
        for account in accounts:
            if account in self._evaluator.book:
                yield account, snapshot(self._evaluator, account, at_ns)
