"""The spectrum of correlations between coordinates of the noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit._readable import Readable
from noisekit.errors import InputError
from noisekit.noise.samples import as_samples


@dataclass(frozen=True, repr=False)
class CorrelationSpectrum(Readable):
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

    def __str__(self) -> str:
        return (
            f"{self.n_above} eigenvalues above {self.edge:.3g}, the edge of independent coordinates; largest "
            f"{float(self.eigenvalue[0]):.3g}\nmean ρ² {self.mean_squared_correlation:.3g} beyond chance, "
            f"{self.n_samples} samples, {self.n_constant} constant coordinates left out"
        )


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
