"""Raw frames to disk as they arrive, with their receive times: to replay an incident, to prove a codec.

A file is gzip of one JSON object a line: `{"t": received at ns, "e": endpoint, "f": "frame text"}`, or `"b": base64` for bytes that are not
UTF-8. It is flushed every second, so that a crash costs at most that, and a new one is begun by size and by age.
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import orjson

from monitor.feeds.clock import SYSTEM_CLOCK, Clock
from monitor.feeds.profile import VenueProfile
from monitor.feeds.supervisor import VenueFeed
from monitor.wire.frames import Wanted

__all__ = ["Recorder", "RecorderStatistics", "record"]

FLUSH_S = 1.0


@dataclass(slots=True)
class RecorderStatistics:
    """Frames and bytes written (before compression), files begun, and frames dropped because the disk was too slow."""

    frames: int = 0
    size_bytes: int = 0
    files: int = 0
    dropped: int = 0


class Recorder:
    """Records one venue's feed into a folder. `take` is the feed's tap; `run` writes."""

    def __init__(
        self,
        folder: Path,
        venue: str,
        *,
        rotate_bytes: int = 256 * 2**20,
        rotate_s: float = 3600.0,
        most_waiting: int = 100_000,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`rotate_bytes` counts before compression; `most_waiting`: frames held when the disk is slow, more are dropped and counted."""
        self.folder, self.venue = folder, venue
        self.statistics = RecorderStatistics()
        self._rotate_bytes, self._rotate_s, self._most, self._clock = rotate_bytes, rotate_s, most_waiting, clock
        self._waiting: list[tuple[int, str, bytes]] = []
        self._file: BinaryIO | None = None
        self._packer = zlib.compressobj(6, wbits=31)
        self._begun_at = 0.0
        self._in_file = 0

    def take(self, endpoint: str, frame: bytes, received_at_ns: int) -> None:
        """Takes one frame; does not wait."""
        if len(self._waiting) >= self._most:
            self.statistics.dropped += 1
            return
        self._waiting.append((received_at_ns, endpoint, frame))

    async def run(self) -> None:
        """Writes every second until cancelled; then what waits is written and the file is closed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            while True:
                await self._clock.sleep(FLUSH_S)
                await asyncio.to_thread(self.flush)
        finally:
            self.close()

    def flush(self) -> None:
        """Writes what waits."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        now = self._clock.monotonic()
        if self._file is not None and (self._in_file >= self._rotate_bytes or now - self._begun_at >= self._rotate_s):
            self._end_file()
        if self._file is None:
            self._begin_file(waiting[0][0], now)
        assert self._file is not None, "begun above"
        text = b"".join(_line(*entry) for entry in waiting)
        self._file.write(self._packer.compress(text) + self._packer.flush(zlib.Z_SYNC_FLUSH))
        self._file.flush()
        self._in_file += len(text)
        self.statistics.frames += len(waiting)
        self.statistics.size_bytes += len(text)

    def _begin_file(self, first_ns: int, now: float) -> None:
        seconds, fraction = divmod(first_ns, 10**9)
        stamp = datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%S")
        self._file = (self.folder / f"{self.venue}-{stamp}.{fraction:09d}Z.frames.jsonl.gz").open("xb")
        self._packer = zlib.compressobj(6, wbits=31)
        self._begun_at, self._in_file = now, 0
        self.statistics.files += 1

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.write(self._packer.flush(zlib.Z_FINISH))
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Writes what waits and ends the file."""
        self.flush()
        self._end_file()


async def record(
    profile: VenueProfile, wanted: Wanted, folder: Path, *, seconds: float | None = None, clock: Clock = SYSTEM_CLOCK
) -> RecorderStatistics:
    """Records a venue's frames for so long, or until cancelled. Everything taken is on the disk when it ends.

    Raises:
        OSError: The folder cannot be written.
    """
    recorder = Recorder(folder, profile.venue, clock=clock)
    feed = VenueFeed(profile, wanted, lambda _batches: None, clock=clock, tap=recorder.take)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(recorder.run(), name="recorder"), group.create_task(feed.run(), name="feed")]
        if seconds is not None:
            await clock.sleep(seconds)
            for task in tasks:
                task.cancel()
    return recorder.statistics


def _line(received_at_ns: int, endpoint: str, frame: bytes) -> bytes:
    try:
        return orjson.dumps({"t": received_at_ns, "e": endpoint, "f": frame.decode()}) + b"\n"
    except UnicodeDecodeError:
        return orjson.dumps({"t": received_at_ns, "e": endpoint, "b": base64.b64encode(frame).decode()}) + b"\n"
