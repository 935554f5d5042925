"""Finds where headroom changes sign while one number moves: exact, piece by piece.

Headroom along a course t is a sum of piecewise polynomials of degree at most 2. A `Node` is one of them: a function given by levels and
pieces, applied to an input that is itself affine in t, plus outputs of other nodes that are affine. `crossing` walks from the present t
in one direction, from one piece's end to the next, and solves each piece in closed form, so a jump at a tier's floor is found as well as
a root inside a tier. Each node keeps the piece it stands in and leaves it only at the piece's end: rounding can never make it step back
or pass an end unseen.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from decimal import Decimal

from monitor.margin.numbers import ZERO
from monitor.margin.schedules import Pieces

__all__ = ["Course", "Node", "Poly", "crossing", "crossing_numeric", "first_root"]

Poly = tuple[Decimal, Decimal, Decimal]
"""Coefficients (c0, c1, c2) of c0 + c1*t + c2*t^2."""

NOISE = Decimal("1e-45")
"""What rounding can move an input by, relative to its parts."""

FINE = Decimal("1e-30")
"""How narrow a searched root is bracketed by default, relative to it."""


class Node:
    """A piecewise polynomial of an affine input, optionally times a price that is affine in t.

    Attributes:
        levels, pieces: The function (see `schedules.TierTable`).
        start, slope: The input's own part, start + slope * t.
        children: Nodes whose outputs, times their factors, are added to the input; they must be affine there.
        price: (p0, p1): the output is multiplied by p0 + p1 * t.
        out: Coefficients of the output in t, for the piece it stands in.
        factor: What the output counts for in headroom; set by `Course`.
    """

    __slots__ = ("children", "factor", "index", "levels", "out", "pieces", "price", "slope", "start", "x0", "x1")

    def __init__(
        self,
        levels: tuple[Decimal, ...],
        pieces: Pieces,
        start: Decimal,
        slope: Decimal,
        children: Sequence[tuple[Decimal, Node]] = (),
        price: tuple[Decimal, Decimal] | None = None,
    ) -> None:
        self.levels, self.pieces = levels, pieces
        self.start, self.slope, self.children, self.price = start, slope, children, price
        self.index = 0
        self.x0, self.x1 = start, slope
        self.out: Poly = (ZERO, ZERO, ZERO)
        self.factor = ZERO

    def gather(self) -> None:
        """Adds up the input. Raises ArithmeticError when a child is not affine where it stands."""
        x0, x1 = self.start, self.slope
        for factor, child in self.children:
            c0, c1, c2 = child.out
            if c2:
                raise ArithmeticError("a course's inner node is not affine")
            x0 += factor * c0
            x1 += factor * c1
        self.x0, self.x1 = x0, x1

    def place(self, t: Decimal, direction: int) -> None:
        """Stands in the piece that holds just beyond t in the direction; at a level itself the upper one only when moving up."""
        self.gather()
        x = self.x0 + self.x1 * t
        self.index = bisect_right(self.levels, x) if self.x1 * direction > 0 else bisect_left(self.levels, x)
        self.settle()

    def settle(self) -> None:
        """Works out the output for the piece it stands in."""
        k0, k1, k2 = self.pieces[self.index]
        x0, x1 = self.x0, self.x1
        if k2:
            c0, c1, c2 = k0 + k1 * x0 + k2 * x0 * x0, k1 * x1 + 2 * k2 * x0 * x1, k2 * x1 * x1
        else:
            c0, c1, c2 = k0 + k1 * x0, k1 * x1, ZERO
        if self.price is not None:
            p0, p1 = self.price
            if c2 and p1:
                raise ArithmeticError("a course of the third degree")
            c0, c1, c2 = c0 * p0, c1 * p0 + c0 * p1, c2 * p0 + c1 * p1
        self.out = (c0, c1, c2)

    def end(self, t: Decimal, direction: int) -> Decimal | None:
        """The t at which it leaves its piece, not before the present one; None: never."""
        rising = self.x1 * direction
        if not rising:
            return None
        if rising > 0:
            if self.index >= len(self.levels):
                return None
            level = self.levels[self.index]
        else:
            if not self.index:
                return None
            level = self.levels[self.index - 1]
        found = (level - self.x0) / self.x1
        return found if (found - t) * direction > 0 else t

    def follow(self, t: Decimal, direction: int) -> None:
        """Gathers the input anew after a child changed its piece; where the child jumped, the piece is found anew too."""
        self.gather()
        moved = self.x1 * t
        x = self.x0 + moved
        noise = NOISE * (abs(self.x0) + abs(moved))
        above = self.levels[self.index] if self.index < len(self.levels) else None
        below = self.levels[self.index - 1] if self.index else None
        if (above is not None and x - above > noise) or (below is not None and below - x > noise):
            self.place(t, direction)

    def leave(self, direction: int) -> None:
        """Steps into the next piece."""
        self.index += 1 if self.x1 * direction > 0 else -1


class Course:
    """Headroom along t: a polynomial plus weighted nodes, in an order in which children come before parents."""

    __slots__ = ("base", "nodes")

    def __init__(self, base: Poly, nodes: Sequence[Node], sinks: Sequence[tuple[Decimal, Node]]) -> None:
        self.base, self.nodes = base, nodes
        for factor, node in sinks:
            node.factor += factor

    def place(self, t: Decimal, direction: int) -> Poly:
        """Stands just beyond t in the direction; headroom in t for the pieces that hold there."""
        c0, c1, c2 = self.base
        for node in self.nodes:
            node.place(t, direction)
            factor = node.factor
            if factor:
                k0, k1, k2 = node.out
                c0 += factor * k0
                c1 += factor * k1
                if k2:
                    c2 += factor * k2
        return c0, c1, c2


def value_at(poly: Poly, t: Decimal) -> Decimal:
    """c0 + c1*t + c2*t^2."""
    c0, c1, c2 = poly
    return c0 + t * (c1 + c2 * t) if c2 else c0 + c1 * t


def first_root(poly: Poly, t: Decimal, end: Decimal | None, direction: int) -> Decimal | None:
    """The root nearest to t, strictly beyond it in the direction and not beyond `end`."""
    c0, c1, c2 = poly
    if not c2:
        if not c1:
            return None
        root = -c0 / c1
        if direction > 0:
            return root if root > t and (end is None or root <= end) else None
        return root if root < t and (end is None or root >= end) else None
    square = c1 * c1 - 4 * c2 * c0
    if square < 0:
        return None
    # The stable form: no difference of nearly equal numbers.
    half = -(c1 + square.sqrt() if c1 >= 0 else c1 - square.sqrt()) / 2
    roots = [half / c2] + ([c0 / half] if half else [])
    ahead = [r for r in roots if (r - t) * direction > 0 and (end is None or (end - r) * direction >= 0)]
    return min(ahead, key=lambda r: (r - t) * direction, default=None)


def crossing(course: Course, t: Decimal, direction: int, limit: Decimal | None) -> Decimal | None:
    """The nearest t at which headroom changes sign, walking in one direction; None when it does not.

    Args:
        course: Headroom along t.
        t: Where it stands now.
        direction: +1 or -1.
        limit: Not beyond it, and not at it; None: without end.

    Returns:
        t itself when headroom is 0 there. A jump across 0 is where the piece ends.
    """
    nodes = course.nodes
    poly = course.place(t, direction)
    now = value_at(poly, t)
    if not now:
        return t
    safe = now > 0
    ends = [node.end(t, direction) for node in nodes]
    nested = any(node.children for node in nodes)
    rising = direction > 0
    while True:
        end = limit
        for leaves in ends:
            if leaves is not None and (end is None or (leaves < end if rising else leaves > end)):
                end = leaves
        root = first_root(poly, t, end, direction)
        if root is not None and root != end:
            return root
        if end is None or end == limit:
            return None
        t = end
        for place, leaves in enumerate(ends):
            if leaves == end or nested:
                poly = _step(nodes[place], t, direction, poly, leaves=leaves == end)
                ends[place] = nodes[place].end(t, direction)
        now = value_at(poly, t)
        if abs(now) > NOISE * (abs(poly[0]) + abs(poly[1] * t) + abs(poly[2] * t * t)):
            if (now > 0) != safe:
                return t
        else:  # a root where pieces meet: the next one says whether it is a change of sign
            onward = (poly[1] + 2 * poly[2] * t) * direction
            if onward and (onward > 0) != safe:
                return t


def _step(node: Node, t: Decimal, direction: int, poly: Poly, *, leaves: bool) -> Poly:
    """Takes a node over the end of a piece, its own or a child's, and gives headroom with its new output."""
    before = node.out
    if leaves:
        node.leave(direction)
    if node.children:
        node.follow(t, direction)
    node.settle()
    factor = node.factor
    if not factor:
        return poly
    (b0, b1, b2), (k0, k1, k2), (c0, c1, c2) = before, node.out, poly
    return c0 + factor * (k0 - b0), c1 + factor * (k1 - b1), c2 + factor * (k2 - b2)


