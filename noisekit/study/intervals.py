"""95 % intervals of numbers that are made of others."""

from __future__ import annotations

import math

from noisekit._intervals import log_interval

Estimate = tuple[float, float, float]
"""A value and the ends of its 95 % interval."""


def interval(value: float, error: float) -> tuple[float, float]:
    """Return the 95 % interval of a positive number with a standard error, symmetric in its logarithm."""
    if not (value > 0 and error >= 0):
        return math.nan, math.nan
    return log_interval(value, 1.96 * error / value)


def product(*factors: Estimate) -> Estimate:
    """Return the product of independent positive estimates: their logarithms' ends add in quadrature.

    Both ends are NaN where one is not known.

    >>> [round(end, 2) for end in product((2.0, 1.0, 4.0), (3.0, 3.0, 3.0))]
    [6.0, 3.0, 12.0]
    """
    value = math.prod(factor[0] for factor in factors)
    if not value > 0 or any(math.isnan(low) or math.isnan(high) for _, low, high in factors):
        return value, math.nan, math.nan
    below = math.hypot(*(math.log(v / low) if low > 0 else math.inf for v, low, _ in factors))
    above = math.hypot(*(math.log(high / v) for v, _, high in factors))
    return value, *log_interval(value, below, above)


def inverse(factor: Estimate) -> Estimate:
    """Return one over a positive estimate."""
    value, low, high = factor
    return 1 / value, 1 / high, 1 / low if low > 0 else math.inf
