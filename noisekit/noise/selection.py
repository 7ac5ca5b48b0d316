"""Gaussian or Student-t: likelihood ratio with simulated null, false discovery rate, held-out likelihood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from torch import Tensor

from noisekit._readable import Readable, typical
from noisekit.errors import InputError
from noisekit.noise.samples import as_samples, check_level
from noisekit.noise.student_t_fit import StudentTFit, fit_student_t
from noisekit.noise.student_t_likelihood import student_t_log_density

_NULL_TABLE = Path(__file__).with_name("likelihood_ratio_null.csv")


def likelihood_ratio_p_values(likelihood_ratio: Tensor, n_samples: int) -> Tensor:
    """Return P(ratio of Gaussian samples ≥ the ratio seen), float64, of the same shape; NaN stays NaN.

    The ratio 2(log L_t − log L_Gauss) of Gaussian samples depends on n alone. Its asymptotic law, ½δ₀ + ½χ²₁,
    gives p-values that are wrong at any practical n, so the law was simulated once per n
    (``scripts/make_likelihood_ratio_null.py``); between those n it is interpolated in 1/√n.
    """
    roots, normal_points = _null_nodes(n_samples)
    root = np.sqrt(np.maximum(likelihood_ratio.detach().double().cpu().numpy(), 0.0))
    # beyond the last node the root grows along the line through the last nodes, as a half-normal variable
    # does
    slope = (normal_points[-1] - normal_points[-4]) / (roots[-1] - roots[-4])
    z = np.interp(root, roots, normal_points) + slope * np.maximum(root - roots[-1], 0.0)
    p = np.where(root > 0, ndtr(-z), 1.0)
    p = np.where(np.isnan(root), np.nan, p)
    return torch.from_numpy(p).to(likelihood_ratio.device)


@cache
def _null_table() -> NDArray[np.float64]:
    lines = _NULL_TABLE.read_text().splitlines()
    header = [0.0, 0.0, *(float(p) for p in lines[0].split(",")[2:])]
    return np.array([header, *([float(v) for v in line.split(",")] for line in lines[1:])])


@cache
def _null_nodes(n_samples: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return rising roots of the ratio at this n and the z with P(root ≥ node) = 1 − Φ(z)."""
    table = _null_table()
    tail, sizes = table[0, 2:], table[1:, 0]
    order = np.argsort(1 / np.sqrt(sizes))
    at = 1 / math.sqrt(n_samples)
    values = np.array(
        [np.interp(at, (1 / np.sqrt(sizes))[order], column[order]) for column in table[1:, 1:].T]
    )
    keep = values[1:] > 0.05  # a root that small belongs to the atom at zero
    return (
        np.concatenate([[0.0], values[1:][keep]]),
        -ndtri(np.concatenate([[max(values[0], tail[keep][0] * 1.001)], tail[keep]])),
    )


def false_discovery_q_values(p_value: Tensor) -> Tensor:
    """Return Benjamini–Hochberg adjusted p-values (statsmodels); NaN where the p-value is NaN."""
    from statsmodels.stats.multitest import multipletests

    p = p_value.detach().double().cpu().numpy()
    q = np.full_like(p, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = multipletests(p[tested], method="fdr_bh")[1]
    return torch.from_numpy(q).to(p_value.device)


def weakest_visible_df(n_samples: int, *, level: float = 0.05, power: float = 0.8) -> float:
    """Return the largest ν that n samples of one coordinate tell from a Gaussian with the given power.

    Near the Gaussian κ̂ = 1/ν̂ has variance 2/(3n), so ν = √(3n/2)/(z_level + z_power); √(n/4.12) by default.

    >>> round(weakest_visible_df(10_000), 1)
    49.3
    """
    if n_samples < 1:
        raise InputError(f"n_samples is {n_samples}; give the number of samples, at least 1.")
    return math.sqrt(1.5 * n_samples) / float(ndtri(check_level(power)) - ndtri(check_level(level)))


@dataclass(frozen=True, repr=False)
class HeldOutLikelihood(Readable):
    """Out-of-sample comparison of the two families; each field is (coordinate,)."""

    gain: Tensor
    """Mean log-likelihood per held-out sample of the Student-t minus that of the Gaussian, in nats."""
    standard_error: Tensor
    """Its standard error over the samples."""

    def __str__(self) -> str:
        z = self.gain / self.standard_error
        return (
            f"gain of the Student-t {typical(self.gain)} nats a sample\nbeyond two standard errors "
            f"it wins in {int((z > 2).sum())} and loses in {int((z < -2).sum())} of {len(z)} coordinates"
        )


def held_out_log_likelihood(samples: object, *, folds: int = 2) -> HeldOutLikelihood:
    """Compare both families on samples they were not fitted to, by cross-validation over every k-th sample.

    A second opinion on ``fit_noise``: positive beyond two standard errors says Student-t.

    Raises:
        InputError: fewer than 8 samples in a training fold, fewer than 2 folds or an empty one.
    """
    x = as_samples(samples)
    if not 2 <= folds <= len(x) or len(x) - math.ceil(len(x) / folds) < 8:
        raise InputError(
            f"{folds} folds of {len(x)} samples leave too few to fit or to judge; use 2 folds of at least 16 "
            "samples in all."
        )
    fold = torch.arange(len(x), device=x.device) % folds
    gains = torch.empty(x.shape, dtype=torch.float64, device=x.device)
    for k in range(folds):
        fit = fit_student_t(x[fold != k])
        held_out = x[fold == k].double()
        student = student_t_log_density(held_out, fit.location, fit.scale, fit.kappa)
        gauss = student_t_log_density(
            held_out, fit.gaussian_location, fit.gaussian_scale, torch.zeros_like(fit.kappa)
        )
        gains[fold == k] = torch.where(fit.is_fitted, student - gauss, torch.nan)
    deviation, mean = torch.std_mean(gains, dim=0)
    return HeldOutLikelihood(gain=mean, standard_error=deviation / math.sqrt(len(x)))


def is_student_t(fit: StudentTFit, *, level: float = 0.05) -> tuple[Tensor, Tensor, Tensor]:
    """Return (p, q, q ≤ level) of the coordinates, the decision that ``fit_noise(family="auto")`` takes."""
    p = likelihood_ratio_p_values(fit.likelihood_ratio, fit.n_samples)
    q = false_discovery_q_values(p)
    return p, q, q <= check_level(level)
