"""Recording raw frames."""

from __future__ import annotations

import asyncio
from pathlib import Path

from monitor.feeds.recorder import Recorder
from monitor.feeds.tape import Frame, read_recording
from tests.support.fake_clock import FakeClock
from tests.support.waiting import until

FRAMES = [
    (1_700_000_000_000_000_000 + index, "market", data) for index, data in enumerate([b'{"a":1}', b"line\nend", b"\xff\x00", "ü".encode()])
]


def test_frames_come_back_byte_for_byte(tmp_path: Path) -> None:
    """Text, line ends and bytes that are no text are read back as they were taken, with times and endpoint."""
    recorder = Recorder(tmp_path, "v")
    for time, endpoint, data in FRAMES:
        recorder.take(endpoint, data, time)
    recorder.close()

    [file] = tmp_path.iterdir()
    assert list(read_recording(file)) == [Frame(time, endpoint, data) for time, endpoint, data in FRAMES]
    assert recorder.statistics.frames == len(FRAMES)


def test_a_file_cut_off_is_readable_to_its_last_flush(tmp_path: Path) -> None:
    """After a kill, what was flushed is there; half a line at the end is left out."""
    recorder = Recorder(tmp_path, "v")
    recorder.take("", b"first", 1)
    recorder.flush()
    [file] = tmp_path.iterdir()
    flushed = file.read_bytes()
    recorder.take("", b"second" * 100, 2)
    recorder.flush()
    whole = file.read_bytes()
    file.write_bytes(whole[: len(flushed) + 12])

    assert [frame.data for frame in read_recording(file)] == [b"first"]

    recorder.close()


def test_files_are_begun_anew_by_size_and_age(tmp_path: Path) -> None:
    """Rotation loses nothing and the files sort by time."""
    clock = FakeClock()
    recorder = Recorder(tmp_path, "v", rotate_bytes=10, clock=clock)
    for time, endpoint, data in FRAMES:
        recorder.take(endpoint, data, time)
        recorder.flush()
        clock.shift_wall(1)
    recorder.close()

    files = sorted(tmp_path.iterdir())
    assert len(files) == recorder.statistics.files > 1
    assert sorted(frame.received_at_ns for file in files for frame in read_recording(file)) == [time for time, _endpoint, _data in FRAMES]


def test_a_slow_disk_costs_frames_that_are_counted(tmp_path: Path) -> None:
    """What waits is bounded."""
    recorder = Recorder(tmp_path, "v", most_waiting=2)
    for _ in range(5):
        recorder.take("", b"x", 1)
    recorder.close()

    assert (recorder.statistics.frames, recorder.statistics.dropped) == (2, 3)


async def test_running_writes_every_second_and_at_the_end(tmp_path: Path) -> None:
    """A cancelled recorder has written everything it took."""
    clock = FakeClock()
    recorder = Recorder(tmp_path / "new", "v", clock=clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(recorder.run())
        recorder.take("", b"one", 1)
        await clock.advance(1.0)
        await until(lambda: recorder.statistics.frames == 1)
        recorder.take("", b"two", 2)
        task.cancel()

    [file] = (tmp_path / "new").iterdir()
    assert [frame.data for frame in read_recording(file)] == [b"one", b"two"]
