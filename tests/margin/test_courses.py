"""The walk over piecewise polynomials finds the first change of sign, in either direction."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.margin.courses import Course, Node, Poly, crossing, crossing_numeric, first_root
from monitor.margin.numbers import EXACT, ZERO

D = Decimal
ONE = D(1)
HINGE = (ZERO,), ((ZERO, ZERO, ZERO), (ZERO, ONE, ZERO))
"""max(0, x)."""


def steps(*rows: tuple[str, str, str]) -> tuple[tuple[Decimal, ...], tuple[Poly, ...]]:
    """Levels and pieces of a function given as (start, constant, rate)."""
    return tuple(D(start) for start, _, _ in rows[1:]), tuple((D(k0), D(k1), ZERO) for _, k0, k1 in rows)


def test_a_straight_line_is_solved_in_closed_form() -> None:
    """10 - 2t changes sign at 5, seen from either side."""
    course = Course((D(10), D(-2), ZERO), [], [])

    assert crossing(course, ZERO, 1, None) == 5
    assert crossing(course, D(8), -1, ZERO) == 5
    assert crossing(course, ZERO, -1, D(-100)) is None


def test_a_root_is_looked_for_in_the_piece_where_it_lies() -> None:
    """100 - t - schedule(t): the rate doubles at 50, so the root is that of the second piece."""
    node = Node(*steps(("0", "0", "0.1"), ("50", "-5", "0.2")), ZERO, ONE)
    course = Course((D(100), -ONE, ZERO), [node], [(-ONE, node)])

    assert crossing(course, D(10), 1, None) == D(105) / D("1.2")


def test_a_jump_across_zero_is_found_at_the_floor() -> None:
    """A whole-position rate jumps at its floor: headroom changes sign there without being 0."""
    node = Node(*steps(("0", "0", "0.01"), ("100", "0", "0.9")), ZERO, ONE)
    course = Course((D(50), ZERO, ZERO), [node], [(-ONE, node)])

    assert crossing(course, D(10), 1, None) == 100


def test_a_root_exactly_where_pieces_meet_is_found() -> None:
    """A third has no exact decimal: the root at the end of a piece must not be lost to rounding."""
    with localcontext(EXACT):
        third = ONE / 3
        node = Node((third,), ((ZERO, ONE, ZERO), (third / -1, D(2), ZERO)), ZERO, ONE)
        course = Course((third, ZERO, ZERO), [node], [(-ONE, node)])

        found = crossing(course, ZERO, 1, None)

        assert found is not None
        assert abs(found - third) < D("1e-50")


def test_touching_zero_is_no_change_of_sign() -> None:
    """|t - 5| comes down to 0 and goes up again."""
    node = Node(*HINGE, D(-5), ONE)
    course = Course((D(5), -ONE, ZERO), [node], [(D(2), node)])

    assert crossing(course, ZERO, 1, None) is None


def test_nodes_may_feed_nodes() -> None:
    """A haircut on an amount that itself contains a weighted profit."""
    profit = Node((ZERO,), ((ZERO, ONE, ZERO), (ZERO, D("0.5"), ZERO)), D(-100), ONE)
    worth = Node((ZERO,), ((ZERO, D("1.25"), ZERO), (ZERO, D("0.8"), ZERO)), D(-20), ZERO, [(ONE, profit)])
    course = Course((ZERO, ZERO, ZERO), [profit, worth], [(ONE, worth)])

    assert crossing(course, D(200), -1, ZERO) == 140  # 0.5 * (t - 100) = 20


def test_the_limit_itself_is_not_reached() -> None:
    """A root at price 0 is none."""
    assert crossing(Course((ZERO, ONE, ZERO), [], []), D(5), -1, ZERO) is None


def test_zero_now_is_the_answer() -> None:
    """Where headroom is 0 already, nothing has to move."""
    assert crossing(Course((D(-5), ONE, ZERO), [], []), D(5), 1, None) == 5


def test_a_third_degree_is_refused() -> None:
    """A quadratic margin times a moving price does not fit."""
    node = Node((), ((ZERO, ZERO, ONE),), ZERO, ONE, price=(ZERO, ONE))

    with pytest.raises(ArithmeticError, match="third degree"):
        crossing(Course((ONE, ZERO, ZERO), [node], [(ONE, node)]), ONE, 1, None)


@given(st.integers(-50, 50), st.integers(1, 50), st.integers(-60, 60), st.sampled_from([1, -1]))
def test_quadratic_roots_are_the_nearest_ahead(low: int, gap: int, start: int, direction: int) -> None:
    """(t - a)(t - b): the first root strictly ahead, or none."""
    a, b = D(low), D(low + gap)
    t = D(start)
    ahead = [root for root in (a, b) if (root - t) * direction > 0]

    found = first_root((a * b, -(a + b), ONE), t, None, direction)

    expected = min(ahead, key=lambda root: abs(root - t), default=None)
    assert found == expected or (found is not None and expected is not None and abs(found - expected) < D("1e-20"))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=4, unique=True), st.integers(5, 100), st.integers(0, 600))
def test_the_first_change_of_sign_is_the_brute_one(floors: list[int], wealth: int, start: int) -> None:
    """Against a fine grid, on schedules with jumps."""
    rows = [("0", "0", "0.05")] + [(str(floor), "0", str(0.05 + 0.2 * place)) for place, floor in enumerate(sorted(floors), 1)]

    def at(t: Decimal) -> Decimal:
        rate = next(D(r) for f, _, r in reversed(rows) if t > D(f) or f == "0")
        return D(wealth) - rate * t

    node = Node(*steps(*rows), ZERO, ONE)
    course = Course((D(wealth), ZERO, ZERO), [node], [(-ONE, node)])
    begin = D(start) + D("0.25")
    found = crossing(course, begin, 1, None)
    safe = at(begin) > 0
    brute = next((t for k in range(20_000) if (at(t := begin + D(k) / 10) > 0) != safe), None)

    if brute is None:
        assert found is None or found > begin + 1999
    else:
        assert found is not None
        assert -D("0.11") <= found - brute <= D("0.0001")


def test_the_search_brackets_and_converges() -> None:
    """What is not polynomial is found to 25 digits."""
    stops = [D(k) / 2 for k in range(1, 9)]
    found = crossing_numeric(lambda t: t * t * t - 2, ZERO, stops)

    assert found is not None
    assert abs(found**3 - 2) < D("1e-24")
    assert crossing_numeric(lambda t: t + 1, ZERO, stops) is None
    assert crossing_numeric(lambda _t: None, ZERO, stops) is None
