"""What RMSprop and Adam share: a running square average, weight decay of two kinds, and variants."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import GradientFunction, State
from noisekit.errors import InputError, unknown_name
from noisekit.noise.base import NoiseModel
from noisekit.sde.base import OptimizerSDE, Schedule, Substep, decay_number
from noisekit.sde.square_average import advance_square_average

Moments = tuple[Tensor, Tensor]
"""∇f and what V tends to, (replicate, coordinate) each."""


class PreconditionedSDE(OptimizerSDE):
    """An SDE whose step is divided by √V + ε."""

    positive = ("v",)
    variants: tuple[str, ...] = ("consistent", "published", "malladi")

    def __init__(
        self,
        gradient: GradientFunction,
        noise: NoiseModel,
        learning_rate: float,
        *,
        beta2: float,
        eps: float,
        weight_decay: float,
        decay: str,
        variant: str,
        schedule: Schedule | None,
        order: int,
    ) -> None:
        super().__init__(gradient, noise, learning_rate, schedule=schedule, order=order)
        if variant not in self.variants:
            raise unknown_name("variant", variant, self.variants)
        if decay not in ("decoupled", "l2"):
            raise unknown_name("kind of decay", decay, ("decoupled", "l2"))
        if order == 2 and variant != "consistent":
            raise InputError(f"The order-2 SDE extends the 'consistent' variant, not {variant!r}.")
        self.one_minus_beta2 = 1 - beta2
        self.beta2 = beta2
        self.eps = decay_number("eps", eps)
        self.weight_decay = decay_number("weight_decay", weight_decay)
        self.decay = decay
        self.variant = variant
        self.decoupled = self.weight_decay if decay == "decoupled" else 0.0

    @property
    def rho2(self) -> float:
        """ρ₂ = (1 − β₂)/η, the rate at which V forgets."""
        return self.one_minus_beta2 / self.learning_rate

    @cached_property
    def fused(self) -> bool:
        """Whether an Euler step divides by the V after its update, as the optimizer does."""
        return self.variant == "consistent" and self.order == 1

    def decayed_gradient(self, x: Tensor) -> Tensor:
        """Return ∇f, plus θx where the decay is of the L2 kind."""
        gradient = self.gradient(x)
        return gradient.add(x, alpha=self.weight_decay) if self.decay == "l2" else gradient

    def moments_and_factors(self, x: Tensor, at: Substep) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return ∇f with θx for L2 decay, S, what V tends to, and two tensors whose product is ζ."""
        known = self.constants_at(x, at)
        if known.scale is not None:
            gradient, variance = self.moments(x, at)
            one, other = at.normals, known.scale
        else:
            gradient, variance, one = self.moments_and_noise(x, at)
            other = known.one
        if self.decay == "l2":
            gradient = gradient.add(x, alpha=self.weight_decay)
        if self.variant == "malladi":
            return gradient, variance.expand_as(x), one, other
        second = torch.addcmul(variance, gradient, gradient, out=at.buffer("second", x))
        return gradient, second, one, other

    def advance_fused(self, x: Tensor, v: Tensor, at: Substep) -> tuple[Tensor, float]:
        """Advance V in place; return ∇f + √substeps ζ, which moves X and M over dt, and the unit of ``v``."""
        if self.shares_data:
            second, noisy, move = self.data_step(x, at)
        else:
            second, noisy, move = self._separate_step(x, at)
        return move, advance_square_average(v, second, noisy, self.one_minus_beta2, at)

    def _separate_step(self, x: Tensor, at: Substep) -> tuple[Tensor, Tensor, Tensor]:
        """Return S, ∇f + ζ and ∇f + √substeps ζ in buffers, from a gradient and a noise of their own."""
        # ∇f is in the buffer "gradient" where it is in a buffer at all, and is overwritten in the end.
        move = at.buffer("gradient", x)
        if at.substeps > 1:
            gradient, second, one, other = self.moments_and_factors(x, at)
            noisy = torch.addcmul(gradient, one, other, out=at.buffer("noisy", x))
            return second, noisy, torch.addcmul(gradient, one, other, value=at.root, out=move)
        # V moves by the noisy square alone then, and needs no mean.
        gradient, known = self.gradient_at(x, at), self.constants_at(x, at)
        if self.decay == "l2":
            gradient = gradient.add(x, alpha=self.weight_decay)
        if known.scale is not None:
            torch.addcmul(gradient, at.normals, known.scale, out=move)
        else:
            torch.add(gradient, self.noise.sqrt_covariance_product(x, at.normals), out=move)
        return move, move, move

    def divisor(self, v: Tensor, eps: float, at: Substep) -> Tensor:
        """Return √V + ε in a buffer."""
        root = torch.sqrt(v, out=at.buffer("noisy", v))
        return root.add_(self.constants_at(v, at).one, alpha=eps)

    def data_step(self, x: Tensor, at: Substep) -> tuple[Tensor, Tensor, Tensor]:
        """Return S, ∇f + ζ and ∇f + √substeps ζ from one pass over the data of both.

        V needs ∇f and diag Σ apart: these are taken once a step, which changes V at second order in η.
        """
        root, held = at.root, at.draws.held
        if at.index == 0 and at.substeps > 1:
            gradient, _, zeta = self.moments_and_noise(x, at)
            move = torch.add(gradient, zeta, alpha=root)
            if self.decay == "l2":
                gradient = gradient.add(x, alpha=self.weight_decay)
            held["gradient"] = gradient
        else:
            move = self.noise.drift_and_noise(x, at.normals, 1.0, root)  # type: ignore[attr-defined]
        if self.decay == "l2":
            move = move.add(x, alpha=self.weight_decay)
        second = at.buffer("second", x)
        if at.substeps == 1:
            return second, move, move
        gradient = held["gradient"]
        torch.addcmul(held["variance"], gradient, gradient, out=second)
        return second, torch.lerp(gradient, move, 1 / root), move

    def moments_now(self, x: Tensor) -> Moments:
        """Return ∇f, with θx where the decay is of the L2 kind, and what V tends to, both at this very x."""
        gradient = self.decayed_gradient(x)
        return gradient, self.second_moment(x, gradient)

    def second_moment(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Return what V tends to: (∇f)² + diag Σ, or diag Σ alone in the variant of Malladi et al."""
        variance = self.variance(x)
        if self.variant == "malladi":
            return variance.expand_as(x)
        return torch.addcmul(variance, gradient, gradient)

    def optimizer_itself(self) -> PreconditionedSDE:
        """Return the equation of order 1, whose Euler step over dt = η divides by the V after its update."""
        if self.variant != "consistent":
            raise InputError(
                f"whole_steps is for the 'consistent' variant, not {self.variant!r}; leave it out."
            )
        if self.order == 1:
            return self
        first = copy.copy(self)
        first.order = 1
        first.__dict__.pop("fused", None)
        return first

    def lead(self, substeps: int) -> float:
        """Return by what part of a step V(t) runs ahead of v_k at t = ηk when it starts from nothing.

        Step k uses v_{k+1} from t = ηk to η(k + 1), so that V(t) belongs to k + ½; V after the update of a
        substep is already dt ahead. This keeps Σ_k 1/√k of the first steps, which ∫dt/√t is not.
        """
        return (1 - 1 / substeps) / 2 if self.fused else 0.0

    def start(self, x: Tensor, given: State, start_step: int, lead: float | None) -> State:
        state = super().start(x, given, start_step, lead)
        if "v" not in given:
            # Elsewhere V is that of the step being taken: it must not start at 0.
            ahead = lead if self.fused and lead is not None else 1.0
            second = self.second_moment(x, self.decayed_gradient(x))
            state["v"] = (1 - self.beta2 ** (start_step + ahead)) * second
        return state

    def settings(self) -> dict[str, Any]:
        return super().settings() | {
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "decay": self.decay,
            "variant": self.variant,
        }
