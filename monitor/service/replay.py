"""The commands `replay` and `simulate`: a tape through the whole daemon, or served to one that runs elsewhere."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monitor.errors import ConfigError
from monitor.feeds.market import SAMPLES, MarketShape, market, sample_symbols, venue_market
from monitor.feeds.simulator import Simulator, Speed
from monitor.feeds.tape import Moment, candle_tape, capture_frames, frames_tape
from monitor.feeds.venues import DIALECTS, profile_of
from monitor.margin.prices import PriceKind
from monitor.service.accounts_commands import read_documents
from monitor.service.commands import run_until_signal
from monitor.service.local_rig import local_rig
from monitor.service.logs import configure_logs
from monitor.service.progress import Progress
from monitor.service.sample_book import sample_documents
from monitor.service.settings import Settings
from monitor.sinks.console import ConsoleSink
from monitor.wire.dialects.binance import binance_usdm
from monitor.wire.quotes import Quotes

__all__ = ["replay_command", "simulate_command", "speed_of", "tape_of"]


def replay_command(
    settings: Settings,
    tape: Sequence[Path],
    accounts: Sequence[Path],
    *,
    speed: str,
    book: int,
    close_only: bool,
    tables: Sequence[Path],
) -> int:
    """Plays a tape through the daemon on a Redis of its own, prints every event and a last line of counts."""
    configure_logs(form=settings.log.format, level="warning")
    done = asyncio.Event()

    async def work() -> None:
        if accounts:
            documents = read_documents(accounts, list(tables))
        else:
            documents = [dict(document) for document in sample_documents(book, first_prices(tape, close_only=close_only))]
        simulator = Simulator(binance_usdm(), tape_of(tape, close_only=close_only), speed=speed_of(speed))
        overrides: dict[str, Any] = {f"levels.{name}": value for name, value in settings.levels.model_dump(mode="json").items()}
        with tempfile.TemporaryDirectory(prefix="margin-monitor-replay-") as folder:
            started = time.monotonic()
            async with local_rig(
                Path(folder),
                simulator,
                documents,
                tables=tables,
                lossless=True,
                overrides=overrides,
                sinks=[ConsoleSink()],
                on_loading=Progress(),
            ) as rig:
                finished = asyncio.create_task(rig.caught_up())
                stopped = asyncio.create_task(done.wait())
                await asyncio.wait({finished, stopped}, return_when=asyncio.FIRST_COMPLETED)
                for task in (finished, stopped):
                    task.cancel()
                await asyncio.gather(finished, stopped, return_exceptions=True)
                evaluator = rig.daemon.evaluator
                assert evaluator is not None
                statistics = evaluator.statistics
                by_level = dict.fromkeys(("watch", "margin_call", "liquidation", "bankrupt", "healthy"), 0)
                for (word, _kind), count in evaluator.observer.events.items():
                    by_level[word] += count
                words = ", ".join(f"{word} {count}" for word, count in by_level.items())
                print(
                    f"replayed {statistics.ticks} ticks over {len(evaluator.book)} accounts in {time.monotonic() - started:.1f} s: "
                    f"{sum(by_level.values())} events ({words})",
                    flush=True,
                )

    return run_until_signal(work, done.set)


def simulate_command(tape: Sequence[Path], *, speed: str, port: int, venue: str, symbols: int, seed: int) -> int:
    """Serves a venue's protocol on loopback until Ctrl-C."""
    configure_logs(form="text", level="info")
    dialect = DIALECTS.get(venue)
    if dialect is None:
        raise ConfigError(source="--venue", key="venue", value=venue, expected=f"one of {', '.join(DIALECTS)}")
    seeded = MarketShape(crash_at=60)
    moments: Iterator[Moment]
    if tape:
        moments = tape_of(tape, close_only=False, venue=venue)
    elif venue == "binance_usdm":
        moments = market(sample_symbols(symbols), seed=seed, shape=seeded)
    else:
        moments = venue_market(SAMPLES[venue], seed=seed, shape=seeded)
    simulator = Simulator(dialect(), moments, speed=speed_of(speed), stamp="now", port=port)
    done = asyncio.Event()

    async def work() -> None:
        async with simulator.running():
            print(f"{venue} at {simulator.url}: set feeds.{venue}.url to it; Ctrl-C ends", flush=True)
            await done.wait()

    return run_until_signal(work, done.set)


def speed_of(text: str) -> Speed:
    """A speed from the command line. Raises ConfigError."""
    if text == "max":
        return "max"
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise ConfigError(source="--speed", key="speed", value=repr(text), expected="a number of times above 0, or max")
    return number


def tape_of(paths: Sequence[Path], *, close_only: bool, venue: str = "binance_usdm") -> Iterator[Moment]:
    """Candle files, or recorded frames (*.jsonl.gz, *.frames.gz). Raises ConfigError for a file that is not there."""
    for path in paths:
        if not path.is_file():
            raise ConfigError(source="--tape", key="tape", value=str(path), expected="a candle file or a recording")
    if any(".csv" in path.suffixes for path in paths):
        return candle_tape(paths, close_only=close_only)
    return frames_tape((frame for path in paths for frame in capture_frames(path)), profile_of(venue))


def first_prices(paths: Sequence[Path], *, close_only: bool) -> Mapping[str, float]:
    """The first price of every instrument of a candle tape: what a seeded book is entered at. Raises ConfigError for other tapes."""
    prices: dict[str, float] = {}
    for offset_s, what in tape_of(paths, close_only=close_only):
        if not isinstance(what, Quotes):
            raise ConfigError(source="--accounts", key="accounts", value="(none)", expected="documents: a recording has no seeded book")
        for name, text in what.numbers.get(PriceKind.MARK, {}).items():
            prices.setdefault(name, float(text))
        if offset_s > 120:
            break
    return prices
