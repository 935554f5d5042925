"""The command `run`: signals, logs, progress, exit codes around one daemon."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from monitor.errors import ConfigError, MonitorError
from monitor.service.config_check import check_settings
from monitor.service.logs import configure_logs, log
from monitor.service.progress import Progress
from monitor.service.reload import Load
from monitor.service.wiring import Daemon

__all__ = ["first_monitor_error", "run_command", "run_until_signal"]


def run_command(load: Load, *, stages: str, shard: str, config: Path | None, accept_ledger: bool = False) -> int:
    """Runs the daemon on what `load` reads, now and at each SIGHUP. Returns the exit code; raises MonitorError."""
    settings = load()
    configure_logs(form=settings.log.format, level=settings.log.level)
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal()):
        raise ConfigError(source="--shard", key="shard", value=repr(shard), expected="I/N, such as 0/4")
    progress = Progress()
    chosen = [stage.strip() for stage in stages.split(",") if stage.strip()]
    check_settings(settings, config, stages=chosen)
    daemon = Daemon(
        settings,
        stages=chosen,
        shard=(int(index), int(count)),
        on_loading=progress,
        config_path=config,
        accept_ledger=accept_ledger,
        load=load,
    )
    return run_until_signal(daemon.run, daemon.stop, reload=daemon.reloader.ask)


def run_until_signal(work: Callable[[], Awaitable[None]], stop: Callable[[], None], *, reload: Callable[[], None] | None = None) -> int:
    """Runs `work`; SIGINT and SIGTERM call `stop`, a second one ends the process at once; SIGHUP calls `reload`.

    Returns 0 after an orderly end.
    """

    async def main() -> None:
        loop = asyncio.get_running_loop()
        asked = 0

        def on_signal(number: signal.Signals) -> None:
            nonlocal asked
            asked += 1
            if asked > 1:
                print("margin-monitor: ended at once; what was not committed is decided again at the next start", file=sys.stderr)
                sys.stderr.flush()
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal, number)
        if reload is not None:
            loop.add_signal_handler(signal.SIGHUP, reload)
        try:
            await work()
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)

    try:
        asyncio.run(main())
    except BaseExceptionGroup as group:
        error = first_monitor_error(group)
        if error is None:
            raise
        raise error from None
    log.info("stopped")
    return 0


def first_monitor_error(group: BaseExceptionGroup[BaseException]) -> MonitorError | None:
    """The error of this house inside a group of failed tasks; None when something else failed too."""
    found: MonitorError | None = None
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            inner = first_monitor_error(error)
            if inner is None:
                return None
            found = found or inner
        elif isinstance(error, MonitorError):
            found = found or error
        else:
            return None
    return found
