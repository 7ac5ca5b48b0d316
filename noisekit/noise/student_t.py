"""Student-t gradient noise: heavy tails, coordinates independent or with one common radius."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisekit.errors import InfiniteVarianceError, InputError
from noisekit.noise.base import (
    NoiseModel,
    as_real,
    check_batch_size,
    check_dimension,
    check_flag,
    check_scale,
    squared_in_range,
)
from noisekit.noise.gaussian import check_factor, safe_scale
from noisekit.noise.student_t_cdf import StudentTSign
from noisekit.noise.student_t_likelihood import log_radial_constant, student_t_log_density


class StudentTNoise(NoiseModel):
    """Student-t noise Z_j = s_j T_j, T_j ~ t_ν, the same everywhere.

    Var Z = s² ν/(ν − 2) for ν > 2 and infinite below;   E[sign(g + Z)] = 2F_ν(g/s) − 1, for every ν > 0.
    With ``multivariate=True`` all coordinates share one radius, Z = (s ∘ z + F w) √(ν/χ²_ν), so that they are
    large together; each coordinate is still a t_ν.

    Arguments: ``scale`` s, a number or (coordinate,), in units of the gradient; ``df`` ν > 0, a number or
    (coordinate,), inf for Gaussian coordinates; ``factor`` F, (coordinate, rank), multivariate only;
    ``batch_size`` the B at which it was fitted. Raises InputError for values out of range and shapes that do
    not match, InfiniteVarianceError from ``sqrt_covariance_product`` where ν ≤ 2.
    Source: Compagnoni et al. 2025, arXiv 2411.15958 (SignSGD with Student-t noise); sampling: Bailey 1994.

    >>> StudentTNoise(scale=1.0, df=1.0).expected_sign(torch.zeros(1, 1), torch.ones(1, 1))
    tensor([[0.5000]])
    """

    def __init__(
        self,
        scale: Tensor | float,
        df: Tensor | float,
        *,
        multivariate: bool = False,
        factor: Tensor | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.scale = check_scale(scale)
        self.df = _check_df(df)
        self.multivariate = check_flag("multivariate", multivariate) or factor is not None
        self.factor = None if factor is None else check_factor(factor, self.scale)
        if self.scale.ndim and self.df.ndim and self.scale.shape != self.df.shape:
            raise InputError(
                f"scale has {self.scale.shape[0]} coordinates but df has {self.df.shape[0]}; they must agree."
            )
        if self.multivariate and self.df.ndim:
            raise InputError("A multivariate Student-t has one df for all coordinates; give a single number.")
        self.batch_size = check_batch_size(batch_size)
        self.independent = not self.multivariate
        self._is_normal = bool(torch.isinf(self.df).all())
        self._has_variance = bool((self.df > 2).all())
        self._sign = StudentTSign(self.df)
        self._cache: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def n_coordinates(self) -> int | None:
        """The dimension, or None when one number stands for every coordinate."""
        for value in (self.factor, self.scale, self.df):
            if value is not None and value.ndim:
                return value.shape[0]
        return None

    def n_normals(self, x: Tensor) -> int:
        return x.shape[-1] + (0 if self.factor is None else self.factor.shape[1])

    def _on(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return marginal scale, ν and ν/(ν − 2) with the dtype and device of ``x``, moved there once."""
        check_dimension(self.n_coordinates, x, "StudentTNoise")
        key = (x.dtype, x.device)
        if key not in self._cache:
            scale, df = self.scale.to(x), self.df.to(x)
            if self.factor is not None:
                scale = (squared_in_range(scale) + self.factor.to(x).square().sum(dim=1)).sqrt()
            ratio = torch.where(df > 2, 1 / (1 - 2 / df), torch.inf)
            self._cache[key] = (scale, df, ratio)
        return self._cache[key]

    def variance(self, x: Tensor) -> Tensor:
        scale, _, ratio = self._on(x)
        return torch.where(scale > 0, scale.square() * ratio, 0).expand(x.shape)

    def sqrt_covariance_product(self, x: Tensor, z: Tensor) -> Tensor:
        if not self._has_variance:
            raise InfiniteVarianceError(
                f"Student-t noise with df = {float(self.df.min()):.3g} ≤ 2 has no variance; "
                "only SignSGD has an SDE here, through expected_sign."
            )
        return self._mix(x, z) * self._on(x)[2].sqrt()

    def _mix(self, x: Tensor, z: Tensor) -> Tensor:
        """Return s ∘ z, plus F w where there is a factor."""
        if self.factor is None:
            return z * self._on(x)[0]
        d = x.shape[-1]
        return z[..., :d] * self.scale.to(x) + z[..., d:] @ self.factor.to(x).T

    def expected_sign(self, x: Tensor, gradient: Tensor) -> Tensor:
        return self._sign(gradient / safe_scale(self._on(x)[0]))

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        scale, df, _ = self._on(x)
        if not self.multivariate:
            return draw_student_t(df, x.shape, x, generator) * scale
        z = torch.randn(
            (*x.shape[:-1], self.n_normals(x)), generator=generator, dtype=x.dtype, device=x.device
        )
        if self._is_normal:
            return self._mix(x, z)
        shape = (df / 2).expand(*x.shape[:-1], 1).contiguous()
        gamma = torch._standard_gamma(shape, generator=generator).clamp(min=torch.finfo(x.dtype).tiny)
        return self._mix(x, z) * torch.sqrt(df / 2 / gamma)

    def log_prob(self, value: Tensor) -> Tensor:
        if not self.multivariate:
            return self.marginal_log_prob(value).sum(dim=-1)
        _, df, _ = self._on(value)
        d = value.shape[-1]
        diagonal = safe_scale(squared_in_range(self.scale.to(value))).expand(d)
        factor = value.new_zeros(d, 1) if self.factor is None else self.factor.to(value)
        law = torch.distributions.LowRankMultivariateNormal(torch.zeros_like(diagonal), factor, diagonal)
        normal = law.log_prob(value)
        if self._is_normal:
            return normal
        at_centre = law.log_prob(torch.zeros_like(diagonal))
        kappa = 1 / df
        mahalanobis = 2 * (at_centre - normal)
        radial = log_radial_constant(kappa, d) - 0.5 * (1 / kappa + d) * torch.log1p(kappa * mahalanobis)
        return at_centre + radial

    def marginal_log_prob(self, value: Tensor) -> Tensor:
        scale, df, _ = self._on(value)
        return student_t_log_density(value, value.new_zeros(()), safe_scale(scale), 1 / df)

    def cdf(self, value: Tensor) -> Tensor:
        return 0.5 * (1 + self._sign(value / safe_scale(self._on(value)[0])))

    def rescale(self, batch_size: int) -> StudentTNoise:
        """Refuse: the mean of B Student-t variables is not a Student-t."""
        raise InputError(
            f"Student-t noise fitted at B = {self.batch_size} does not rescale to B = {batch_size}: "
            "averaging changes its tails; refit at the batch size you need."
        )

    def __repr__(self) -> str:
        kind = "multivariate" if self.multivariate else "independent"
        return f"StudentTNoise({kind}, coordinates={self.n_coordinates}, batch_size={self.batch_size})"


def draw_student_t(df: Tensor, shape: torch.Size, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw t_ν variables of ``shape`` as √(ν(U^{−2/ν} − 1)) cos 2πV, U and V uniform (Bailey 1994)."""
    exponential = torch.empty(shape, dtype=like.dtype, device=like.device).exponential_(generator=generator)
    angle = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
    finite = torch.where(torch.isinf(df), 1, df)
    square = torch.where(torch.isinf(df), 2 * exponential, finite * torch.expm1(2 / finite * exponential))
    return square.sqrt() * torch.cos(2 * math.pi * angle)


def _check_df(df: Tensor | float) -> Tensor:
    tensor = as_real("df", df)
    if tensor.ndim > 1:
        raise InputError(
            f"df has shape {tuple(tensor.shape)}; give a number or one value a coordinate, (coordinate,)."
        )
    if not bool((tensor > 0).all()):
        raise InputError(
            "df holds NaN, zero or negative values; degrees of freedom must be positive (inf = Gaussian)."
        )
    return tensor.detach()
