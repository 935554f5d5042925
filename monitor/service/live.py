"""What the live page asks of the evaluator: the board of accounts, their ratios over time, and whether anything changed since.

Ranking 100,000 accounts takes tens of milliseconds, so it is done for at most a twentieth of the time; the rows on a screen are read anew
at every look.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np

from monitor.engine.book import UNKNOWN as UNKNOWN_STATE
from monitor.margin.liquidation import pool_move
from monitor.page.board import LEVELS, UNKNOWN, Board, Columns, Prepared, Ranking
from monitor.page.history import History
from monitor.service.evaluator_stage import EvaluatorStage
from monitor.service.http_query import AccountQuery

__all__ = ["LiveBoard"]

IDLE_S = 5.0
BUSY_S = 0.1
NOTED_S = 0.95
SHARE = 0.05
MOVES_S = 0.003
"""So long at a time is spent on exact distances to liquidation of the rows on a screen."""

MOVES_KEPT = 4_096
TRACKED = 100
UNKNOWN_AT_ONCE = 1_000


class LiveBoard:
    """The board of one evaluator. `run` keeps the history; everything else answers at once."""

    def __init__(self, evaluator: EvaluatorStage) -> None:
        self.history = History()
        self.evaluator = evaluator
        self._board = Board(evaluator.book.venue_and_group)
        self._ranking: Ranking | None = None
        self._ranked_version: tuple[int, ...] = ()
        self._preparing_version: tuple[int, ...] = ()
        self._cost_s = 0.0
        self._is_sorting = False
        self._unreadable = 0
        self._moves: OrderedDict[tuple[str, str], tuple[float, float | None, float | None]] = OrderedDict()
        self._viewed: OrderedDict[str, float] = OrderedDict()

    async def run(self, is_watched: Callable[[], bool]) -> None:
        """Notes the ratios of the worst accounts and of those looked at, until cancelled."""
        noted = 0.0
        while True:
            await asyncio.sleep(BUSY_S if is_watched() else IDLE_S)
            await self.refresh()
            if time.monotonic() - noted < NOTED_S:
                continue
            noted = time.monotonic()
            ranking, now = self.ranking(), time.time()
            rows = ranking.order[:TRACKED].tolist()
            rows += [row for account in self._viewed if (row := self._board.row(account)) is not None]
            points = {ranking.ids[row]: None if ranking.level[row] == UNKNOWN else _number(ranking.ratio[row]) for row in rows}
            self.history.note(now, points.items())
            if (self.evaluator.engine.counts()[None] or 0) > UNKNOWN_AT_ONCE:
                await self._look_at_unknown()

    def version(self) -> tuple[int, ...]:
        """Changes whenever a price, a document or a verdict has come."""
        evaluator = self.evaluator
        statistics = evaluator.statistics
        return (statistics.messages, statistics.applied, sum(evaluator.observer.events.values()), len(evaluator.holds), len(evaluator.book))

    def ranking(self) -> Ranking:
        """All accounts by danger: anew where something has changed, unless that would take too large a part of the time."""
        if self._is_due():
            prepared = self._prepare()
            self._keep(self._board.sort(prepared), time.monotonic() - prepared.now)
        assert self._ranking is not None
        return self._ranking

    async def refresh(self) -> None:
        """The same with the sorting in a thread, so that no tick waits for it."""
        if self._ranking is None:
            self.ranking()
        elif self._is_due():
            self._is_sorting = True
            try:
                prepared = self._prepare()
                ranking = await asyncio.to_thread(self._board.sort, prepared)
                self._keep(ranking, time.monotonic() - prepared.now)
            finally:
                self._is_sorting = False

    def _is_due(self) -> bool:
        ranking = self._ranking
        if ranking is None:
            return True
        return not self._is_sorting and self.version() != self._ranked_version and time.monotonic() - ranking.at >= self._cost_s / SHARE

    def _prepare(self) -> Prepared:
        evaluator = self.evaluator
        self._preparing_version = self.version()
        return self._board.prepare(_columns(evaluator), evaluator.book, len(evaluator.book), evaluator.holds, time.monotonic())

    def _keep(self, ranking: Ranking, cost_s: float) -> None:
        self._ranking, self._ranked_version, self._cost_s = ranking, self._preparing_version, cost_s

    def summary(self) -> dict[str, Any]:
        """Accounts by level, and what can be filtered by."""
        ranking = self._ranking or self.ranking()
        counted = np.bincount(ranking.level[ranking.order], minlength=UNKNOWN + 1)
        return {
            "accounts": len(ranking.order),
            "levels": {**{word: int(counted[number]) for number, word in enumerate(LEVELS)}, "unknown": int(counted[UNKNOWN])},
            "venues": sorted(self._board.venues),
            "groups": sorted(self._board.groups - {""}),
            "change_s": round(ranking.change_s),
        }

    def unknown_by_reason(self) -> dict[str, int]:
        """Unknown pools by what is lacking: a price, something in the document, or (accounts) a document that could be read.

        Of very many the split is that of the last look; what came since is taken to lack a price.
        """
        engine = self.evaluator.engine
        total = engine.counts()[None] or 0
        documents = self._unreadable
        if total <= UNKNOWN_AT_ONCE:
            documents = sum(not _lacks_price(reason) for _, _, reason in engine.unknown(total))
        documents = min(documents, total)
        return {"price": total - documents, "document": documents, "held": len(self.evaluator.holds)}

    async def _look_at_unknown(self) -> None:
        """Counts the pools that lack something in their document, of very many unknown ones, a slice at a time."""
        ranking, engine = self.ranking(), self.evaluator.engine
        rows = ranking.order[ranking.level[ranking.order] == UNKNOWN].tolist()
        count = 0
        for place, row in enumerate(rows):
            count += sum(reason is not None and not _lacks_price(reason) for _, reason in engine.verdicts(ranking.ids[row]).values())
            if place % 200 == 199:
                await asyncio.sleep(0.01)
        self._unreadable = count

    def page(self, query: AccountQuery, *, at_once: bool = False) -> dict[str, Any]:
        """One page of accounts, its rows as they are now. `at_once`: in the order last found, which `run` keeps up to date."""
        ranking = self._ranking if at_once and self._ranking is not None else self.ranking()
        chosen = self._board.chosen(ranking, group=query.group, venue=query.venue, level=query.level, search=query.search)
        if query.order == "id":
            ids = ranking.ids
            chosen = np.array(sorted(chosen.tolist(), key=lambda row: ids[row]), np.int32)
        shown = [self.row(ranking, int(row)) for row in chosen[query.offset : query.offset + query.limit]]
        return {"total": len(chosen), "offset": query.offset, "accounts": [row for row in shown if row is not None]}

    def row(self, ranking: Ranking, number: int) -> dict[str, Any] | None:
        """One account: its pools as the columns have them now, the worst one first; None when it is gone."""
        evaluator, account = self.evaluator, ranking.ids[number]
        if account not in evaluator.book:
            return None
        venue, group = evaluator.book.venue_and_group(account)
        reasons = evaluator.engine.verdicts(account)
        pools: list[dict[str, Any]] = [
            {
                "pool": view.pool,
                "level": None if view.level is None else view.level.word,
                "unknown": reasons[view.pool][1],
                "margin_ratio": view.ratio,
                "equity": view.equity,
                "requirement": view.requirement,
                "currency": evaluator.book.currency(account, view.pool),
            }
            for view in evaluator.engine.views(account)
        ]
        pools.sort(key=_danger, reverse=True)
        worst: dict[str, Any] | None = pools[0] if pools else None
        unknown = evaluator.holds.get(account) or next((pool["unknown"] for pool in pools if pool["unknown"] is not None), None)
        level = None if unknown is not None else "healthy" if worst is None else worst["level"]
        down, up = self._moves.get((account, worst["pool"]), (0.0, None, None))[1:] if worst else (None, None)
        return {
            "id": account,
            "venue": venue,
            "group": group or None,
            "level": level,
            "unknown": unknown,
            "margin_ratio": None if worst is None else worst["margin_ratio"],
            "change": _number(ranking.change[number]),
            "down": down,
            "up": up,
            "pools": pools,
        }

    def measure_moves(self, rows: list[dict[str, Any]]) -> None:
        """Works out how far the market is from liquidation for rows on a screen, the longest waiting first, for a few milliseconds."""
        evaluator, began = self.evaluator, time.monotonic()
        waiting = [(row["id"], row["pools"][0]["pool"]) for row in rows if row["pools"] and row["unknown"] is None]
        waiting.sort(key=lambda key: self._moves.get(key, (0.0,))[0])
        for account, name in waiting:
            if account in evaluator.book:
                now = datetime.now(UTC)
                pool = evaluator.book.held(account, now).pools.get(name)
                if pool is not None:
                    move = pool_move(pool, evaluator.store.prices(pool.account.venue), now)
                    self._moves[account, name] = (began, _fraction(move.down), _fraction(move.up))
                    self._moves.move_to_end((account, name))
            if time.monotonic() - began > MOVES_S:
                break
        while len(self._moves) > MOVES_KEPT:
            self._moves.popitem(last=False)

    def view(self, account: str) -> None:
        """Somebody looks at an account: its ratio is noted from now on."""
        self._viewed[account] = time.monotonic()
        self._viewed.move_to_end(account)
        while len(self._viewed) > TRACKED:
            self._viewed.popitem(last=False)


def _columns(evaluator: EvaluatorStage) -> Columns:
    engine = evaluator.engine
    book = engine._book  # noqa: SLF001 - the engine's columns, read between two messages and copied
    chosen, equity, requirement = engine.columns_now()
    level = book.pools["level"][chosen].astype(np.int8)
    level[book.pools["state"][chosen] == UNKNOWN_STATE] = UNKNOWN
    return Columns(chosen, level, equity, requirement, book.account_of)


def _danger(pool: dict[str, Any]) -> tuple[float, float]:
    if pool["unknown"] is not None:
        return 2.5, 0.0
    ratio = pool["margin_ratio"]
    if ratio is None:
        return (float(LEVELS.index(pool["level"])) if pool["level"] else 0.0, -(pool["equity"] or 0.0))
    return float(LEVELS.index(pool["level"])), ratio


def _lacks_price(reason: str) -> bool:
    return reason.startswith("no ") or "price" in reason


def _fraction(number: Any) -> float | None:
    return None if number is None else round(float(number), 6)


def _number(value: Any) -> float | None:
    return None if value != value else float(value)
