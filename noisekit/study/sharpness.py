"""The largest eigenvalue of the Hessian, by power iteration on differences of gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisekit.noise.hessian_products import power_iteration
from noisekit.problems import Problem, SampledProblem
from noisekit.study.curvature import Curvature

_PARTS = 8
_STUDENT_7 = 2.365
"""97.5 % quantile of Student's t with 7 degrees of freedom, one fewer than there are parts."""


def sharpness(problem: Problem, x: Tensor, *, iterations: int = 20, seed: int = 0) -> float:
    """Return an estimate of λ_max(∇²f(x)), largest in magnitude, from below.

    Hv ≈ (∇f(x + hv) − ∇f(x − hv))/2h with |v| = 1 and h = ε^{1/3}(1 + |x|), ε the precision of the dtype.

    Arguments: ``problem``; ``x`` (coordinate,); ``iterations`` products with H; ``seed`` of the first
    direction.
    """
    return _sharpest_direction(problem, x, iterations, seed)[0]


def measure_sharpness(
    problem: Problem,
    x: Tensor,
    *,
    whole: Problem | None = None,
    iterations: int = 20,
    seed: int = 0,
    where: str = "",
) -> Curvature:
    """Return λ_max with a 95 % interval: what power iteration left over, and what other samples would change.

    The upper end adds |Hv − λv|, within which an eigenvalue lies. Where ``problem`` has the first n of the N
    samples of ``whole``, λ is too high, because v was chosen on the same samples: the lower end is that of
    vᵀHv with as many other samples in it, which no direction can exceed by being chosen.

    Arguments: as for :func:`sharpness`; ``whole``, the problem on all samples, ``problem`` itself if not
    given; ``where`` says at which x and on which samples.
    """
    value, direction, step, residual = _sharpest_direction(problem, x, iterations, seed)
    other, error = value, 0.0
    if isinstance(problem, SampledProblem) and isinstance(whole, SampledProblem):
        unseen = 1 - problem.n_samples / whole.n_samples
        if unseen > 0:
            mean, half = _on_other_samples(whole, problem.n_samples, x, direction, step)
            other, error = value + unseen * (mean - value), unseen * half
    return Curvature(value, where, min(value, other) - error, max(value, other) + error + residual)


def _sharpest_direction(
    problem: Problem, x: Tensor, iterations: int, seed: int
) -> tuple[float, Tensor, Tensor, float]:
    """Return λ, its direction v (coordinate,), the length h of a difference, and |Hv − λv|."""
    h = torch.finfo(x.dtype).eps ** (1 / 3) * (1 + x.norm())

    def product(v: Tensor) -> Tensor:
        ahead, behind = problem.gradient(torch.stack([x + h * v, x - h * v])).unbind()
        return (ahead - behind) / (2 * h)

    start = torch.randn(len(x), generator=torch.Generator().manual_seed(seed)).to(x)
    value, direction, residual = power_iteration(product, start, iterations)
    return value, direction, h, residual


def _on_other_samples(whole: SampledProblem, n: int, x: Tensor, v: Tensor, h: Tensor) -> tuple[float, float]:
    """Return vᵀHv on up to n samples after the first n, and half its 95 % interval by eighths of them."""
    size = min(n, whole.n_samples - n) // _PARTS
    if size == 0:
        return math.nan, math.nan
    # Neighbours go to different parts.
    index = n + torch.arange(_PARTS * size, device=x.device).reshape(size, _PARTS).T
    both = torch.cat([(x + h * v).expand(_PARTS, -1), (x - h * v).expand(_PARTS, -1)])
    ahead, behind = whole.minibatch_gradient(both, torch.cat([index, index])).chunk(2)
    curvature = ((ahead - behind) / (2 * h)) @ v
    return float(curvature.mean()), _STUDENT_7 * float(curvature.std()) / math.sqrt(_PARTS)
