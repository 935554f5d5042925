"""A whole monitor on one machine, for demo, replay, bench and tests: Redis of its own, a simulated venue, accounts, the real daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from monitor.feeds.simulator import Simulator
from monitor.ledger.connection import Endpoint, Link
from monitor.ledger.server import CACHE_SETTINGS, EmbeddedServer
from monitor.ledger.updates import UpdatesProducer
from monitor.service.bench_book import fill_ledger
from monitor.service.loading import Loading
from monitor.service.settings import load_settings
from monitor.service.wiring import Daemon
from monitor.sinks.base import Sink

__all__ = ["LocalRig", "local_rig"]


class LocalRig:
    """What runs: the daemon, its Redis, the venue."""

    def __init__(self, daemon: Daemon, simulator: Simulator, server: EmbeddedServer) -> None:
        self.daemon, self.simulator, self.server = daemon, simulator, server

    async def caught_up(self) -> None:
        """Returns when the tape has been played to its end, every price of it is decided, and every event is committed and delivered."""
        await self.simulator.played()
        daemon, wanted = self.daemon, self.simulator.statistics.prices
        while not self._read_all(wanted):
            await asyncio.sleep(0.01)
        assert daemon.evaluator is not None and daemon.feeds is not None
        await daemon.feeds.publisher.drained()
        while daemon.evaluator.statistics.messages < daemon.feeds.publisher.statistics.written_batches:
            await asyncio.sleep(0.01)
        await daemon.evaluator.observer.follow_all()
        for committer in daemon.committers.values():
            await committer.flush()
        rows = {number: committer.partition.head.seq for number, committer in daemon.committers.items()}
        assert daemon.alerts is not None
        while not await daemon.alerts.finish(rows):
            pass

    def _read_all(self, wanted: Mapping[str, int]) -> bool:
        feeds = self.daemon.feeds
        if feeds is None:
            return False
        read = feeds.feeds[self.simulator.dialect.venue].statistics.prices
        return all(read.get(kind, 0) >= count for kind, count in wanted.items())


@asynccontextmanager
async def local_rig(
    folder: Path,
    simulator: Simulator,
    documents: Iterable[Mapping[str, Any]],
    *,
    tables: Sequence[Path] = (),
    lossless: bool = False,
    overrides: Mapping[str, Any] | None = None,
    sinks: Sequence[Sink] = (),
    on_loading: Loading = lambda _what, _done, _total: None,
    stored: Iterable[tuple[str, bytes]] = (),
    own_cache: bool = False,
) -> AsyncIterator[LocalRig]:
    """Runs everything inside a with block; all of it is stopped, in order, at the end.

    Args:
        folder: For the data of Redis; temporary.
        documents: Portfolio documents with sequences.
        lossless: Every price is decided, however fast the tape: the socket waits. Nothing goes stale, since a tape's time is not ours.
        overrides: Settings beside those that the rig needs.
        own_cache: A second Redis for the cache, which needs no fsync, as a deployment has; else one for both.
        stored: (account, document) that stand in the ledger before the daemon starts; beside no other `documents`.
    """
    venue = simulator.dialect.venue
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer(folder / "redis"))
        await stack.enter_async_context(simulator.running())
        cache = server
        if own_cache:
            cache = await stack.enter_async_context(EmbeddedServer(folder / "cache", settings=CACHE_SETTINGS))
        if stored:
            await fill_ledger(server.url, stored)
        producer = UpdatesProducer(lambda _partition: Link(Endpoint.parse(server.url)), 1)
        try:
            pairs = [(document["account"]["id"], orjson.dumps(document)) for document in documents]
            await producer.import_documents(pairs, progress=lambda done: on_loading("documents", done, len(pairs)))
        finally:
            producer.close()
        chosen: dict[str, Any] = {
            "ledger.url": server.url,
            "cache.url": cache.url,
            "ledger.data_dir": str(folder / "ledger"),
            "feeds.venues": [venue],
            f"feeds.{venue}.url": simulator.url,
            "evaluator.tables": [str(path) for path in tables],
            "http.port": 0,
            "sinks.console.enabled": False,
        }
        if lossless:
            chosen |= {"feeds.on_slow": "wait", f"feeds.{venue}.stale_after_s": 86_400.0}
        settings = load_settings(None, environment={}, overrides={**chosen, **(overrides or {})})
        daemon = Daemon(settings, extra_sinks=sinks, on_loading=on_loading)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(daemon.run(), name="daemon")
            ready = group.create_task(daemon.ready.wait())
            await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if not running.done():
                try:
                    yield LocalRig(daemon, simulator, server)
                finally:
                    daemon.stop()
