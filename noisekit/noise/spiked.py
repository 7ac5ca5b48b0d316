"""Low-rank plus diagonal covariance from few samples in many dimensions, eigenvalues debiased."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit.errors import InputError

_FLIPS = 8


@dataclass(frozen=True)
class Spikes:
    """Leading eigenvalues of a covariance, as observed and debiased, and its low-rank part."""

    observed: Tensor
    """Eigenvalues of the sample covariance that stand out, (component,)."""
    eigenvalue: Tensor
    """Their debiased values, (component,)."""
    cosine: Tensor
    """Squared cosine between sample and true eigenvector, (component,)."""
    factor: Tensor
    """F (coordinate, component) with F Fᵀ the part of Σ that is not diagonal."""


def spikes(centred: Tensor, rank: int | None = None, seed: int = 0) -> Spikes:
    """Return the leading part of Σ from ``centred`` samples (sample, coordinate), through their Gram matrix.

    With n samples in d dimensions an eigenvalue ℓ of Σ is seen as λ > ℓ. From the bulk of the Gram spectrum,
    m(λ) = mean_j 1/(λ_j − λ):  ℓ̂ = −1/m(λ),  cos² = −m(λ)/(λ m'(λ)). For white noise of variance σ²
    this is λ = ℓ(1 + γσ²/(ℓ − σ²)), γ = d/n. Column k of F is √((ℓ̂_k − σ²)cos²_k) u_k, σ² the mean of
    what is left.

    Arguments: ``rank`` number of components; when None, those whose eigenvalue exceeds the largest of copies
    of the samples with random signs on every entry. Raises InputError for a rank out of range.
    Sources: Bai, Ding 2012, Random Matrices 1:1150011; Benaych-Georges, Nadakuditi 2011, arXiv 0910.2120;
    Hong, Sheng, Dobriban 2020, arXiv 2012.02985 (random signs).
    """
    n, d = centred.shape
    values, vectors = torch.linalg.eigh(centred @ centred.T / (n - 1))
    values, vectors = values.flip(0)[: n - 1].clamp(min=0), vectors.flip(1)[:, : n - 1]
    most = min(n - 2, d)
    if rank is None:
        rank = min(_count_above_flips(centred, values, seed), n // 2, most)
    elif not 0 <= rank <= most:
        raise InputError(f"rank is {rank}; {n} samples of {d} coordinates allow 0 to {most} components.")
    observed, bulk = values[:rank], values[rank:]
    gap = bulk[None, :] - observed[:, None]
    inverse = torch.where(gap < 0, 1 / gap, 0)
    m, slope = inverse.mean(dim=1), inverse.square().mean(dim=1)
    eigenvalue = torch.where(m < 0, -1 / m, observed)
    cosine = torch.where(slope > 0, -m / (observed * slope), 0).clamp(0, 1)
    rest = (centred.square().sum() / (n - 1) - eigenvalue.sum()).clamp(min=0) / max(d - rank, 1)
    direction = centred.T @ vectors[:, :rank] / torch.sqrt(observed * (n - 1))
    weight = ((eigenvalue - rest).clamp(min=0) * cosine).sqrt()
    return Spikes(observed, eigenvalue, cosine, direction * weight)


def _count_above_flips(centred: Tensor, values: Tensor, seed: int) -> int:
    """Return how many eigenvalues exceed the largest of the samples with random signs (parallel analysis)."""
    n = len(centred)
    generator = torch.Generator(device=centred.device).manual_seed(seed)
    tops = []
    for _ in range(_FLIPS):
        signs = torch.randint(2, centred.shape, generator=generator, device=centred.device, dtype=torch.int8)
        flipped = centred * (2 * signs - 1)
        tops.append(torch.linalg.eigvalsh(flipped @ flipped.T / (n - 1))[-1])
    top = torch.stack(tops)
    # A few copies give mean and spread of the largest null eigenvalue; 2.5 spreads leave few false ones.
    return int((values > top.mean() + 2.5 * top.std()).sum())
