"""The level of a training curve where a record ends, from its last batches."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from noisekit._intervals import log_interval

Array = NDArray[np.float64]
MOST_STEPS = 16
FEWEST_STEPS = 5


def level_at_end(step: Array, values: Array) -> tuple[float, float, float]:
    """Return what a loss or a norm is at the last step on average, and the ends of its 95 % interval.

    The straight line through ln y over the last half of the record, 5 to 16 steps, taken at the last one,
    with Student's interval of its residuals; through y itself if some value is not positive. exp of a mean
    logarithm is too low, which the mean of exp(residual) mends. The interval covers the scatter of batches.
    With fewer than 5 steps the last value stands alone, and both ends are NaN.

    Arguments: ``step`` and ``values``, (step,). Source of the mean of exp(residual): Duan 1983, J. American
    Statistical Association 78:605.

    >>> round(level_at_end(np.arange(6.0), 3 * 0.5 ** np.arange(6.0))[0], 5)  # 3/32
    0.09375
    """
    read = slice(-min(MOST_STEPS, max(FEWEST_STEPS, len(values) // 2)), None)
    step, values = np.asarray(step, float)[read], np.asarray(values, float)[read]
    if len(values) == 0:
        return math.nan, math.nan, math.nan
    if len(values) < FEWEST_STEPS or not np.isfinite(values).all() or step[-1] == step[0]:
        return float(values[-1]), math.nan, math.nan
    in_logarithms = bool((values > 0).all())
    y = np.log(values) if in_logarithms else values
    n, x = len(y), step - step.mean()
    slope = float(x @ y) / float(x @ x)
    level = float(y.mean()) + slope * x[-1]
    residual = y - y.mean() - slope * x
    deviation = math.sqrt(float(residual @ residual) / (n - 2))
    half = float(stdtrit(n - 2, 0.975)) * deviation * math.sqrt(1 / n + x[-1] ** 2 / float(x @ x))
    if not in_logarithms:
        return level, level - half, level + half
    value = math.exp(level) * float(np.exp(residual).mean())
    return value, *log_interval(value, half)
