"""Numbers as a person reads them: two or three significant digits, no more than the uncertainty allows."""

from __future__ import annotations

import math


def format_number(value: float, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` significant digits.

    >>> format_number(0.0123456), format_number(123456.0), format_number(float("inf"))
    ('0.0123', '1.23×10⁵', '∞')
    """
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if digits < exponent < 5:
        return _minus(f"{round(value, digits - 1 - exponent):.0f}")
    if -4 < exponent < 5:
        return _minus(f"{value:.{max(digits - 1 - exponent, 0)}f}")
    return _scientific(value, digits - 1, exponent)


def format_with_error(value: float, error: float) -> str:
    """Return ``value ± error``: the error with one significant digit, or two where one says little.

    Two are shown when the error begins with 1, or is larger than the value.

    >>> format_with_error(0.31416, 0.0123), format_with_error(12.3456, 0.5)
    ('0.314 ± 0.012', '12.3 ± 0.5')
    """
    value, error = float(value), float(error)
    if not (math.isfinite(value) and math.isfinite(error)) or error <= 0:
        return format_number(value)
    two, one = float(f"{error:.1e}"), float(f"{error:.0e}")
    leading = two if _starts_with_one(two) else one
    digits = 2 if _starts_with_one(leading) or abs(value) < error else 1
    place = math.floor(math.log10(leading)) - digits + 1
    largest = max(abs(value), error)
    exponent = math.floor(math.log10(largest))
    if -4 < exponent < 5 and place > -7:
        decimals = max(-place, 0)
        return _minus(f"{value:.{decimals}f} ± {error:.{decimals}f}")
    scale = 10.0**exponent
    decimals = max(exponent - place, 0)
    return _minus(f"({value / scale:.{decimals}f} ± {error / scale:.{decimals}f})×10{_superscript(exponent)}")


def format_interval(low: float, high: float, digits: int = 3) -> str:
    """Return an interval as ``low to high``.

    >>> format_interval(1.234, 5.678)
    '1.23 to 5.68'
    """
    return f"{format_number(low, digits)} to {format_number(high, digits)}"


def format_percent(fraction: float, digits: int = 2) -> str:
    """Return a fraction as a percentage.

    >>> format_percent(0.01234), format_percent(1.0), format_percent(0.99999)
    ('1.2 %', '100 %', 'more than 99 %')
    """
    fraction = float(fraction)
    if not math.isfinite(fraction):
        return "–"
    if 0.9995 <= fraction < 1:
        return "more than 99 %"
    percent = 100 * fraction
    if 99 < percent < 100:
        return f"{percent:.1f} %"
    return f"{percent:.0f} %" if abs(percent) >= 10 else f"{format_number(percent, digits)} %"


def format_count(count: int) -> str:
    """Return a whole number with thin spaces between thousands.

    >>> format_count(1234567)
    '1\\u202f234\\u202f567'
    """
    return f"{int(count):,}".replace(",", "\u202f")


def plural(count: int, noun: str) -> str:
    """Return ``1 run``, ``2 runs``.

    >>> plural(1, "run"), plural(3, "run")
    ('1 run', '3 runs')
    """
    return f"{format_count(count)} {noun}{'' if count == 1 else 's'}"


def _starts_with_one(value: float) -> bool:
    return f"{value:e}"[0] == "1"


def _scientific(value: float, decimals: int, exponent: int) -> str:
    return _minus(f"{value / 10.0**exponent:.{decimals}f}×10{_superscript(exponent)}")


def _superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _minus(text: str) -> str:
    return text.replace("-", "−")
