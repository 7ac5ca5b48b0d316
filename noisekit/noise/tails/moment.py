"""The moment estimator of the tail index (Dekkers–Einmahl–de Haan)."""

from __future__ import annotations

import math

from torch import Tensor


def moment_shape(top: Tensor) -> tuple[Tensor, Tensor]:
    """Return ξ = M₁ + 1 − ½/(1 − M₁²/M₂) with M_r the mean of log^r(x_i/threshold), and its standard error.

    Hill's M₁ corrected so that light tails (ξ ≤ 0) are estimated too; error √(1 + ξ²)/√k for ξ ≥ 0.

    Args:
        top: falling deviations, (coordinate, k+1), the last of them the threshold.

    Source: Dekkers, Einmahl, de Haan 1989 (Annals of Statistics 17).
    """
    logs = (top[:, :-1] / top[:, -1:]).log()
    first, second = logs.mean(1), logs.square().mean(1)
    shape = first + 1 - 0.5 / (1 - first**2 / second)
    return shape, (1 + shape.clamp_min(0) ** 2).sqrt() / math.sqrt(logs.shape[1])
