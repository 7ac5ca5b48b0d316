"""Intervals of positive numbers; without torch, so that rooms that only read files start without it."""

from __future__ import annotations

import math


def log_interval(value: float, below: float, above: float | None = None) -> tuple[float, float]:
    """Return the ends of an interval in the logarithm: value·e^−below and value·e^above.

    Arguments: ``value`` > 0; ``below`` and ``above``, how far the ends of ln value lie from it, the same on
    both sides if one is given; NaN gives NaN, and a factor too large for a float gives 0 and inf.

    >>> [round(end, 2) for end in log_interval(3.0, math.log(2))]
    [1.5, 6.0]
    """
    above = below if above is None else above
    try:
        factor = math.exp(above)
    except OverflowError:
        factor = math.inf
    return value * math.exp(-below), value * factor
