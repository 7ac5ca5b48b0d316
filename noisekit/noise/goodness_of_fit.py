"""Goodness of fit of a noise family, coordinate by coordinate, with p-values from a parametric bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtr
from torch import Tensor

from noisekit._readable import Readable, typical
from noisekit.errors import InputError, unknown_name
from noisekit.noise.samples import as_samples
from noisekit.noise.student_t_fit import StudentTFit, fit_student_t

Statistic = Literal["anderson_darling", "kolmogorov_smirnov"]
_NODES = 12  # values of κ at which the null law is simulated


@dataclass(frozen=True, repr=False)
class GoodnessOfFit(Readable):
    """Distance of the samples from the fitted law; each field is (coordinate,), NaN where set aside."""

    statistic: Tensor
    p_value: Tensor
    """Small: the family does not describe this coordinate."""

    def __str__(self) -> str:
        tested = int((~self.p_value.isnan()).sum())
        return (
            f"p-value {typical(self.p_value)}; at most 5 % in {int((self.p_value <= 0.05).sum())} of "
            f"{tested} coordinates"
        )


def goodness_of_fit(
    samples: object,
    *,
    family: Literal["gaussian", "student_t"] = "student_t",
    statistic: Statistic = "anderson_darling",
    draws: int = 199,
    seed: int = 0,
) -> GoodnessOfFit:
    """Test whether a fitted family describes each coordinate.

    Anderson–Darling A² = −n − n⁻¹ Σ (2i − 1)(log F(x₍ᵢ₎) + log(1 − F(x₍ₙ₊₁₋ᵢ₎))), or the largest distance of
    the distribution functions. With fitted parameters the textbook tables never reject; the null law is
    simulated instead, refitting every draw. It does not depend on location and scale, so draws are made at
    no more than twelve values of κ = 1/ν over all coordinates and p-values are interpolated between them.

    Args:
        samples: (sample, coordinate).
        draws: simulated data sets at each κ; the smallest p-value is 1/(draws + 1).

    Raises:
        InputError: unknown family or statistic, fewer than 19 draws, samples that ``as_samples`` refuses.

    Source: Stute, Gonzáles Manteiga, Presedo Quindimil 1993 (bootstrap with estimated parameters).
    """
    if family not in ("gaussian", "student_t"):
        raise unknown_name("noise family", family, ["gaussian", "student_t"])
    if statistic not in ("anderson_darling", "kolmogorov_smirnov"):
        raise unknown_name("statistic", statistic, ["anderson_darling", "kolmogorov_smirnov"])
    if draws < 19:
        raise InputError(f"draws is {draws}; at least 19 are needed for a p-value of 5 %.")
    x = as_samples(samples)
    fit = fit_student_t(x)
    fitted = fit.is_fitted.cpu().numpy()
    observed, p = np.full(len(fitted), np.nan), np.full(len(fitted), np.nan)
    if fitted.any():
        observed[fitted], kappa = _distance(x, fit, family, statistic)
        p[fitted] = _bootstrap(observed[fitted], kappa, len(x), family, statistic, draws, seed)
    device = x.device
    return GoodnessOfFit(torch.from_numpy(observed).to(device), torch.from_numpy(p).to(device))


def _distance(
    x: Tensor, fit: StudentTFit, family: str, statistic: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the statistic and κ̂ of the fitted coordinates."""
    keep = fit.is_fitted
    student = family == "student_t"
    location = (fit.location if student else fit.gaussian_location)[keep]
    scale = (fit.scale if student else fit.gaussian_scale)[keep]
    kappa = fit.kappa[keep] if student else torch.zeros_like(scale)
    z = torch.sort((x[:, keep].double() - location) / scale, dim=0).values.cpu().numpy()
    shape = kappa.cpu().numpy()
    df = 1 / np.maximum(shape, 1e-12)
    below, above = stdtr(df, z), stdtr(df, -z)
    n = len(z)
    i = np.arange(1, n + 1)[:, None]
    if statistic == "kolmogorov_smirnov":
        return np.maximum(i / n - below, below - (i - 1) / n).max(axis=0), shape
    logs = np.log(np.maximum(below, 1e-300)) + np.log(np.maximum(above[::-1], 1e-300))
    return -n - ((2 * i - 1) * logs).sum(axis=0) / n, shape


def _bootstrap(
    observed: NDArray[np.float64],
    kappa: NDArray[np.float64],
    n: int,
    family: str,
    statistic: str,
    draws: int,
    seed: int,
) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    nodes = np.unique(kappa)
    if len(nodes) > _NODES:
        nodes = np.linspace(nodes[0], nodes[-1], _NODES)
    p = np.empty((len(nodes), len(observed)))
    for row, node in enumerate(nodes):
        z = generator.standard_normal((n, draws))
        if node > 0:
            z /= np.sqrt(generator.chisquare(1 / node, (n, draws)) * node)
        drawn = torch.from_numpy(z)
        null = np.sort(_distance(drawn, fit_student_t(drawn), family, statistic)[0])
        p[row] = (1 + len(null) - np.searchsorted(null, observed, side="left")) / (len(null) + 1)
    return np.array([np.interp(kappa[j], nodes, p[:, j]) for j in range(len(observed))])
