"""Unbiased statistics of per-sample gradients from their Gram matrix K_ij = g_i·g_j."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit.errors import InputError, NonFiniteError
from noisekit.gradients.record import GradientStatistics
from noisekit.noise.samples import MINIMUM_SAMPLES, as_samples

_CHUNK = 2**16


def gram_matrix(
    gradients: Tensor | dict[str, Tensor] | GradientStatistics, *, gram: bool | None = None
) -> Tensor:
    """Return K_ij = g_i·g_j, (sample, sample), float64.

    Arguments: ``gradients`` per-sample gradients (sample, coordinate), a dict of (sample, *parameter), a
    Gram matrix, or GradientStatistics collected with gram=True; ``gram`` whether a tensor is a Gram matrix,
    found by its symmetry when not given.
    Raises InputError for wrong shape or dtype or fewer than 8 samples, NonFiniteError for NaN or inf.
    """
    if isinstance(gradients, GradientStatistics):
        if gradients.gram is None:
            raise InputError("These gradient statistics hold no Gram matrix; collect them with gram=True.")
        gradients, gram = gradients.gram, True
    if isinstance(gradients, dict):
        if not gradients:
            raise InputError(
                "The dict of per-sample gradients is empty; it needs (sample, *parameter) tensors."
            )
        counts = {name: len(g) for name, g in gradients.items()}
        if len(set(counts.values())) > 1:
            raise InputError(f"The layers hold different numbers of samples, {counts}; pass one batch.")
        return torch.stack([gram_matrix(g.reshape(len(g), -1), gram=False) for g in gradients.values()]).sum(
            dim=0
        )
    samples = as_samples(gradients)
    if gram is None:
        gram = is_gram(samples)
    if gram:
        if not is_gram(samples):
            raise InputError(
                f"A Gram matrix is square and symmetric; this {tuple(samples.shape)} tensor is not. "
                "Pass gram=False for per-sample gradients (sample, coordinate)."
            )
        return samples.double()
    result = torch.zeros(len(samples), len(samples), dtype=torch.float64, device=samples.device)
    for part in samples.split(_CHUNK, dim=1):
        part = part.double()
        result.addmm_(part, part.T)
    return result


def is_gram(samples: Tensor) -> bool:
    """Return whether a matrix is square, symmetric to rounding, and nowhere negative on its diagonal."""
    n = len(samples)
    if samples.shape != (n, n) or bool((samples.diagonal() < 0).any()):
        return False
    size = samples.abs().max()
    return bool((samples - samples.T).abs().max() <= 1e-4 * size) and bool(size > 0)


@dataclass(frozen=True)
class GramMoments:
    """Trace of the per-sample covariance and |∇f|² of the true gradient, unbiased, with their errors."""

    trace: float
    """Tr Σ₁ = Σ_{i<j} |g_i − g_j|²/(N(N − 1))."""
    signal: float
    """|∇f|² = Σ_{i≠j} g_i·g_j/(N(N − 1)); it can come out negative."""
    covariance: tuple[float, float, float]
    """Var(trace), Cov(trace, signal), Var(signal)."""
    n_samples: int


def gram_moments(gram: Tensor) -> GramMoments:
    """Return trace and signal as U-statistics of degree 2 with their sampling covariance.

    Var U = (4(N − 2)ζ₁ + 2ζ₂)/(N(N − 1)) (Hoeffding 1948), ζ₁ from the row means of the kernels and ζ₂ from
    all of their pairs. ``gram`` is (sample, sample), not centred.
    """
    n = len(gram)
    if n < MINIMUM_SAMPLES:
        raise InputError(f"There are {n} samples; a noise scale needs at least {MINIMUM_SAMPLES}.")
    if not bool(torch.isfinite(gram).all()):
        raise NonFiniteError("The Gram matrix holds NaN or infinite values; drop those samples.")
    unit = float(gram.diagonal().max())
    if unit == 0:
        return GramMoments(0.0, 0.0, (0.0, 0.0, 0.0), n)
    gram = gram.double() / unit
    squared_norm = gram.diagonal()
    distance = (squared_norm[:, None] + squared_norm[None, :]) / 2 - gram
    kernels = torch.stack([distance, gram])
    off = ~torch.eye(n, dtype=torch.bool, device=gram.device)
    pairs = kernels[:, off].reshape(2, n, n - 1)
    value = pairs.mean(dim=(1, 2))
    centred = pairs - value[:, None, None]
    rows = centred.mean(dim=2)
    between = rows @ rows.T / (n - 1)
    pair = torch.einsum("aij,bij->ab", centred, centred) / (n * (n - 1))
    # A row mean carries ζ₂/(n−1) of its own partners besides ζ₁.
    first = (between - pair / (n - 1)) * ((n - 1) / (n - 2)) ** 2
    first = _positive(first)
    error = (4 * (n - 2) * first + 2 * pair) / (n * (n - 1))
    return GramMoments(
        trace=float(value[0]) * unit,
        signal=float(value[1]) * unit,
        covariance=(float(error[0, 0]) * unit**2, float(error[0, 1]) * unit**2, float(error[1, 1]) * unit**2),
        n_samples=n,
    )


def trace_of_square(gram: Tensor) -> float:
    """Return Tr Σ₁², unbiased for any law with fourth moments, from a Gram matrix (centred or not).

    A sum over distinct samples of (g_i·g_j)² − 2 (g_i·g_j)(g_j·g_k) + (g_i·g_j)(g_k·g_l).
    Source: Chen, Zhang, Zhong 2010, JASA 105:810.
    """
    n = len(gram)
    mean = gram.mean(dim=0)
    a = (gram - mean - mean[:, None] + mean.mean()).double()
    a = a - torch.diag(a.diagonal())
    rows = a.sum(dim=1)
    pairs = a.square().sum()
    chains = rows.square().sum() - pairs
    disjoint = rows.sum().square() - 4 * chains - 2 * pairs
    two = n * (n - 1)
    three = two * (n - 2)
    return float(pairs / two - 2 * chains / three + disjoint / (three * (n - 3)))


def _positive(matrix: Tensor) -> Tensor:
    """Return the nearest positive semi-definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0)) @ vectors.T
