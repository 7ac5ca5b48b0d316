"""RMSprop, with decoupled (RMSpropW) or L2 weight decay."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import GradientFunction, State
from noisekit.noise.base import NoiseModel
from noisekit.sde.base import Schedule, Substep, averaging_number
from noisekit.sde.preconditioned import Moments, PreconditionedSDE
from noisekit.sde.second_order import modified_drift, modified_noise, own_share
from noisekit.sde.square_average import square_noise


class RMSpropSDE(PreconditionedSDE):
    """The SDE of RMSprop, x⁺ = x − ηg/(√v⁺ + ε) − ηθx, v⁺ = βv + (1 − β)g².

    dX = −P⁻¹(∇f dt + √η Σ^{1/2} dW) − θX dt, P = √V + ε,  dV = ρ((∇f)² + diag Σ − V) dt, ρ = (1 − β)/η.
    Variants: ``consistent`` puts the noise of g² into V, ρ√(η dt)((∇f + ζ)² − (∇f)² − diag Σ) with the ζ that
    moves X, and divides by the V after the update; ``published`` is the equation above; ``malladi`` leaves
    (∇f)² out of the V equation. ``order=2`` is the modified equation of weak order 2, for Gaussian noise.

    Arguments: ``gradient`` ∇f; ``noise``; ``learning_rate`` η; ``beta`` β, torch's alpha; ``eps`` ε;
    ``weight_decay`` θ; ``decay`` "decoupled" or "l2" (∇f → ∇f + θx); ``schedule`` factor on η at step k.
    Raises InputError for values out of range, InfiniteVarianceError at integration where Σ is infinite.
    Source: Compagnoni et al. 2025, arXiv 2411.15958; Malladi et al. 2022, arXiv 2205.10287; V-noise and order
    2 derived after Callisti, Romito, Triggiano 2025, arXiv 2509.21614.
    """

    def __init__(
        self,
        gradient: GradientFunction,
        noise: NoiseModel,
        learning_rate: float,
        beta: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        variant: str = "consistent",
        *,
        decay: str = "decoupled",
        schedule: Schedule | None = None,
        order: int = 1,
    ) -> None:
        super().__init__(
            gradient,
            noise,
            learning_rate,
            beta2=averaging_number("beta", beta),
            eps=eps,
            weight_decay=weight_decay,
            decay=decay,
            variant=variant,
            schedule=schedule,
            order=order,
        )
        self.name = "rmspropw" if self.decoupled else "rmsprop"
        self.state_names = ("x", "v")

    def _drift(self, state: State, factor: float, at_x: Moments | None = None) -> State:
        x, v = state["x"], state["v"]
        gradient, second = at_x or self.moments_now(x)
        move = gradient / (v.sqrt() + self.eps)
        if self.decoupled:
            move = move + self.decoupled * x
        return {"x": -factor * move, "v": self.rho2 * (second - v)}

    def _optimizer_drift(self, v: Tensor, factor: float, at_x: Moments) -> State:
        """Return the order-η part of the mean step: g and v⁺ are correlated, E g(g² − v) ≠ 0."""
        gradient, second = at_x
        # E g³ of Gaussian g is ∇f((∇f)² + 3σ²). As a difference: the derivative is infinite where v is 0.
        later = torch.lerp(v, 3 * second - 2 * gradient.square(), self.one_minus_beta2)
        change = gradient / (later.sqrt() + self.eps) - gradient / (v.sqrt() + self.eps)
        return {"x": (-factor / self.learning_rate) * change}

    def _modified(self, first: State, state: State, at: Substep, at_x: Moments) -> State:
        """Return the drift of the equation from ``first``, that of the leading order."""
        if self.order == 1:
            return first
        extra = self._optimizer_drift(state["v"], at.factor, at_x)
        return modified_drift(
            lambda moved: self._drift(moved, at.factor), first, state, extra, self.learning_rate
        )

    def drift(self, state: State, at: Substep) -> State:
        at_x = self.moments_now(state["x"])
        return self._modified(self._drift(state, at.factor, at_x), state, at, at_x)

    def terms(self, state: State, at: Substep) -> tuple[State, State]:
        x, v, eta = state["x"], state["v"], self.learning_rate
        zeta = self.noise.sqrt_covariance_product(x, at.normals)
        at_x = gradient, second = self.moments_now(x)
        first = self._drift(state, at.factor, at_x)
        noise = {"x": (-at.factor * math.sqrt(eta)) * zeta / (v.sqrt() + self.eps), "v": zeta.new_zeros(())}
        if self.variant == "consistent":
            square = (gradient + zeta).square()
            noise["v"] = square_noise(v, second, square, self.rho2, eta, at.dt)
        if self.order == 2:
            noise["x"] = own_share(v, self.variance(x), self.one_minus_beta2) * noise["x"]
            noise = modified_noise(
                lambda moved: self._drift(moved, at.factor),
                first,
                noise,
                state,
                eta,
                at.dt,
                still=self.positive,
            )
        return self._modified(first, state, at, at_x), noise

    def euler_step(self, state: State, at: Substep) -> None:
        x, v, u = state["x"], state["v"], at.factor
        if self.order == 2:
            return super().euler_step(state, at)
        if self.fused:
            move, unit = self.advance_fused(x, v, at)
            scale = math.sqrt(unit)
            divisor = self.divisor(v, self.eps / scale, at)
        else:
            gradient, second, one, other = self.moments_and_factors(x, at)
            move = torch.addcmul(gradient, one, other, value=at.root)
            divisor = self.divisor(v, self.eps, at)
            v.lerp_(second, self.one_minus_beta2 / at.substeps)
            scale = 1.0
        if self.decoupled:
            x.mul_(1 - u * self.decoupled * at.dt)
        x.addcdiv_(move, divisor, value=-u * at.dt / scale)
        return None

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"beta": self.beta2}
