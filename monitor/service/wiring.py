"""The daemon, put together in one place: servers, links, stages, HTTP; started in order and stopped in reverse.

Stop: no more prices are read; what was read is decided and committed; sinks get two seconds for what is written; then the partitions are
given up, so that a standby takes over at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from monitor import __version__
from monitor.alerting.readings import caught_up
from monitor.alerting.rules import Limits
from monitor.engine.evaluator import Evaluator
from monitor.errors import ConfigError, Fenced, LedgerUnavailable
from monitor.ledger.cache import HealthWriter
from monitor.ledger.checks import check_ledger_server
from monitor.ledger.committer import Committer, QueueDropped
from monitor.ledger.connection import Endpoint, Link, raise_faults
from monitor.ledger.head import Head
from monitor.ledger.holder import holder_name
from monitor.ledger.housekeeping import Housekeeper
from monitor.ledger.identity import identify
from monitor.ledger.keys import partition_of
from monitor.ledger.keys import partitions as partition_numbers
from monitor.ledger.known import KnownLedger
from monitor.ledger.partition import Partition, TailLost
from monitor.ledger.readings import ReadingsReader, ReadingsWriter
from monitor.ledger.server import CACHE_SETTINGS, LEDGER_SETTINGS, EmbeddedServer
from monitor.margin.accounts import VENUES
from monitor.margin.levels import Level
from monitor.service.account_book import AccountBook
from monitor.service.alerts_stage import AlertsStage, HeadWatch
from monitor.service.evaluator_stage import EvaluatorStage, Loading
from monitor.service.facts import Facts
from monitor.service.feeds_stage import FeedsStage, Room
from monitor.service.http import HttpServer, Tls, build_app
from monitor.service.logs import log
from monitor.service.metrics import Exposition, Sample
from monitor.service.notify import notify_systemd
from monitor.service.observing import RestartNeeded
from monitor.service.readings import DaemonReadings
from monitor.service.receivers import adopt_standing, make_receivers, policy_of
from monitor.service.reload import Load, Reloader
from monitor.service.rule_rounds import RuleRounds
from monitor.service.settings import HttpSettings, Settings
from monitor.service.snapshots import Snapshots
from monitor.service.tables import VenueTables
from monitor.sinks.base import Sink
from monitor.sinks.policy import PolicySink

__all__ = ["ALL_STAGES", "Daemon", "Places", "places"]

ALL_STAGES = ("feeds", "evaluator", "alerts")
SAY_S = 5.0
LAG_S = 0.1
KNOWN_S = 10.0
HEAR_S = 0.5
SETTLED_S = 30.0
"""So long after the start what is there is taken to stay, and left out of Python's search for cycles."""
COLLECT_S = 600.0
"""How often that search goes through everything that has come since then."""


class Places:
    """Where the two Redis roles are."""

    def __init__(self, ledger: Endpoint, cache: Endpoint) -> None:
        self.ledger, self.cache = ledger, cache

    def ledger_link(self) -> Link:
        """A new link to the ledger; one for each user of it."""
        return Link(self.ledger)

    def cache_link(self) -> Link:
        """A new link to the cache."""
        return Link(self.cache)


async def places(settings: Settings, stack: AsyncExitStack) -> Places:
    """The endpoints of the settings; starts the servers that are `embedded`. Raises ConfigError, ServerError."""
    ledger, cache = settings.ledger, settings.cache
    url = ledger.url
    if url == "embedded":
        server = await stack.enter_async_context(EmbeddedServer(ledger.data_dir, settings=LEDGER_SETTINGS))
        log.info("redis_started", role="ledger", folder=str(ledger.data_dir.resolve()))
        url = server.url
    ledger_endpoint = Endpoint.parse(url, username=ledger.username, password=ledger.secret())
    if not cache.url:
        return Places(ledger_endpoint, ledger_endpoint)
    url = cache.url
    if url == "embedded":
        server = await stack.enter_async_context(EmbeddedServer(ledger.data_dir.with_name("cache"), settings=CACHE_SETTINGS))
        url = server.url
    return Places(ledger_endpoint, Endpoint.parse(url, username=cache.username, password=cache.secret()))


