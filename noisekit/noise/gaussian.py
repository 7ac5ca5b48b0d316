"""Gaussian gradient noise Z ~ N(0, Σ): diagonal, low-rank, dense, or diagonal plus low-rank."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.noise.base import (
    NoiseModel,
    as_real,
    check_batch_size,
    check_dimension,
    check_scale,
    squared_in_range,
)


class GaussianNoise(NoiseModel):
    """Normal noise with the same covariance everywhere.

    Σ = diag(scale²) + F Fᵀ,   E[sign(g + Z)] = erf(g / (√2 σ)),   σ² = diag Σ.

    Arguments: ``scale`` standard deviation of a coordinate, a number or (coordinate,), in units of the
    gradient; ``factor`` F, (coordinate, rank): a Cholesky factor for a dense Σ, fewer columns for a low rank;
    at least one of the two. ``batch_size`` B the scale speaks of, needed by ``rescale``.
    Raises InputError for negative or non-finite values and for shapes that do not match.
    Source: Compagnoni et al. 2025, arXiv 2411.15958, Cor. 3.3.

    >>> noise = GaussianNoise(scale=2.0)
    >>> noise.variance(torch.zeros(1, 3))
    tensor([[4., 4., 4.]])
    """

    def __init__(
        self,
        scale: Tensor | float | None = None,
        *,
        factor: Tensor | None = None,
        batch_size: int | None = None,
    ) -> None:
        if scale is None and factor is None:
            raise InputError("GaussianNoise needs a scale, a factor, or both.")
        self.scale = None if scale is None else check_scale(scale)
        self.factor = None if factor is None else check_factor(factor, self.scale)
        self.batch_size = check_batch_size(batch_size)
        self.independent = factor is None
        self._cache: dict[tuple[torch.dtype, torch.device], tuple[Tensor | None, Tensor | None, Tensor]] = {}

    @property
    def n_coordinates(self) -> int | None:
        """The dimension, or None when one number stands for every coordinate."""
        if self.factor is not None:
            return self.factor.shape[0]
        return self.scale.shape[0] if self.scale is not None and self.scale.ndim else None

    def n_normals(self, x: Tensor) -> int:
        own = 0 if self.scale is None else x.shape[-1]
        return own + (0 if self.factor is None else self.factor.shape[1])

    def _on(self, x: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Return scale, factor and variance in the dtype and on the device of ``x``, moved there once."""
        check_dimension(self.n_coordinates, x, "GaussianNoise")
        key = (x.dtype, x.device)
        if key not in self._cache:
            scale = None if self.scale is None else self.scale.to(x)
            factor = None if self.factor is None else self.factor.to(x)
            own = x.new_zeros(()) if scale is None else squared_in_range(scale)
            self._cache[key] = (scale, factor, own if factor is None else own + factor.square().sum(dim=1))
        return self._cache[key]

    def variance(self, x: Tensor) -> Tensor:
        return self._on(x)[2].expand(x.shape)

    def sqrt_covariance_product(self, x: Tensor, z: Tensor) -> Tensor:
        scale, factor, _ = self._on(x)
        if scale is None:
            assert factor is not None
            return z @ factor.T
        if factor is None:
            return z * scale
        d = x.shape[-1]
        return z[..., :d] * scale + z[..., d:] @ factor.T

    def expected_sign(self, x: Tensor, gradient: Tensor) -> Tensor:
        return torch.erf(gradient / safe_scale(self._on(x)[2].sqrt()) * math.sqrt(0.5))

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        shape = (*x.shape[:-1], self.n_normals(x))
        z = torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.sqrt_covariance_product(x, z)

    def log_prob(self, value: Tensor) -> Tensor:
        scale, factor, variance = self._on(value)
        if factor is None:
            return self.marginal_log_prob(value).sum(dim=-1)
        if scale is None:
            if factor.shape[1] < factor.shape[0]:
                raise InputError(
                    f"A covariance of rank {factor.shape[1]} in {factor.shape[0]} dimensions has no density; "
                    "add a scale (diagonal plus low rank)."
                )
            law = torch.distributions.MultivariateNormal(torch.zeros_like(variance), factor @ factor.T)
            return law.log_prob(value)
        diagonal = scale.square().expand(factor.shape[0])
        return torch.distributions.LowRankMultivariateNormal(
            torch.zeros_like(diagonal), factor, diagonal
        ).log_prob(value)

    def marginal_log_prob(self, value: Tensor) -> Tensor:
        deviation = safe_scale(self._on(value)[2].sqrt())
        return -0.5 * (value / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        return 0.5 * torch.erfc(-value / safe_scale(self._on(value)[2].sqrt()) * math.sqrt(0.5))

    def rescale(self, batch_size: int) -> GaussianNoise:
        """Return the same noise at another batch size: Σ scales exactly as 1/B (drawn with replacement)."""
        if self.batch_size is None:
            raise InputError(
                "This GaussianNoise does not know its batch size; build it with batch_size=B to rescale."
            )
        ratio = math.sqrt(self.batch_size / (check_batch_size(batch_size) or 1))
        return GaussianNoise(
            None if self.scale is None else self.scale * ratio,
            factor=None if self.factor is None else self.factor * ratio,
            batch_size=batch_size,
        )

    def __repr__(self) -> str:
        kind = "diagonal" if self.factor is None else f"rank {self.factor.shape[1]}"
        return f"GaussianNoise({kind}, coordinates={self.n_coordinates}, batch_size={self.batch_size})"


def check_factor(factor: Tensor, scale: Tensor | None) -> Tensor:
    """Return ``factor`` (coordinate, rank) if it is finite and matches ``scale``; refuse it otherwise."""
    factor = as_real("factor", factor)
    if factor.ndim != 2:
        raise InputError(f"factor has shape {tuple(factor.shape)}; it must be (coordinate, rank).")
    if not bool(torch.isfinite(factor).all()):
        raise InputError("factor holds NaN or infinite values; every entry must be finite.")
    if scale is not None and scale.ndim and scale.shape[0] != factor.shape[0]:
        raise InputError(
            f"scale has {scale.shape[0]} coordinates but factor has {factor.shape[0]}; they must agree."
        )
    return factor.detach()


def safe_scale(scale: Tensor) -> Tensor:
    """Return ``scale`` with 0 replaced by the smallest normal number: then 0/0 is 0 and g/0 is ±inf."""
    return scale.clamp(min=torch.finfo(scale.dtype).tiny)
