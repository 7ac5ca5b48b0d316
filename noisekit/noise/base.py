"""The contract of a gradient-noise model: g = ∇f(x) + Z with E Z = 0."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class NoiseModel(ABC):
    """The law of the minibatch-gradient noise Z at a point x.

    ``x`` has shape (replicate, coordinate); so has everything returned. A constant model ignores the values
    of ``x`` and uses its shape, dtype and device. A law of one's own needs the four methods below.
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
