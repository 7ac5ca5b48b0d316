"""Tail index from the generalised Pareto law of the excesses over a high threshold (Zhang–Stephens)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gpd_shape(top: Tensor) -> tuple[Tensor, Tensor]:
    """Return the generalised Pareto shape ξ = 1/α of the excesses and its standard error (1 + ξ)/√k.

    P(excess > y) = (1 + ξy/σ)^{−1/ξ}. The estimate is the posterior mean over a grid of θ = −ξ/σ with a
    data-driven prior; unlike maximum likelihood it always exists.

    Args:
        top: falling deviations, (coordinate, k+1), the last of them the threshold.

    Source: Zhang, Stephens 2009 (Technometrics 51); error of maximum likelihood, Smith 1987.
    """
    excess = (top[:, :-1] - top[:, -1:]).flip(1)  # rising
    k = excess.shape[1]
    grid = 30 + int(math.sqrt(k))
    j = torch.arange(1, grid + 1, dtype=excess.dtype, device=excess.device)
    quarter = excess[:, int(k / 4 + 0.5) - 1].clamp_min(1e-12)
    theta = 1 / excess[:, -1:] + (1 - (grid / (j - 0.5)).sqrt()) / (3 * quarter[:, None])
    shapes = torch.stack([torch.log1p(-t[:, None] * excess).mean(1) for t in theta.unbind(1)], dim=1)
    log_likelihood = k * ((-theta / shapes).log() - shapes - 1)
    weight = torch.softmax(torch.nan_to_num(log_likelihood, nan=-torch.inf), dim=1)
    best = (weight * theta).sum(1, keepdim=True)
    shape = torch.log1p(-best * excess).mean(1)
    return shape, (1 + shape.clamp_min(-0.5)) / math.sqrt(k)
