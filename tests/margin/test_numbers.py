"""One strict reader of numbers, one way to print them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.margin.numbers import decimal_of, exact_of_float, plain


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "1_000", " 1", "1 ", "+1", "01", "1.", ".5", "1e100", "1E+007", "１", "0x10", "", "-", "1" * 61]
)
def test_a_text_that_is_not_a_json_number_is_none(text: str) -> None:
    """Much that `Decimal` or `float` accept is not a number here."""
    assert decimal_of(text) is None


@pytest.mark.parametrize("value", [True, None, [], float("nan"), float("inf"), -float("inf"), Decimal("NaN"), 10**60])
def test_a_value_that_is_not_a_finite_number_is_none(value: object) -> None:
    """Booleans, non-finite and oversized values are refused."""
    assert decimal_of(value) is None


def test_values_stand_for_their_exact_decimals() -> None:
    """A string is exact, a float is the shortest decimal that prints it, and there is no negative zero."""
    assert decimal_of("0.10") == Decimal("0.1")
    assert decimal_of(0.1) == Decimal("0.1")
    assert decimal_of("1e-20") == Decimal("1e-20")
    assert decimal_of(-7) == Decimal(-7)
    assert str(decimal_of("-0.0")) == "0"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_comes_back_unchanged(value: float) -> None:
    """The decimal of a float64 is nearest to that float64."""
    assert float(exact_of_float(value)) == value


@given(st.integers(-(10**15) + 1, 10**15 - 1), st.integers(0, 8))
def test_a_price_of_fifteen_digits_survives_a_float_column(digits: int, places: int) -> None:
    """What a venue sends with at most 15 digits is read back as the very same decimal."""
    price = Decimal(digits).scaleb(-places)

    assert exact_of_float(float(price)) == price


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**15), max_value=10**15))
def test_plain_notation_reads_back(number: Decimal) -> None:
    """Printed without exponent and trailing zeros, and the same number."""
    text = plain(number)

    assert decimal_of(text) == number
    assert "e" not in text.lower()
    assert text == "0" or not ("." in text and text.endswith("0"))


def test_plain_keeps_forty_digits() -> None:
    """A quotient is printed to 40 digits."""
    assert plain(Decimal(1) / Decimal(3)).startswith("0.3333333333333333333333333333")
    assert plain(Decimal("1e-12")) == "0.000000000001"
    assert plain(Decimal("1.5e3")) == "1500"
    assert plain(Decimal("-0")) == "0"
