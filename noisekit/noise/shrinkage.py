"""Shrinkage of a sample covariance towards a multiple of the identity."""

from __future__ import annotations

import torch
from torch import Tensor


def ledoit_wolf(centred: Tensor) -> float:
    """Return the Ledoit–Wolf weight δ of (1 − δ) S + δ μI for ``centred`` samples (sample, coordinate).

    μ = Tr S/d, δ = min(β², δ²)/δ² with δ² = |S − μI|²/d and β² = Σ_k |z_k z_kᵀ − S|²/(n² d), S = ZᵀZ/n.
    Works through the Gram matrix where there are fewer samples than coordinates.
    Source: Ledoit, Wolf 2004, J. Multivariate Analysis 88:365.
    """
    n, d = centred.shape
    norms = centred.square().sum(dim=1)
    square = _squared_frobenius(centred)
    mean = norms.sum() / (n * d)
    distance = square / d - mean.square()
    spread = (norms.square().sum() / n - square) / (n * d)
    if d == 1 or not bool(distance > 0):
        return 0.0
    return float(torch.clamp(spread / distance, 0.0, 1.0))


def oracle_approximating(centred: Tensor) -> float:
    """Return the OAS weight of (1 − δ) S + δ μI for ``centred`` Gaussian samples (sample, coordinate).

    δ = min(1, (α + μ²)/((n + 1)(α − μ²/d))), α = |S|²/d², μ = Tr S/d, S = ZᵀZ/n.
    Source: Chen, Wiesel, Eldar, Hero 2010, IEEE Trans. Signal Processing 58:5016; as in scikit-learn.
    """
    n, d = centred.shape
    square = _squared_frobenius(centred)
    alpha = square / d**2
    mean = centred.square().sum() / (n * d)
    denominator = (n + 1) * (alpha - mean.square() / d)
    if d == 1:
        return 0.0
    if not bool(denominator > 0):
        return 1.0
    return float(torch.clamp((alpha + mean.square()) / denominator, max=1.0))


def _squared_frobenius(centred: Tensor) -> Tensor:
    """Return |S|² of S = ZᵀZ/n, through the smaller of ZᵀZ and ZZᵀ."""
    n, d = centred.shape
    product = centred @ centred.T if n < d else centred.T @ centred
    return product.square().sum() / n**2
