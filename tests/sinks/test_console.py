"""The console: one line an event, and a reader who does not read stops nobody."""

from __future__ import annotations

import contextlib
import io
import os

from monitor.sinks.base import Reason
from monitor.sinks.console import ConsoleSink
from monitor.wire.rows import Delivered, Refused, Row, Unavailable
from tests.support.events import row


async def test_one_event_is_one_line() -> None:
    """Each row is one line with level, account, ratio and id."""
    stream = io.StringIO()
    sink = ConsoleSink(stream)

    assert [await sink.deliver(row(seq)) for seq in (1, 2)] == [Delivered(), Delivered()]

    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "MARGIN CALL acme-1 cross:USDT" in lines[0]
    assert "ratio=82.16%" in lines[0]
    assert "id=0/2-" in lines[1]


async def test_terminal_signs_in_names_are_shown_not_obeyed() -> None:
    """A line break or a colour code in a name stays inside its line, as an escape."""
    stream = io.StringIO()

    await ConsoleSink(stream).deliver(row(group="a\nMARGIN CALL b\x1b[31m\u202e"))

    assert len(stream.getvalue().splitlines()) == 1
    assert "a\\nMARGIN CALL b\\x1b[31m\\u202e" in stream.getvalue()


async def test_a_terminal_without_unicode_gets_escapes() -> None:
    """A stream that only knows ASCII gets every event all the same."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")

    assert await ConsoleSink(stream).deliver(row(group="Zürich")) == Delivered()
    assert b"Z\\xfcrich" in raw.getvalue()


async def test_a_full_pipe_is_unavailable_and_nothing_blocks() -> None:
    """When nobody reads the pipe the sink says so at once; when somebody does, the rows go on."""
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "w") as stream:
            sink = ConsoleSink(stream)
            answers = []
            for seq in range(1000):
                answers.append(await sink.deliver(row(seq)))
                if not isinstance(answers[-1], Delivered):
                    break

            assert isinstance(answers[-1], Unavailable)
            assert answers[-1].reason == Reason.BUSY
            assert len(answers) > 10
            text = b""
            while text.count(b"\n") < len(answers) - 1:
                text += os.read(reading, 1 << 20)
            assert await sink.deliver(row(len(answers))) == Delivered()
    finally:
        os.close(reading)


async def test_a_closed_pipe_is_unavailable() -> None:
    """When the reader has gone the row is not lost: it is offered again."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")

    answer = await ConsoleSink(stream).deliver(row())

    assert isinstance(answer, Unavailable)
    assert answer.reason == Reason.CLOSED
    with contextlib.suppress(BrokenPipeError):
        stream.close()


async def test_an_endless_line_is_cut_to_what_a_pipe_takes() -> None:
    """A line never gets longer than a pipe takes in one piece."""
    stream = io.StringIO()
    cause = {"kind": "stale", **{f"k{i}": "x" * 150 for i in range(100)}}

    await ConsoleSink(stream).deliver(row(cause=cause))

    assert len(stream.getvalue()) <= 4096
    assert stream.getvalue().endswith("...\n")


async def test_a_row_that_cannot_be_read_is_refused() -> None:
    """Bytes that are no event go to the dead letters, not round in circles."""
    answer = await ConsoleSink(io.StringIO()).deliver(Row(partition=0, seq=1, token=1, body=b"[]", hash=""))

    assert isinstance(answer, Refused)
