"""Straight-line fits over a window of recorded steps, with errors that stand serial correlation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

FEWEST_POINTS = 8


@dataclass(frozen=True)
class Line:
    """y = intercept + slope·x by least squares, with a 95 % interval for the slope."""

    slope: float
    error: float
    """Standard error of the slope (Newey–West)."""
    interval: tuple[float, float]
    p_value: float
    """Two-sided, of slope 0."""
    n_points: int


def fit_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> Line:
    """Return the line through (x, y), (point,) each, with errors for serially correlated residuals.

    Newey–West with bandwidth M = 1.3√n and the critical value of its own limit law at b = M/n,
    1.96 + 2.9694b + .4160b² − .5324b³, which is wider than the normal one: with few points an error
    estimated from the same points is too small too often.
    Sources: Newey, West 1987, Econometrica 55:703; Kiefer, Vogelsang 2005, Econometric Theory 21:1130;
    Lazarus, Lewis, Stock, Watson 2018, J. Business & Economic Statistics 36:541 (the bandwidth).
    """
    n = len(x)
    centred = x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    residual = y - y.mean() - slope * centred
    bandwidth = min(math.ceil(1.3 * math.sqrt(n)), n)
    error = math.sqrt(_long_run_sum(centred * residual, bandwidth) * n / (n - 2)) / spread
    b = bandwidth / n
    critical = 1.96 + 2.9694 * b + 0.4160 * b**2 - 0.5324 * b**3
    p = float(2 * ndtr(-abs(slope) / error * 1.96 / critical)) if error > 0 else float(slope == 0)
    return Line(slope, error, (slope - critical * error, slope + critical * error), p, n)


def _long_run_sum(score: NDArray[np.float64], bandwidth: int) -> float:
    """Return the variance of the sum of ``score`` with Bartlett weights 1 − l/M."""
    total = float(score @ score)
    for lag in range(1, bandwidth):
        total += 2 * (1 - lag / bandwidth) * float(score[lag:] @ score[:-lag])
    return max(total, 0.0)
