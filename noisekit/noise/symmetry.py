"""Is the noise symmetric? Skewness of each coordinate, and a test of symmetry that stands any tail."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.special import stdtr
from torch import Tensor

from noisekit._readable import Readable
from noisekit.noise.centre import robust_centre
from noisekit.noise.samples import as_samples, constant_coordinates, evenly_spread
from noisekit.noise.selection import false_discovery_q_values

_WIDE, _NARROW = 4.0, 1.0
_MOST_SAMPLES = 4096


@dataclass(frozen=True, repr=False)
class Skewness(Readable):
    """Third standardised moment of each coordinate, and a test of symmetry; tensors are (coordinate,)."""

    value: Tensor
    """E z³; NaN for a constant coordinate. Under tails with ν ≤ 3 it says little, the test still does."""
    error: Tensor
    """Standard error of ``value`` from its influence function."""
    p_value: Tensor
    """Two-sided, of symmetry; NaN where half the samples or more repeat one value."""
    q_value: Tensor
    """Benjamini–Hochberg adjusted over the coordinates."""
    is_skewed: Tensor
    """q ≤ .05."""
    n_samples: int

    @property
    def n_tested(self) -> int:
        """Coordinates with a p-value."""
        return int((~self.p_value.isnan()).sum())

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.n_tested == 0:
            return "no coordinate varies"
        typical = float(self.value[~self.value.isnan()].abs().median())
        skewed = int(self.is_skewed.sum())
        return f"{skewed} of {self.n_tested} coordinates asymmetric (median |skewness| {typical:.2g})"

    def __str__(self) -> str:
        return self.verdict


def skewness(samples: Tensor) -> Skewness:
    """Return E z³ of the standardised coordinates of ``samples`` (sample, coordinate), and test symmetry.

    The usual error √(6/n) of E z³ is for Gaussian noise and rejects far too often under heavy tails. The test
    compares two centres instead, M-estimates with ψ(z) = tanh(z/c) at c = 4 and c = 1 deviations, which agree
    for any symmetric law; their difference over its standard error is normal whatever the tails. Measured
    level at nominal 5 %: 3–5 % (n = 32), 4–6 % (n ≥ 64), for ν = 1, 3, 7, ∞. The noise of a mean of B samples
    is less skewed by √B. Raises InputError for fewer than 8 samples or wrong axes, NonFiniteError for NaN.
    """
    values = as_samples(samples)
    constant = constant_coordinates(values)
    n = len(values)
    unit = values.abs().amax(dim=0)
    z = values.double() / torch.where(unit > 0, unit, 1)
    p = _symmetry_p_value(evenly_spread(z, _MOST_SAMPLES))
    z = z - z.mean(dim=0)
    z = z / torch.where(constant, 1, z.square().mean(dim=0).sqrt())
    gamma = z.pow(3).mean(dim=0)
    influence = z.pow(3) - gamma - 3 * z - 1.5 * gamma * (z.square() - 1)
    error = (influence.square().sum(dim=0) / (n - 1) / n).sqrt()
    gamma, error, p = (torch.where(constant, torch.nan, v) for v in (gamma, error, p))
    q = false_discovery_q_values(p)
    return Skewness(gamma, error, p, q, q <= 0.05, n)


def _symmetry_p_value(x: Tensor) -> Tensor:
    centre = x.median(dim=0).values
    deviation = (x - centre).abs().median(dim=0).values
    z = (x - centre) / torch.where(deviation > 0, deviation, 1)
    wide, narrow = robust_centre(z, _WIDE), robust_centre(z, _NARROW)
    influence = wide[1] - narrow[1]
    n = len(x)
    error = (influence.square().sum(dim=0) / (n - 1) / n).sqrt()
    t = ((wide[0] - narrow[0]) / error).abs().cpu().numpy()
    p = torch.from_numpy(2 * stdtr(n - 1, -t)).to(x.device)
    return torch.where(deviation > 0, p, torch.nan)
