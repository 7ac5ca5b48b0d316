"""The largest deviations from the median, which every extreme-value estimator reads."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisekit.errors import InputError


def default_k(n: int, estimator: str) -> int:
    """Return how many of n deviations count as tail: min(n/5, 3√n), √n for Hill, kept within [5, n/2]."""
    k = math.sqrt(n) if estimator == "hill" else min(0.2 * n, 3 * math.sqrt(n))
    return max(5, min(int(k), n // 2))


def check_k(k: int | None, n: int, estimator: str) -> int:
    """Return ``k`` if it is usable with n samples, the default if it is None."""
    if k is None:
        return default_k(n, estimator)
    if not isinstance(k, int) or not 5 <= k < n:
        raise InputError(f"k is {k!r}; of {n} samples a whole number from 5 to {n - 1} can count as tail.")
    return k


def largest_deviations(rows: Tensor, k: int) -> Tensor:
    """Return the k+1 largest |x − median| of each row, falling, float64; the last is the threshold.

    Rows are divided by their largest deviation, which no tail index depends on, so that any magnitude works.
    """
    deviation = (rows - rows.median(dim=1, keepdim=True).values).abs()
    top = torch.topk(deviation, k + 1, dim=1).values.double()
    return top / top[:, :1]


def alpha_from_shape(shape: Tensor) -> Tensor:
    """Return α = 1/ξ, inf for ξ ≤ 0 (lighter than any power law)."""
    return torch.where(shape > 0, 1 / shape.clamp_min(1e-12), torch.inf)
