"""What is done to a whole deployment, one function a scenario.

Each puts up a deployment, does its worst for so many times, lets it come to rest and has every row compared with an independent replay of
the log of ticks. What a scenario promises beyond that, it asserts.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from monitor.errors import ServerError
from monitor.ledger.crashpoints import POINTS
from monitor.ledger.server import LEDGER_SETTINGS, EmbeddedServer
from tests.faults.scenario import Outcome, scenario
from tests.support.daemon_rig import LEASE_S, DaemonRig, Stage
from tests.support.http_server import receiver
from tests.support.mosquitto import free_port
from tests.support.nursery import connected, nursery
from tests.support.proxy import ACTIONS, FaultProxy
from tests.support.shims import build_shim, cut_power, preloaded_redis
from tests.support.tick_log import client_of

SHIPPED_LEASE_S = 4.0
MOST_COPIES = 32
"""Rows in flight to MQTT when a process is stopped: they may be told twice."""
MOST_GROWTH_KB = 64 << 10


def middle(values: list[float]) -> float:
    """The median, to hundredths."""
    return round(statistics.median(values), 2) if values else 0.0


def most(values: list[float]) -> float:
    """The greatest, to hundredths."""
    return round(max(values), 2)


# ------------------------------------------------------------------ the deciding process dies, or is held up


@scenario(short=6, long=300)
async def killed_at_any_point(stage: Stage, times: int) -> Outcome:
    """A kill -9 at each named crash point in turn, inside settle and take-over too, and every third time at a moment that nobody chose."""
    async with stage.deployed() as rig:
        points = list(POINTS)
        while (dead := rig.deaths.total()) < times:
            if dead % len(POINTS) == 0 or not points:
                points = rig.draw.sample(POINTS, len(POINTS))
            await rig.die(None if dead % 3 == 2 else points.pop())
        found = await rig.finish()
        named = {name: count for name, count in rig.deaths.items() if name in POINTS}
        return Outcome(
            [found],
            {
                "kills": rig.deaths.total(),
                "points": len(named),
                "fewest_at_a_point": min(named.values()) if len(named) == len(POINTS) else 0,
                "at_random": rig.deaths["random"],
                "elsewhere": rig.deaths["elsewhere"],
            },
        )


@scenario(short=1, long=6, needs=("unshare",), root=True)
async def a_standby_takes_over(stage: Stage, times: int) -> Outcome:
    """A kill -9 of a leader of which nothing can be known (another machine's): the standby leads within 5 s, with the shipped lease."""
    lease_s = SHIPPED_LEASE_S if times > 1 else LEASE_S
    leads, tells = [], []
    with tempfile.TemporaryDirectory(prefix="mm-") as elsewhere, nursery(Path(elsewhere), *UNSHARED) as socket:
        async with stage.deployed(lease_s=lease_s) as rig, connected(socket, Path(elsewhere)) as far:
            for _ in range(times):
                leader = await rig.leader(far)
                standby = await rig.decider(MARGIN_MONITOR_LEDGER__DATA_DIR=f"{rig.folder}/standby")
                await standby.says("http_listening")
                await rig.more_rows(MOST_COPIES + 8)  # told by the leader: the standby must not tell them again
                killed = time.monotonic()
                await leader.kill()
                told = rig.another_event()
                await standby.says(" ready ")
                leads.append(time.monotonic() - killed)
                await told
                tells.append(time.monotonic() - killed)
                standby.signal(signal.SIGTERM)
                await standby.ended()
            found = await rig.finish()
    assert found.copies <= MOST_COPIES * times, f"{found.copies} copies"
    assert max(leads) < 5.0 + (lease_s == LEASE_S), leads
    return Outcome(
        [found],
        {
            "takeovers": times,
            "lease_s": lease_s,
            "leads_p50_s": middle(leads),
            "leads_max_s": round(max(leads), 2),
            "tells_max_s": round(max(tells), 2),
        },
    )


UNSHARED = ("unshare", "--pid", "--fork", "--kill-child")


@scenario(short=1, long=100)
async def paused_leaders(stage: Stage, times: int) -> Outcome:
    """SIGSTOP of the leader for twice the lease: the standby leads, and the one that wakes up writes nothing and says nothing."""
    takeovers = []
    async with stage.deployed() as rig:
        leader = await rig.leader(MARGIN_MONITOR_LEDGER__DATA_DIR=f"{rig.folder}/one")
        standby = await rig.decider(MARGIN_MONITOR_LEDGER__DATA_DIR=f"{rig.folder}/two")
        await standby.says("http_listening")
        for _ in range(times):
            await rig.more_rows(1)
            led, stopped = rig.another_leader(), time.monotonic()
            leader.signal(signal.SIGSTOP)
            await led
            takeovers.append(time.monotonic() - stopped)
            await asyncio.sleep(max(0.0, stopped + 2 * LEASE_S - time.monotonic()))
            lost = leader.text().count("partition_lost")
            leader.signal(signal.SIGCONT)
            await leader.says("partition_lost", times=lost + 1)
            leader, standby = standby, leader
        found = await rig.finish(leader)
        await standby.kill()
    return Outcome(
        [found],
        {
            "pauses": times,
            "fenced": times,
            "lease_s": LEASE_S,
            "takeover_p50_s": middle(takeovers),
            "takeover_max_s": most(takeovers),
        },
    )


@scenario(short=2, long=12, needs=("gcc",))
async def clock_jumps(stage: Stage, times: int) -> Outcome:
    """The wall clock of the machine, Redis included, jumps by an hour and by a day, forward and back: nothing false, nobody deposed."""
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        folder = Path(name)
        library, shift = build_shim("clock_shift", folder), folder / "shift"
        shift.write_text("0")
        shifted = {"CLOCK_SHIFT_FILE": str(shift)}
        with nursery(folder, LD_PRELOAD=str(library), **shifted) as socket:
            async with Stage(socket, stage.seed).deployed(program=preloaded_redis(library, **shifted)) as rig:
                life = await rig.leader()
                for number in range(times):
                    by_s = (3_600, 0, 86_400, -3_600, 0, -86_400)[number % 6]
                    shift.with_suffix(".new").write_text(str(by_s))
                    shift.with_suffix(".new").rename(shift)
                    await rig.more_rows(3)
                found = await rig.finish(life)
                assert "partition_lost" not in life.text(), life.text()
    assert not found.blind, "a row says that ticks are missing"
    return Outcome([found], {"jumps": times})


# ------------------------------------------------------------------ the way to Redis


@scenario(short=1, long=50)
async def struck_commits(stage: Stage, times: int) -> Outcome:
    """The answer to an EXEC is cut, its request dropped, its bytes held past the time-out: each so many times, on every third EXEC."""
    async with stage.deployed() as rig:
        life = await rig.leader()
        for action in ACTIONS:
            enough = partial(_has_struck, rig.ledger_proxy, rig.ledger_proxy.struck + times)
            rig.ledger_proxy.arm(action, after=1, again=3)
            await rig.until(enough, within_s=10 + 6 * times)
            rig.ledger_proxy.disarm()
        found = await rig.finish(life)
        assert "partition_lost" not in life.text(), life.text()
        return Outcome([found], {"struck": rig.ledger_proxy.struck, "of_each_kind": times})


def _has_struck(proxy: FaultProxy, times: int) -> bool:
    return proxy.struck >= times


@scenario(short=1, long=8)
async def bad_networks(stage: Stage, times: int) -> Outcome:
    """Latency, slow bytes, resets and black holes longer than the lease, between the process and both servers."""
    async with stage.deployed() as rig:
        life = await rig.leader()
        for _ in range(times):
            for proxy in (rig.ledger_proxy, rig.cache_proxy):
                proxy.latency_s = 0.02
                await rig.more_rows(2)
                proxy.latency_s, proxy.slow_bytes = 0.0, 256
                await rig.more_rows(2)
                proxy.slow_bytes = 0
                proxy.reset()
                await rig.more_rows(2)
                with proxy.black_hole():
                    await asyncio.sleep(2 * LEASE_S + 2.0)
                await rig.more_rows(2)
        found = await rig.finish(life)
    return Outcome([found], {"rounds": times, "black_holes": 2 * times})


# ------------------------------------------------------------------ Redis


@scenario(short=2, long=600)
async def ledger_away(stage: Stage, seconds: int) -> Outcome:
    """The ledger is away and the cache is there: nothing lost, at most 64 MiB more memory, caught up within 30 s."""
    async with stage.deployed() as rig:
        life = await rig.leader()
        await rig.more_rows(3)
        before = life.memory_kb()
        await rig.ledger.kill()
        await asyncio.sleep(seconds)
        newest = rig.newest_tick()
        await rig.ledger.start()
        caught_up_s = await rig.until_decided(newest)
        grown = life.memory_kb("VmHWM") - before
        found = await rig.finish(life)
    assert caught_up_s < 30, caught_up_s
    assert grown < MOST_GROWTH_KB, grown
    assert not found.blind, "a row says that ticks are missing"
    return Outcome([found], {"away_s": seconds, "grown_MiB": round(grown / 1024, 1), "caught_up_s": round(caught_up_s, 2)})


@scenario(short=1, long=5)
async def both_away(stage: Stage, times: int) -> Outcome:
    """The machine of both servers and of the feeds goes, and the cache forgets: a row says that ticks are missing, and levels are right."""
    async with stage.deployed() as rig:
        life = await rig.leader()
        for _ in range(times):
            await rig.more_rows(3)
            await rig.end_feeds()
            await rig.ledger.kill()
            await rig.cache.kill()
            await asyncio.sleep(1.0)
            await rig.ledger.start()
            await rig.cache.start()
            await rig.start_feeds()
            await rig.more_rows(3)
        found = await rig.finish(life)
    assert found.blind == times, f"{found.blind} rows say that ticks are missing"
    return Outcome([found], {"times": times, "blind_rows": found.blind})


@scenario(short=2, long=50, needs=("gcc",))
async def power_cuts(stage: Stage, times: int) -> Outcome:
    """The power of the ledger's machine is cut: its file is what was made durable, sometimes with half a write behind."""
    taken = 0
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        redis = preloaded_redis(build_shim("fsync_record", Path(name)))
        async with stage.deployed(program=redis) as rig:
            life = await rig.leader()
            for _ in range(times):
                await asyncio.sleep(rig.draw.uniform(0.05, 0.5))
                await rig.ledger.kill()
                taken += cut_power(rig.ledger.folder, rig.draw)
                await rig.ledger.start()
            found = await rig.finish(life)
            assert "partition_lost" not in life.text(), life.text()
    return Outcome([found], {"cuts": times, "bytes_taken": taken})


@scenario(short=1, long=10)
async def memory_full(stage: Stage, times: int) -> Outcome:
    """Redis refuses to write for want of memory: nothing is taken for written, and work goes on within 10 s when there is room."""
    recovered = []
    async with stage.deployed() as rig:
        life = await rig.leader()
        with client_of(rig.ledger.url) as client:
            for _ in range(times):
                await rig.more_rows(2)
                client.config_set("maxmemory", 1)
                batch = rig.head()["batch"]
                await asyncio.sleep(1.0)
                assert rig.head()["batch"] <= batch + 1
                client.config_set("maxmemory", 0)
                recovered.append(await rig.until_decided(rig.newest_tick()))
        found = await rig.finish(life)
    assert max(recovered) < 10, recovered
    return Outcome([found], {"times": times, "recovered_max_s": most(recovered)})


@scenario(short=1, long=10, needs=("mount", "umount"), root=True)
async def disk_full(stage: Stage, times: int) -> Outcome:
    """The disk of the ledger is full, and Redis ends: nothing is taken for written, and work goes on within 10 s when there is room."""
    recovered = []
    with small_disk("24m") as disk:
        async with stage.deployed(ledger_folder=disk / "ledger") as rig:
            life = await rig.leader()
            for _ in range(times):
                await rig.more_rows(2)
                supervised = asyncio.create_task(_supervised(rig.ledger))
                _fill(disk / "ballast")
                await rig.ledger.ended()
                await asyncio.sleep(1.0)
                newest = rig.newest_tick()
                (disk / "ballast").unlink()
                recovered.append(await rig.until_decided(newest))
                supervised.cancel()
            found = await rig.finish(life)
    assert max(recovered) < 10, recovered
    return Outcome([found], {"times": times, "recovered_max_s": most(recovered)})


@contextlib.contextmanager
def small_disk(size: str) -> Iterator[Path]:
    """A disk of its own."""
    with tempfile.TemporaryDirectory(prefix="mm-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def _fill(path: Path) -> None:
    """To the last byte."""
    block = bytes(1 << 16)
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


async def _supervised(server: EmbeddedServer) -> None:
    """As systemd would: starts it whenever it has ended, until cancelled."""
    while True:
        await server.ended()
        try:
            await server.start()
        except (ServerError, OSError):
            await asyncio.sleep(0.3)


@scenario(short=1, long=10)
async def replica_takes_over(stage: Stage, times: int) -> Outcome:
    """A replica that lags becomes the ledger: the process notices by the batch number that rows it had written are gone, and says so."""
    port = free_port()
    noticed = 0
    async with stage.deployed(settings=_tcp(port)) as rig, contextlib.AsyncExitStack() as stack:
        life = await rig.leader()
        for number in range(times):
            replica = EmbeddedServer(rig.folder / f"replica-{number}", settings=_tcp(free_port(), master=port))
            stack.push_async_callback(replica.stop)
            await replica.start()
            with client_of(replica.url) as client, client_of(rig.ledger.url) as master:
                await rig.until(partial(_is_copying, client))
                await rig.more_rows(2)
                master.wait(1, 5_000)
                client.execute_command("REPLICAOF", "NO", "ONE")  # from here on it lags
                await rig.more_rows(3)
                port = int(client.config_get("port")["port"])
            await rig.ledger.kill()
            rig.ledger, rig.ledger_proxy.target = replica, str(replica.socket)
            await life.says("lost its tail", times=number + 1)
            noticed += 1
        found = await rig.finish(life)
    found.unknown_outside = 0  # rows that were told and then lost with the old master: what a fail-over costs
    return Outcome([found], {"fail_overs": times, "noticed": noticed})


def _is_copying(client: Any) -> bool:
    return bool(client.info("replication")["master_link_status"] == "up")


def _tcp(port: int, *, master: int | None = None) -> dict[str, str]:
    replica = {} if master is None else {"replicaof": f"127.0.0.1 {master}"}
    return {**LEDGER_SETTINGS, "port": str(port), "bind": "127.0.0.1", "repl-diskless-sync-delay": "0", **replica}


# ------------------------------------------------------------------ receivers


@scenario(short=5, long=2_000, alone=True)
async def a_dead_sink(stage: Stage, events: int) -> Outcome:
    """A webhook that never answers, beside a deployment without one, at the same time on the same tape: MQTT does not notice."""
    over = asyncio.Event()

    async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await over.wait()

    async with contextlib.AsyncExitStack() as stack:
        dead = await stack.enter_async_context(receiver(never))
        stack.callback(over.set)
        secret = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mm-"))) / "secret"
        secret.touch(0o600)
        secret.write_text("0123456789abcdef")
        more = f'[sinks.webhook.dead]\nurl = "http://127.0.0.1:{dead.port}/"\nallow = ["127.0.0.1"]\npassword_file = "{secret}"'
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # else what is compared is how often the disk held up either
        rigs = []
        for settings in (more, ""):
            ledger = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mm-", dir=memory)))
            rigs.append(await stack.enter_async_context(stage.deployed(more=settings, ledger_folder=ledger)))
        lives = [await rig.leader() for rig in rigs]
        await rigs[0].until(lambda: dead.connections > 0)
        since_ns = time.time_ns()  # what was missed between two processes is no delay of a sink
        for rig in rigs:
            await rig.until(partial(_has_delays, rig, since_ns, events), within_s=10 + events)
        beside, alone = [round(_delays_ms(rig, since_ns)[int(events * 0.99)], 2) for rig in rigs]
        found = [await rig.finish(life) for rig, life in zip(rigs, lives, strict=True)]
    return Outcome(found, {"beside_p99_ms": beside, "alone_p99_ms": alone, "ratio": round(beside / alone, 2)})


def _has_delays(rig: DaemonRig, since_ns: int, count: int) -> bool:
    return len(_delays_ms(rig, since_ns)) >= count


def _delays_ms(rig: DaemonRig, since_ns: int) -> list[float]:
    """From a price's arrival at the feeds to the level at the subscriber, of prices since then, the shortest first."""
    delays = []
    for heard in rig.heard:
        cause = heard.body.get("cause", {})
        if heard.body["kind"] == "level" and cause["kind"] == "mark" and cause["received_at_ns"] > since_ns:
            delays.append((heard.at_ns - cause["received_at_ns"]) / 1e6)
    return sorted(delays)
