"""Makes a tape, plays it to the rig, and kills, pauses or cuts until it is through; the checker judges what then stands in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from monitor.ledger.crashpoints import POINTS
from monitor.ledger.updates import UpdatesProducer, stamped
from tests.support.ledger_checker import Checked, Tick, check_ledger
from tests.support.proxy import ACTIONS, FaultProxy
from tests.support.redis import Redis
from tests.support.shims import cut_power

__all__ = [
    "Scenario",
    "kill_at_points",
    "kill_at_random",
    "pause_leaders",
    "power_cuts",
    "rig",
    "strike_commits",
]

_RIG = Path(__file__).with_name("ledger_rig.py")
_ROOT = Path(__file__).parents[2]
_LONGEST_RUN_S = 8.0
REFUSE_EVERY = 50


@dataclass
class Scenario:
    """What is played to the rig: tick messages, and documents before them.

    Some messages are bursts, longer than one commit takes, so that a kill falls inside one.
    """

    seed: int
    messages: int = 60
    pools: int = 40
    bursts: int = 2
    burst_ticks: int = 1500
    updates: int = 30
    poisons: int = 2
    tape: list[list[Tick]] = field(default_factory=list)
    documents: list[bytes] = field(default_factory=list)
    last: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        draw = random.Random(self.seed)
        names = [(f"acct-{index % (self.pools // 2)}", f"cross:{index // (self.pools // 2)}") for index in range(self.pools)]
        bursts = set(draw.sample(range(self.messages), self.bursts))
        for number in range(self.messages):
            count = self.burst_ticks if number in bursts else draw.randrange(0, 25)
            self.tape.append([(*draw.choice(names), draw.randrange(5)) for _ in range(count)])
        poisoned = set(draw.sample(range(self.updates), self.poisons))
        for sequence in range(self.updates):
            account = f"acct-{draw.randrange(self.pools // 2)}"
            self.documents.append(stamped(orjson.dumps({"account": {"id": account, "n": sequence}}), 7, sequence))
            self.last[account] = (7, sequence)
            if sequence in poisoned:
                self.documents.append(b"{not a document")

    async def publish(self, ledger: Redis) -> None:
        """Puts all documents on the update stream."""
        producer = UpdatesProducer(lambda _partition: ledger.link(), 1)
        for document in self.documents:
            await producer.publish("any", document)
        producer.close()

    async def tick(self, cache: Redis, start: int = 0, stop: int | None = None) -> None:
        """Puts messages start..stop on the ticks stream; the last of all has the end mark."""
        last = len(self.tape) - 1
        numbers = range(start, len(self.tape) if stop is None else stop)
        data = {number: orjson.dumps({"ticks": self.tape[number], "end": number == last}) for number in numbers}
        await cache.exchange(*(("XADD", "ticks", "*", "e", 1, "n", number + 1, "b", data[number]) for number in numbers))

    def check(self, ledger: Redis, sink: Path) -> Checked:
        """The independent comparison, at the end."""
        return check_ledger(
            str(ledger.server.socket), self.tape, documents=self.last, poisons=self.poisons, sink=sink, refuse_every=REFUSE_EVERY
        )


@dataclass
class Run:
    """One process of the rig."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def until(self, *words: str) -> str:
        """Reads its lines until one begins with one of these words. Raises EOFError when it ends before."""
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode().strip():
            self.lines.append(line)
            if line.startswith(words):
                return line
        raise EOFError(f"ended before {words}: {self.lines}")

    async def ended(self) -> int:
        """Its exit code; -9 when it was killed."""
        with contextlib.suppress(EOFError):
            await self.until("DONE")
        return await self.process.wait()


