"""The Student-t likelihood in κ = 1/ν: its constant, score and Fisher information, finite down to κ = 0.

With z = (x − μ)/σ, log p = C(κ) − log σ − ½(1 + 1/κ) log(1 + κz²), and κ = 0 is the Gaussian. In ν or log ν
the Gaussian lies at infinity, where the information vanishes and iterations stall; in κ it is a boundary
point with information 3.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisekit.gradients.device import in_float64

_TILE_ELEMENTS = 1 << 16  # a quarter of a megabyte in float32
_SERIES_BELOW = 0.02  # here the closed forms cancel and the series are exact to 1e-11


def log_constant(kappa: Tensor) -> Tensor:
    """Return C(κ) = log Γ((ν+1)/2) − log Γ(ν/2) − ½ log(πν), the log density at its centre for σ = 1."""
    k = kappa
    series = k * (-1 / 4 + k**2 * (1 / 24 - k**2 * (1 / 20 - k**2 * (17 / 112))))
    z = 0.5 / k.clamp_min(_SERIES_BELOW)
    closed = torch.lgamma(z + 0.5) - torch.lgamma(z) - 0.5 * torch.log(z)
    return torch.where(k < _SERIES_BELOW, series, closed) - 0.5 * math.log(2 * math.pi)


def log_radial_constant(kappa: Tensor, d: int) -> Tensor:
    """Return log Γ((ν+d)/2) − log Γ(ν/2) − (d/2) log(ν/2), by which t and normal differ at their centre.

    Differences of lgamma lose all digits at large ν, so they are made in float64, and from ν = 10⁶
    replaced by their first terms, d(d − 2)κ/4.
    """
    k = in_float64(kappa)
    half = 0.5 / k.clamp_min(1e-6)
    exact = torch.lgamma(half + d / 2) - torch.lgamma(half) - 0.5 * d * torch.log(half)
    return torch.where(k < 1e-6, 0.25 * d * (d - 2) * k, exact).to(kappa)


def student_t_log_density(x: Tensor, location: Tensor, scale: Tensor, kappa: Tensor) -> Tensor:
    """Return log p(x) of the Student-t with df = 1/κ (Gaussian at κ = 0), broadcast over the leading axes."""
    q = ((x - location) / scale).square()
    safe = kappa.clamp_min(1e-12)
    kernel = torch.where(kappa > 0, (1 + safe) * torch.log1p(safe * q) / safe, q)
    return log_constant(kappa) - scale.log() - 0.5 * kernel


def log_constant_slope(kappa: Tensor) -> Tensor:
    """Return C′(κ); −1/4 at the Gaussian."""
    k = kappa
    series = -1 / 4 + k**2 * (1 / 8 - k**2 * (1 / 4 - k**2 * (17 / 16)))
    nu = 1 / k.clamp_min(_SERIES_BELOW)
    closed = -0.5 * nu**2 * (torch.digamma((nu + 1) / 2) - torch.digamma(nu / 2) - 1 / nu)
    return torch.where(k < _SERIES_BELOW, series, closed)


def fisher_information(kappa: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the information of one sample, (μμ in units 1/σ², log σ log σ, log σ κ, κκ); the rest is 0."""
    k = kappa
    product = (1 + k) * (1 + 3 * k)
    series = k * (-0.5 + k**2 * (1.5 - k**2 * (8.5 - 77.5 * k**2)))
    safe = k.clamp_min(_SERIES_BELOW)
    trigamma_difference = torch.polygamma(1, 0.5 / safe) - torch.polygamma(1, 0.5 / safe + 0.5)
    closed = (0.25 * trigamma_difference - safe**2 / 2 - safe**3 / 2) / safe**4
    location = (1 + k) / (1 + 3 * k)
    scale = 2 / (1 + 3 * k)
    cross = 2 / product
    shape = (7 + 3 * k) / (2 * product) + torch.where(k < _SERIES_BELOW, series, closed)
    return location, scale, cross, shape


def log_likelihood_and_score(
    y: Tensor, location: Tensor, log_scale: Tensor, kappa: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the log-likelihood of each row and its derivatives in (μ, log σ, κ).

    Args:
        y: samples, one coordinate a row, (coordinate, sample); the sums over samples are made in its dtype.
        location, log_scale, kappa: float64, (coordinate,); κ > 0.
    """
    n = y.shape[1]
    per_unit = kappa.sqrt() * (-log_scale).exp()
    centre, unit = location.to(y.dtype)[:, None], per_unit.to(y.dtype)[:, None]
    tile = rows_in_a_tile(y)
    sums = [_sums(*tiles) for tiles in zip(y.split(tile), centre.split(tile), unit.split(tile), strict=True)]
    weighted_t, weighted_u, remainder = torch.cat(sums, dim=1).double()
    weighted_q = weighted_u / kappa
    log_likelihood = n * (log_constant(kappa) - log_scale) - 0.5 * (1 + 1 / kappa) * (remainder + weighted_u)
    score_location = (1 + kappa) / kappa * per_unit * weighted_t
    score_log_scale = (1 + kappa) * weighted_q - n
    score_kappa = n * log_constant_slope(kappa) + 0.5 * remainder / kappa**2 - 0.5 * weighted_q
    return log_likelihood, score_location, score_log_scale, score_kappa


def rows_in_a_tile(y: Tensor) -> int:
    """Return how many rows to work on at once: few on a CPU, so that temporaries stay in its cache."""
    return max(1, _TILE_ELEMENTS // y.shape[1]) if y.device.type == "cpu" else len(y)


def _sums(y: Tensor, centre: Tensor, unit: Tensor) -> Tensor:
    """Return Σ t/(1+u), Σ u/(1+u), Σ log(1+u) − u/(1+u) over the samples, (3, row), with t = √κ z and u = t².

    The last term is of order u²/2; summed as one, small κ does not cancel between sums. v = 1 + u is
    rounded, but everything is then taken at the rounded v (v − 1 is exact), so log v may stand for the
    slower log1p u.
    """
    t = (y - centre).mul_(unit)
    v = (t * t).add_(1)
    weight = v.reciprocal()
    weighted_t = t.mul_(weight).sum(1)
    share = weight.mul_(v - 1)
    return torch.stack([weighted_t, share.sum(1), v.log_().sub_(share).sum(1)])
