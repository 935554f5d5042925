"""Ratios over time: the last points of the last accounts noted, no more."""

from __future__ import annotations

from monitor.page.history import History


def test_points_come_back_in_order_with_gaps() -> None:
    """An unknown ratio is kept as a gap."""
    history = History()
    for at, ratio in ((1.0, 0.5), (2.0, None), (3.0, 0.7)):
        history.note(at, [("a", ratio)])
    assert history.points("a") == [(1.0, 0.5), (2.0, None), (3.0, 0.7)]
    assert history.points("b") == []


def test_it_is_bounded_in_both_directions() -> None:
    """The oldest point and the account not noted for longest make room."""
    history = History(accounts=2, points=3)
    for at in range(5):
        history.note(at, [("a", 0.1)])
    assert [at for at, _ in history.points("a")] == [2, 3, 4]
    history.note(5, [("b", 0.2)])
    history.note(6, [("a", 0.1), ("c", 0.3)])
    assert history.points("b") == []
    assert len(history.points("a")) == 3 and len(history.points("c")) == 1
