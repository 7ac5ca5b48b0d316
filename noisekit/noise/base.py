"""The contract of a gradient-noise model: g = ∇f(x) + Z with E Z = 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from noisekit.errors import InputError, kind_of


class NoiseModel(ABC):
    """The law of the minibatch-gradient noise Z at a point x.

    ``x`` has shape (replicate, coordinate); so has everything returned. A constant model ignores the values
    of ``x`` and uses its shape, dtype and device. A law of one's own needs the four abstract methods;
    density, distribution function and rescaling are optional, and refused in a sentence where a law has none.
    """

    independent: bool = True
    """Whether coordinates are independent; correlated sign noise is drawn through ``sample``."""

    batch_size: int | None = None
    """The batch size B the model speaks of, if known."""

    def n_normals(self, x: Tensor) -> int:
        """Return how many standard normals a replicate needs in ``sqrt_covariance_product``."""
        return x.shape[-1]

    @abstractmethod
    def variance(self, x: Tensor) -> Tensor:
        """Return diag Σ(x); +inf where the variance does not exist."""

    @abstractmethod
    def sqrt_covariance_product(self, x: Tensor, z: Tensor) -> Tensor:
        """Return Σ(x)^{1/2} z for standard normals ``z`` (replicate, n_normals)."""

    @abstractmethod
    def expected_sign(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return E[sign(gradient + Z)]."""

    @abstractmethod
    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw one Z for each replicate."""

    def covariance(self, x: Tensor) -> Tensor:
        """Return Σ(x), (replicate, coordinate, coordinate), for small dimensions: Σ^{1/2} on a basis."""
        columns = []
        for k in range(self.n_normals(x)):
            z = torch.zeros(x.shape[0], self.n_normals(x), dtype=x.dtype, device=x.device)
            z[:, k] = 1
            columns.append(self.sqrt_covariance_product(x, z))
        factor = torch.stack(columns, dim=-1)
        return factor @ factor.mT

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the joint log-density of each row of ``value`` (..., coordinate), as (...)."""
        raise InputError(
            f"{type(self).__name__} has no density; fit a GaussianNoise or a StudentTNoise instead."
        )

    def marginal_log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of each coordinate of ``value`` (..., coordinate), same shape."""
        raise InputError(
            f"{type(self).__name__} has no density; fit a GaussianNoise or a StudentTNoise instead."
        )

    def cdf(self, value: Tensor) -> Tensor:
        """Return P(Z_j ≤ value_j) for each coordinate of ``value`` (..., coordinate), same shape."""
        raise InputError(
            f"{type(self).__name__} has no distribution function; use a GaussianNoise or a StudentTNoise."
        )

    def rescale(self, batch_size: int) -> NoiseModel:
        """Return the model of the same noise at another batch size, where that is exact."""
        raise InputError(
            f"{type(self).__name__} does not rescale with the batch size; refit it at B = {batch_size}."
        )


def check_batch_size(batch_size: int | None) -> int | None:
    """Return ``batch_size`` if it is a positive whole number or None; refuse it otherwise."""
    if batch_size is None:
        return None
    return check_whole("batch_size", batch_size)


def check_whole(name: str, value: float) -> int:
    """Return ``value`` as an int if it is a whole number of at least 1."""
    number = not isinstance(value, bool) and isinstance(value, (int, float))
    if not number or not math.isfinite(value) or value != int(value) or value < 1:
        raise InputError(f"{name} is {value!r}; it must be a whole number of at least 1.")
    return int(value)


def check_flag(name: str, value: bool) -> bool:
    """Return ``value`` if it is True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; it must be True or False.")
    return value


def as_real(name: str, value: Any) -> Tensor:
    """Return ``value`` as a tensor of real floating-point numbers, at least one of them."""
    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} is {kind_of(value)}; give a number or a tensor of numbers.") from None
    if tensor.is_complex() or tensor.dtype == torch.bool or tensor.numel() == 0:
        came = "empty" if tensor.numel() == 0 else str(tensor.dtype)
        raise InputError(f"{name} is {came}; give real numbers, one or more.")
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


def check_scale(scale: Tensor | float, name: str = "scale") -> Tensor:
    """Return ``scale`` as a tensor of shape () or (coordinate,); refuse negative or non-finite values."""
    tensor = as_real(name, scale)
    if tensor.ndim > 1:
        raise InputError(
            f"{name} has shape {tuple(tensor.shape)}; give a number or one value a coordinate, (coordinate,)."
        )
    if not bool(torch.isfinite(tensor).all()) or bool((tensor < 0).any()):
        raise InputError(
            f"{name} holds NaN, infinite or negative values; every scale must be finite and at least 0."
        )
    return tensor.detach()


def check_dimension(expected: int | None, x: Tensor, model: str) -> None:
    """Refuse ``x`` when its last axis is not the number of coordinates the model was built for."""
    if expected is not None and x.shape[-1] != expected:
        raise InputError(
            f"{model} has {expected} coordinates but x has {x.shape[-1]}; use x (replicate, {expected})."
        )


def squared_in_range(scale: Tensor, name: str = "scale") -> Tensor:
    """Return ``scale``²; refuse it when the square overflows or vanishes in its dtype."""
    square = scale.square()
    if bool((torch.isinf(square) | ((square == 0) & (scale != 0))).any()):
        raise InputError(
            f"The square of {name} leaves the range of {scale.dtype}; rescale the loss or use float64."
        )
    return square
