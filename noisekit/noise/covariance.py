"""The covariance of gradient noise from samples: diagonal, dense and shrunk, or low-rank plus diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from noisekit._readable import Readable, typical
from noisekit.errors import InputError, unknown_name
from noisekit.noise.base import check_batch_size
from noisekit.noise.gaussian import GaussianNoise
from noisekit.noise.samples import as_samples
from noisekit.noise.shrinkage import ledoit_wolf, oracle_approximating
from noisekit.noise.spiked import spikes

_SHRINKAGE = {"ledoit_wolf": ledoit_wolf, "oas": oracle_approximating}
_MOST_DENSE = 20_000


@dataclass(frozen=True, repr=False)
class NoiseCovariance(Readable):
    """An estimated covariance Σ of gradient noise, in squared gradient units and float64."""

    kind: str
    """"diagonal", "low_rank" or "dense"."""
    n_samples: int
    batch_size: int
    """B of one sample: Σ is the covariance of a mean of that many per-sample gradients."""
    variance: Tensor
    """diag Σ, (coordinate,)."""
    matrix: Tensor | None
    """Σ, (coordinate, coordinate), of the dense kind."""
    factor: Tensor | None
    """F, (coordinate, component), of the low-rank kind: Σ = diag(variance − ΣF²) + F Fᵀ."""
    eigenvalue: Tensor | None
    """Eigenvalues, descending: the debiased leading ones if low-rank, all if dense, (component,)."""
    observed_eigenvalue: Tensor | None
    """Those of the sample covariance before debiasing, of the low-rank kind, (component,)."""
    shrinkage: float | None
    """Weight of the identity, where shrinkage was asked for."""

    @property
    def trace(self) -> float:
        """Tr Σ."""
        return float(self.variance.sum())

    def dense(self) -> Tensor:
        """Return Σ as a matrix, (coordinate, coordinate)."""
        if self.matrix is not None:
            return self.matrix
        if self.factor is None:
            return torch.diag(self.variance)
        return torch.diag(self._diagonal()) + self.factor @ self.factor.T

    def noise(self, batch_size: int | None = None, *, population_size: int | None = None) -> GaussianNoise:
        """Return Gaussian noise with this covariance at ``batch_size`` (its own if not given).

        Σ_B = Σ B₀/B for batches drawn with replacement. With ``population_size`` N they are drawn without:
        Σ_B = S²/B · (1 − B/N), S² the unbiased per-sample covariance, which is Σ₁/B · (N − B)/(N − 1) with
        Σ₁ = S²(N − 1)/N that of the population.
        """
        size = check_batch_size(batch_size) or self.batch_size
        ratio = self.batch_size / size
        if population_size is not None:
            if self.batch_size != 1:
                raise InputError(
                    f"These samples are means of {self.batch_size}; the finite-population correction needs "
                    "per-sample gradients (batch_size=1)."
                )
            if size > population_size:
                raise InputError(f"batch_size {size} exceeds the population of {population_size}.")
            ratio *= 1 - size / population_size
        known = size if population_size is None else None
        if self.matrix is not None:
            values, vectors = torch.linalg.eigh(self.matrix * ratio)
            return GaussianNoise(factor=vectors * values.clamp(min=0).sqrt(), batch_size=known)
        if self.factor is not None and self.factor.shape[1]:
            scale = (self._diagonal() * ratio).sqrt()
            return GaussianNoise(scale, factor=self.factor * ratio**0.5, batch_size=known)
        return GaussianNoise((self.variance * ratio).sqrt(), batch_size=known)

    def _diagonal(self) -> Tensor:
        assert self.factor is not None
        return (self.variance - self.factor.square().sum(dim=1)).clamp(min=0)

    def __str__(self) -> str:
        text = (
            f"{self.kind}, {len(self.variance)} coordinates from {self.n_samples} samples at B = "
            f"{self.batch_size}\nTr Σ {self.trace:.3g}, variance {typical(self.variance)}"
        )
        if self.shrinkage is not None:
            text += f", shrinkage {self.shrinkage:.3g}"
        if self.eigenvalue is not None:
            what = "eigenvalues" if self.kind == "dense" else "components"
            largest = ", ".join(f"{v:.3g}" for v in self.eigenvalue[:5].tolist())
            text += f"\n{len(self.eigenvalue)} {what}" + (f", the largest {largest}" if largest else "")
        return text


def noise_covariance(
    samples: Tensor,
    *,
    kind: Literal["diagonal", "low_rank", "dense"] = "diagonal",
    shrinkage: Literal["ledoit_wolf", "oas"] | None = None,
    rank: int | None = None,
    batch_size: int = 1,
) -> NoiseCovariance:
    """Return the covariance of gradient samples; their mean is taken out.

    ``diagonal``: S_jj = Σ_i (g_ij − ḡ_j)²/(n − 1). ``low_rank``: diag + F Fᵀ with the eigenvalues that stand
    out of the Gram matrix, debiased, and diag Σ = diag S. ``dense``: S, or (1 − δ) S' + δ (Tr S'/d) I with
    S' = (n − 1)/n S when shrunk, as scikit-learn has it.

    Arguments: ``samples`` (sample, coordinate) in gradient units, at one point; ``shrinkage`` for the dense
    kind; ``rank`` for the low-rank kind, found from the data when None; ``batch_size`` B of one sample.
    Raises InputError for a wrong shape, fewer than 8 samples, an unknown kind, or a dense matrix that is
    too large; NonFiniteError for NaN or infinite samples.
    Sources: Ledoit, Wolf 2004; Chen et al. 2010 (OAS); Bai, Ding 2012 (eigenvalues).

    >>> noise_covariance(torch.arange(8.0)[:, None]).variance
    tensor([6.], dtype=torch.float64)
    """
    if kind not in ("diagonal", "low_rank", "dense"):
        raise unknown_name("kind of covariance", kind, ("diagonal", "low_rank", "dense"))
    if shrinkage is not None and shrinkage not in _SHRINKAGE:
        raise unknown_name("shrinkage", shrinkage, _SHRINKAGE)
    if shrinkage is not None and kind != "dense":
        raise InputError(f"shrinkage={shrinkage!r} is for kind='dense'; a {kind} covariance is not shrunk.")
    if rank is not None and kind != "low_rank":
        raise InputError(f"rank={rank} is for kind='low_rank'; kind is {kind!r}.")
    if rank is not None and rank != int(rank):
        raise InputError(f"rank is {rank}; it is a whole number of components.")
    size = check_batch_size(batch_size) or 1
    values = as_samples(samples)
    n, d = values.shape
    if kind == "dense" and d > _MOST_DENSE:
        raise InputError(
            f"A dense covariance of {d} coordinates takes {8 * d * d / 2**30:.0f} GiB; use kind='low_rank'."
        )
    centred = values.double()
    centred = centred - centred.mean(dim=0)
    variance = centred.square().sum(dim=0) / (n - 1)
    if kind == "diagonal":
        return NoiseCovariance(kind, n, size, variance, None, None, None, None, None)
    if kind == "low_rank":
        found = spikes(centred, rank)
        return NoiseCovariance(
            kind, n, size, variance, None, found.factor, found.eigenvalue, found.observed, None
        )
    matrix, weight = centred.T @ centred / (n - 1), None
    if shrinkage is not None:
        unit = float(centred.abs().max()) or 1.0
        weight = _SHRINKAGE[shrinkage](centred / unit)
        matrix = (1 - weight) * matrix * ((n - 1) / n)
        matrix.diagonal().add_(weight * float(variance.mean()) * ((n - 1) / n))
    eigenvalue = torch.linalg.eigvalsh(matrix).flip(0)
    return NoiseCovariance(kind, n, size, matrix.diagonal().clone(), matrix, None, eigenvalue, None, weight)


def block_covariances(
    samples: Tensor,
    block: Sequence[str],
    *,
    kind: Literal["diagonal", "low_rank", "dense"] = "diagonal",
    shrinkage: Literal["ledoit_wolf", "oas"] | None = None,
    batch_size: int = 1,
) -> dict[str, NoiseCovariance]:
    """Return the covariance of each layer; ``block`` names the layer of every coordinate, (coordinate,)."""
    values = as_samples(samples)
    if len(block) != values.shape[1]:
        raise InputError(
            f"block names {len(block)} coordinates but samples has {values.shape[1]}; they must agree."
        )
    result = {}
    for name in dict.fromkeys(block):
        own = torch.tensor([b == name for b in block], device=values.device)
        result[name] = noise_covariance(values[:, own], kind=kind, shrinkage=shrinkage, batch_size=batch_size)
    return result
