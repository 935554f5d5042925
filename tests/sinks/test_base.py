"""What all sinks share: counting, waiting, reading a row."""

from __future__ import annotations

import random

import pytest

from monitor.sinks.base import Backoff, Reason, Sink, SinkStatistics, read_body
from monitor.sinks.console import ConsoleSink
from monitor.wire.rows import Delivered, Refused, Row, Unavailable
from tests.support.events import row


def test_waiting_times_grow_spread_and_are_capped() -> None:
    """Each pause lies between half and the whole of an exponential, and never above the cap."""
    backoff = Backoff(random.Random(1).uniform, first_s=1.0, growth=2.0, most_s=8.0)

    pauses = [backoff.next() for _ in range(200)]

    for attempt, pause in enumerate(pauses):
        whole = min(2.0**attempt, 8.0)
        assert whole / 2 <= pause <= whole
    assert len(set(pauses)) == 200


def test_a_reset_starts_from_the_shortest_pause() -> None:
    """After a connection that held, the next pause is short again."""
    backoff = Backoff(max, first_s=1.0, growth=2.0)
    for _ in range(5):
        backoff.next()

    backoff.reset()

    assert backoff.next() == 1.0


def test_deliveries_are_counted_by_reason() -> None:
    """Each answer goes to its own counter, by reason."""
    statistics = SinkStatistics()
    for answer in (Delivered(), Unavailable(Reason.BUSY), Unavailable(Reason.BUSY), Refused(Reason.TOO_LARGE)):
        assert statistics.count(answer) is answer

    assert (statistics.delivered, statistics.unavailable, statistics.refused) == (1, {"busy": 2}, {"too_large": 1})


@pytest.mark.parametrize("data", [b"", b"[1]", b"nonsense", b'"text"'])
def test_a_row_that_is_no_object_cannot_be_read(data: bytes) -> None:
    """Only a JSON object is a body."""
    with pytest.raises(ValueError, match=r"not a JSON object|JSON|char|line"):
        read_body(Row(partition=0, seq=1, token=1, body=data, hash=""))


def test_a_sink_is_recognised_by_its_form() -> None:
    """The protocol is checked by form, without a base class."""
    assert isinstance(ConsoleSink(), Sink)
    assert read_body(row())["account"] == "acme-1"
