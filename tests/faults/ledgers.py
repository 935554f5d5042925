"""The ledger alone, under a daemon in small (`tests/support/ledger_rig.py`): bursts longer than a commit, documents, a sink that refuses.

Their short form is `tests/ledger/test_faults.py`.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from monitor.ledger.crashpoints import POINTS
from monitor.ledger.server import CACHE_SETTINGS
from tests.faults.scenario import Outcome, scenario
from tests.support.daemon_checker import Found
from tests.support.daemon_rig import Stage
from tests.support.ledger_checker import Checked
from tests.support.ledger_faults import Scenario, kill_at_points, kill_at_random, pause_leaders, power_cuts, rig, strike_commits
from tests.support.proxy import ACTIONS
from tests.support.redis import Redis, redis_server
from tests.support.shims import build_shim, preloaded_redis

LEASE_S = 1.0
AT_A_TIME = 10


@asynccontextmanager
async def _stage(tape: Scenario, binary: Path | None = None) -> AsyncIterator[tuple[Redis, Redis, Path]]:
    """A ledger and a cache of their own, documents published; the folder for sink and sockets."""
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        async with redis_server(binary=binary) as ledger, redis_server(CACHE_SETTINGS) as cache:
            await tape.publish(ledger)
            yield ledger, cache, Path(name)


def _found(checked: Checked) -> Found:
    """In the words of the deployments' checker."""
    return Found(
        events=checked.rows,
        copies=checked.copies_outside,
        lost=checked.lost,
        duplicated=checked.twice,
        misordered=checked.misordered,
        wrong=checked.wrong,
        not_delivered=checked.missing_outside,
        faults=checked.faults[:5],
    )


async def _to_the_end(tape: Scenario, ledger: Redis, sink: Path) -> Found:
    """Lets the tape end and an undisturbed process work it off."""
    await tape.tick(ledger, len(tape.tape) - 1)
    async with rig(ledger.url, ledger.url, sink) as run:
        assert await run.ended() == 0, run.lines
    return _found(tape.check(ledger, sink))


@scenario(short=0, long=4)
async def ledger_killed_at_points(stage: Stage, rounds: int) -> Outcome:
    """Death at each named point, each at another pass in each round."""
    deaths: Counter[str] = Counter()
    found = []
    draw = random.Random(stage.seed)
    for number in range(rounds):
        tape = Scenario(seed=stage.seed + number, messages=400, bursts=12)
        async with _stage(tape) as (ledger, _, folder):
            await tape.tick(ledger, 0, 399)
            # in another order each time: the later ones find less of the tape left, and three deaths over one update would park it
            points = draw.sample(POINTS, len(POINTS))
            deaths += await kill_at_points(ledger, folder / "sink", folder, passes=[1 + number % 4], points=points)
            found.append(await _to_the_end(tape, ledger, folder / "sink"))
    return Outcome(found, {"kills": deaths.total(), "points": len([point for point in POINTS if deaths[point]])})


@scenario(short=0, long=40)
async def ledger_killed_at_random(stage: Stage, times: int) -> Outcome:
    """Death at moments that nobody chose."""
    killed, seed, found = 0, stage.seed, []
    while killed < times:
        tape = Scenario(seed=seed, messages=400, bursts=12)
        async with _stage(tape) as (ledger, _, folder):
            await tape.tick(ledger, 0, 399)
            killed += await kill_at_random(ledger, folder / "sink", times=min(20, times - killed), seed=seed)
            found.append(await _to_the_end(tape, ledger, folder / "sink"))
        seed += 1
    return Outcome(found, {"kills": killed})


@scenario(short=0, long=3)
async def ledger_struck(stage: Stage, tapes: int) -> Outcome:
    """On each tape every fifth EXEC is cut, dropped or held past the time-out."""
    struck, found = 0, []
    for number in range(tapes):
        for action in ACTIONS:
            tape = Scenario(seed=stage.seed + number, messages=120, bursts=2)
            async with _stage(tape) as (ledger, _, folder):
                await tape.tick(ledger)
                count, _ = await strike_commits(ledger, folder / "sink", folder, every=5, action=action)
                struck += count
                found.append(_found(tape.check(ledger, folder / "sink")))
    return Outcome(found, {"struck": struck})


@scenario(short=0, long=10)
async def ledger_paused_leaders(stage: Stage, times: int) -> Outcome:
    """SIGSTOP in the middle of a commit, until the other one leads."""
    tape = Scenario(seed=stage.seed, messages=45 * (times + 1), bursts=4)
    async with _stage(tape) as (ledger, cache, folder):
        fenced, seconds = await pause_leaders(ledger, cache, tape, folder / "sink", times=times, lease_s=LEASE_S)
        found = _found(tape.check(ledger, folder / "sink"))
    return Outcome([found], {"fenced": fenced, "lease_s": LEASE_S, "takeover_max_s": round(max(seconds), 2)})


@scenario(short=0, long=30, needs=("gcc",))
async def ledger_power_cuts(stage: Stage, times: int) -> Outcome:
    """The file is cut back to what was durable while commits of up to 1,000 rows are under way."""
    taken, seed, found = 0, stage.seed, []
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        recorded = preloaded_redis(build_shim("fsync_record", Path(name)))
        for start in range(0, times, AT_A_TIME):
            count = min(AT_A_TIME, times - start)
            tape = Scenario(seed=seed + start, messages=45 * (count + 1), bursts=4)
            async with _stage(tape, recorded) as (ledger, cache, folder):
                taken += await power_cuts(ledger, cache, tape, folder / "sink", times=count, seed=seed + start)
                found.append(_found(tape.check(ledger, folder / "sink")))
    return Outcome(found, {"cuts": times, "bytes_taken": taken})
