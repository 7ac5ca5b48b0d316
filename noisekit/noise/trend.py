"""Straight-line fits over a window of recorded steps, with errors that stand serial correlation."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

FEWEST_POINTS = 8


@dataclass(frozen=True)
class Line:
    """y = intercept + slope·x by least squares, with a 95 % interval for the slope."""

    slope: float
    interval: tuple[float, float]
    p_value: float
    """Two-sided, of slope 0."""
    n_points: int


def fit_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> Line:
    """Return the line through (x, y), (point,) each, with Newey–West errors of lag n^{1/3}.

    Successive steps of a run depend on each other, so ordinary errors would be too small.
    Source: Newey, West 1987, Econometrica 55:703, as statsmodels has it.
    """
    import statsmodels.api as sm

    n = len(x)
    with warnings.catch_warnings():
        # A perfect fit divides by a zero residual variance; the slope stands all the same.
        warnings.simplefilter("ignore", RuntimeWarning)
        fitted = sm.OLS(y, sm.add_constant(x, has_constant="add")).fit(
            cov_type="HAC", cov_kwds={"maxlags": int(n ** (1 / 3)), "use_correction": True}
        )
    slope, error = float(fitted.params[1]), float(fitted.bse[1])
    if not math.isfinite(error):
        error = 0.0
    quantile = float(stdtrit(n - 2, 0.975))
    p = float(2 * stdtr(n - 2, -abs(slope) / error)) if error > 0 else float(slope == 0)
    return Line(slope, (slope - quantile * error, slope + quantile * error), p, n)
