"""Every venue's frames, in order, through one codec: `tests/wire/frames/<venue>.jsonl`.

A line holds a frame (`frame`, or `text` for what is no JSON) and what must come of it: `batches` as [kind, {name: number}, time],
`controls` by class, `rejected` by reason, or `error`, the reason of the CodecError. Field names are the venues'; the frames are made up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from monitor.errors import CodecError
from monitor.feeds.venues import PROFILES
from monitor.wire.frames import Fault

FOLDER = Path(__file__).parent / "frames"
NOW_NS = 1_790_143_910_000_000_000


def lines_of(venue: str) -> list[dict[str, Any]]:
    """The lines of one venue's file."""
    return [orjson.loads(line) for line in (FOLDER / f"{venue}.jsonl").read_bytes().splitlines()]


def bytes_of(line: dict[str, Any]) -> bytes:
    """The frame of a line."""
    text = line.get("text")
    return text.encode() if text is not None else orjson.dumps(line["frame"])


@pytest.mark.parametrize("venue", PROFILES)
def test_frames_give_what_the_file_says(venue: str) -> None:
    """Batches, controls, counts and errors of every frame, with the codec's memory of the frames before it."""
    profile = PROFILES[venue]
    codec = profile.codec(next(iter(profile.endpoints)))
    for line in lines_of(venue):
        if "error" in line:
            with pytest.raises(CodecError) as caught:
                codec.decode(bytes_of(line), NOW_NS)
            assert (caught.value.venue, caught.value.reason) == (venue, line["error"]), line["about"]
            continue
        decoded = codec.decode(bytes_of(line), NOW_NS)
        batches = [
            [batch.kind.value, dict(zip(batch.names, batch.prices, strict=True)), batch.venue_times_ms[0]] for batch in decoded.batches
        ]

        assert batches == line.get("batches", []), line["about"]
        assert [type(control).__name__ for control in decoded.controls] == line.get("controls", []), line["about"]
        assert decoded.rejected == line.get("rejected"), line["about"]
        for batch in decoded.batches:
            assert (batch.venue, batch.received_at_ns) == (venue, NOW_NS)
            assert len(batch.names) == len(set(batch.names)) == len(batch.prices) == len(batch.venue_times_ms) > 0


@pytest.mark.parametrize("venue", PROFILES)
def test_a_venue_has_frames_of_every_sort(venue: str) -> None:
    """A venue's file shows a mark, a confirmation or a greeting, something refused, and something that cannot be read."""
    lines = lines_of(venue)

    assert any(batch[0] == "mark" for line in lines for batch in line.get("batches", []))
    assert any(line.get("rejected") or "Denied" in line.get("controls", []) for line in lines)
    assert {line["error"] for line in lines if "error" in line} <= {fault.value for fault in Fault}
    assert any("error" in line for line in lines)


@pytest.mark.parametrize("venue", PROFILES)
def test_what_every_codec_refuses(venue: str) -> None:
    """Bytes that are no JSON, scalars, NaN, numbers beyond float64 and deep nesting are codec errors of the venue, and nothing else."""
    profile = PROFILES[venue]
    for frame in (
        b"",
        b"\xff\xfe",
        b"{",
        b"nul",
        b"NaN",
        b"1",
        b'"x"',
        b"null",
        b'{"a":1e400}',
        b'{"a":NaN}',
        b"[" * 100_000,
        b"{}",
        b"\x00",
    ):
        codec = profile.codec(next(iter(profile.endpoints)))
        with pytest.raises(CodecError) as caught:
            codec.decode(frame, NOW_NS)
        assert caught.value.venue == venue
        assert caught.value.reason in {fault.value for fault in Fault}