@contextlib.asynccontextmanager
async def rig(ledger: str, cache: str, sink: Path, *, crash_at: str = "", lease_s: float = 1.0, **settings: object) -> AsyncIterator[Run]:
    """A process of the rig on these addresses; killed when the block ends and it has not."""
    arguments = {"url": ledger, "cache": cache, "sink": str(sink), "lease_s": lease_s, "refuse_every": REFUSE_EVERY, **settings}
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "MARGIN_MONITOR_CRASH_AT": crash_at}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(_RIG), orjson.dumps(arguments).decode(), stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        yield Run(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def kill_at_points(
    redis: Redis, sink: Path, folder: Path, *, passes: Iterable[int], points: Iterable[str] = POINTS, **settings: Any
) -> Counter[str]:
    """Lets the rig die at each point, at its n-th pass, over and over on one tape. Returns how often it died where.

    The points of settling, and further acquires, are passed only when commits are struck: then a proxy stands between. A run in which the
    point is not reached is killed from outside and counted as "elsewhere".
    """
    deaths: Counter[str] = Counter()
    for count in passes:
        for point in points:
            async with contextlib.AsyncExitStack() as stack:
                url = redis.url
                if point.startswith("settle") or (point.startswith("acquire") and count > 1):
                    proxy = FaultProxy(folder / f"{point}-{count}.sock", str(redis.server.socket))
                    await stack.enter_async_context(proxy.running())
                    proxy.arm("drop_request" if count % 2 else "cut_reply", after=3, again=3)
                    url = f"unix://{proxy.endpoint.path}"
                passed = 1 if point.startswith("takeover") else count
                run = await stack.enter_async_context(rig(url, redis.url, sink, crash_at=f"{point}:{passed}", **settings))
                try:
                    async with asyncio.timeout(_LONGEST_RUN_S):
                        code = await run.ended()
                except TimeoutError:
                    deaths["elsewhere"] += 1
                    continue
                if code == 0:
                    return deaths
                assert code == -signal.SIGKILL, f"{point}:{passed}: the rig ended with {code}: {run.lines}"
                deaths[point] += 1
    return deaths


async def kill_at_random(redis: Redis, sink: Path, *, times: int, seed: int) -> int:
    """Kills the rig from outside after random times. Returns how often it was alive to be killed."""
    draw = random.Random(seed)
    killed = 0
    for _ in range(times):
        async with rig(redis.url, redis.url, sink, flush_each=True) as run:
            await run.until("LEADING")
            try:
                async with asyncio.timeout(draw.uniform(0.0, 0.15)):
                    await run.ended()
                return killed
            except TimeoutError:
                killed += 1
    return killed


async def strike_commits(redis: Redis, sink: Path, folder: Path, *, every: int, action: str) -> tuple[int, str]:
    """Plays the tape through a proxy that strikes each so many-th EXEC. Returns the strikes and the rig's last line."""
    assert action in ACTIONS
    proxy = FaultProxy(folder / f"{action}.sock", str(redis.server.socket))
    async with proxy.running(), rig(f"unix://{proxy.endpoint.path}", redis.url, sink, flush_each=True, timeout_s=0.15) as run:
        proxy.arm(action, after=every, again=every)
        code = await run.ended()
    assert code == 0, run.lines
    return proxy.struck, run.lines[-1]


async def pause_leaders(
    ledger: Redis, cache: Redis, scenario: Scenario, sink: Path, *, times: int, lease_s: float
) -> tuple[int, list[float]]:
    """Two rigs on a live tape; the one that leads is stopped until the other one leads, then goes on.

    Returns how often a stopped leader was fenced, and how long each take-over took, seconds.
    """
    loop = asyncio.get_running_loop()
    fenced = 0
    takeovers: list[float] = []
    share = len(scenario.tape) // (times + 1)
    async with (
        rig(ledger.url, cache.url, sink, lease_s=lease_s, flush_each=True) as one,
        rig(ledger.url, cache.url, sink, lease_s=lease_s, flush_each=True) as other,
    ):
        waiting = {asyncio.ensure_future(run.until("LEADING")): run for run in (one, other)}
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        leader = waiting.pop(done.pop())
        ((leading, standby),) = waiting.items()
        for number in range(times):
            feeding = asyncio.ensure_future(_feed(cache, scenario, number * share, (number + 1) * share))
            await asyncio.sleep(0.02)  # in the middle of work, not before it
            leader.process.send_signal(signal.SIGSTOP)
            stopped = loop.time()
            await leading
            takeovers.append(loop.time() - stopped)
            leader.process.send_signal(signal.SIGCONT)
            await leader.until("FENCED")
            fenced += 1
            await feeding
            leading = asyncio.ensure_future(leader.until("LEADING"))
            leader, standby = standby, leader
        await _feed(cache, scenario, times * share, len(scenario.tape))
        assert await leader.ended() == 0, leader.lines
        await leading
        standby.process.kill()
    return fenced, takeovers


async def _feed(cache: Redis, scenario: Scenario, start: int, stop: int) -> None:
    """Messages one by one, as a venue would send them."""
    for number in range(start, stop):
        await scenario.tick(cache, number, number + 1)
        await asyncio.sleep(0.002)


async def power_cuts(ledger: Redis, cache: Redis, scenario: Scenario, sink: Path, *, times: int, seed: int) -> int:
    """Cuts the power of the ledger's machine while the rig is at work, which stays up. Returns how many bytes the cuts took away.

    The ledger runs under the shim fsync_record.
    """
    draw = random.Random(seed)
    lost = 0
    share = len(scenario.tape) // (times + 1)
    async with rig(ledger.url, cache.url, sink, flush_each=True, timeout_s=0.5) as run:
        await run.until("LEADING")
        for number in range(times):
            feeding = asyncio.ensure_future(_feed(cache, scenario, number * share, (number + 1) * share))
            await asyncio.sleep(draw.uniform(0.005, 0.1))
            await ledger.server.kill()
            lost += cut_power(ledger.server.folder, draw)
            await ledger.server.start()
            await feeding
        await _feed(cache, scenario, times * share, len(scenario.tape))
        assert await run.ended() == 0, run.lines
        assert not any(line.startswith(("FENCED", "COMPLAINT")) for line in run.lines), run.lines
    return lost
