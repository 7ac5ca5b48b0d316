"""Numbers are short and carry their error."""

import doctest

import pytest

import noisekit.plots.numbers as numbers
from noisekit.plots.numbers import (
    format_count,
    format_interval,
    format_number,
    format_percent,
    format_with_error,
)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.0, 3, "0"),
        (3.14159265, 3, "3.14"),
        (0.99999, 3, "1.00"),
        (9999.6, 3, "10000"),
        (123456789.0, 3, "1.23×10⁸"),
        (-0.000012345, 2, "−1.2×10⁻⁵"),
        (float("nan"), 3, "–"),
        (float("-inf"), 3, "−∞"),
        (64.0, 2, "64"),
        (495.2, 2, "495"),
        (17738.0, 2, "18000"),
    ],
)
def test_numbers_have_few_digits(value, digits, text):
    assert format_number(value, digits) == text


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.23456, 0.0321, "1.23 ± 0.03"),
        (1.23456, 0.0996, "1.23 ± 0.10"),
        (1234.5, 17.0, "1234 ± 17"),
        (0.5, 0.0, "0.500"),
        (0.5, float("inf"), "0.500"),
        (1.5e-7, 2.0e-9, "(1.50 ± 0.02)×10⁻⁷"),
        (2.0e8, 1.3e6, "(2.000 ± 0.013)×10⁸"),
        (-0.02, 0.3, "−0.02 ± 0.30"),
        (0.05, 0.34, "0.05 ± 0.34"),
        (0.0608, 9.6e-5, "0.06080 ± 0.00010"),
    ],
)
def test_the_error_decides_the_digits(value, error, text):
    assert format_with_error(value, error) == text


def test_other_formats():
    assert format_interval(0.00123, 45.678) == "0.00123 to 45.7"
    assert format_percent(0.5) == "50 %"
    assert format_percent(0.9962) == "99.6 %"
    assert format_percent(0.0005) == "0.050 %"
    assert format_count(999) == "999"


def test_doctests_of_the_numbers():
    assert doctest.testmod(numbers).failed == 0
