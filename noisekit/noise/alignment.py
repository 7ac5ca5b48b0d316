"""Does the noise live in the sharp directions of the loss? Σ beside the Hessian's leading eigenvectors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit._readable import Readable
from noisekit.errors import InputError, NonFiniteError
from noisekit.gradients.device import in_float64
from noisekit.noise.hessian_products import (
    differentiable_sample_losses,
    directional_derivatives,
    top_curvature,
)
from noisekit.noise.samples import as_samples
from noisekit.problems.base import SampledProblem


@dataclass(frozen=True, repr=False)
class HessianAlignment(Readable):
    """Noise variance along the sharpest directions v_k of the loss, for per-sample gradients."""

    curvature: Tensor
    """Largest eigenvalues of ∇²f, descending, (component,)."""
    variance: Tensor
    """v_kᵀ Σ₁ v_k, (component,), in squared gradient units."""
    variance_interval: Tensor
    """95 %, from the fourth moment of the projections, (component, 2)."""
    share: float
    """Σ_k v_kᵀ Σ₁ v_k / Tr Σ₁."""
    excess: float
    """``share`` over k/d, what isotropic noise would have: 1 is no alignment."""
    correlation: float
    """Correlation of log curvature and log variance over the directions; NaN for k < 3."""
    n_samples: int

    @property
    def verdict(self) -> str:
        """One sentence."""
        k = len(self.curvature)
        how = "aligned" if self.excess > 2 else "turned away" if self.excess < 0.5 else "as chance has it"
        share = f"{self.share:.0%} of the variance in the {k} sharpest directions"
        return f"{share}, {self.excess:.3g}× chance: {how}"

    def __str__(self) -> str:
        return self.verdict


def hessian_alignment(
    problem: SampledProblem, x: Tensor, *, k: int = 5, samples: Tensor | None = None, seed: int = 0
) -> HessianAlignment:
    """Return how much of the per-sample noise lies along the ``k`` sharpest directions of the loss at ``x``.

    Curvature by Lanczos on Hessian-vector products. Projections v_kᵀ∇ℓ_i need no per-sample gradient on a
    network: they are directional derivatives of the sample losses.

    Arguments: ``problem`` with samples; ``x`` (coordinate,); ``samples`` per-sample gradients
    (sample, coordinate) to use instead of the problem's own, at x.
    Raises InputError for k out of range or shapes that do not match.
    Source: Sagun et al. 2017, arXiv 1706.04454; Zhu et al. 2019, arXiv 1803.00195.
    """
    if not isinstance(problem, SampledProblem):
        raise InputError(f"{type(problem).__name__} has no samples, so no per-sample gradients.")
    here = problem.x0
    if x.shape != here.shape:
        raise InputError(
            f"x has shape {tuple(x.shape)}; the alignment is at one point, (coordinate,), here {len(here)}."
        )
    x = x.detach().to(here)
    if not bool(torch.isfinite(x).all()):
        raise NonFiniteError("x holds NaN or infinite values; there is no Hessian there.")
    curvature, vectors = top_curvature(problem, x, k, seed=seed)
    losses = differentiable_sample_losses(problem)
    if samples is not None:
        given = as_samples(samples)
        if given.shape[1] != len(x):
            raise InputError(
                f"samples has {given.shape[1]} coordinates but x has {len(x)}; pass all of them."
            )
        projected, total = given @ vectors.to(given), float(given.var(dim=0).sum())
    elif losses is not None:
        projected, total = directional_derivatives(losses, x, vectors), _total_variance(problem, x)
    else:
        rows = problem.per_sample_gradients(x[None])[0]
        projected, total = rows @ vectors, float(rows.var(dim=0).sum())
    projected = in_float64(projected.detach())
    n = len(projected)
    centred = projected - projected.mean(dim=0)
    variance = centred.square().sum(dim=0) / (n - 1)
    error = ((centred.square() - variance).square().mean(dim=0) / n).sqrt()
    share = float(variance.sum()) / total if total > 0 else float("nan")
    logs = torch.stack(
        [curvature.cpu().double().clamp(min=1e-300).log(), variance.cpu().clamp(min=1e-300).log()]
    )
    return HessianAlignment(
        curvature=curvature,
        variance=variance,
        variance_interval=torch.stack(
            [(variance - 1.96 * error).clamp(min=0), variance + 1.96 * error], dim=1
        ),
        share=share,
        excess=share * len(x) / k,
        correlation=float(torch.corrcoef(logs)[0, 1]) if k >= 3 else float("nan"),
        n_samples=n,
    )


def _total_variance(problem: SampledProblem, x: Tensor) -> float:
    mean, second = problem.gradient_moments(x[None])
    n = problem.n_samples
    return float((second - mean.square()).sum()) * n / max(n - 1, 1)
