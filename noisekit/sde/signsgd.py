"""SignSGD under any noise, also noise without a variance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import GradientFunction, State
from noisekit.errors import InputError
from noisekit.noise.base import NoiseModel
from noisekit.sde.base import OptimizerSDE, Schedule, Substep, decay_number, is_normal


class SignSGDSDE(OptimizerSDE):
    """The SDE of sign descent, x⁺ = x − η sign(g) − ηθx.

    dX = −E[sign g] dt − θX dt + √η Σ̄^{1/2} dW, Σ̄ = Cov(sign g).
    Independent coordinates: Σ̄ = diag(1 − E²); Gaussian E = erf(∇f/(√2 σ)), Student-t E = 2F_ν(∇f/s) − 1.
    Correlated noise: the increment is √(η dt)(sign(∇f + ζ) − E[sign g]) with ζ drawn from the noise, which
    has mean 0 and covariance η dt Σ̄ with all its correlations, and needs no (coordinate, coordinate) matrix.

    Arguments: ``gradient`` ∇f, x → same shape (replicate, coordinate); ``noise`` any noise model, also
    without a variance; ``learning_rate`` η; ``weight_decay`` θ, beside the sign; ``schedule`` factor on η at
    step k.
    Raises InputError for values out of range.
    Source: Compagnoni et al. 2025, arXiv 2411.15958, Theorem 3.2 and Corollary 3.3.
    """

    needs_variance = False

    def __init__(
        self,
        gradient: GradientFunction,
        noise: NoiseModel,
        learning_rate: float,
        weight_decay: float = 0.0,
        *,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(gradient, noise, learning_rate, schedule=schedule)
        self.name = "signsgd"
        self.weight_decay = decay_number("weight_decay", weight_decay)
        if not callable(getattr(noise, "expected_sign", None)):
            raise InputError("SignSGDSDE needs a noise model with expected_sign(x, gradient).")

    def check(self, x: Tensor) -> None:
        super().check(x)
        if self.noise.independent:
            # Tables of E[sign g] are made now, not in the first step.
            self.noise.expected_sign(x[:1], torch.zeros_like(x[:1]))

    def n_normals(self, x: Tensor) -> int:
        if self.noise.independent:
            return x.shape[-1]
        return self.noise.n_normals(x) if is_normal(self.noise) else 0

    def _expected_sign(self, x: Tensor, at: Substep) -> Tensor:
        """Return E[sign g] where coordinates are independent."""
        if not is_normal(self.noise):
            return self.noise.expected_sign(x, self.gradient(x))
        # E[sign g] = erf(∇f/√(2 diag Σ))
        inverse = self.constants_at(x, at).inverse
        if inverse is None:
            gradient, variance = self.moments(x, at)
            inverse = (2 * variance).rsqrt_()
        else:
            gradient = self.gradient_at(x, at)
        return torch.mul(gradient, inverse, out=at.buffer("mean", x)).erf_()

    def _correlated_signs(self, x: Tensor, at: Substep) -> tuple[Tensor, Tensor]:
        """Return E[sign g] and a draw with mean 0 and covariance Cov(sign g), where they are correlated."""
        if is_normal(self.noise):
            gradient, variance, draw = self.moments_and_noise(x, at)
            # E[sign g] = erf(∇f/√(2 diag Σ))
            mean = torch.mul(gradient, (2 * variance).rsqrt_(), out=at.buffer("mean", x)).erf_()
        else:
            shared = self.noise.mean_gradient if self.shares_data else self.gradient  # type: ignore[attr-defined]
            gradient = shared(x)
            mean = self.noise.expected_sign(x, gradient)
            draw = at.draws.sample(self.noise, x, at.step, at.index)
        return mean, (gradient + draw).sign_().sub_(mean)

    def terms(self, state: State, at: Substep) -> tuple[State, State]:
        x = state["x"]
        if self.noise.independent:
            mean = self._expected_sign(x, at)
            noise = deviation_of_signs(mean, at).mul_(at.normals)
        else:
            mean, noise = self._correlated_signs(x, at)
        drift = torch.add(mean, x, alpha=self.weight_decay)
        return {"x": -at.factor * drift}, {"x": (-at.factor * math.sqrt(self.learning_rate)) * noise}

    def euler_step(self, state: State, at: Substep) -> None:
        x, u = state["x"], at.factor
        if self.noise.independent:
            mean = self._expected_sign(x, at)
            self._decay(x, at)
            x.addcmul_(deviation_of_signs(mean, at), at.normals, value=-u * at.noise_step)
        else:
            mean, noise = self._correlated_signs(x, at)
            self._decay(x, at)
            x.sub_(noise, alpha=u * at.noise_step)
        x.sub_(mean, alpha=u * at.dt)

    def _decay(self, x: Tensor, at: Substep) -> None:
        if self.weight_decay:
            x.mul_(1 - at.factor * self.weight_decay * at.dt)

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"weight_decay": self.weight_decay}


def deviation_of_signs(mean: Tensor, at: Substep) -> Tensor:
    """Return √(1 − E²), the standard deviation of a sign with mean E, in a buffer."""
    out = at.buffer("deviation", mean)
    one = mean.new_ones(()) if at.draws.constants is None else at.draws.constants.one
    return torch.addcmul(one, mean, mean, value=-1, out=out).clamp_(min=0).sqrt_()
