"""SGD, with momentum, weight decay and a learning-rate schedule."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import GradientFunction, State
from noisekit.errors import InputError
from noisekit.noise.base import NoiseModel, check_flag
from noisekit.sde.base import OptimizerSDE, Schedule, Substep, averaging_number, decay_number, positive_number
from noisekit.sde.constants import Constants, largest_curvature
from noisekit.sde.momentum import momentum_equation, momentum_variant
from noisekit.sde.second_order import modified_drift, modified_noise
from noisekit.sde.stability import stability_limit


class SGDSDE(OptimizerSDE):
    """The SDE of stochastic gradient descent.

    dX = −∇f(X) dt + √η Σ(X)^{1/2} dW, t = ηk.
    With momentum μ and torch's buffer B (B⁺ = μB + g, x⁺ = x − ηB⁺), g = ∇f(X + ηB/2) dt + √η Σ^{1/2} dW:
    dX = −(2μB dt + g)/(1 + μ),  dB = 2(g − (1 − μ)B dt)/((1 + μ)η).
    ``variant`` says which equation momentum has: "midpoint" is that one; "kinetic" dX = −B dt,
    dB = η⁻¹(g − (1 − μ)B dt), of the literature; "consistent" dX = −(μB dt + g), dB as there, a step's own
    difference, which has (1 + ηλ/(1 − μ)) times the friction. In the last two g is read at X.
    ``order=2`` is dY = b dt + √η c dW − (η/2) db(Y), the differential in the sense of Itô: the drift gains
    −∇(η|∇f|²/4) and the noise the factor I + (η/2)∇²f, without which the loss at rest would be further off.
    With momentum it is that of "consistent".

    Arguments: ``gradient`` ∇f, x → same shape (replicate, coordinate); ``noise`` the law of g − ∇f;
    ``learning_rate`` η, or (1 − τ)η and the buffer B/(1 − τ) for torch's ``dampening`` τ; ``momentum`` μ in
    [0, 1); ``variant`` "midpoint" (default), "kinetic" or "consistent"; ``nesterov`` as in torch;
    ``weight_decay`` θ of the L2 kind (∇f → ∇f + θx); ``schedule`` factor on η at step k; ``curvature`` the
    largest eigenvalue of the Hessian, only to warn where gradient descent itself is unstable,
    η > 2(1 + μ)/λ; known without being given where ``gradient`` is that of a ``Quadratic`` or a
    ``LinearRegression``.
    Raises InputError for values out of range, InfiniteVarianceError at integration where Σ is infinite.
    Source: Li, Tai, E 2017, arXiv 1511.06251; Compagnoni et al. 2025, arXiv 2411.15958; "kinetic" Qian 1999,
    Neural Networks 12(1):145-151, Mandt, Hoffman, Blei 2017, arXiv 1704.04289; "midpoint" derived.

    >>> import torch, noisekit as nk
    >>> sde = nk.SGDSDE(lambda x: x, nk.GaussianNoise(scale=0.0), learning_rate=0.1)
    >>> nk.integrate(sde, torch.ones(1, dtype=torch.float64), steps=10).state["x"][0, -1].round(decimals=2)
    tensor([0.3700], dtype=torch.float64)
    """

    def __init__(
        self,
        gradient: GradientFunction,
        noise: NoiseModel,
        learning_rate: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        schedule: Schedule | None = None,
        order: int = 1,
        curvature: float | None = None,
        variant: str | None = None,
    ) -> None:
        super().__init__(gradient, noise, learning_rate, schedule=schedule, order=order)
        self.momentum = averaging_number("momentum", momentum)
        self.nesterov = check_flag("nesterov", nesterov)
        self.weight_decay = decay_number("weight_decay", weight_decay)
        self.variant = momentum_variant(variant, self.momentum, nesterov=self.nesterov, order=order)
        self._moves = momentum_equation(self.variant, self.momentum, self.nesterov)
        self.name = "sgd"
        self.state_names = ("x", "m") if momentum else ("x",)
        if nesterov and not momentum:
            raise InputError("nesterov needs a momentum above 0.")
        known = largest_curvature(gradient) if curvature is None else positive_number("curvature", curvature)
        if known is not None and known > 0:
            self._warn_unstable(known)

    def _warn_unstable(self, curvature: float) -> None:
        limit = stability_limit(curvature + self.weight_decay, self.momentum)
        if self.learning_rate > limit and not self.nesterov:
            warnings.warn(
                f"learning_rate {self.learning_rate:g} is beyond the stability limit {limit:g} of curvature "
                f"{curvature:g}: SGD diverges there, its SDE does not see it.",
                stacklevel=3,
            )

    def _decayed_gradient(self, x: Tensor) -> Tensor:
        gradient = self.gradient(x)
        return gradient.add(x, alpha=self.weight_decay) if self.weight_decay else gradient

    def _drift(self, state: State, factor: float) -> State:
        x, moves = state["x"], self._moves
        if not self.momentum:
            return {"x": -factor * self._decayed_gradient(x)}
        buffer = state["m"]
        behind = x.add(buffer, alpha=factor * moves.back * self.learning_rate) if moves.back else x
        gradient = self._decayed_gradient(behind)
        pull = gradient - (1 - self.momentum) * buffer
        return {
            "x": -factor * (moves.carried * buffer + moves.direct * gradient),
            "m": pull * (moves.kick / self.learning_rate),
        }

    def _noise(self, x: Tensor, at: Substep) -> State:
        zeta = self.noise.sqrt_covariance_product(x, at.normals)
        root = math.sqrt(self.learning_rate)
        noise = {"x": (-at.factor * self._moves.direct * root) * zeta}
        return noise | {"m": zeta * (self._moves.kick / root)} if self.momentum else noise

    def _modified(self, first: State, state: State, at: Substep) -> State:
        """Return the drift of the equation from ``first``, that of order 1."""
        if self.order == 1:
            return first
        return modified_drift(
            lambda moved: self._drift(moved, at.factor), first, state, {}, self.learning_rate
        )

    def drift(self, state: State, at: Substep) -> State:
        return self._modified(self._drift(state, at.factor), state, at)

    def terms(self, state: State, at: Substep) -> tuple[State, State]:
        first, noise = self._drift(state, at.factor), self._noise(state["x"], at)
        if self.order == 2:
            noise = modified_noise(
                lambda moved: self._drift(moved, at.factor), first, noise, state, self.learning_rate, at.dt
            )
        return self._modified(first, state, at), noise

    def euler_step(self, state: State, at: Substep) -> None:
        if self.momentum and self.variant != "consistent":
            return self._leapfrog(state, at)
        if self.momentum or self.order == 2:
            return super().euler_step(state, at)
        x, u = state["x"], at.factor
        if self.shares_data:
            # One backward pass of a randomly weighted loss gives the drift and the noise together.
            x_old = x.clone() if self.weight_decay else x
            move = self.noise.drift_and_noise(x, at.normals, u * at.dt, u * at.noise_step)  # type: ignore[attr-defined]
            x.sub_(move)
            if self.weight_decay:
                x.sub_(x_old, alpha=u * at.dt * self.weight_decay)
            return None
        known = self.constants_at(x, at)
        diagonal = known.scale is not None and known.curvature is not None
        if diagonal and known.loud and at.substeps > 1 and u and reads_cost_most(x):
            return self._step_in_units_of_noise(x, known, at)
        zeta = self.noise.sqrt_covariance_product(x, at.normals) if known.scale is None else None
        if known.curvature is not None and not self.weight_decay:
            x.addcmul_(x, known.curvature, value=-u * at.dt)
        else:
            x.sub_(self._decayed_gradient(x), alpha=u * at.dt)
        if known.scale is not None:
            x.addcmul_(at.normals, known.scale, value=-u * at.noise_step)
        elif zeta is not None:
            x.sub_(zeta, alpha=u * at.noise_step)
        return None

    def _leapfrog(self, state: State, at: Substep) -> None:
        """Advance by half a drift, a kick and half a drift: of order 2 in dt, and Euler's cost.

        Euler's own step would take the friction ηλ dt away, which is much beside 1 − μ. At dt = η the step of
        "midpoint" is that of the optimizer.
        """
        x, buffer, moves = state["x"], state["m"], self._moves
        share, unit = 1 / at.substeps, at.factor * self.learning_rate
        shift = unit * (moves.back + moves.ahead)
        half = moves.kick * (1 - self.momentum) * share / 2
        drift, noise = moves.kick * share / (1 + half), moves.kick * math.sqrt(share) / (1 + half)
        x.add_(buffer, alpha=shift - unit * share / 2)
        point = x.sub(buffer, alpha=unit * moves.ahead) if moves.ahead else x
        kick = self._kick(point, at, drift, noise)
        buffer.mul_((1 - half) / (1 + half)).add_(kick)
        x.sub_(buffer, alpha=shift + unit * share / 2)

    def _kick(self, x: Tensor, at: Substep, drift: float, noise: float) -> Tensor:
        """Return ``drift``·∇f(x) + ``noise``·ζ, in one pass where both come from the same data."""
        if self.shares_data:
            kick: Tensor = self.noise.drift_and_noise(x, at.normals, drift, noise)  # type: ignore[attr-defined]
            return kick.add(x, alpha=drift * self.weight_decay) if self.weight_decay else kick
        zeta = self.noise.sqrt_covariance_product(x, at.normals)
        return self._decayed_gradient(x).mul(drift).add_(zeta, alpha=noise)

    def _step_in_units_of_noise(self, x: Tensor, known: Constants, at: Substep) -> None:
        """Advance x in one pass over memory: with y = x/(−u√(η dt) σ), y ← z + (1 − u dt (λ + θ)) y.

        Inside a step ``state`` holds y.
        """
        assert known.scale is not None
        assert known.curvature is not None
        size, held = -at.factor * at.noise_step, at.draws.held
        if at.index == 0:
            x.div_(known.scale * size)
            held["kept"] = 1 - at.factor * at.dt * (known.curvature + self.weight_decay)
        torch.addcmul(at.normals, x, held["kept"], out=x)
        if at.index + 1 == at.substeps:
            x.mul_(known.scale * size)

    def settings(self) -> dict[str, Any]:
        chosen = {"variant": self.variant} if self.momentum else {}
        return super().settings() | {
            **chosen,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "weight_decay": self.weight_decay,
        }


def reads_cost_most(x: Tensor) -> bool:
    """Whether passes over memory take the time there, as on a GPU, whose numbers are its own anyway."""
    return x.device.type != "cpu"
