"""Numbers of an ensemble with their Monte-Carlo errors."""

from __future__ import annotations

from math import floor, isfinite, log10

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Return the mean over replicates (the first axis) of ``values`` (replicate,), and its standard error."""
    known = values.double()
    return float(known.mean()), float(known.std() / len(known) ** 0.5)


def power_law(x: Array, y: Array, relative_error: Array) -> tuple[float, float]:
    """Return the slope of log y on log x by weighted least squares, and its standard error.

    The error is that of the Monte-Carlo errors of y; where the points scatter more than these allow, it is
    widened by √(χ²/(n − 2)), so that a bend of the law is not read as precision.
    """
    u, v = np.log(x), np.log(y)
    weight = 1 / np.square(relative_error)
    centre = (weight * u).sum() / weight.sum()
    spread = (weight * (u - centre) ** 2).sum()
    slope = (weight * (u - centre) * v).sum() / spread
    level = (weight * (v - slope * u)).sum() / weight.sum()
    excess = (weight * (v - level - slope * u) ** 2).sum() / max(len(u) - 2, 1)
    return float(slope), float(np.sqrt(max(1.0, excess) / spread))


def plus_minus(value: float, error: float) -> str:
    """Return ``value ± error`` with as many digits as the error allows.

    >>> plus_minus(1.98765, 0.0123), plus_minus(34.1, 2.0)
    ('1.988 ± 0.012', '34 ± 2')
    """
    if not isfinite(value) or not isfinite(error) or error <= 0:
        return f"{value:.3g}"
    place = floor(log10(error))
    if f"{error:e}"[0] == "1":
        place -= 1
    decimals = max(0, -place)
    if abs(value) < 1e-3 or abs(value) >= 1e5:
        return f"{value:.3g} ± {error:.1g}"
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"
