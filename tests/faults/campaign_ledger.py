"""The long form of the ledger's fault tests. Prints one line of figures per kind, as JSON; exit code 1 when anything was wrong.

    python tests/faults/campaign_ledger.py --kills 20 --random-kills 100 --strikes 10 --pauses 20 --cuts 50

- kills: rounds over all crash points; random-kills: deaths at moments that nobody chose
- strikes: tapes per action on which each fifth EXEC is cut, dropped or held past the time-out
- pauses: SIGSTOPs of a leader
- cuts: power cuts, some with a torn write; needs gcc
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from monitor.ledger.crashpoints import POINTS
from monitor.ledger.server import CACHE_SETTINGS
from tests.support.ledger_checker import Checked
from tests.support.ledger_faults import (
    Scenario,
    kill_at_points,
    kill_at_random,
    pause_leaders,
    power_cuts,
    rig,
    strike_commits,
)
from tests.support.proxy import ACTIONS
from tests.support.redis import Redis, redis_server
from tests.support.shims import build_shim, preloaded_redis

Figures = dict[str, Any]


@asynccontextmanager
async def _stage(scenario: Scenario, binary: Path | None = None) -> AsyncIterator[tuple[Redis, Redis, Path]]:
    """A ledger and a cache of their own, documents published; the folder for sink and sockets."""
    with tempfile.TemporaryDirectory(prefix="campaign-") as name:
        async with redis_server(binary=binary) as ledger, redis_server(CACHE_SETTINGS) as cache:
            await scenario.publish(ledger)
            yield ledger, cache, Path(name)


async def kills(options: argparse.Namespace) -> tuple[Figures, list[Checked]]:
    """Deaths at each named point, each at another pass in each round."""
    deaths: Counter[str] = Counter()
    checked = []
    draw = random.Random(options.seed)
    for number in range(options.kills):
        points = draw.sample(POINTS, len(POINTS))  # in another order each time: the later ones find less of the tape left
        scenario = Scenario(seed=options.seed + number, messages=400, bursts=12)
        async with _stage(scenario) as (ledger, _, folder):
            sink = folder / "sink"
            await scenario.tick(ledger, 0, 399)
            deaths += await kill_at_points(ledger, sink, folder, passes=[1 + number % 4], points=points)
            await scenario.tick(ledger, 399)
            async with rig(ledger.url, ledger.url, sink) as run:
                assert await run.ended() == 0, run.lines
            checked.append(scenario.check(ledger, sink))
    elsewhere = deaths.pop("elsewhere", 0)
    return {
        "deaths": sum(deaths.values()) + elsewhere,
        "points": len(deaths),
        "fewest_at_a_point": min((deaths[point] for point in POINTS), default=0),
        "elsewhere": elsewhere,
    }, checked


async def random_kills(options: argparse.Namespace) -> tuple[Figures, list[Checked]]:
    """Deaths at moments that nobody chose."""
    checked, killed = [], 0
    seed = options.seed
    while killed < options.random_kills:
        scenario = Scenario(seed=seed, messages=400, bursts=12)
        async with _stage(scenario) as (ledger, _, folder):
            sink = folder / "sink"
            await scenario.tick(ledger, 0, 399)
            killed += await kill_at_random(ledger, sink, times=min(20, options.random_kills - killed), seed=seed)
            await scenario.tick(ledger, 399)
            async with rig(ledger.url, ledger.url, sink) as run:
                assert await run.ended() == 0, run.lines
            checked.append(scenario.check(ledger, sink))
        seed += 1
    return {"deaths": killed}, checked


async def strikes(options: argparse.Namespace) -> tuple[Figures, list[Checked]]:
    """Answers cut, requests dropped, requests held past the time-out."""
    checked = []
    struck: Counter[str] = Counter()
    applied = again = 0
    for number in range(options.strikes):
        for action in ACTIONS:
            scenario = Scenario(seed=options.seed + number, messages=120, bursts=2)
            async with _stage(scenario) as (ledger, _, folder):
                await scenario.tick(ledger)
                count, line = await strike_commits(ledger, folder / "sink", folder, every=5, action=action)
                struck[action] += count
                words = dict(word.split("=") for word in line.split()[1:])
                applied += int(words["settled_applied"])
                again += int(words["settled_again"])
                checked.append(scenario.check(ledger, folder / "sink"))
    return {"struck": dict(struck), "settled_applied": applied, "settled_again": again}, checked


async def pauses(options: argparse.Namespace) -> tuple[Figures, list[Checked]]:
    """Leaders stopped for longer than their lease, and resumed."""
    checked, fenced, takeovers = [], 0, []
    left, seed = options.pauses, options.seed
    while left > 0:
        times = min(10, left)
        scenario = Scenario(seed=seed, messages=45 * (times + 1), bursts=4)
        async with _stage(scenario) as (ledger, cache, folder):
            count, seconds = await pause_leaders(ledger, cache, scenario, folder / "sink", times=times, lease_s=options.lease)
            fenced += count
            takeovers += seconds
            checked.append(scenario.check(ledger, folder / "sink"))
        left, seed = left - times, seed + 1
    takeovers.sort()
    middle = takeovers[len(takeovers) // 2] if takeovers else 0.0
    return {
        "pauses": options.pauses,
        "fenced": fenced,
        "lease_s": options.lease,
        "takeover_p50_s": round(middle, 2),
        "takeover_max_s": round(max(takeovers, default=0.0), 2),
    }, checked


async def cuts(options: argparse.Namespace) -> tuple[Figures, list[Checked]]:
    """Power cuts of the ledger's machine under a running process."""
    checked, taken = [], 0
    with tempfile.TemporaryDirectory(prefix="recorder-") as name:
        recorded = preloaded_redis(build_shim("fsync_record", Path(name)))
        left, seed = options.cuts, options.seed
        while left > 0:
            times = min(10, left)
            scenario = Scenario(seed=seed, messages=45 * (times + 1), bursts=4)
            async with _stage(scenario, recorded) as (ledger, cache, folder):
                taken += await power_cuts(ledger, cache, scenario, folder / "sink", times=times, seed=seed)
                checked.append(scenario.check(ledger, folder / "sink"))
            left, seed = left - times, seed + 1
    return {"cuts": options.cuts, "bytes_taken": taken}, checked


async def main() -> int:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("kills", "random-kills", "strikes", "pauses", "cuts"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease", type=float, default=1.0)
    options = parser.parse_args()
    kinds: list[Callable[[argparse.Namespace], Awaitable[tuple[Figures, list[Checked]]]]] = [kills, random_kills, strikes, pauses, cuts]
    wrong = False
    for kind in kinds:
        name = kind.__name__
        if not getattr(options, name):
            continue
        began = time.monotonic()
        figures, checked = await kind(options)
        total: Counter[str] = Counter()
        for one in checked:
            total.update({key: value for key, value in asdict(one).items() if isinstance(value, int)})
        faults = [fault for one in checked for fault in one.faults]
        wrong = wrong or bool(faults)
        line = {"kind": name, **figures, **total, "faults": faults[:10], "seed": options.seed, "seconds": round(time.monotonic() - began)}
        print(json.dumps(line), flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
