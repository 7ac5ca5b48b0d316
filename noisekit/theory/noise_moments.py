"""What theory needs of a noise at one point: its variance, and the slope and covariance of its sign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import gammaln

from noisekit.errors import InfiniteVarianceError, InputError
from noisekit.noise.base import NoiseModel
from noisekit.theory.inputs import GAUSSIAN_SLOPE, Array, as_array, as_finite, as_symmetric


@dataclass(frozen=True)
class NoiseScales:
    """Per coordinate, all (d,): ``variance`` (may be +inf), ``df`` (ν, +inf for a Gaussian), ``sign_slope``.

    ``sign_slope`` = dE[sign(g + Z)]/dg at g = 0, that is ℓ/σ (Gaussian) or ℓ_ν/s (Student-t of scale s).
    """

    variance: Array
    df: Array
    sign_slope: Array

    def finite_variance(self, optimizer: str) -> Array:
        """Return diag Σ, or say that ``optimizer`` has no stationary law under infinite variance."""
        infinite = int(np.isinf(self.variance).sum())
        if infinite:
            raise InfiniteVarianceError(
                f"{optimizer} has no stationary law here: the noise variance is infinite in {infinite} of "
                f"{self.variance.size} coordinates. Use signsgd, whose law exists for every noise."
            )
        return self.variance

    def known_sign_slope(self) -> Array:
        """Return the slope of E[sign], or say that an infinite number does not tell it."""
        if np.isnan(self.sign_slope).any():
            raise InputError(
                "An infinite variance does not say how signs answer to the gradient; give the noise as "
                "StudentTNoise with its scale."
            )
        return self.sign_slope


@dataclass(frozen=True)
class NoiseMoments(NoiseScales):
    """The scales with ``covariance`` Σ (d, d; None if infinite) and ``sign_covariance`` = Cov sign(Z).

    ``expected_sign`` maps gradients (n, d) to E[sign(gradient + Z)]; None for the Gaussian's erf.
    """

    covariance: Array | None
    sign_covariance: Array
    expected_sign: Callable[[Array], Array] | None

    @property
    def gaussian(self) -> bool:
        """Whether every coordinate follows the Gaussian law."""
        return bool(np.isinf(self.df).all()) and self.covariance is not None

    def finite_covariance(self, optimizer: str) -> Array:
        """Return Σ, or say that ``optimizer`` has no stationary law under infinite variance."""
        self.finite_variance(optimizer)
        assert self.covariance is not None
        return self.covariance


def student_slope(df: Array) -> Array:
    """Return ℓ_ν = 2Γ((ν+1)/2)/(√(νπ)Γ(ν/2)), twice the Student-t density at 0; ℓ_∞ = √(2/π).

    >>> student_slope(np.array([1.0])).round(4)  # Cauchy: 2/π
    array([0.6366])
    """
    df = np.asarray(df, dtype=np.float64)
    small = df < 1e8  # above, the two log-gammas cancel below double precision and the limit is exact to 1e-8
    finite = np.where(small, df, 1.0)
    ratio = np.exp(gammaln((finite + 1) / 2) - gammaln(finite / 2))
    return np.where(small, 2 * ratio / np.sqrt(np.pi * finite), GAUSSIAN_SLOPE)


def arcsine_correlation(covariance: Array) -> Array:
    """Return Cov sign(Z) = (2/π) arcsin(correlation) for a centred Gaussian (or elliptical) Z."""
    scale = np.sqrt(np.diag(covariance))
    live = np.where(scale > 0, scale, 1.0)
    result = (2 / np.pi) * np.arcsin(np.clip(covariance / np.outer(live, live), -1, 1))
    np.fill_diagonal(result, (scale > 0).astype(np.float64))
    return result


def noise_scales(noise: Any, dimension: int | None = None, at: Any = None) -> NoiseScales:
    """Read per-coordinate scales: a model, diag Σ as a vector, Σ as a matrix, or one variance for all.

    Numbers are always (co)variances of the *minibatch* gradient: divide a per-sample variance by B first.
    A mapping of them (one tensor a parameter) is flattened and joined. ``at`` (coordinate,) is the point at
    which a state-dependent model is read; 0 if not given. No (d, d) matrix is formed.
    """
    if isinstance(noise, NoiseModel):
        return _model_scales(noise, _point(noise, dimension, at))
    if at is not None:
        as_finite("at", at)
    variance = as_array("noise", noise)
    if variance.ndim == 2:
        variance = np.diag(_covariance(variance))
    elif variance.ndim > 2:
        raise InputError(
            f"noise has shape {variance.shape}; a vector of variances (d,) or a covariance (d, d) is needed."
        )
    variance = variance.reshape(-1)
    if (variance < 0).any():
        raise InputError("noise is a (co)variance, so its diagonal must not be negative.")
    if dimension is not None and variance.size not in (1, dimension):
        raise InputError(
            f"noise has {variance.size} coordinates and the problem {dimension}; make them equal."
        )
    variance = np.broadcast_to(variance, (dimension or variance.size,)).copy()
    return _gaussian_scales(variance)


def _covariance(matrix: Array) -> Array:
    """Return a symmetric matrix that can be a covariance, or say why it can be none."""
    matrix = as_symmetric("noise", matrix)
    finite = np.isfinite(matrix).all()
    if finite and np.linalg.eigvalsh(matrix)[0] < -1e-6 * np.abs(matrix).max():
        raise InputError(
            f"noise has the eigenvalue {np.linalg.eigvalsh(matrix)[0]:.3g}: a covariance has none below 0."
        )
    return matrix


def noise_moments(noise: Any, dimension: int | None = None, at: Any = None) -> NoiseMoments:
    """Read :func:`noise_scales` together with Σ and Cov sign(Z), both (d, d)."""
    scales = noise_scales(noise, dimension, at)
    size = scales.variance.size
    infinite = bool(np.isinf(scales.variance).any())
    if not isinstance(noise, NoiseModel):
        shape = np.eye(size) if infinite else as_symmetric("noise", noise, size)
    elif infinite:
        shape = _shape_matrix(noise, size)
    else:
        shape = _model_covariance(noise, _point(noise, size, at))
    independent = isinstance(noise, NoiseModel) and noise.independent
    sign = np.diag((np.diag(shape) > 0).astype(np.float64)) if independent else arcsine_correlation(shape)
    law = None
    if isinstance(noise, NoiseModel) and not np.isinf(scales.df).all():
        law = _sign_law(noise, _point(noise, size, at))
    return NoiseMoments(scales.variance, scales.df, scales.sign_slope, None if infinite else shape, sign, law)


def _sign_law(noise: NoiseModel, point: torch.Tensor) -> Callable[[Array], Array]:
    def expected_sign(gradient: Array) -> Array:
        values = torch.as_tensor(gradient, dtype=point.dtype, device=point.device)
        return noise.expected_sign(point.expand(len(values), -1), values).detach().cpu().double().numpy()

    return expected_sign


def _gaussian_scales(variance: Array) -> NoiseScales:
    with np.errstate(divide="ignore"):
        slope = np.where(np.isinf(variance), np.nan, GAUSSIAN_SLOPE / np.sqrt(variance))
    return NoiseScales(variance, np.full(variance.shape, np.inf), slope)


def _model_scales(noise: NoiseModel, point: torch.Tensor) -> NoiseScales:
    variance = noise.variance(point)[0].detach().cpu().numpy().astype(np.float64)
    df = getattr(noise, "df", None)
    if df is None and not np.isinf(variance).any():
        return _gaussian_scales(variance)
    degrees = np.full(variance.shape, np.nan) if df is None else as_array("df", df)
    return NoiseScales(variance, np.broadcast_to(degrees, variance.shape), _sign_slope(noise, point))


def _sign_slope(noise: NoiseModel, point: torch.Tensor) -> Array:
    """Return dE[sign(g + Z)]/dg at 0, as E/h where h is moved until E ≈ 10⁻³: the error is of order E²."""
    step = torch.ones_like(point)
    for _ in range(60):
        expected = noise.expected_sign(point, step).abs().clamp(min=1e-9)
        if bool(((expected > 3e-4) & (expected < 3e-3)).all()):
            break
        step = step * (1e-3 / expected).clamp(1e-6, 1e6)
    return (expected / step)[0].detach().cpu().numpy().astype(np.float64)


def _point(noise: NoiseModel, dimension: int | None, at: Any) -> torch.Tensor:
    """Return x (1, coordinate) at which to read the noise; float64 unless the noise belongs to a problem."""
    x0 = getattr(getattr(noise, "problem", None), "x0", None)
    like = x0 if isinstance(x0, torch.Tensor) else torch.zeros((), dtype=torch.float64)
    if at is not None:
        point = torch.as_tensor(as_finite("at", at), device=like.device).to(like.dtype).reshape(1, -1)
        if dimension is not None and point.shape[1] != dimension:
            raise InputError(
                f"at has {point.shape[1]} coordinates and the problem {dimension}; make them equal."
            )
        return point
    size = dimension or getattr(noise, "n_coordinates", None)
    if size is None:
        raise InputError(
            "The size of the noise is not known here; pass at=x, the (coordinate,) point to read it at."
        )
    return torch.zeros(1, size, dtype=like.dtype, device=like.device)


def _model_covariance(noise: NoiseModel, point: torch.Tensor) -> Array:
    n = noise.n_normals(point)
    unit = torch.eye(n, dtype=point.dtype, device=point.device)
    rows = noise.sqrt_covariance_product(point.expand(n, -1), unit).detach().cpu().numpy().astype(np.float64)
    return rows.T @ rows


def _shape_matrix(noise: NoiseModel, size: int) -> Array:
    """Return the scatter matrix diag(s²) + F Fᵀ of noise without a variance, up to a common factor."""
    scale, factor = getattr(noise, "scale", None), getattr(noise, "factor", None)
    shape = (
        np.eye(size) if scale is None else np.diag(np.broadcast_to(as_array("scale", scale) ** 2, (size,)))
    )
    return shape if factor is None else shape + as_array("factor", factor) @ as_array("factor", factor).T
