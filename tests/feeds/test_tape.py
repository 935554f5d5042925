"""Tapes from candles, recordings and captures."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from monitor.errors import ConfigError
from monitor.feeds.tape import Frame, Sent, candle_tape, capture_frames, frames_tape, read_capture, read_recording
from monitor.feeds.venues import PROFILES
from monitor.margin.prices import PriceKind
from monitor.wire.quotes import Quotes
from tests.support.shared import SHARED, needs_shared

T = 1_655_078_400_000
HEADER = "open_time,open,high,low,close,volume\n"


def moments(paths: list[Path], *, close_only: bool = False) -> list[tuple[float, int, dict[str, str]]]:
    """(seconds, time, marks) of a candle tape."""
    rows = []
    for offset, quotes in candle_tape(paths, close_only=close_only):
        assert isinstance(quotes, Quotes)
        rows.append((offset, quotes.time_ms, dict(quotes.numbers[PriceKind.MARK])))
    return rows


def test_a_candle_is_four_moments_in_the_order_of_its_direction(tmp_path: Path) -> None:
    """A rising candle goes open, low, high, close; a falling one open, high, low, close; evenly spaced, digits as in the file."""
    file = tmp_path / "AUSDT-1m-x.csv"
    file.write_text(f"{HEADER}{T},1.0,2.50,0.5,2.0,9\n{T + 60_000},2.0,2.6,1.0,1.5,9\n")

    assert moments([file]) == [
        (0.0, T, {"AUSDT": "1.0"}),
        (15.0, T + 15_000, {"AUSDT": "0.5"}),
        (30.0, T + 30_000, {"AUSDT": "2.50"}),
        (45.0, T + 45_000, {"AUSDT": "2.0"}),
        (60.0, T + 60_000, {"AUSDT": "2.0"}),
        (75.0, T + 75_000, {"AUSDT": "2.6"}),
        (90.0, T + 90_000, {"AUSDT": "1.0"}),
        (105.0, T + 105_000, {"AUSDT": "1.5"}),
    ]
    assert moments([file], close_only=True) == [(0.0, T + 60_000, {"AUSDT": "2.0"}), (60.0, T + 120_000, {"AUSDT": "1.5"})]


def test_symbols_are_merged_by_time_and_files_by_their_first_candle(tmp_path: Path) -> None:
    """Symbols that have a price at one time share a moment; files of a symbol follow each other in any order given."""
    late, early, other = (tmp_path / name for name in ("AUSDT-1m-2.csv.gz", "AUSDT-1m-1.csv.gz", "BUSDT-1m-1.csv"))
    late.write_bytes(gzip.compress(f"{T + 60_000},3,3,3,3\n".encode()))
    early.write_bytes(gzip.compress(f"{T},1,1,1,1\n".encode()))
    other.write_text(f"{T * 1000 + 60_000_000},7,7,7,7\n")  # microseconds

    rows = moments([late, other, early], close_only=True)

    assert rows == [(0.0, T + 60_000, {"AUSDT": "1"}), (60.0, T + 120_000, {"AUSDT": "3", "BUSDT": "7"})]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("AUSDT-1m.csv", "", ["file: empty"]),
        ("AUSDT-1m.csv", f"{T},1,2,0.5,x\n", [":1: close: x: expected a price > 0"]),
        ("AUSDT-1m.csv", f"{HEADER}{T},1,2,0,1\n", [":2: low: 0: expected a price > 0"]),
        ("AUSDT-1m.csv", f"{HEADER}{T},1\n", [":2: row", "open time,open"]),
        ("AUSDT-1m.csv", f"{T},1,1,1,1\n{T - 60_000},1,1,1,1\n", ["follow each other"]),
        ("prices.csv", f"{T},1,1,1,1\n", ["file name", "<SYMBOL>-<interval>"]),
    ],
)
def test_a_bad_candle_file_says_where(tmp_path: Path, name: str, text: str, words: list[str]) -> None:
    """The error names the file, the line and the column."""
    file = tmp_path / name
    file.write_text(text)

    with pytest.raises(ConfigError) as caught:
        moments([file])

    assert all(word in str(caught.value) for word in [str(file), *words])


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    """A path without a file is an error with the path in it; so is no path at all."""
    with pytest.raises(ConfigError, match="AUSDT-1m"):
        moments([tmp_path / "AUSDT-1m.csv"])
    with pytest.raises(ConfigError, match="at least one"):
        moments([])


def test_frames_keep_their_distance_and_never_go_back() -> None:
    """Offsets are seconds since the first frame; a receive clock that steps back holds still."""
    frames = [Frame(1_000_000_000, "", b"a"), Frame(3_500_000_000, "", b"b"), Frame(2_000_000_000, "", b"c")]

    assert list(frames_tape(frames)) == [(0.0, Sent("", b"a")), (2.5, Sent("", b"b")), (2.5, Sent("", b"c"))]


def test_answers_of_back_then_are_not_played() -> None:
    """With the venue's profile a frame goes to its own address, and confirmations and pongs stay out; notices and prices are played."""
    profile = PROFILES["bybit"]
    mark = b'{"topic":"tickers.BTCUSD","type":"snapshot","data":{"symbol":"BTCUSD","markPrice":"1"},"ts":1790143909000}'
    frames = [
        Frame(1_790_143_909_000_000_000, "linear", b'{"success":true,"ret_msg":"","req_id":"1","op":"subscribe"}'),
        Frame(1_790_143_909_000_000_000, "linear", b'{"success":true,"ret_msg":"pong","req_id":"2","op":"ping"}'),
        Frame(1_790_143_910_000_000_000, "inverse", mark),
        Frame(1_790_143_911_000_000_000, "linear", b"{"),
    ]

    assert list(frames_tape(frames, profile)) == [(1.0, Sent("/v5/public/inverse", mark)), (2.0, Sent("/v5/public/linear", b"{"))]


