"""How many steps an optimizer takes to fall, with what is not known about them."""

from __future__ import annotations

import math

import numpy as np

from noisekit.study.curvature import Curvature
from noisekit.study.intervals import Estimate, product
from noisekit.study.setting import Setting

_POINTS = 33


def strength(setting: Setting, curvature: Curvature) -> Estimate:
    """Return κ = pull·λ_max, which share of a displacement one step undoes, with its 95 % interval."""
    return product(
        (setting.pull(), *setting.pull_interval()), (curvature.value, curvature.lower, curvature.upper)
    )


def steps_to_fall(setting: Setting, curvature: Curvature | None) -> Estimate:
    """Return the steps to 1/e along the sharpest direction, NaN where the curvature is not known.

    The ends are the fewest and the most over the interval of κ, of which they are no monotone function.
    """
    if curvature is None:
        return math.nan, math.nan, math.nan
    value = setting.steps_to_fall(curvature.value)
    kappa, low, high = strength(setting, curvature)
    if not (low > 0 and high < math.inf):
        return value, math.nan, math.nan
    if low == high:
        return value, value, value
    within = np.geomspace(low, high, _POINTS) / kappa
    steps = [setting.steps_to_fall(curvature.value * float(factor)) for factor in within]
    return value, min(value, *steps), max(value, *steps)


def is_set_by_momentum(setting: Setting, curvature: Curvature) -> bool:
    """Return whether the displacement swings around 0: its decay is then that of the momentum alone."""
    hyper = setting.hyper
    share = 1 - hyper.momentum if hyper.optimizer.startswith("adam") else 1.0
    kappa = strength(setting, curvature)[0] * share
    return hyper.momentum > 0 and (1 + hyper.momentum - kappa) ** 2 < 4 * hyper.momentum
