"""The strict reader of prices."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.wire.price_text import BadNumber, number_of, price_of, prices_of

NOT_NUMBERS = [
    *("NaN", "nan", "Infinity", "-inf", "1_000", " 1", "1 ", "1\n", "\t1", "１２", "1,5", "0x10", "1e", "e5", ".5", "5.", "+1", "01", ""),
    *("1e999", "1e-999", "1" * 61, "--1", "1.2.3", "null", "true", "[1]", '"1"', "1]", "[1", "1;2", "٣"),
]


@pytest.mark.parametrize("text", NOT_NUMBERS)
def test_text_that_float_may_take_and_a_price_is_not(text: str) -> None:
    """Whatever is no JSON number of at most 60 characters is refused, alone and among good ones."""
    assert price_of(text) is BadNumber.NOT_A_NUMBER
    assert number_of(text) is None
    assert prices_of([text]) is None
    assert prices_of(["1.5", text, "2"]) is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("0", BadNumber.NOT_POSITIVE),
        ("-0", BadNumber.NOT_POSITIVE),
        ("0.0000", BadNumber.NOT_POSITIVE),
        ("-1.5", BadNumber.NOT_POSITIVE),
        ("1e-99", BadNumber.OUT_OF_RANGE),
        ("1" + "0" * 30, BadNumber.OUT_OF_RANGE),
        ("1e30", BadNumber.OUT_OF_RANGE),
        (0, BadNumber.NOT_POSITIVE),
        (-3.5, BadNumber.NOT_POSITIVE),
        (math.nan, BadNumber.OUT_OF_RANGE),
        (math.inf, BadNumber.OUT_OF_RANGE),
        (10**400, BadNumber.OUT_OF_RANGE),
        (True, BadNumber.NOT_A_NUMBER),
        (None, BadNumber.NOT_A_NUMBER),
        (["1"], BadNumber.NOT_A_NUMBER),
        (b"1", BadNumber.NOT_A_NUMBER),
    ],
)
def test_numbers_that_are_no_price(value: object, reason: BadNumber) -> None:
    """Zero, negative, tiny and huge numbers, and values of another type, are refused with their reason."""
    assert price_of(value) is reason
    assert prices_of([value]) is None
    assert prices_of([value, "1"]) is None


@pytest.mark.parametrize(
    ("value", "price"),
    [
        ("86716.30", 86716.3),
        ("1", 1.0),
        ("1e3", 1000.0),
        ("1.5E-2", 0.015),
        ("0.00000837", 8.37e-6),
        (3, 3.0),
        (0.1, 0.1),
        (2.5e10, 2.5e10),
    ],
)
def test_prices(value: object, price: float) -> None:
    """A price reads as the nearest float64, whether it comes as text or as a number."""
    assert price_of(value) == price
    assert prices_of([value, value]) == [price, price]


def test_a_value_cannot_hide_two() -> None:
    """Commas and brackets inside values do not trick the joined reading, also when their number evens out."""
    assert prices_of(["1,2", "3"]) is None
    assert prices_of(["[1", "2]", "3"]) is None
    assert prices_of(["[1", "2],3"]) is None
    assert prices_of(['"1', '2"', "3,4"]) is None
    assert prices_of([]) == []


@given(st.lists(st.one_of(st.sampled_from([*NOT_NUMBERS, "1", "2.50", "1e3"]), st.text(max_size=6), st.floats(), st.integers(), st.none())))
def test_a_frame_is_read_like_its_values(values: list[object]) -> None:
    """Reading a whole frame gives what reading value by value gives, or None when any of them is bad."""
    singly = [price_of(value) for value in values]
    expected = None if any(isinstance(price, BadNumber) for price in singly) else singly

    assert prices_of(values) == expected


@given(st.floats(min_value=1e-17, max_value=1e17), st.integers(min_value=0, max_value=17))
def test_every_decimal_of_a_venue_reads_as_the_nearest_float(price: float, decimals: int) -> None:
    """The text of a price reads as Python's own conversion of it."""
    text = f"{price:.{decimals}f}"
    if float(text) == 0 or len(text) > 60 or float(text) < 1e-18:
        return

    assert price_of(text) == float(text)
    assert prices_of([text]) == [float(text)]


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e17, max_value=1e17))
def test_rates_may_be_negative(rate: float) -> None:
    """A number of either sign reads back."""
    assert number_of(rate) == rate
    assert number_of(f"{rate:.8f}") == float(f"{rate:.8f}")
