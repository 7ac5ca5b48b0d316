"""What does not change along a path, in the shape in which it costs least to read."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from noisekit.noise.base import NoiseModel
from noisekit.noise.gaussian import GaussianNoise
from noisekit.noise.student_t import StudentTNoise
from noisekit.problems.linear_regression import LinearRegression
from noisekit.problems.quadratic import Quadratic

_WIDE = 4096
"""Coordinates from which constants are broadcast over the replicates."""
_SOLVABLE = 2000
"""Coordinates up to which the eigenvalues of a matrix take less than about a second."""

_QUIET = 1e-15
"""A σ under which x/σ may leave the range of float32."""


class Constants(NamedTuple):
    """1; σ (if Σ is diagonal), diag Σ and 1/√(2 diag Σ) of constant noise; λ of a diagonal quadratic loss.

    Adding a multiple of ``one`` costs less than adding a Python number, which torch wraps in a tensor first.
    """

    one: Tensor
    scale: Tensor | None = None
    variance: Tensor | None = None
    inverse: Tensor | None = None
    curvature: Tensor | None = None
    loud: bool = False
    """Whether σ is large enough everywhere to be a unit of x."""


def constants_of(noise: NoiseModel, gradient: Any, x: Tensor) -> Constants:
    """Return the constants of an equation for states like ``x``; None where something is not constant."""
    found = Constants(x.new_ones(()))
    if isinstance(noise, (GaussianNoise, StudentTNoise)):
        variance = noise.variance(x[:1])[0]
        floored = variance.clamp(min=1e-30)
        found = found._replace(
            scale=_spread(variance.sqrt(), x) if noise.independent else None,
            loud=bool(variance.min() > _QUIET**2),
            variance=_spread(floored, x),
            inverse=_spread((2 * floored).rsqrt_(), x),
        )
    hessian = diagonal_hessian(gradient)
    if (
        hessian is not None
        and hessian.shape == x.shape[1:]
        and (hessian.dtype, hessian.device) == (x.dtype, x.device)
    ):
        found = found._replace(curvature=_spread(hessian, x))
    return found


def diagonal_hessian(gradient: Any) -> Tensor | None:
    """Return λ (coordinate,) if ``gradient`` is that of a ``Quadratic`` with a diagonal Hessian."""
    owner = getattr(gradient, "__self__", None)
    if isinstance(owner, Quadratic) and getattr(gradient, "__func__", None) is Quadratic.gradient:
        return owner.hessian if owner.hessian.ndim == 1 else None
    return None


def largest_curvature(gradient: Any) -> float | None:
    """Return λ_max where ``gradient`` is that of a loss with one known Hessian, small enough to solve."""
    diagonal = diagonal_hessian(gradient)
    if diagonal is not None:
        return float(diagonal.max())
    owner, function = getattr(gradient, "__self__", None), getattr(gradient, "__func__", None)
    for kind in (Quadratic, LinearRegression):
        if isinstance(owner, kind) and function is kind.gradient and len(owner.x0) <= _SOLVABLE:
            return float(torch.linalg.eigvalsh(owner.hessian)[-1])
    return None


def _spread(values: Tensor, x: Tensor) -> Tensor:
    """Return ``values`` (coordinate,) as one number where all agree, else as (replicate, coordinate).

    On a CPU broadcasting a short row costs more than reading it; a long one, and one on a GPU, is left a row.
    """
    if bool((values == values[0]).all()):
        return values[0].clone()
    stays = x.shape[1] >= _WIDE or x.device.type != "cpu"
    return values if stays else values.expand_as(x).contiguous()