def _bracketed(
    headroom: Callable[[Decimal], Decimal | None],
    left: Decimal,
    at_left: Decimal,
    right: Decimal,
    at_right: Decimal,
    tolerance: Decimal,
) -> Decimal | None:
    """The change of sign between two points, by false position with halving (Illinois)."""
    for _ in range(200):
        width = right - left
        if abs(width) <= tolerance * max(abs(left), abs(right)):
            break
        middle = left + width * (at_left / (at_left - at_right))
        if middle in (left, right):
            middle = left + width / 2
        at_middle = headroom(middle)
        if at_middle is None:
            return None
        if not at_middle:
            return middle
        if (at_middle > 0) != (at_right > 0):
            left, at_left = right, at_right
        else:
            at_left /= 2
        right, at_right = middle, at_middle
    return right


def crossing_numeric(
    headroom: Callable[[Decimal], Decimal | None], start: Decimal, stops: Sequence[Decimal], tolerance: Decimal = FINE
) -> Decimal | None:
    """The first change of sign of a function along `stops`, bracketed and then found.

    Args:
        headroom: The function; None where it cannot be told, which ends the search.
        start: Where it stands now.
        stops: Points in walking order. Two changes of sign between neighbours are not seen.
        tolerance: How narrow to bracket it, relative to its size.
    """
    left, at_left = start, headroom(start)
    if at_left is None:
        return None
    if not at_left:
        return start
    for right in stops:
        at_right = headroom(right)
        if at_right is None:
            return None
        if not at_right:
            return right
        if (at_left > 0) != (at_right > 0):
            return _bracketed(headroom, left, at_left, right, at_right, tolerance)
        left, at_left = right, at_right
    return None
