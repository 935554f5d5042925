"""The commands `doctor` and `record`: what works here and what does not, and the venues' raw frames for later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from monitor.errors import LedgerUnavailable
from monitor.feeds.doctor import Finding, examine
from monitor.feeds.profile import VenueProfile
from monitor.feeds.recorder import Recorder
from monitor.feeds.supervisor import VenueFeed
from monitor.feeds.venues import profile_of
from monitor.ledger.checks import check_ledger_server
from monitor.service.commands import run_until_signal
from monitor.service.feeds_stage import read_wanted, wanted_of
from monitor.service.logs import configure_logs
from monitor.service.settings import Settings
from monitor.service.tables import VenueTables
from monitor.service.wiring import places

__all__ = ["doctor_command", "record_command"]


def doctor_command(settings: Settings, *, within_s: float) -> int:
    """Prints one line a check. Exit code 1 when any failed."""
    configure_logs(form=settings.log.format, level="error")
    failed = 0

    def tell(name: str, finding: Finding) -> None:
        nonlocal failed
        failed += not finding.passed
        print(f"[{'+' if finding.passed else '-'}] {name:<16} {finding.check:<14} {finding.detail}", flush=True)

    async def work() -> None:
        told = await _look_at_redis(settings, tell)
        VenueTables(settings.evaluator.tables).load_all()
        tell("tables", Finding("readable", passed=True, detail="shipped tables and evaluator.tables"))
        for venue in settings.feeds.venues:
            wanted = wanted_of(settings.feeds.of(venue).symbols, told.get(venue))
            for finding in await examine(_profile(settings, venue), wanted, within_s=within_s):
                tell(venue, finding)

    code = run_until_signal(work, lambda: None)
    print(f"{failed} checks failed" if failed else "all checks passed")
    return 1 if failed else code


async def _look_at_redis(settings: Settings, tell: Callable[[str, Finding], None]) -> dict[str, bytes]:
    """What the accounts in the cache need of each venue: the doctor asks the venues for the same."""
    told: dict[str, bytes] = {}
    async with AsyncExitStack() as stack:
        where = await places(settings, stack)
        try:
            wire = await where.ledger_link().open()
        except LedgerUnavailable as error:
            tell("ledger", Finding("reachable", passed=False, detail=f"{error}: is Redis running, and ledger.url right?"))
            return told
        try:
            tell("ledger", Finding("reachable", passed=True, detail=str(where.ledger)))
            findings = await check_ledger_server(wire)
            for finding in findings:
                tell("ledger", Finding("settings", passed=not finding.is_fatal, detail=finding.text))
            if not findings:
                tell("ledger", Finding("settings", passed=True, detail="keeps what it acknowledges"))
        finally:
            wire.close()
        for venue in settings.feeds.venues:
            try:
                told[venue] = await read_wanted(where.cache_link(), venue) or b"{}"
            except LedgerUnavailable as error:
                tell("cache", Finding("reachable", passed=False, detail=f"{error}: is Redis running, and cache.url right?"))
                break
    return told


def record_command(settings: Settings, folder: Path, *, seconds: float | None) -> int:
    """Records every configured venue until Ctrl-C, or for so long."""
    configure_logs(form=settings.log.format, level=settings.log.level)
    stop = asyncio.Event()

    async def work() -> None:
        recorders = {venue: Recorder(folder / venue, venue) for venue in settings.feeds.venues}
        async with asyncio.TaskGroup() as group:
            tasks = []
            for venue, recorder in recorders.items():
                profile = _profile(settings, venue)
                wanted = wanted_of(settings.feeds.of(venue).symbols, None)
                feed = VenueFeed(profile, wanted, lambda _batches: None, tap=recorder.take)
                tasks += [group.create_task(recorder.run()), group.create_task(feed.run())]
            try:
                async with asyncio.timeout(seconds):
                    await stop.wait()
            except TimeoutError:
                pass
            for task in tasks:
                task.cancel()
        for venue, recorder in recorders.items():
            statistics = recorder.statistics
            print(f"{venue}: {statistics.frames:,} frames in {recorder.folder}, {statistics.dropped:,} dropped")

    return run_until_signal(work, stop.set)


def _profile(settings: Settings, venue: str) -> VenueProfile:
    own = settings.feeds.of(venue)
    profile = profile_of(venue)
    return profile.at(own.url) if own.url else profile
