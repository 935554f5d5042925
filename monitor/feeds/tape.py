"""Tapes: what a simulator plays. An iterator of (seconds since its start, quotes or one raw frame), from candles, recordings or a market.

Candles carry four prices and no order between high and low. They are played as four moments, evenly spaced over the candle: open; low and
high in the order that the candle's direction suggests (a rising candle falls first: open, low, high, close; a falling one rises first:
open, high, low, close); close. With `close_only` each candle gives one moment, at its end. The prices are what the file holds, usually
last trades: a replay shows what marks of that course would have done, not what the venue's own marks were.
"""

from __future__ import annotations

import base64
import csv
import gzip
import heapq
import io
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple
from urllib.parse import urlsplit

import orjson

from monitor.errors import CodecError, ConfigError
from monitor.feeds.profile import VenueProfile
from monitor.margin.prices import PriceKind
from monitor.wire.frames import Codec, Confirmed, Denied, Pong
from monitor.wire.price_text import BadNumber, price_of
from monitor.wire.quotes import Quotes

__all__ = ["Frame", "Moment", "Sent", "candle_tape", "capture_frames", "frames_tape", "read_capture", "read_recording"]


class Sent(NamedTuple):
    """One frame as it was sent, and the path of the address it came from; "" goes to every connection."""

    path: str
    data: bytes


Moment = tuple[float, Quotes | Sent]
"""Seconds since the tape's start, and what is sent then: quotes (the dialect makes frames of them) or one frame as it stands."""

_INTERVAL_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_COLUMNS = ("open", "high", "low", "close")


class Frame(NamedTuple):
    """One recorded frame: wall time of its receipt, the endpoint it came from ("" where unknown), its bytes."""

    received_at_ns: int
    endpoint: str
    data: bytes


class _Candle(NamedTuple):
    open_ms: int
    prices: tuple[str, ...]
    """open, high, low, close as the file has them"""


def candle_tape(paths: Sequence[Path], *, close_only: bool = False) -> Iterator[Moment]:
    """Candle files of one or more symbols, merged by time; each moment's quotes hold every symbol that has a price then.

    A file is `<SYMBOL>-<interval>[-<anything>].csv[.gz]` with the venue's columns: open time (ms or us), open, high, low, close, ...; the
    header line is optional. Several files of a symbol are played in the order of their first candle.

    Raises:
        ConfigError: A file that is not so: names the file, the line and the column. Files are read while playing: it may come late.
    """
    if not paths:
        raise ConfigError(source="tape", key="files", value="none", expected="at least one candle file")
    by_symbol: dict[str, list[tuple[int, Path, int]]] = {}
    for path in paths:
        symbol, interval_ms = _name_of(path)
        first = next(_candles(path), None)
        if first is None:
            raise ConfigError(source=str(path), key="file", value="empty", expected="at least one candle")
        by_symbol.setdefault(symbol, []).append((first.open_ms, path, interval_ms))
    lines = [_moments_of(symbol, sorted(files), close_only=close_only) for symbol, files in by_symbol.items()]
    start_ms: int | None = None
    for time_ms, rows in itertools.groupby(heapq.merge(*lines), key=lambda row: row[0]):
        start_ms = time_ms if start_ms is None else start_ms
        marks = {symbol: price for _time, symbol, price in rows}
        yield (time_ms - start_ms) / 1000, Quotes(time_ms=time_ms, numbers={PriceKind.MARK: marks})


def _name_of(path: Path) -> tuple[str, int]:
    """Symbol and interval of a candle file's name."""
    match = re.fullmatch(r"([A-Za-z0-9_]+)-([1-9][0-9]?)([smhdw])(?:-[^/]*)?\.csv(?:\.gz)?", path.name)
    if match is None:
        raise ConfigError(source=str(path), key="file name", value=path.name, expected="<SYMBOL>-<interval>[-...].csv or .csv.gz")
    return match[1].upper(), int(match[2]) * _INTERVAL_MS[match[3]]


