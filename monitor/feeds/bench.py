"""How fast a feed is: frames from a simulator in another process, through socket, codec, order guard and publisher, to the writer given.

The sender needs a core of its own; the figures are those of the reading process. Frames are made beforehand, with rising event times.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

import orjson

from monitor.feeds.publisher import OnSlow, Publisher, WriteBatches
from monitor.feeds.simulator import Simulator
from monitor.feeds.supervisor import VenueFeed
from monitor.feeds.tape import Moment, Sent
from monitor.feeds.venues import dialect_of, profile_of
from monitor.wire.frames import Wanted
from monitor.wire.prices import PriceBatch

__all__ = ["FeedBench", "Shape", "bench_decode", "bench_feed", "discard", "sample_frames"]

Shape = Literal["array", "single"]
VENUE = "binance_usdm"


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedBench:
    """One run.

    Attributes:
        shape: `array`: every frame has all symbols. `single`: one symbol a frame.
        messages, marks: Read. written: numbers that reached the writer, conflated ones left out.
        wall_s, cpu_s: Of the reading process, from the first frame to the last.
    """

    shape: Shape
    symbols: int
    messages: int
    marks: int
    written: int
    wall_s: float
    cpu_s: float

    @property
    def marks_per_cpu_s(self) -> float:
        """Marks per second of one core."""
        return self.marks / self.cpu_s

    @property
    def messages_per_cpu_s(self) -> float:
        """Frames per second of one core."""
        return self.messages / self.cpu_s


def sample_frames(shape: Shape, symbols: int, count: int) -> list[bytes]:
    """`count` Binance frames with marks that differ from one to the next."""
    names = [f"C{index:04d}USDT" for index in range(symbols)]
    frames = []
    for number in range(count):
        moment = 1_700_000_000_000 + number
        chosen = enumerate(names) if shape == "array" else [(number % symbols, names[number % symbols])]
        events = [
            {
                "e": "markPriceUpdate",
                "E": moment,
                "s": name,
                "p": f"{100 + index + number % 97 / 100:.8f}",
                "ap": f"{100 + index:.8f}",
                "P": f"{100 + index:.8f}",
                "i": f"{100 + index:.8f}",
                "r": "0.00010000",
                "T": 1_700_006_400_000,
            }
            for index, name in chosen
        ]
        frames.append(orjson.dumps(events if shape == "array" else events[0]))
    return frames


def bench_decode(shape: Shape, *, symbols: int = 400, count: int = 1_000) -> float:
    """Microseconds to decode one frame, codec alone, names known."""
    frames = sample_frames(shape, symbols, count)
    codec = profile_of(VENUE).codec("market")
    for frame in frames[: symbols if shape == "single" else 1]:
        codec.decode(frame, 1_700_000_100_000_000_000)
    started = time.process_time()
    for frame in frames:
        codec.decode(frame, 1_700_000_100_000_000_000)
    return (time.process_time() - started) / len(frames) * 1e6


def _send(pipe: Connection, shape: Shape, symbols: int, count: int) -> None:
    """The sending process."""

    async def serve() -> None:
        tape: list[Moment] = [(0.0, Sent("", frame)) for frame in sample_frames(shape, symbols, count)]
        simulator = Simulator(dialect_of(VENUE), tape, speed="max")
        async with simulator.running():
            pipe.send(simulator.url)
            await simulator.played()
            while not pipe.poll():
                await asyncio.sleep(0.05)

    asyncio.run(serve())


async def bench_feed(
    shape: Shape, write: WriteBatches, *, symbols: int = 400, count: int = 2_000, on_slow: OnSlow = "conflate"
) -> FeedBench:
    """Reads `count` frames as fast as it can. They are held in memory by the sender: about 170 bytes a number."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    sender = context.Process(target=_send, args=(theirs, shape, symbols, count), daemon=True)
    sender.start()
    try:
        while not ours.poll():
            await asyncio.sleep(0.05)
        return await _read(ours.recv(), shape, write, symbols=symbols, count=count, on_slow=on_slow)
    finally:
        ours.send("done")
        await asyncio.to_thread(sender.join, 5.0)
        sender.kill()


async def _read(url: str, shape: Shape, write: WriteBatches, *, symbols: int, count: int, on_slow: OnSlow) -> FeedBench:
    publisher = Publisher(write, on_slow=on_slow)
    marks = 0
    begun: tuple[float, float] | None = None

    def put(batches: list[PriceBatch]) -> object:
        nonlocal marks, begun
        if begun is None:
            begun = time.perf_counter(), time.process_time()
        for batch in batches:
            if batch.kind.value == "mark":
                marks += len(batch.names)
        return publisher.put(batches)

    feed = VenueFeed(profile_of(VENUE).at(url), Wanted(everything=True), put)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(feed.run(), name="feed")]
        if on_slow == "conflate":
            tasks.append(group.create_task(publisher.run(), name="publisher"))
        while feed.statistics.messages <= count:  # one answer to the subscription beside
            await asyncio.sleep(0.01)
        await publisher.drained()
        assert begun is not None, "frames came"
        wall_s, cpu_s = time.perf_counter() - begun[0], time.process_time() - begun[1]
        for task in tasks:
            task.cancel()
    return FeedBench(
        shape=shape,
        symbols=symbols,
        messages=feed.statistics.messages - 1,
        marks=marks,
        written=publisher.statistics.written,
        wall_s=wall_s,
        cpu_s=cpu_s,
    )


async def discard(batches: Sequence[PriceBatch]) -> None:
    """A writer that costs nothing: what the feed itself costs."""
    del batches
