"""Noise models that are wrong on purpose: a study that cannot tell them from the right one shows nothing."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import State
from noisekit.noise import GaussianNoise, MinibatchNoise, NoiseModel
from noisekit.sde.base import OptimizerSDE, Substep


class ScaledNoise(NoiseModel):
    """Noise whose covariance is ``factor`` times that of ``noise``."""

    def __init__(self, noise: NoiseModel, factor: float) -> None:
        self.noise, self.root = noise, math.sqrt(factor)
        self.independent = noise.independent
        normal = isinstance(noise, GaussianNoise) or getattr(noise, "law", None) == "gaussian"
        self.law = "gaussian" if normal else None

    def n_normals(self, x: Tensor) -> int:
        return self.noise.n_normals(x)

    def variance(self, x: Tensor) -> Tensor:
        return self.noise.variance(x) * self.root**2

    def sqrt_covariance_product(self, x: Tensor, z: Tensor) -> Tensor:
        return self.noise.sqrt_covariance_product(x, z) * self.root

    def expected_sign(self, x: Tensor, gradient: Tensor) -> Tensor:
        return self.noise.expected_sign(x, gradient / self.root)

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.noise.sample(x, generator) * self.root


class _Altered(NoiseModel):
    """Noise that has the variance and the E sign g of ``noise`` where it does not say otherwise."""

    def __init__(self, noise: NoiseModel) -> None:
        self.noise = noise

    def variance(self, x: Tensor) -> Tensor:
        return self.noise.variance(x)

    def expected_sign(self, x: Tensor, gradient: Tensor) -> Tensor:
        return self.noise.expected_sign(x, gradient)

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        z = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return self.sqrt_covariance_product(x, z)


class IsotropicNoise(_Altered):
    """White Gaussian noise with the trace of the covariance of ``noise`` at every x."""

    law = "gaussian"

    def _scale(self, x: Tensor) -> Tensor:
        return self.noise.variance(x).mean(dim=-1, keepdim=True).sqrt()

    def variance(self, x: Tensor) -> Tensor:
        return self._scale(x).square().expand_as(x)

    def sqrt_covariance_product(self, x: Tensor, z: Tensor) -> Tensor:
        return self._scale(x) * z

    def expected_sign(self, x: Tensor, gradient: Tensor) -> Tensor:
        return torch.erf(gradient / (math.sqrt(2) * self._scale(x)))


class IndependentSigns(_Altered):
    """The noise of ``noise`` in each coordinate, as if coordinates were independent."""

    def sqrt_covariance_product(self, x: Tensor, z: Tensor) -> Tensor:
        return self.noise.variance(x).sqrt() * z


class DriftOfNoise(_Altered):
    """What ``noise`` does to the drift, its variance in V and its E sign g, and no fluctuation at all."""

    def sqrt_covariance_product(self, x: Tensor, z: Tensor) -> Tensor:
        return torch.zeros_like(x)


class WithoutSquareNoise(OptimizerSDE):
    """The equation ``sde`` with the noise of g² in V left out, and nothing else."""

    def __init__(self, sde: OptimizerSDE) -> None:
        super().__init__(
            sde.gradient_function, sde.noise, sde.learning_rate, schedule=sde.schedule, order=sde.order
        )
        self.sde = sde
        self.name, self.state_names, self.positive = sde.name, sde.state_names, sde.positive

    def terms(self, state: State, at: Substep) -> tuple[State, State]:
        drift, noise = self.sde.terms(state, at)
        return drift, noise | {"v": torch.zeros_like(state["v"])}

    def drift(self, state: State, at: Substep) -> State:
        return self.sde.drift(state, at)

    def start(self, x: Tensor, given: State, start_step: int, lead: float | None) -> State:
        # Its steps are not fused, so that V does not run ahead of the optimizer's.
        return self.sde.start(x, given, start_step, None)

    def settings(self) -> dict[str, Any]:
        return self.sde.settings()


def no_noise(noise: NoiseModel) -> NoiseModel:
    """Return noise of size zero, which turns an SDE into its ordinary differential equation."""
    return GaussianNoise(scale=0.0, batch_size=noise.batch_size)


def with_gaussian_law(noise: NoiseModel) -> NoiseModel:
    """Return the Gaussian law with the same covariance, where ``noise`` resamples the data."""
    if isinstance(noise, MinibatchNoise):
        return MinibatchNoise(noise.problem, noise.batch_size, law="gaussian")
    return noise
