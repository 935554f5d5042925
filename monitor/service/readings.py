"""What HTTP and metrics show of a running daemon: read from memory, never computed on the path of a tick."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import orjson

from monitor import __version__
from monitor.alerting.policy import Firing, Silence
from monitor.engine.evaluator import RATIO_EDGES
from monitor.errors import LedgerUnavailable
from monitor.ledger.keys import PartitionKeys, partition_of
from monitor.ledger.requests import ask, stored_silences
from monitor.margin.levels import Level
from monitor.margin.prices import Prices
from monitor.margin.verdict import judge
from monitor.page.what_if import Changes, what_if
from monitor.service.http import AccountQuery, Check
from monitor.service.live import LiveBoard
from monitor.service.metrics import Sample, by_reason
from monitor.wire.results import explain_lines

if TYPE_CHECKING:
    from monitor.service.wiring import Daemon

__all__ = ["DaemonReadings"]

STUCK_S = 15.0
"""The evaluator looks at its streams twice a second; after so long without, the process is to be restarted."""

EVENTS_SEARCHED = 2_000
SHORT = (
    "id",
    "kind",
    "account",
    "pool",
    "level",
    "previous",
    "unknown",
    "margin_ratio",
    "equity",
    "venue",
    "group",
    "decided_at_ns",
    "closed",
)


class DaemonReadings:
    """Answers of one daemon."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.watchers = 0
        self._board: LiveBoard | None = None
        self._newest_events: tuple[int, list[dict[str, Any]]] = (-1, [])
        self._pace: tuple[float, int, float] = (time.monotonic(), 0, 0.0)

    # ------------------------------------------------------------------ health

    def live(self) -> Sequence[Check]:
        """The loop runs (else nobody would answer), and the evaluator looks at its streams."""
        evaluator = self._daemon.evaluator
        if evaluator is None or not evaluator.ready.is_set():
            return [Check("process", True)]
        age = time.monotonic() - evaluator.statistics.progress_at
        return [Check("process", True), Check("evaluator", age < STUCK_S, f"last progress {age:.1f} s ago")]

    def ready(self) -> Sequence[Check]:
        """Whether the figures can be relied on."""
        daemon = self._daemon
        checks = []
        if "evaluator" in daemon.stages:
            evaluator = daemon.evaluator
            loaded = evaluator is not None and evaluator.ready.is_set()
            checks.append(Check("accounts", loaded, f"{len(evaluator.book)} loaded" if evaluator and loaded else "loading"))
            fault = self._ledger_fault()
            checks.append(Check("ledger", bool(daemon.committers) and fault is None, fault or ""))
        if "feeds" in daemon.stages:
            feeds = daemon.feeds.feeds if daemon.feeds is not None else {}
            if daemon.feeds is None:
                checks.append(Check("feeds", False, "not started"))
            elif not feeds:
                checks.append(Check("feeds", True, "feeds.venues names none: prices come in documents, or from another process"))
            for venue, feed in feeds.items():
                detail = f"{feed.statistics.symbols} symbols"
                missing, stale = feed.missing(), feed.stale
                if missing:
                    detail += f", {len(missing)} without a price ({missing[0][1]} ...)"
                if stale:
                    detail += f", {len(stale)} stale ({next(iter(stale))[1]} ...)"
                checks.append(Check(f"feed {venue}", feed.is_ready(), detail))
        return checks

    def _ledger_fault(self) -> str | None:
        for number, committer in self._daemon.committers.items():
            fault = committer.fatal or committer.partition.fault
            if fault is not None:
                return f"partition {number}: {fault}"
        return None

    # ------------------------------------------------------------------ metrics

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition."""
        return self._daemon.exposition.text(accept)

    def samples(self) -> Iterable[Sample]:
        """Samples of evaluator and ledger."""
        daemon = self._daemon
        evaluator = daemon.evaluator
        if evaluator is None or not evaluator.ready.is_set():
            return
        engine, statistics = evaluator.engine, evaluator.statistics
        counted = engine.statistics()
        yield Sample("accounts", len(evaluator.book))
        yield Sample("positions", counted.legs)
        for level, count in engine.counts().items():
            if level is not None:
                yield Sample("pools", count, (level.word,))
        assert self.board is not None
        for word, count in self.board.unknown_by_reason().items():
            yield Sample("pools_unknown", count, (word,))
        gathered = engine.gathered()  # by the last background pass: a scrape does no work that grows with the book
        yield Sample("margin_ratio_pools", (RATIO_EDGES, list(accumulate(gathered.histogram))[:-1], sum(gathered.histogram), 0.0))
        for rank, view in enumerate(gathered.worst[: daemon.settings.evaluator.worst_accounts], start=1):
            ratio = view.ratio if view.ratio is not None else float("inf")
            yield Sample("worst_margin_ratio", ratio, (str(rank), view.account, view.pool))
        if daemon.snapshots is not None:
            for (venue, group), (equity, requirement) in daemon.snapshots.sums.items():
                yield Sample("equity_usd", equity, (venue, group))
                yield Sample("maintenance_margin_usd", requirement, (venue, group))
        if daemon.feeds is not None:
            yield Sample("tick_lag_messages", max(0, daemon.feeds.publisher.statistics.written_batches - statistics.messages))
        yield Sample("heartbeat_timestamp_seconds", time.time() - (time.monotonic() - statistics.progress_at))
        yield Sample("tick_messages_total", statistics.messages)
        yield Sample("ticks_total", statistics.ticks)
        yield Sample("tick_position", statistics.position.n)
        yield Sample("tick_gaps_total", statistics.gaps)
        yield Sample("evaluate_seconds", statistics.evaluate)
        yield Sample("event_latency_seconds", evaluator.observer.latency)
        for (level_word, kind), count in evaluator.observer.events.items():
            yield Sample("events_total", count, (level_word, kind))
        yield Sample("engine_exact_decisions_total", counted.exact_evaluations)
        yield Sample("engine_exact_pools", counted.exact_pools)
        yield Sample("engine_band_misses_total", counted.band_misses)
        yield Sample("engine_pools", counted.hot_pools, ("hot",))
        yield Sample("engine_pools", counted.pools - counted.hot_pools, ("cold",))
        yield Sample("updates_applied_total", statistics.applied)
        yield from by_reason("updates_dropped_total", statistics.dropped, ("older", "refused", "same"))
        yield Sample("verify_mismatches_total", statistics.mismatches)
        yield Sample("engine_pass_seconds", statistics.pass_s)
        yield Sample("engine_epsilon", counted.epsilon, ("sums",))
        yield Sample("engine_epsilon", counted.epsilon_fresh, ("fresh",))
        strange = Counter(dict.fromkeys(((venue, "jump") for venue in daemon.settings.feeds.venues), 0))
        strange.update(
            (venue, found.kind.value)
            for venue, _, _, all_found in evaluator.decider.watch.standing(time.time_ns() // 1_000_000)
            for found in all_found
        )
        for labels, count in strange.items():
            yield Sample("suspicious_prices", count, labels)
        yield from self._ledger_samples()

    def _ledger_samples(self) -> Iterable[Sample]:
        committers = self._daemon.committers.values()
        for committer in committers:  # one partition is the usual case; of many, the first one's times stand for all
            yield Sample("ledger_commit_seconds", committer.statistics.commit_seconds)
            break
        yield Sample("ledger_commits_total", sum(committer.statistics.commits for committer in committers))
        yield Sample("ledger_settles_total", sum(committer.statistics.settled_applied for committer in committers), ("applied",))
        yield Sample("ledger_settles_total", sum(committer.statistics.settled_again for committer in committers), ("again",))
        yield Sample("ledger_degraded", float(self._ledger_fault() is not None))
        keepers = self._daemon.housekeepers
        if keepers:
            yield Sample("ledger_memory_ratio", max(keeper.statistics.memory_share for keeper in keepers))
            yield Sample("dead_letters", sum(keeper.statistics.dead_letters for keeper in keepers), ("all",))
        yield Sample("ledger_queue_rows", sum(committer.depth for committer in committers))

    # ------------------------------------------------------------------ accounts

    @property
    def board(self) -> LiveBoard | None:
        """The board of the evaluator that runs now; None while accounts are loaded and where there is no evaluator."""
        evaluator = self._daemon.evaluator
        if evaluator is None or not evaluator.ready.is_set():
            return None
        if self._board is None or self._board.evaluator is not evaluator:
            self._board = LiveBoard(evaluator)
        return self._board

    def accounts(self, query: AccountQuery) -> dict[str, Any] | None:
        """One page of accounts: by danger (bankrupt, liquidation, unknown, then the rest by margin ratio) or by id."""
        board = self.board
        return None if board is None else board.page(query)

    async def account(self, account_id: str) -> dict[str, Any] | None:
        """One account in full, evaluated exactly at the present prices."""
        evaluator = self._daemon.evaluator
        if evaluator is None or account_id not in evaluator.book:
            return None
        from monitor.service.explain import account_now

        assert self.board is not None
        self.board.view(account_id)
        pools = evaluator.book.held(account_id, datetime.now(UTC)).pools.values()
        events = [event for event in await self._newest(account_id, EVENTS_SEARCHED) if event.get("account") == account_id]
        return {
            **account_now(evaluator, account_id, datetime.now(UTC), self._daemon.settings.levels.thresholds()),
            "document": orjson.loads(evaluator.book.data(account_id)),
            "hold": evaluator.holds.get(account_id),
            "underlyings": sorted({leg.instrument.underlying for pool in pools for leg in pool.legs if leg.instrument.underlying}),
            "events": events[:50],
        }

    async def events(self, limit: int) -> list[dict[str, Any]]:
        """The newest rows of all partitions held here, newest first."""
        found = await self._newest(None, limit)
        found.sort(key=lambda event: event.get("decided_at_ns", 0), reverse=True)
        return found[:limit]

    async def _newest(self, account: str | None, count: int) -> list[dict[str, Any]]:
        daemon = self._daemon
        numbers = daemon.numbers if account is None else [partition_of(account, daemon.settings.ledger.partitions)]
        found: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(5.0):
                wire = await daemon.places.ledger_link().open()
                try:
                    for number in numbers:
                        key = PartitionKeys.of(number).events
                        for _, pairs in await wire.call("XREVRANGE", key, "+", "-", "COUNT", count, timeout_s=5.0):
                            found.append(orjson.loads(dict(zip(pairs[::2], pairs[1::2], strict=True))[b"e"]))
                finally:
                    wire.close()
        except (LedgerUnavailable, TimeoutError):
            return found
        return found

    async def note_ratios(self) -> None:
        """Keeps the ratios over time of the evaluator that runs now, until cancelled."""
        assert self.board is not None
        await self.board.run(lambda: self.watchers > 0)

    def version(self) -> tuple[int, ...] | None:
        """Changes with every price, document and verdict; None while there are no accounts here."""
        return None if self.board is None else self.board.version()

    def page(self, query: AccountQuery) -> dict[str, Any] | None:
        """One page of accounts as somebody sees it now: their distances to liquidation are kept up to date."""
        board = self.board
        if board is None:
            return None
        page = board.page(query, at_once=True)
        board.measure_moves(page["accounts"])
        return page

    def written(self) -> int:
        """Rows in the event streams held here."""
        return sum(committer.partition.head.seq for committer in self._daemon.committers.values() if committer.partition.state)

    async def latest(self, limit: int) -> list[dict[str, Any]]:
        """The newest events in short, read from the ledger once for everybody who looks."""
        written = self.written()
        if written != self._newest_events[0]:
            self._newest_events = (written, [in_short(event) for event in await self.events(limit)])
        return self._newest_events[1]

    def status(self) -> dict[str, Any]:
        """What stands at the head of the page: readiness, counts, feeds, pace."""
        daemon, board = self._daemon, self.board
        failed = [{"name": check.name, "detail": check.detail} for check in self.ready() if not check.passed]
        status: dict[str, Any] = {
            "at": time.time(),
            "version": __version__,
            "started_at": daemon.started_at,
            "ready": not failed,
            "failed": failed,
            "feeds": self.feeds(),
            "events": self.written(),
        }
        if board is None:
            return status
        statistics, latency = board.evaluator.statistics, board.evaluator.observer.latency
        now = time.monotonic()
        then, ticks, rate = self._pace
        if now - then >= 1.0:
            rate = (statistics.ticks - ticks) / (now - then)
            self._pace = (now, statistics.ticks, rate)
        thresholds = daemon.settings.levels.thresholds()
        return {
            **status,
            **board.summary(),
            "ticks_per_s": rate,
            "latency_ms": {"p50": latency.quantile(0.5) * 1e3, "p99": latency.quantile(0.99) * 1e3} if latency.count else None,
            "thresholds": {
                level.word: float(thresholds.ladder()[level - 1].enter) for level in (Level.WATCH, Level.MARGIN_CALL, Level.LIQUIDATION)
            },
        }

    async def account_live(self, account_id: str) -> dict[str, Any] | None:
        """One account evaluated exactly at the present prices, without its document and events."""
        board = self.board
        if board is None or account_id not in board.evaluator.book:
            return None
        from monitor.service.explain import account_now

        board.view(account_id)
        held = board.evaluator.holds.get(account_id)
        return {**account_now(board.evaluator, account_id, datetime.now(UTC), self._daemon.settings.levels.thresholds()), "hold": held}

    def history(self, account_id: str) -> list[tuple[float, float | None]]:
        """(wall time in s, margin ratio) of an account as far back as it was noted."""
        return [] if self.board is None else self.board.history.points(account_id)

    async def what_if(self, account_id: str, changes: Changes) -> dict[str, Any] | None:
        """An account after some changes, evaluated exactly in a thread of its own; None if unknown. Raises RefusedError."""
        board = self.board
        if board is None or account_id not in board.evaluator.book:
            return None
        book = board.evaluator.book
        prices = copied(board.evaluator.store.prices(book.venue_and_group(account_id)[0]))
        thresholds = self._daemon.settings.levels.thresholds()
        return await asyncio.to_thread(
            what_if, book.data(account_id), changes, known=book.known, prices=prices, now=datetime.now(UTC), thresholds=thresholds
        )

    def explain(self, account_id: str) -> list[dict[str, Any]] | None:
        """Every term of an account's sums at the present prices: sections of (what, number, how)."""
        board = self.board
        if board is None or account_id not in board.evaluator.book:
            return None
        evaluator, now = board.evaluator, datetime.now(UTC)
        document = evaluator.book.held(account_id, now).document
        assert document.account is not None
        tables = document.tables.over(evaluator.book.known(document.account.venue))
        prices = evaluator.store.prices(document.account.venue)
        verdict = judge(document.account, tables, prices, now, thresholds=self._daemon.settings.levels.thresholds())
        return [{"title": title, "rows": rows} for title, rows in explain_lines(verdict)]

    def firing(self) -> Sequence[Firing] | None:
        """What stands by the alert policy; None where none runs here."""
        policy = self._daemon.policy
        return None if policy is None else policy.firing()

    async def silences(self) -> Sequence[Silence]:
        """Silences that are stored. Raises LedgerUnavailable."""
        link, count = self._daemon.places.ledger_link(), self._daemon.settings.ledger.partitions
        return await link.run(lambda wire: stored_silences(wire, count))

    async def ask(self, kind: str, data: bytes) -> None:
        """Puts a request to every policy of the ledger. Raises LedgerUnavailable."""
        link, count = self._daemon.places.ledger_link(), self._daemon.settings.ledger.partitions
        await link.run(lambda wire: ask(wire, count, kind, data))

    def feeds(self) -> dict[str, Any]:
        """State of every venue's feed, and its prices to doubt."""
        strange: dict[str, list[str]] = {}
        evaluator = self._daemon.evaluator
        for venue, kind, name, found in evaluator.decider.watch.standing(time.time_ns() // 1_000_000) if evaluator is not None else ():
            strange.setdefault(venue, []).append(f"{kind.value}:{name} {', '.join(one.kind.value for one in found)}")
        feeds = self._daemon.feeds.feeds if self._daemon.feeds is not None else {}
        return {
            venue: {
                "ready": feed.is_ready(),
                "symbols": feed.statistics.symbols,
                "stale": [f"{kind.value}:{name} {reason}" for (kind, name), reason in list(feed.stale.items())[:100]],
                "suspicious": strange.get(venue, [])[:100],
                "missing": [f"{kind.value}:{name}" for kind, name in feed.missing()[:100]],
                "messages": feed.statistics.messages,
                "reconnects": feed.statistics.reconnects,
                "rejected": feed.statistics.rejected,
                "delay_s": {"p50": feed.statistics.delay.quantile(0.5), "p99": feed.statistics.delay.quantile(0.99)},
                "skew_s": feed.statistics.skew.seconds,
            }
            for venue, feed in feeds.items()
        }


def in_short(event: dict[str, Any]) -> dict[str, Any]:
    """What the event feed of the page shows of an event."""
    cause = event.get("cause") or {}
    return {
        **{key: event.get(key) for key in SHORT},
        "cause": {key: cause[key] for key in ("kind", "instrument", "price") if key in cause},
    }


def copied(prices: Prices) -> Prices:
    """Prices that no later message changes."""
    return Prices(**{field.name: dict(getattr(prices, field.name)) for field in fields(Prices)})
