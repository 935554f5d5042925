"""Exact numbers: one strict reader, one decimal context, one way to print.

Money is `decimal.Decimal` in the exact core. The engine's float64 columns only screen (docs/design.md, "Exactness").
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow

__all__ = ["EXACT", "NUMBER", "PRINTED", "ZERO", "decimal_of", "exact_of_float", "plain"]

EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])
"""Context of every exact evaluation: wide enough that sums and products of any document are exact; quotients carry 60 digits."""

PRINTED = Context(prec=40, rounding=ROUND_HALF_EVEN)
"""Numbers are printed exact or to 40 digits."""

ZERO = Decimal(0)

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,2})?", re.ASCII)
"""A JSON number with an exponent of at most two digits. `float` and `Decimal` accept far more ("NaN", "1_000", " 1", full-width digits)."""


def decimal_of(value: object) -> Decimal | None:
    """The exact number a JSON value stands for, or None when it is not one.

    A string must be a JSON number of at most 60 characters. A bare number stands for the shortest decimal that prints its float64, so an
    integer above 2**53 is rounded as every JSON reader would; its exponent has at most two digits. `bool` is not a number here. Negative
    zero is zero.
    """
    if type(value) is str:
        if len(value) > 60 or NUMBER.fullmatch(value) is None:
            return None
        number = Decimal(value)
    elif type(value) is int:
        if abs(value) >= 10**60:
            return None
        number = Decimal(value) if -(2**53) <= value <= 2**53 else Decimal(repr(float(value)))
    elif type(value) is float:
        if value != value or value in (float("inf"), float("-inf")):
            return None
        text = repr(value)
        if len(text) > 4 and text[-4] in "+-":  # an exponent of three digits
            return None
        number = Decimal(text)
    elif type(value) is Decimal:
        number = value
        if not number.is_finite():
            return None
    else:
        return None
    return number or ZERO


def exact_of_float(value: float) -> Decimal:
    """The shortest decimal that prints this float64: how a mark held in a column is read by the exact core.

    A venue's price string of at most 15 significant digits comes back unchanged; a longer one is the nearest float64 (relative 1.1e-16).
    """
    return Decimal(repr(value))


def plain(number: Decimal) -> str:
    """Plain notation without exponent, exact or to 40 digits, without trailing zeros: `0.00024393`, `-12`, `0`."""
    number = PRINTED.plus(number)
    if not number:
        return "0"
    text = str(number)
    if "E" in text:
        text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