def _moments_of(symbol: str, files: list[tuple[int, Path, int]], *, close_only: bool) -> Iterator[tuple[int, str, str]]:
    """(time ms, symbol, price) in order of time."""
    last = -1
    for _first, path, interval_ms in files:
        for candle in _candles(path):
            first_price, high, low, close = candle.prices
            if close_only:
                moments = [(candle.open_ms + interval_ms, close)]
            else:
                rising = float(close) >= float(first_price)
                course = (first_price, low, high, close) if rising else (first_price, high, low, close)
                moments = [(candle.open_ms + index * interval_ms // 4, price) for index, price in enumerate(course)]
            if moments[0][0] <= last:
                raise ConfigError(
                    source=str(path),
                    key="open time",
                    value=str(candle.open_ms),
                    expected=f"candles of {symbol} that follow each other in time",
                )
            for time_ms, price in moments:
                yield time_ms, symbol, price
            last = moments[-1][0]


def _candles(path: Path) -> Iterator[_Candle]:
    """The candles of one file, checked."""
    with _open_text(path) as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row or (number == 1 and not row[0].strip().isdigit()):
                continue  # a header
            if len(row) < 5 or not row[0].strip().isdigit():
                raise ConfigError(
                    source=str(path), line=number, key="row", value=",".join(row)[:80], expected="open time,open,high,low,close"
                )
            open_ms = int(row[0])
            if open_ms >= 10**14:  # since 2025 the venue's spot files are in microseconds
                open_ms //= 1000
            for column, text in zip(_COLUMNS, row[1:5], strict=True):
                if isinstance(price_of(text), BadNumber):
                    raise ConfigError(source=str(path), line=number, key=column, value=text[:40], expected="a price > 0")
            yield _Candle(open_ms, tuple(row[1:5]))


def _open_text(path: Path) -> IO[str]:
    try:
        if path.name.endswith(".gz"):
            return io.TextIOWrapper(gzip.open(path), encoding="utf-8", newline="")
        return path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise ConfigError(source=str(path), key="file", value=str(error.strerror), expected="a readable candle file") from None


def frames_tape(frames: Iterable[Frame], profile: VenueProfile | None = None) -> Iterator[Moment]:
    """Raw frames as they were received: seconds since the first one. A receive clock that went back does not go back here.

    `profile`: of the venue they are from. Then each goes to connections of the address it came from only, and the venue's answers to the
    requests of back then are left out: the simulator gives its own.
    """
    first: int | None = None
    last = 0.0
    codecs: dict[str, Codec] = {}
    for frame in frames:
        first = frame.received_at_ns if first is None else first
        last = max(last, (frame.received_at_ns - first) / 1e9)
        path = ""
        if profile is not None and frame.endpoint in profile.endpoints:
            path = urlsplit(profile.endpoints[frame.endpoint]).path
            if frame.endpoint not in codecs:
                codecs[frame.endpoint] = profile.codec(frame.endpoint)
            if _is_answer(codecs[frame.endpoint], frame):
                continue
        yield last, Sent(path, frame.data)


def _is_answer(codec: Codec, frame: Frame) -> bool:
    """Whether a frame only answers a request that nobody has made now."""
    try:
        decoded = codec.decode(frame.data, frame.received_at_ns)
    except CodecError:
        return False
    return not decoded.batches and any(isinstance(control, Confirmed | Denied | Pong) for control in decoded.controls)


def read_recording(path: Path) -> Iterator[Frame]:
    """Frames of one file written by `monitor.feeds.recorder`. A file cut off by a crash ends where its last whole line ends.

    Raises:
        ConfigError: A line in the middle that is not a recorded frame.
    """
    with path.open("rb") as file:
        for number, line in enumerate(_gunzip_lines(file), start=1):
            try:
                body = orjson.loads(line)
                data = body["f"].encode() if "f" in body else base64.b64decode(body["b"], validate=True)
                yield Frame(body["t"], body["e"], data)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ConfigError(
                    source=str(path),
                    line=number,
                    key="frame",
                    value=line[:60].decode("utf-8", "replace"),
                    expected='{"t": ns, "e": endpoint, "f": text}',
                ) from None


def _gunzip_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Whole lines of a gzip file that may have several members and may be cut off."""
    rest = b""
    unpacker = zlib.decompressobj(31)
    while chunk := file.read(1 << 16):
        while chunk:
            try:
                rest += unpacker.decompress(chunk)
            except zlib.error:
                return
            chunk = unpacker.unused_data
            if unpacker.eof:
                unpacker = zlib.decompressobj(31)
        *lines, rest = rest.split(b"\n")
        yield from (line for line in lines if line)


def read_capture(payloads: Path) -> Iterator[Frame]:
    """A capture of two files: `<name>.jsonl.gz` (one payload a line) and `<name>.recv_ts.gz` beside it (unix seconds, line for line)."""
    times = payloads.with_name(payloads.name.removesuffix(".jsonl.gz") + ".recv_ts.gz")
    with gzip.open(payloads) as data, gzip.open(times, "rt", encoding="ascii") as stamps:
        for line, stamp in zip(data, stamps, strict=True):
            yield Frame(round(float(stamp) * 1e9), "", line.rstrip(b"\n"))


def capture_frames(path: Path) -> Iterator[Frame]:
    """Frames of a recording or a capture, told apart by the file beside it."""
    if path.name.endswith(".jsonl.gz") and path.with_name(path.name.removesuffix(".jsonl.gz") + ".recv_ts.gz").exists():
        return read_capture(path)
    return read_recording(path)
