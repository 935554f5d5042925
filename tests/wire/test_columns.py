"""Columns of a frame to batches."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from monitor.margin.prices import PriceKind
from monitor.wire import columns as module
from monitor.wire.columns import Columns, column
from monitor.wire.frames import Decoded

NOW_NS = 1_700_000_000_000_000_000
NOW_MS = NOW_NS // 1_000_000


def read(columns: Columns, names: list[Any], values: list[Any], times: list[Any] | int) -> Decoded:
    """One frame of marks."""
    decoded = Decoded(NOW_NS)
    columns.prices(decoded, PriceKind.MARK, names, values, times)
    return decoded


def test_a_good_frame_is_one_batch() -> None:
    """All items of a good frame are taken, in its order, the first time and when the names are known."""
    for columns in (Columns("v"),):
        for _again in range(2):
            decoded = read(columns, ["B", "A"], ["2.5", "1"], [NOW_MS, NOW_MS])

            assert [(batch.names, batch.prices, batch.venue_times_ms) for batch in decoded.batches] == [
                (["B", "A"], [2.5, 1.0], [NOW_MS, NOW_MS])
            ]
            assert decoded.rejected is None


def test_bad_items_are_counted_and_the_others_used() -> None:
    """A bad price, name or time costs its own item only, and says which it was."""
    decoded = read(
        Columns("v"),
        ["A", "B", "C", None, "E F", "G", "H", ["x"], "I"],
        ["1", "NaN", "0", "1", "1", "1", "1", "1", 7],
        [NOW_MS, NOW_MS, NOW_MS, NOW_MS, NOW_MS, 1_700_000_000, NOW_MS + 10**9, NOW_MS, NOW_MS],
    )

    assert decoded.batches[0].names == ["A", "I"]
    assert decoded.rejected == {"not_a_number": 1, "not_positive": 1, "bad_name": 3, "bad_time": 2}


def test_a_frame_of_bad_items_is_no_batch() -> None:
    """No empty batch is made."""
    assert read(Columns("v"), ["A"], ["-1"], 0).batches == []
    assert read(Columns("v"), [], [], 0).batches == []


def test_the_last_of_a_doubled_name_counts() -> None:
    """A name that comes twice in one frame is in the batch once, with its last good number."""
    decoded = read(Columns("v"), ["A", "B", "A", "A"], ["1", "2", "3", "x"], NOW_MS)

    assert (decoded.batches[0].names, decoded.batches[0].prices) == (["B", "A"], [2.0, 3.0])


def test_a_venue_without_times_gives_zero() -> None:
    """Time 0 for all stands for no time; a zero among times is a bad one."""
    assert read(Columns("v"), ["A"], ["1"], 0).batches[0].venue_times_ms == [0]
    assert read(Columns("v"), ["A"], ["1"], [0]).rejected == {"bad_time": 1}


def test_names_are_bounded(monkeypatch: Any) -> None:
    """A venue that invents names without end is stopped at the bound; the known ones go on."""
    monkeypatch.setattr(module, "MOST_NAMES", 3)
    columns = Columns("v")
    read(columns, ["A", "B", "C"], ["1", "1", "1"], 0)

    decoded = read(columns, ["D", "A"], ["1", "2"], 0)

    assert decoded.batches[0].names == ["A"]
    assert decoded.rejected == {"too_many_names": 1}


def test_rates_are_handed_on_when_they_change() -> None:
    """A rate of either sign is given once; an empty one stands for none; a bad one is counted."""
    columns = Columns("v")
    given_rates = []
    for value in ("0.0001", "0.0001", "-0.0002", "", "x", "-0.0002"):
        decoded = Decoded(NOW_NS)
        columns.rates(decoded, PriceKind.FUNDING_RATE, ["A"], [value], NOW_MS)
        given_rates.append([batch.prices for batch in decoded.batches] or decoded.rejected)

    assert given_rates == [[[0.0001]], None, [[-0.0002]], None, {"not_a_number": 1}, None]


def test_moments_are_handed_on_when_they_change() -> None:
    """A moment as a number, as text or in ISO is given once; null, an empty text and 0 stand for none; what is no time in ms is counted."""
    columns = Columns("v")
    given_moments = []
    first = (1_790_150_400_000, "1790150400000", "2026-09-23T08:00:00.000Z")
    for value in (*first, 0, "0", "", None, 1_790_150_400, "soon", 1.5, 1_790_179_200_000):
        decoded = Decoded(NOW_NS)
        columns.moments(decoded, PriceKind.FUNDING_TIME, ["A"], [value], NOW_MS)
        given_moments.append([batch.prices for batch in decoded.batches] or decoded.rejected)

    bad = {"bad_time": 1}
    assert given_moments == [[[1_790_150_400_000.0]], None, None, None, None, None, None, bad, bad, bad, [[1_790_179_200_000.0]]]


def test_a_frame_that_repeats_its_rates_says_nothing_new() -> None:
    """The same rates of the same names once more are no batch; a bad one among them is counted every time."""
    columns = Columns("v")
    found = []
    for values in (["0.1", "0.2"], ["0.1", "0.2"], ["0.1", "0.3"], ["0.1", "x"], ["0.1", "x"]):
        decoded = Decoded(NOW_NS)
        columns.rates(decoded, PriceKind.FUNDING_RATE, ["A", "B"], values, NOW_MS)
        found.append(([(batch.names, batch.prices) for batch in decoded.batches], decoded.rejected))

    bad: tuple[list[Any], dict[str, int]] = ([], {"not_a_number": 1})
    assert found == [([(["A", "B"], [0.1, 0.2])], None), ([], None), ([(["B"], [0.3])], None), bad, bad]


def test_a_column_has_none_for_what_is_no_object() -> None:
    """Items that are no objects or lack the field give None."""
    assert column([{"a": 1}, {"b": 2}, 3, None, [4]], "a") == [1, None, None, None, None]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A", "B", "C", "", "x y", None, 3]),
            st.sampled_from(["1", "2.5", "0", "NaN", None, 1.5]),
            st.sampled_from([NOW_MS, NOW_MS + 1, 0, None, 1.5, "1"]),
        ),
        max_size=6,
    )
)
def test_the_short_way_gives_what_the_long_way_gives(rows: list[tuple[Any, Any, Any]]) -> None:
    """A frame read with names known and with names new gives the same batch and the same counts."""
    names, values, times = ([row[index] for row in rows] for index in range(3))
    knowing = Columns("v")
    read(knowing, ["A", "B", "C"], ["1", "1", "1"], 0)

    new, known = read(Columns("v"), names, values, times), read(knowing, names, values, times)

    assert (new.batches, new.rejected) == (known.batches, known.rejected)


def test_frames_with_the_same_names_share_their_list() -> None:
    """Ten minutes of frames that wait for Redis hold one list of names; another order or another name is a list of its own."""
    columns = Columns("v")
    read(columns, ["A", "B", "C"], ["1", "1", "1"], 0)
    first, second, other = (read(columns, list(names), ["2"] * len(names), 0).batches[0] for names in ("AB", "AB", "BA"))

    assert second.names is first.names
    assert (other.names, first.names) == (["B", "A"], ["A", "B"])
