"""Adam with bias correction, with decoupled (AdamW) or L2 weight decay."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import GradientFunction, State
from noisekit.errors import InputError
from noisekit.noise.base import NoiseModel
from noisekit.sde.base import Schedule, Substep, averaging_number
from noisekit.sde.preconditioned import Moments, PreconditionedSDE
from noisekit.sde.second_order import modified_drift, modified_noise, own_share
from noisekit.sde.square_average import square_noise


class AdamSDE(PreconditionedSDE):
    """The SDE of Adam as torch runs it, with the bias corrections ι_i of the step being taken.

    dM = ρ₁(∇f − M) dt + √η ρ₁ Σ^{1/2} dW,  dV = ρ₂((∇f)² + diag Σ − V) dt,  ρ_i = (1 − β_i)/η,
    dX = −(√ι₂/ι₁) P⁻¹ [ … ] − θX dt,  P = √V + ε√ι₂,  ι_i = 1 − β_i^{t/η+1}, where […] is
    ``published`` (M + ηρ₁(∇f − M)) dt;  ``malladi`` M dt, and no (∇f)² in the V equation;
    ``consistent`` (M + ηρ₁(∇f − M)) dt + η^{3/2} ρ₁ Σ^{1/2} dW, the same W, with the noise of g² in V and the
    V after the update in P. ``order=2`` is the modified equation of weak order 2, for Gaussian noise.
    From a zero state the error is worse than first order in η: let the first steps be the optimizer's own, or
    start from its state (``whole_steps``, ``start_step`` and ``init_state`` of ``integrate``).

    Arguments: ``gradient`` ∇f; ``noise``; ``learning_rate`` η; ``betas`` (β₁, β₂); ``eps`` ε;
    ``weight_decay`` θ; ``decay`` "decoupled" or "l2" (∇f → ∇f + θx); ``schedule`` factor on η at step k.
    Raises InputError for values out of range, InfiniteVarianceError at integration where Σ is infinite.
    Source: Compagnoni et al. 2025, arXiv 2411.15958, Theorem 3.12; Malladi et al. 2022, arXiv 2205.10287.
    """

    def __init__(
        self,
        gradient: GradientFunction,
        noise: NoiseModel,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        variant: str = "consistent",
        *,
        decay: str = "decoupled",
        schedule: Schedule | None = None,
        order: int = 1,
    ) -> None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise InputError(f"betas is {betas!r}; it must be two numbers (β₁, β₂).")
        super().__init__(
            gradient,
            noise,
            learning_rate,
            beta2=averaging_number("betas[1]", betas[1]),
            eps=eps,
            weight_decay=weight_decay,
            decay=decay,
            variant=variant,
            schedule=schedule,
            order=order,
        )
        self.beta1 = averaging_number("betas[0]", betas[0])
        self.name = "adamw" if self.decoupled else "adam"
        self.state_names = ("x", "m", "v")

    @property
    def rho1(self) -> float:
        """ρ₁ = (1 − β₁)/η, the rate at which M forgets."""
        return (1 - self.beta1) / self.learning_rate

    def _corrections(self, first: float, second: float) -> tuple[float, float]:
        """Return √ι₂/ι₁ and √ι₂ after ``first`` and ``second`` steps of M and of V."""
        root = math.sqrt(1 - self.beta2**second)
        return root / (1 - self.beta1**first), root

    def _drift(self, state: State, position: float, factor: float, at_x: Moments | None = None) -> State:
        x, m, v = state["x"], state["m"], state["v"]
        ratio, root = self._corrections(position + 1, position + 1)
        gradient, second = at_x or self.moments_now(x)
        direction = m
        if self.order == 1 and self.variant != "malladi":
            direction = torch.lerp(m, gradient, 1 - self.beta1)
        move = ratio * direction / (v.sqrt() + self.eps * root)
        if self.decoupled:
            move = move + self.decoupled * x
        return {"x": -factor * move, "m": self.rho1 * (gradient - m), "v": self.rho2 * (second - v)}

    def _optimizer_drift(self, state: State, at: Substep, at_x: Moments) -> State:
        """Return the order-η part of the mean step: the direction is m⁺/P(v⁺), not m/P(v)."""
        m, v = state["m"], state["v"]
        ratio, root = self._corrections(at.position + 1, at.position + 1)
        gradient, second = at_x
        # As a difference: the derivative in v is infinite where v is 0, as of an input that is always 0.
        now = m / (v.sqrt() + self.eps * root)
        m, v = torch.lerp(m, gradient, 1 - self.beta1), torch.lerp(v, second, self.one_minus_beta2)
        later = m / (v.sqrt() + self.eps * root)
        return {"x": (-at.factor * ratio / self.learning_rate) * (later - now)}

    def _own_weight(self, substeps: int) -> float:
        """Return the weight of a gradient in V while it is in M, less what the noise of V tells already.

        Σ_j (1 − β₁)β₁ʲ(1 − β₂)β₂ʲ. It comes from E ΔM²ΔV, which in the SDE is 1/√substeps of the optimizer's.
        """
        first, second = 1 - self.beta1, self.one_minus_beta2
        told = 1 / ((first + second) * math.sqrt(substeps))
        return first * second * (1 / (1 - self.beta1 * self.beta2) - told)

    def _modified(self, first: State, state: State, at: Substep, at_x: Moments) -> State:
        """Return the drift of the equation from ``first``, that of the leading order."""
        if self.order == 1:
            return first
        extra, ahead = self._optimizer_drift(state, at, at_x), at.position + 1
        return modified_drift(
            lambda moved: self._drift(moved, ahead, at.factor), first, state, extra, self.learning_rate
        )

    def drift(self, state: State, at: Substep) -> State:
        at_x = self.moments_now(state["x"])
        return self._modified(self._drift(state, at.position, at.factor, at_x), state, at, at_x)

    def terms(self, state: State, at: Substep) -> tuple[State, State]:
        x, v, eta = state["x"], state["v"], self.learning_rate
        zeta = self.noise.sqrt_covariance_product(x, at.normals)
        at_x = gradient, second = self.moments_now(x)
        first = self._drift(state, at.position, at.factor, at_x)
        noise = {"x": zeta.new_zeros(()), "m": (math.sqrt(eta) * self.rho1) * zeta, "v": zeta.new_zeros(())}
        if self.variant == "consistent":
            ratio, root = self._corrections(at.position + 1, at.position + 1)
            size = at.factor * ratio * (1 - self.beta1) * math.sqrt(eta)
            noise["x"] = -size * zeta / (v.sqrt() + self.eps * root)
            noise["v"] = square_noise(v, second, (gradient + zeta).square(), self.rho2, eta, at.dt)
        if self.order == 2:
            share = own_share(v, self.variance(x), self._own_weight(at.substeps))
            noise |= {"x": share * noise["x"], "m": share * noise["m"]}
            noise = modified_noise(
                lambda moved: self._drift(moved, at.position, at.factor),
                first,
                noise,
                state,
                eta,
                at.dt,
                still=self.positive,
            )
        return self._modified(first, state, at, at_x), noise

    def euler_step(self, state: State, at: Substep) -> None:
        if self.order == 2:
            return super().euler_step(state, at)
        x, m, v, u = state["x"], state["m"], state["v"], at.factor
        part = 1 - self.beta1
        if self.fused:
            move, unit = self.advance_fused(x, v, at)
            ratio, root = self._corrections(at.position + 1, at.position + 1 / at.substeps + at.lead)
            ratio /= math.sqrt(unit)
            divisor = self.divisor(v, self.eps * root / math.sqrt(unit), at)
            direction, unit = self._advance_mean(m, move, at)
            ratio *= unit
        else:
            gradient, second, one, other = self.moments_and_factors(x, at)
            ratio, root = self._corrections(at.position + 1, at.position + 1)
            divisor = self.divisor(v, self.eps * root, at)
            v.lerp_(second, self.one_minus_beta2 / at.substeps)
            move = torch.addcmul(gradient, one, other, value=at.root)
            direction = m
            if self.variant != "malladi":
                direction = torch.lerp(m, gradient, part, out=at.buffer("second", x))
        if self.decoupled:
            x.mul_(1 - u * self.decoupled * at.dt)
        x.addcdiv_(direction, divisor, value=-u * ratio * at.dt)
        if not self.fused:
            m.lerp_(move, part / at.substeps)
        return None

    def _advance_mean(self, m: Tensor, move: Tensor, at: Substep) -> tuple[Tensor, float]:
        """Advance M in place; return the direction M + (1 − β₁)(move − M) and the unit in which it is.

        Inside a step ``m`` holds M over the unit (1 − ρ₁ dt)^{substeps done}, as ``v`` holds V.
        """
        part, share = 1 - self.beta1, (1 - self.beta1) / at.substeps
        if at.substeps == 1:
            return m.lerp_(move, part), 1.0
        unit, after = (1 - share) ** at.index, (1 - share) ** (at.index + 1)
        direction, scale = move, 1.0
        if self.beta1:
            scale = self.beta1 * unit
            direction = torch.add(m, move, alpha=part / scale, out=at.buffer("second", m))
        m.add_(move, alpha=share / after)
        if at.index + 1 == at.substeps:
            m.mul_(after)
        return direction, scale

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"betas": [self.beta1, self.beta2]}
