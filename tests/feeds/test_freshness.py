"""Ages, order and verdicts of names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.feeds.freshness import Freshness, Memory, StaleReason
from monitor.margin.prices import PriceKind
from monitor.wire.prices import PriceBatch

MARK = PriceKind.MARK
T = 1_700_000_000_000


def batch(names: list[str], times: list[int], *, received_ms: int = T + 10, prices: list[float] | None = None) -> PriceBatch:
    """Marks of one frame."""
    return PriceBatch(
        venue="v",
        kind=MARK,
        names=names,
        prices=prices or [1.0] * len(names),
        venue_times_ms=times,
        received_at_ns=received_ms * 1_000_000,
    )


def reasons(freshness: Freshness, now: float) -> dict[str, StaleReason | None]:
    """What one sweep tells."""
    return {change.name: change.reason for change in freshness.sweep(now)}


def test_a_name_is_stale_past_three_intervals_and_fresh_again_with_a_new_number() -> None:
    """One change is told when the limit is passed, none while it lasts, one when a newer number comes."""
    freshness = Freshness("v")
    freshness.expect(MARK, ["A"], 2.0, 0.0)
    freshness.admit(batch(["A"], [T]), 1.0)

    assert reasons(freshness, 7.0) == {}
    assert reasons(freshness, 7.01) == {"A": StaleReason.SILENT}
    assert reasons(freshness, 9.0) == {}
    assert freshness.stale == {(MARK, "A"): StaleReason.SILENT}

    freshness.admit(batch(["A"], [T + 1]), 9.5)

    assert reasons(freshness, 9.6) == {"A": None}
    assert freshness.stale == {}


def test_no_name_is_stale_before_three_seconds() -> None:
    """The floor holds for fast feeds."""
    freshness = Freshness("v")
    freshness.expect(MARK, ["A"], 0.1, 0.0)
    freshness.admit(batch(["A"], [T]), 0.0)

    assert reasons(freshness, 3.0) == {}
    assert reasons(freshness, 3.01) == {"A": StaleReason.SILENT}


def test_a_name_that_never_came_is_stale_after_the_grace() -> None:
    """A subscription that stays empty is told after 10 s."""
    freshness = Freshness("v")
    freshness.expect(MARK, ["A"], 1.0, 5.0)

    assert reasons(freshness, 15.0) == {}
    assert reasons(freshness, 15.01) == {"A": StaleReason.NEVER_SEEN}
    assert freshness.missing() == [(MARK, "A")]


def test_one_silent_name_among_others_is_found() -> None:
    """Each name has its own age."""
    freshness = Freshness("v")
    freshness.expect(MARK, ["A", "B"], 1.0, 0.0)
    for second in range(10):
        freshness.admit(batch(["A", "B"] if second < 3 else ["A"], [T + second] * (2 if second < 3 else 1)), float(second))

    assert reasons(freshness, 9.0) == {"B": StaleReason.SILENT}


def test_messages_with_a_frozen_event_time_do_not_count_as_new() -> None:
    """A venue that repeats the same event time is stale, though frames keep coming; the prices are still handed on."""
    freshness = Freshness("v")
    freshness.expect(MARK, ["A"], 1.0, 0.0)
    handed_on = [freshness.admit(batch(["A"], [T], prices=[float(1 + second)]), float(second)) for second in range(6)]

    assert all(handed_on)
    assert reasons(freshness, 5.0) == {"A": StaleReason.FROZEN}


def test_older_numbers_are_refused() -> None:
    """After a reconnect a venue may send what it had: nothing older than known gets through, what is newer does."""
    freshness = Freshness("v")
    freshness.admit(batch(["A", "B"], [T + 10, T + 10]), 0.0)
    kept = freshness.admit(batch(["A", "B", "C"], [T + 5, T + 11, T + 1], prices=[5.0, 6.0, 7.0]), 1.0)

    assert kept is not None
    assert (kept.names, kept.prices, kept.venue_times_ms) == (["B", "C"], [6.0, 7.0], [T + 11, T + 1])
    assert freshness.admit(batch(["A"], [T + 9]), 2.0) is None
    assert freshness.older == 2


def test_a_second_connection_brings_nothing_twice() -> None:
    """In strict order the same event time is a duplicate; otherwise it is handed on."""
    freshness = Freshness("v")
    freshness.admit(batch(["A"], [T]), 0.0, strict=True)

    assert freshness.admit(batch(["A"], [T]), 0.1, strict=True) is None
    assert freshness.duplicates == 1
    assert freshness.admit(batch(["A"], [T]), 0.1) is not None


def test_one_stamp_in_the_future_does_not_shut_a_name_out() -> None:
    """A time far ahead of our clock counts as at most 2 s ahead: true numbers are taken again 2 s later."""
    freshness = Freshness("v")
    freshness.admit(batch(["A"], [T + 3_600_000], received_ms=T), 0.0)

    assert freshness.admit(batch(["A"], [T + 1_000], received_ms=T + 1_000), 1.0) is None
    assert freshness.admit(batch(["A"], [T + 3_000], received_ms=T + 3_000), 3.0) is not None


def test_a_constant_clock_difference_costs_nothing() -> None:
    """A venue whose clock is 5 minutes ahead of ours stays fresh."""
    freshness = Freshness("v")
    for second in range(10):
        assert freshness.admit(batch(["A"], [T + 300_000 + second * 1000], received_ms=T + second * 1000), float(second)) is not None
    freshness.expect(MARK, ["A"], 1.0, 0.0)

    assert reasons(freshness, 9.0) == {}


def test_without_event_times_every_message_is_new() -> None:
    """A venue that gives no times is ordered by arrival."""
    freshness = Freshness("v")
    freshness.expect(MARK, ["A"], 1.0, 0.0)
    for second in range(6):
        assert freshness.admit(batch(["A"], [0]), float(second)) is not None

    assert reasons(freshness, 6.0) == {}


def test_while_no_connection_is_open_nothing_is_fresh_beyond_the_floor() -> None:
    """Names with a long interval are stale 3 s after the last socket went, not 30."""
    freshness = Freshness("v")
    freshness.expect(MARK, ["A"], 10.0, 0.0)
    freshness.admit(batch(["A"], [T]), 0.0)
    freshness.down_since = 1.0

    assert reasons(freshness, 4.0) == {}
    assert reasons(freshness, 4.1) == {"A": StaleReason.DISCONNECTED}


def test_a_refused_name_is_told_at_once() -> None:
    """A subscription the venue refuses needs no grace; accepted after all, the name is fresh with its first number, not before."""
    freshness = Freshness("v")
    freshness.expect(MARK, ["A"], 1.0, 0.0)
    freshness.refuse(MARK, ["A"], refused=True)

    assert reasons(freshness, 0.1) == {"A": StaleReason.REFUSED}

    freshness.refuse(MARK, ["A"], refused=False)

    assert reasons(freshness, 0.2) == {}

    freshness.admit(batch(["A"], [T]), 0.3)

    assert reasons(freshness, 0.4) == {"A": None}


def test_whatever_comes_is_watched_from_then_on() -> None:
    """On an all-symbols channel a name nobody asked for is watched once it came, and forgotten names are not."""
    freshness = Freshness("v")
    freshness.expect_whatever_comes(MARK, 1.0)
    freshness.admit(batch(["A", "B"], [T, T]), 0.0)

    assert reasons(freshness, 1.0) == {}
    assert reasons(freshness, 3.5) == {"A": StaleReason.SILENT, "B": StaleReason.SILENT}


def test_a_forgotten_name_is_not_told_and_comes_back_as_old_as_it_is() -> None:
    """What is no longer wanted is no longer looked at; wanted again, elsewhere, it is stale until a new number comes."""
    memory = Memory()
    freshness = Freshness("v", memory=memory)
    freshness.expect(MARK, ["A", "B"], 1.0, 0.0)
    freshness.admit(batch(["A"], [T]), 0.0)
    freshness.admit(batch(["B"], [T]), 19.0)
    assert reasons(freshness, 20.0) == {"A": StaleReason.SILENT}
    freshness.forget(MARK, ["A", "B"])

    assert reasons(freshness, 40.0) == {}
    assert freshness.stale == {}
    assert freshness.missing() == []

    other = Freshness("v", memory=memory)
    other.expect(MARK, ["A", "B"], 1.0, 40.0)

    assert reasons(other, 40.1) == {"B": StaleReason.SILENT}
    assert set(other.stale) == {(MARK, "A"), (MARK, "B")}

    other.admit(batch(["A", "B"], [T + 1, T + 1]), 41.0)

    assert reasons(other, 41.1) == {"A": None, "B": None}


@given(st.lists(st.tuples(st.sampled_from("ABC"), st.integers(min_value=T, max_value=T + 20)), min_size=1, max_size=30))
def test_what_is_admitted_never_goes_back(ticks: list[tuple[str, int]]) -> None:
    """Of each name the admitted event times never fall, and the newest is always admitted."""
    freshness = Freshness("v")
    admitted: dict[str, list[int]] = {}
    for name, time in ticks:
        kept = freshness.admit(batch([name], [time], received_ms=T + 30), 0.0)
        if kept is not None:
            admitted.setdefault(name, []).extend(kept.venue_times_ms)

    for name, times in admitted.items():
        assert times == sorted(times)
        assert times[-1] == max(time for other, time in ticks if other == name)