def test_a_capture_pairs_payloads_with_times(tmp_path: Path) -> None:
    """Line for line; a missing time is an error, not a shift."""
    payloads, times = tmp_path / "x.0.jsonl.gz", tmp_path / "x.0.recv_ts.gz"
    payloads.write_bytes(gzip.compress(b'{"a":1}\n[2]\n'))
    times.write_bytes(gzip.compress(b"1626916402.5\n1626916403\n"))

    assert list(capture_frames(payloads)) == [Frame(1626916402500000000, "", b'{"a":1}'), Frame(1626916403000000000, "", b"[2]")]

    times.write_bytes(gzip.compress(b"1626916402.5\n"))
    with pytest.raises(ValueError, match="shorter"):
        list(read_capture(payloads))


def test_a_damaged_recording_says_where(tmp_path: Path) -> None:
    """A line that is no recorded frame names file and line."""
    file = tmp_path / "x.frames.jsonl.gz"
    file.write_bytes(gzip.compress(b'{"t":1,"e":"","f":"x"}\n{"t":1}\n'))

    with pytest.raises(ConfigError, match=r"frames\.jsonl\.gz:2: frame"):
        list(read_recording(file))


@needs_shared
def test_real_candles_play_through() -> None:
    """Two days of two symbols give four moments a minute, both symbols in each, in rising time."""
    folder = SHARED / "data/series/binance_usdm_1m_2022_crashes"
    rows = moments([folder / f"{symbol}-1m-2022-11-0{day}.csv.gz" for symbol in ("BTCUSDT", "ETHUSDT") for day in (9, 8)])

    assert len(rows) == 2 * 1440 * 4
    assert all(set(marks) == {"BTCUSDT", "ETHUSDT"} for _offset, _time, marks in rows)
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    assert rows[0][2]["BTCUSDT"] == "20578.50"
