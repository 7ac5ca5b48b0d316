"""How many directions the noise has: participation ratio and the spectrum of correlations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.gradients.record import GradientStatistics
from noisekit.noise.gram import gram_matrix, gram_moments, trace_of_square
from noisekit.noise.samples import as_samples

_GROUPS = 32


@dataclass(frozen=True)
class ParticipationRatio:
    """(Tr Σ)²/Tr Σ²: the number of directions that share the noise, 1 to d."""

    value: float
    interval: tuple[float, float]
    """95 %, by a jackknife over groups of samples on the logarithm."""


def participation_ratio(
    per_sample_or_gram: Tensor | dict[str, Tensor] | GradientStatistics, *, gram: bool | None = None
) -> ParticipationRatio:
    """Return the participation ratio of Σ, numerator and denominator each unbiased.

    The ratio of sample eigenvalues alone cannot exceed the number of samples; this one can.

    Arguments: per-sample gradients (sample, coordinate), a dict of them, or their Gram matrix.
    Raises InputError for fewer than 8 samples or wrong shapes. Source of Tr Σ²: Chen, Zhang, Zhong 2010.
    """
    k = gram_matrix(per_sample_or_gram, gram=gram)
    value = _participation(k)
    if math.isnan(value):
        return ParticipationRatio(math.nan, (math.nan, math.nan))
    n = len(k)
    groups = torch.arange(n).tensor_split(min(_GROUPS, n))
    logs = []
    for group in groups:
        keep = torch.ones(n, dtype=torch.bool)
        keep[group] = False
        if int(keep.sum()) >= 8:
            logs.append(math.log(_participation(k[keep][:, keep])))
    g = len(logs)
    if g < 2 or any(math.isnan(v) for v in logs):
        return ParticipationRatio(value, (math.nan, math.nan))
    error = math.sqrt((g - 1) / g * sum((v - sum(logs) / g) ** 2 for v in logs))
    return ParticipationRatio(value, (value * math.exp(-1.96 * error), value * math.exp(1.96 * error)))


def _participation(gram: Tensor) -> float:
    unit = float(gram.diagonal().max())
    if unit == 0:
        return math.nan
    gram = gram / unit
    moments = gram_moments(gram)
    square, below = moments.trace**2 - moments.covariance[0], trace_of_square(gram)
    return square / below if below > 0 and square > 0 else math.nan


@dataclass(frozen=True)
class CorrelationSpectrum:
    """Eigenvalues of the correlation matrix of coordinates, beside those of independent ones."""

    eigenvalue: Tensor
    """Descending, (component,); they sum to the number of coordinates."""
    edge: float
    """Largest eigenvalue that independent coordinates show at this n: (1 + √(d/n))²."""
    n_above: int
    """Eigenvalues above the edge."""
    mean_squared_correlation: float
    """Mean ρ² over pairs of coordinates, less the 1/(n − 1) that independent ones show."""
    n_samples: int
    n_constant: int
    """Coordinates that never change; they are left out."""


def correlation_spectrum(samples: Tensor) -> CorrelationSpectrum:
    """Return the spectrum of the correlation matrix of ``samples`` (sample, coordinate).

    Every coordinate is standardised first, so that unequal variances do not look like correlation. The edge
    is that of Marchenko and Pastur; heavy tails move it up.
    Raises InputError for fewer than 8 samples or fewer than 2 coordinates that change.
    """
    values = as_samples(samples).double()
    centred = values - values.mean(dim=0)
    deviation = centred.square().sum(dim=0).sqrt()
    # A constant column keeps rounding errors of its mean: they are not a variance.
    alive = deviation > 1e-12 * values.abs().amax(dim=0) * math.sqrt(len(values))
    n, d = len(values), int(alive.sum())
    if d < 2:
        raise InputError(f"Only {d} coordinates change; a correlation needs at least 2.")
    z = centred[:, alive] / deviation[alive]
    small = z @ z.T if n < d else z.T @ z
    eigenvalue = torch.linalg.eigvalsh(small).flip(0)[: min(n - 1, d)].clamp(min=0)
    edge = (1 + math.sqrt(d / (n - 1))) ** 2
    squared = (float(small.square().sum()) - d) / (d * (d - 1))
    return CorrelationSpectrum(
        eigenvalue=eigenvalue,
        edge=edge,
        n_above=int((eigenvalue > edge).sum()),
        mean_squared_correlation=squared - 1 / (n - 1),
        n_samples=n,
        n_constant=values.shape[1] - d,
    )