async def wait_for_redis(link: Link, wait_s: float) -> None:
    """Returns when Redis answers; says so each 5 s while it does not. Raises LedgerUnavailable after `wait_s` (0: never)."""
    started = said = time.monotonic()
    first = True
    while True:
        try:
            wire = await link.open()
            try:
                raise_faults(await wire.exchange([("PING",)], timeout_s=link.timeout_s))
            finally:
                wire.close()
            return
        except LedgerUnavailable as error:
            now = time.monotonic()
            if wait_s and now - started >= wait_s:
                raise LedgerUnavailable(f"{link.endpoint}: no answer in {wait_s:g} s: {error}") from error
            if first or now - said >= SAY_S:
                log.warning("waiting_for_redis", address=str(link.endpoint), waited_s=round(now - started), error=str(error))
                first, said = False, now
            await asyncio.sleep(0.2)


class Daemon:
    """One process of the monitor: the stages asked for, HTTP, metrics. `run` until `stop` is called."""

    def __init__(
        self,
        settings: Settings,
        *,
        stages: Sequence[str] = ALL_STAGES,
        shard: tuple[int, int] = (0, 1),
        extra_sinks: Sequence[Sink] = (),
        on_loading: Loading = lambda _what, _done, _total: None,
        config_path: Path | None = None,
        accept_ledger: bool = False,
        load: Load | None = None,
    ) -> None:
        """Prepares.

        Args:
            settings: Checked settings.
            stages: Which of feeds, evaluator, alerts run here.
            shard: (index, count): this process takes the partitions whose place in the list is `index` modulo `count`.
            extra_sinks: Beside those of the settings (the demo's, a test's).
            on_loading: Told how a long load goes on.
            config_path: Where the settings came from, for the errors of a reload.
            accept_ledger: Go on with a ledger that is another one than this machine knows, or went back.
            load: Reads the settings anew, for a reload.
        """
        unknown = [stage for stage in stages if stage not in ALL_STAGES]
        if unknown:
            raise ConfigError(source="--stage", key="stage", value=unknown[0], expected=f"one of {', '.join(ALL_STAGES)}")
        self.settings, self.stages = settings, tuple(stages)
        numbers = partition_numbers(settings.ledger.partitions)
        index, count = shard
        if not 0 <= index < count <= len(numbers):
            expected = f"I/N with 0 <= I < N <= {len(numbers)} (ledger.partitions)"
            raise ConfigError(source="--shard", key="shard", value=f"{index}/{count}", expected=expected)
        self.numbers = numbers[index::count]
        self.feeds: FeedsStage | None = None
        self.evaluator: EvaluatorStage | None = None
        self.alerts: AlertsStage | None = None
        self.policy: PolicySink | None = None
        self._rules = _rules_of(settings)
        self.rule_rounds: RuleRounds | None = None
        self.snapshots: Snapshots | None = None
        self.committers: dict[int, Committer] = {}
        self.places: Places
        self.http: HttpServer | None = None
        self.tables = VenueTables(settings.evaluator.tables)
        self.ready = asyncio.Event()
        self.started_at = time.time()
        self.loop_lag = 0.0
        self.restarts = 0
        self.housekeepers: list[Housekeeper] = []
        self._accept_ledger = accept_ledger
        self._sinks = [*extra_sinks]
        self._on_loading = on_loading
        self._stopping, self._decided, self._release = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._stack: AsyncExitStack
        self._stale_evaluator, self._stale_policy = asyncio.Event(), asyncio.Event()  # set by a reload
        self._alerts_task: asyncio.Task[None] | None = None
        self._group: asyncio.TaskGroup
        self._may_send: Callable[[int], bool] = self._holds
        self._serving = False  # the sinks know what another process did before this term
        self.reloader = Reloader(settings, load, self._apply, path=config_path, stages=self.stages)
        self.exposition = Exposition([self._samples, self.reloader.samples])
        self.readings = DaemonReadings(self)

    def stop(self) -> None:
        """Ends `run`, in order. May be called from a signal handler, more than once."""
        self._stopping.set()

    async def run(self) -> None:
        """Runs until `stop`. Raises what cannot be mended here: ConfigError, ServerError, LedgerBroken, LedgerUnavailable at start."""
        self.tables.load_all()
        async with AsyncExitStack() as stack:
            self.places = await places(self.settings, stack)
            http: asyncio.Task[None] | None = None
            async with asyncio.TaskGroup() as group:
                if self.settings.http.enabled:
                    self.http = self._make_http(self.settings.http)
                    http = group.create_task(self.http.run(), name="http")
                    log.info("http_listening", address=self.http.address)
                lag = group.create_task(self._watch_loop(), name="lag")
                try:
                    await self._run_stages(group)
                finally:
                    lag.cancel()
                    if self.http is not None and http is not None:
                        self.http.stop()

    def _make_http(self, settings: HttpSettings) -> HttpServer:
        """The server with its token and certificates. Raises ConfigError."""
        tls = None
        if settings.tls_cert_file is not None and settings.tls_key_file is not None:
            tls = Tls(settings.tls_cert_file, settings.tls_key_file, settings.client_ca_file)
        hosts = ("*",) if settings.client_ca_file is not None else settings.allowed_hosts
        app = build_app(self.readings, token=settings.token(), hosts=hosts, secure=tls is not None)
        return HttpServer(app, host=settings.host, port=settings.port, tls=tls)

    async def _run_stages(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        if not await self._until_stopped(wait_for_redis(self.places.ledger_link(), self.settings.ledger.wait_s)):
            return
        if self.places.cache != self.places.ledger and not await self._until_stopped(
            wait_for_redis(self.places.cache_link(), self.settings.ledger.wait_s)
        ):
            return
        await self._check_server()
        if "evaluator" in self.stages:
            self._compile_kernels()
        watch: asyncio.Task[None] | None = None
        hearing: asyncio.Task[None] | None = None
        if "alerts" in self.stages:
            if "evaluator" not in self.stages:
                head_watch = HeadWatch(self.places.ledger_link(), self.numbers, self.settings.ledger.lease_s)
                watch = group.create_task(head_watch.run(), name="heads")
                self._may_send = head_watch.may_send
            self.alerts, self.policy = await self._make_alerts(self.settings)
            hearing = group.create_task(self._hear_rules(), name="rules heard")
        evaluator = group.create_task(self._evaluate(), name="evaluator") if "evaluator" in self.stages else None
        if self.alerts is not None:
            self._alerts_task = group.create_task(self.alerts.run(), name="alerts")
        reloads = group.create_task(self.reloader.run(), name="reloads")
        feeds = group.create_task(self._feed(), name="feeds") if "feeds" in self.stages else None
        if evaluator is None:
            self.ready.set()
        notify_systemd("READY=1" if evaluator is None else "STATUS=loading")
        await self._stopping.wait()
        notify_systemd("STOPPING=1")
        log.info("stopping")
        reloads.cancel()
        await asyncio.wait({reloads})
        if feeds is not None:
            feeds.cancel()
        if evaluator is not None:
            await self._decided.wait()
        if self.alerts is not None:
            rows = {number: committer.partition.head.seq for number, committer in self.committers.items() if committer.partition.state}
            if not await self.alerts.finish(rows):
                log.warning("sinks_behind", hint="they go on from their cursors at the next start")
            await self._end_alerts()
        for task in (watch, hearing):
            if task is not None:
                task.cancel()
        self._release.set()
        if evaluator is not None:
            await evaluator

    async def _make_alerts(self, settings: Settings) -> tuple[AlertsStage, PolicySink | None]:
        """The alerts stage of some settings, its cursors placed, not yet running. Raises ConfigError, LedgerUnavailable."""
        links = self.places.ledger_link
        receivers = make_receivers(settings, self.numbers, links, may_send=self._may_send, extra=self._sinks)
        stage = AlertsStage(receivers.events, self.numbers, links, may_send=self._may_send)
        await stage.register()
        await adopt_standing(links, self.numbers, receivers.events)
        return stage, receivers.policy

    async def _end_alerts(self) -> None:
        """Closes the sinks, each cursor stored."""
        assert self._alerts_task is not None
        self._alerts_task.cancel()
        await asyncio.wait({self._alerts_task})

    async def _apply(self, settings: Settings, changed: list[str], tables: VenueTables) -> None:
        """Takes over checked settings: all that can fail comes first. Sinks go on from their cursors, the evaluator from the ledger's."""
        rules = _rules_of(settings)
        fresh = await self._make_alerts(settings) if self.alerts is not None else None
        has_new_tables = any(tables.fingerprint(venue) != self.tables.fingerprint(venue) for venue in VENUES)
        self.settings, self.tables, self._rules = settings, tables, rules
        if self.feeds is not None:
            self.feeds.follow(settings.feeds)
        if self.alerts is not None and fresh is not None:
            await self._end_alerts()
            self.alerts.leave(self.committers)
            self.alerts, self.policy = fresh
            self.alerts.wake_by(self.committers)
            for keeper in self.housekeepers:
                keeper.workers = self.alerts.workers_of(keeper.partition)
            self._alerts_task = self._group.create_task(self.alerts.run(), name="alerts")
        self._stale_policy.set()
        if has_new_tables or any(key.startswith(("levels.", "evaluator.")) and key != "evaluator.worst_accounts" for key in changed):
            self._stale_evaluator.set()

    def _compile_kernels(self) -> None:
        """Compiles the engine's kernels, or loads them from their cache, before the first socket is open: it would be deaf meanwhile."""
        began = time.monotonic()
        Evaluator(self.settings.levels.thresholds(), exact=lambda _account, _pool, _source, _prices: "not asked").warm_up()
        took_s = time.monotonic() - began
        if took_s > 2.0:
            log.info("kernels_compiled", took_s=round(took_s, 1), hint="kept for the next start")

    async def _check_server(self) -> None:
        """Says what the ledger's Redis is not set to; refuses one that would lose what it has acknowledged."""
        wire = await self.places.ledger_link().open()
        try:
            findings = await check_ledger_server(wire)
        finally:
            wire.close()
        for finding in findings:
            if finding.is_fatal:
                raise ConfigError(
                    source="ledger.url",
                    key=str(self.places.ledger),
                    value=finding.text,
                    expected='a server set up as in deploy/redis, or ledger.url = "embedded"',
                )
            log.warning("ledger_server", finding=finding.text)

    async def _until_stopped(self, work: object) -> bool:
        """Awaits something unless `stop` comes first. False when it did."""
        assert asyncio.iscoroutine(work)
        task: asyncio.Task[None] = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
                return True
            return False
        finally:
            for pending in (task, stopped):
                pending.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    async def _feed(self) -> None:
        self.feeds = FeedsStage(
            self.settings.feeds, self.places.cache_link(), retain_ticks=self.settings.cache.retain_ticks, room=self._room_for_ticks()
        )
        self.exposition.add(self.feeds.samples)
        await self.feeds.run()

    def _room_for_ticks(self) -> Room | None:
        """For a lossless replay in one process: waits while the evaluator is half the stream's length behind."""
        if self.settings.feeds.on_slow != "wait" or "evaluator" not in self.stages:
            return None
        most = max(64, self.settings.cache.retain_ticks // 2)

        async def room(written: int) -> None:
            # Looks instead of waiting for an event: setting one per message would cost the path of every tick.
            while (stage := self.evaluator) is None or not stage.ready.is_set() or written - stage.statistics.messages > most:
                await asyncio.sleep(0.002)

        return room

    async def _evaluate(self) -> None:
        """Holds the partitions and evaluates, for as long as the daemon runs: a lost term begins anew."""
        settings = self.settings.ledger
        ledger = await identify(self.places.ledger_link(), settings.partitions)
        holder = holder_name()
        known = KnownLedger.read(settings.data_dir / "known-ledger.json")
        if self._accept_ledger:
            known.accept()
        try:
            while not self._stopping.is_set():
                members = {
                    number: Partition(self.places.ledger_link(), number, holder=holder, ledger=ledger, partitions=settings.partitions)
                    for number in self.numbers
                }
                try:
                    if not await self._hold(members, known):
                        return
                except* (Fenced, TailLost) as lost:
                    self.restarts += 1
                    for error in _flat(lost):
                        log.error("partition_lost", error=str(error))
                    self.ready.clear()
                    for member in members.values():
                        member.close()
        finally:
            self._decided.set()

    async def _hold(self, members: dict[int, Partition], known: KnownLedger) -> bool:
        """One term: takes the partitions, loads, evaluates until stopped. False when stopped before it held them."""
        settings = self.settings.ledger
        heads: dict[int, Head] = {}

        async def lead_all() -> None:
            async with asyncio.TaskGroup() as group:
                tasks = {number: group.create_task(member.lead(settings.lease_s)) for number, member in members.items()}
            heads.update({number: task.result() for number, task in tasks.items()})

        if not await self._until_stopped(lead_all()):
            return False
        for number, head in heads.items():
            known.check(number, head)
        self._serving = False
        log.info("partitions_held", partitions=len(members), seq=sum(head.seq for head in heads.values()))
        self.committers = {number: Committer(member, lease_s=settings.lease_s) for number, member in members.items()}
        if self.alerts is not None:
            self.alerts.wake_by(self.committers)
        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(committer.run(), name=f"committer:{number}") for number, committer in self.committers.items()]
            self.housekeepers = [self._make_housekeeper(committer) for committer in self.committers.values()]
            keepers = [group.create_task(keeper.run(), name="housekeeper") for keeper in self.housekeepers]
            keepers.append(group.create_task(self._remember(known, members), name="known ledger"))
            while True:
                self.evaluator = self._make_evaluator()
                if not await self._until_stopped(self._load(self.evaluator, heads)):
                    break
                self.ready.set()
                notify_systemd("READY=1\nSTATUS=running")
                log.info("ready", accounts=len(self.evaluator.book), events=sum(head.seq for head in heads.values()))
                if await self._until_stopped(self._run_evaluator(self.evaluator)) and await self._until_stopped(self._settle()):
                    heads = {number: member.head for number, member in members.items()}
                    continue
                break
            if self.evaluator.ready.is_set():
                with contextlib.suppress(TimeoutError, LedgerUnavailable):
                    async with asyncio.timeout(2.0):
                        await self.evaluator.drain()
            self._decided.set()
            await self._release.wait()
            for task in (*writers, *keepers):
                task.cancel()
        for member in members.values():
            try:
                async with asyncio.timeout(1.0):
                    await member.release()
            except (LedgerUnavailable, Fenced, TimeoutError) as error:
                log.warning("partition_not_released", partition=member.number, error=str(error))
        return True

    async def _load(self, evaluator: EvaluatorStage, heads: dict[int, Head]) -> None:
        """Loads the evaluator; at the beginning of a term the sinks first, so that none goes on from what this process knew before."""
        while not self._serving:
            try:
                if self.alerts is not None:
                    await self.alerts.begin_term()
                self._serving = True
            except LedgerUnavailable as error:
                log.warning("ledger_unavailable", error=str(error))
                await asyncio.sleep(0.1)
        await evaluator.load(heads)

    async def _settle(self) -> None:
        """Between two evaluators: returns when all that the first one queued is committed, or dropped and known not to be."""
        for committer in self.committers.values():
            try:
                await committer.flush()
            except QueueDropped:
                await committer.settled()
                committer.resume()
                log.warning("queue_dropped", hint="the ledger was away for long: evaluating again from its cursors")

    def _make_housekeeper(self, committer: Committer) -> Housekeeper:
        workers = [] if self.alerts is None else self.alerts.workers_of(committer.partition.number)
        settings = self.settings.ledger
        return Housekeeper(
            self.places.ledger_link(), committer, workers, retain_events=settings.retain_events, spill_folder=settings.data_dir / "spill"
        )

    async def _remember(self, known: KnownLedger, members: dict[int, Partition]) -> None:
        """Keeps in mind how far the ledger was, on this machine's own disk."""
        while True:
            for number, member in members.items():
                if member.state is not None:
                    known.note(number, member.head)
            try:
                await asyncio.to_thread(known.save)
            except OSError as error:
                log.warning("known_ledger_not_saved", file=str(known.path), error=str(error))
            await asyncio.sleep(KNOWN_S)

    async def _run_evaluator(self, evaluator: EvaluatorStage) -> None:
        """Returns when everything has to be loaded again: the queue was dropped, or new settings ask for it."""
        snapshots = self.snapshots = Snapshots(
            evaluator, HealthWriter(self.places.cache_link()), self.settings.evaluator.snapshot_interval_s
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(evaluator.run(), name="evaluator run")
                group.create_task(snapshots.run(), name="snapshots")
                group.create_task(self.readings.note_ratios(), name="ratios")
                group.create_task(self._run_rules(evaluator), name="rules")
                group.create_task(self._restart_when_stale(), name="reloaded")
        except* RestartNeeded:
            pass

    async def _restart_when_stale(self) -> None:
        await self._stale_evaluator.wait()
        self._stale_evaluator.clear()
        raise RestartNeeded

    async def _run_rules(self, evaluator: EvaluatorStage) -> None:
        """The rules of the alert policy, as it is now and after each reload, told to whichever process alerts."""
        while True:
            self._stale_policy.clear()
            self.rule_rounds = None
            writer = ReadingsWriter(self.places.cache_link(), self.numbers, may_send=self._holds)
            try:
                async with asyncio.TaskGroup() as group:
                    rounds: asyncio.Task[None] | None = None
                    if self._rules:
                        whose = partial(partition_of, count=self.settings.ledger.partitions)
                        self.rule_rounds = RuleRounds(evaluator, self._rules, writer, whose)
                        rounds = group.create_task(self.rule_rounds.run(), name="rule rounds")
                    await self._stale_policy.wait()
                    if rounds is not None:
                        rounds.cancel()
            finally:
                writer.close()

    async def _hear_rules(self) -> None:
        """What the rules say, from the process that evaluates to the policy of this one."""
        reader = ReadingsReader(self.places.cache_link(), self.numbers)
        heard_in: tuple[PolicySink, int] | None = None
        try:
            while True:
                policy = self.policy
                if policy is not None and policy.has_rules and policy.term:
                    if heard_in != (policy, policy.term):
                        reader.restart()
                        heard_in = (policy, policy.term)
                    with contextlib.suppress(LedgerUnavailable):
                        for number, items in (await reader.read()).items():
                            await policy.read(caught_up(items), number, partial(self._belongs, number))
                await asyncio.sleep(HEAR_S)
        finally:
            reader.close()

    def _belongs(self, number: int, account: str) -> bool:
        return partition_of(account, self.settings.ledger.partitions) == number

    def _make_evaluator(self) -> EvaluatorStage:
        return EvaluatorStage(
            self.committers,
            partitions=self.settings.ledger.partitions,
            ledger_link=self.places.ledger_link,
            cache_link=self.places.cache_link,
            book=AccountBook(self.tables),
            facts=Facts(),
            thresholds=self.settings.levels.thresholds(),
            unknown_after_s=self.settings.evaluator.unknown_after_s,
            silent_after_s=self._silent_after_s,
            on_loading=self._on_loading,
            prices_under_way=lambda: self.feeds is not None and self.feeds.publisher.is_writing,
        )

    def _silent_after_s(self, venue: str) -> float:
        """How long nothing may be heard of a venue; longer where its names may be silent for longer."""
        feed = getattr(self.settings.feeds, venue, None)
        allowed = feed.stale_after_s if feed is not None else None
        return self.settings.evaluator.silent_after_s + (allowed or 0.0)

    def _holds(self, number: int) -> bool:
        committer = self.committers.get(number)
        return committer is not None and self._serving and committer.may_send()

    async def _watch_loop(self) -> None:
        """Measures how late the loop wakes, and feeds systemd's watchdog while the evaluator makes progress."""
        loop = asyncio.get_running_loop()
        collect_at, is_settled = float("inf"), False
        while True:
            if collect_at == float("inf") and self.ready.is_set():
                collect_at = loop.time() + SETTLED_S
            if loop.time() >= collect_at:
                gc.collect()
                if not is_settled:
                    gc.freeze()
                    is_settled = True
                collect_at = loop.time() + COLLECT_S
            due = loop.time() + LAG_S
            await asyncio.sleep(LAG_S)
            self.loop_lag = max(loop.time() - due, self.loop_lag * 0.95)
            if all(check.passed for check in self.readings.live()):
                notify_systemd("WATCHDOG=1")

    def _samples(self) -> Iterable[Sample]:
        yield Sample("build_info", 1, (__version__,))
        yield Sample("ready", float(all(check.passed for check in self.readings.ready())))
        yield Sample("loop_lag_seconds", self.loop_lag)
        yield from self.readings.samples()
        if self.alerts is not None:
            self.alerts.written = {
                number: committer.partition.head.seq for number, committer in self.committers.items() if committer.partition.state
            }
            yield from self.alerts.samples()
        policy, rounds = self.policy, self.rule_rounds
        yield Sample("notices_outstanding", policy.outstanding if policy else 0)
        yield Sample("policy_damaged_total", policy.damaged if policy else 0)
        firing = Counter(each.severity for each in policy.firing()) if policy else Counter[Level]()
        for level in list(Level)[1:]:
            yield Sample("alerts_firing", firing[level], (level.word,))
        yield Sample("rules_round_seconds", rounds.round_s if rounds else 0.0)
        yield Sample("rules_read_total", rounds.readings if rounds else 0)
        yield Sample("rules_solved_total", rounds.solved if rounds else 0)


def _rules_of(settings: Settings) -> Mapping[str, Limits]:
    """The limits of the alert policy's rules. Raises ConfigError."""
    policy = policy_of(settings)
    return policy.rules if policy is not None else {}


def _flat(error: BaseExceptionGroup[BaseException]) -> Iterable[BaseException]:
    for inner in error.exceptions:
        if isinstance(inner, BaseExceptionGroup):
            yield from _flat(inner)
        else:
            yield inner
