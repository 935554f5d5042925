"""Makes a tape, runs the rig on it, and kills, pauses or cuts until it is done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from monitor.ledger.updates import UpdatesProducer, stamped
from tests.support.ledger_checker import Tick
from tests.support.redis import Redis

__all__ = ["Run", "Scenario", "rig"]

_RIG = Path(__file__).with_name("ledger_rig.py")
_ROOT = Path(__file__).parents[2]


@dataclass
class Scenario:
    """What is played to the rig: tick messages, and documents between them.

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
    documents: list[tuple[str, bytes]] = field(default_factory=list)
    last: dict[str, tuple[int, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        draw = random.Random(self.seed)
        names = [(f"acct-{index % (self.pools // 2)}", f"cross:{index // (self.pools // 2)}") for index in range(self.pools)]
        bursts = set(draw.sample(range(self.messages), self.bursts))
        for number in range(self.messages):
            count = self.burst_ticks if number in bursts else draw.randrange(0, 25)
            self.tape.append([(*draw.choice(names), draw.randrange(5)) for _ in range(count)])
        for sequence in range(1, self.updates + 1):
            account = f"acct-{draw.randrange(self.pools // 2)}"
            self.documents.append((account, stamped(orjson.dumps({"account": {"id": account, "n": sequence}}), 7, sequence)))
            self.last[account] = (7, sequence)

    async def write(self, redis: Redis, *, start: int = 0, stop: int | None = None) -> None:
        """Puts messages start..stop on the ticks stream, the last with the end mark; the documents go before the first."""
        stop = len(self.tape) if stop is None else stop
        if start == 0:
            producer = UpdatesProducer(lambda _partition: redis.link(), 1)
            for account, document in self.documents:
                await producer.publish(account, document)
                if self.poisons and draw_poison(document, self.updates, self.poisons):
                    await redis.call("XADD", "{0}:updates", "*", "u", b"{not a document")
            producer.close()
        for number in range(start, stop):
            data = orjson.dumps({"ticks": self.tape[number], "end": number == len(self.tape) - 1})
            await redis.call("XADD", "ticks", "*", "e", 1, "n", number + 1, "b", data)


def draw_poison(document: bytes, updates: int, poisons: int) -> bool:
    """True after `poisons` of the documents, evenly spread."""
    sequence = int(orjson.loads(document)["sequence"])
    return sequence % max(1, updates // poisons) == 0 and sequence // max(1, updates // poisons) <= poisons


@dataclass
class Run:
    """One process of the rig."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def until(self, word: str) -> str:
        """Reads its lines until one begins with this word. Raises EOFError when it ends before."""
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode().strip():
            self.lines.append(line)
            if line.startswith(word):
                return line
        raise EOFError(f"ended before {word}: {self.lines}")

    async def ended(self) -> int:
        """Its exit code; -9 when it was killed."""
        with contextlib.suppress(EOFError):
            await self.until("DONE")
        return await self.process.wait()


@contextlib.asynccontextmanager
async def rig(ledger: str, cache: str, sink: Path, *, crash_at: str = "", lease_s: float = 1.0, **settings: object) -> AsyncIterator[Run]:
    """A process of the rig on these addresses; killed when the block ends and it has not."""
    arguments = orjson.dumps({"url": ledger, "cache": cache, "sink": str(sink), "lease_s": lease_s, **settings}).decode()
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "MARGIN_MONITOR_CRASH_AT": crash_at}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(_RIG), arguments, stdout=asyncio.subprocess.PIPE, env=environment, limit=1 << 20
    )
    try:
        yield Run(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def tape_of(scenario: Scenario) -> Sequence[Sequence[Tick]]:
    """The messages that the checker replays."""
    return scenario.tape
