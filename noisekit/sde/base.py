"""What an optimizer SDE is: dY = b(Y, t) dt + √η c(Y, t) dW, for a state Y of x and perhaps m and v."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import GradientFunction, State
from noisekit.errors import InfiniteVarianceError, InputError, kind_of
from noisekit.noise.base import NoiseModel
from noisekit.noise.gaussian import GaussianNoise
from noisekit.sde.brownian import Draws
from noisekit.sde.constants import Constants, constants_of

Schedule = Callable[[int], float]
"""Factor on the learning rate at optimizer step k, as in torch's LambdaLR."""


@dataclass(slots=True)
class Substep:
    """One piece of length dt = η/substeps of optimizer step ``step``, and the random numbers it uses."""

    step: int
    index: int
    substeps: int
    learning_rate: float
    factor: float
    lead: float
    normals: Tensor
    draws: Draws
    dt: float = field(init=False)
    """The length of the piece in units of t = ηk."""
    root: float = field(init=False)
    """√substeps = √(η/dt)."""

    def __post_init__(self) -> None:
        self.dt = self.learning_rate / self.substeps
        self.root = math.sqrt(self.substeps)

    @property
    def noise_step(self) -> float:
        """√(η dt), the size of the noise of the piece."""
        return self.learning_rate / self.root

    def buffer(self, name: str, like: Tensor) -> Tensor:
        """Return an uninitialised tensor shaped as ``like``: fresh memory in every step would cost more.

        One name is for one shape.
        """
        held = self.draws.buffers.get(name)
        if held is None:
            held = self.draws.buffers[name] = self.draws.workspace.take(name, like.shape, like)
        return held

    @property
    def position(self) -> float:
        """t/η at the start of the piece."""
        return self.step + self.index / self.substeps


class OptimizerSDE(ABC):
    """The SDE of one optimizer under one noise model; an SDE of one's own needs ``terms`` and ``name``.

    ``state_names`` are the tensors of the state, each (replicate, coordinate). ``positive`` names those that
    must stay positive. ``order`` is the weak order in η of the SDE itself.
    """

    name: str
    state_names: tuple[str, ...] = ("x",)
    positive: tuple[str, ...] = ()
    needs_variance: bool = True

    def __init__(
        self,
        gradient: GradientFunction,
        noise: NoiseModel,
        learning_rate: float,
        *,
        schedule: Schedule | None = None,
        order: int = 1,
    ) -> None:
        if not callable(gradient):
            raise InputError(
                "gradient must be a function of x (replicate, coordinate), such as problem.gradient."
            )
        if not isinstance(noise, NoiseModel):
            raise InputError(f"noise is {kind_of(noise)}; give a noise model such as GaussianNoise(scale=…).")
        if schedule is not None and not callable(schedule):
            raise InputError("schedule must be a function of the step that returns a factor, or None.")
        if isinstance(order, bool) or not isinstance(order, int) or order not in (1, 2):
            raise InputError(f"order is {order!r}; the SDEs here have weak order 1 or 2.")
        self.gradient_function = gradient
        self.noise = noise
        self.learning_rate = positive_number("learning_rate", learning_rate)
        self.schedule = schedule
        self.order = order
        self._needs_graph = True
        self._known: dict[tuple[torch.Size, torch.dtype, torch.device], Constants] = {}

    @abstractmethod
    def terms(self, state: State, at: Substep) -> tuple[State, State]:
        """Return the drift b and the noise per √dt, one entry for each tensor of the state.

        The noise has mean 0 and the covariance of √η c dW/√dt; it is a function of ``at.normals``
        (replicate, normal) or of ``at.draws``.
        """

    def drift(self, state: State, at: Substep) -> State:
        """Return the drift b of ``terms`` alone. Subclasses may leave out what only the noise needs."""
        return self.terms(state, at)[0]

    def euler_step(self, state: State, at: Substep) -> None:
        """Advance ``state`` in place by Y ← Y + b dt + √dt noise.

        Subclasses may fuse it, and may hold m and v in other units between the substeps of one step.
        """
        drift, noise = self.terms(state, at)
        root = math.sqrt(at.dt)
        for name in self.state_names:
            state[name].add_(drift[name], alpha=at.dt).add_(noise[name], alpha=root)

    def lead(self, substeps: int) -> float:
        """Return by what part of a step the state runs ahead of the optimizer when it starts from nothing."""
        return 0.0

    def optimizer_itself(self) -> OptimizerSDE:
        """Return an equation whose ``euler_step`` over dt = η is the step of the optimizer from any V."""
        raise InputError(
            f"whole_steps is for RMSprop and Adam from V = 0; {self.name} has no V, leave it out."
        )

    def start(self, x: Tensor, given: State, start_step: int, lead: float | None) -> State:
        """Return the state at ``start_step``: ``given`` tensors of the optimizer, zeros for the rest.

        ``lead`` is None for a solver that does not call ``euler_step``.
        """
        return {
            name: x if name == "x" else given[name] if name in given else torch.zeros_like(x)
            for name in self.state_names
        }

    def n_normals(self, x: Tensor) -> int:
        """Return how many standard normals a replicate needs in one substep."""
        return self.noise.n_normals(x)

    def factor(self, step: int) -> float:
        """Return the factor of the learning-rate schedule at ``step``."""
        return 1.0 if self.schedule is None else schedule_factor(self.schedule, step)

    def variance(self, x: Tensor) -> Tensor:
        """Return diag Σ(x), 1e-30 at least so that V is not 0, in a shape that broadcasts with x."""
        known = self.constants(x).variance
        return self.noise.variance(x).clamp(min=1e-30) if known is None else known

    def moments(self, x: Tensor, at: Substep) -> tuple[Tensor, Tensor]:
        """Return ∇f(x) and diag Σ; a Σ that moves with x is taken once a step, at its first substep.

        Over one step Σ moves by O(η), which changes V at second order.
        """
        known = self.constants_at(x, at).variance
        if known is not None:
            return self.gradient_at(x, at), known
        held = at.draws.held
        if at.index > 0 and "variance" in held:
            return self.gradient(x), held["variance"]
        held["variance"] = self.variance(x)
        return self.gradient(x), held["variance"]

    def moments_and_noise(self, x: Tensor, at: Substep) -> tuple[Tensor, Tensor, Tensor]:
        """Return ∇f(x), diag Σ and ζ = Σ(x)^{1/2} z; one pass gives them where they come from the same data.

        diag Σ is that of the first substep of the step.
        """
        if not self.shares_data:
            gradient, variance = self.moments(x, at)
            return gradient, variance, self.noise.sqrt_covariance_product(x, at.normals)
        held = at.draws.held
        if at.index > 0 and "variance" in held:
            gradient, draw = self.noise.gradient_and_noise(x, at.normals)  # type: ignore[attr-defined]
            return gradient, held["variance"], draw
        gradient, variance, draw = self.noise.moments_and_noise(x, at.normals)  # type: ignore[attr-defined]
        held["variance"] = variance.clamp_(min=1e-30)
        return gradient, variance, draw

    @cached_property
    def shares_data(self) -> bool:
        """Whether ∇f and the noise are those of one problem, so that one pass can give both."""
        owner = getattr(self.gradient_function, "__self__", None)
        same = owner is not None and owner is getattr(self.noise, "problem", None)
        return same and hasattr(self.noise, "drift_and_noise")

    def constants(self, x: Tensor) -> Constants:
        """Return what does not change along a path, for states like ``x``."""
        key = (x.shape, x.dtype, x.device)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = constants_of(self.noise, self.gradient_function, x)
        return found

    def constants_at(self, x: Tensor, at: Substep) -> Constants:
        """Return the constants for ``x``, the state of a chunk, which keeps them at hand."""
        known = at.draws.constants
        if known is None:
            known = at.draws.constants = self.constants(x)
        return known

    def gradient_at(self, x: Tensor, at: Substep) -> Tensor:
        """Return ∇f(x), in a buffer where it is known how."""
        curvature = self.constants_at(x, at).curvature
        if curvature is None:
            return self.gradient(x)
        return torch.mul(x, curvature, out=at.buffer("gradient", x))

    def gradient(self, x: Tensor) -> Tensor:
        """Return ∇f(x) outside any autograd graph, (replicate, coordinate)."""
        if not self._needs_graph:
            return self.gradient_function(x)
        with torch.enable_grad():
            return self.gradient_function(x).detach()

    def check(self, x: Tensor) -> None:
        """Refuse a gradient of wrong shape or dtype, and noise whose variance the SDE needs but has not."""
        probe = x[:2]
        try:
            gradient = self.gradient_function(probe)
            self._needs_graph = isinstance(gradient, Tensor) and gradient.requires_grad
        except RuntimeError:
            # autograd.grad inside the function finds no graph: it wants one that is recorded.
            self._needs_graph = True
            with torch.enable_grad():
                gradient = self.gradient_function(probe)
        if not isinstance(gradient, Tensor) or gradient.shape != probe.shape or gradient.dtype != probe.dtype:
            came = (
                f"{gradient.dtype} of shape {tuple(gradient.shape)}"
                if isinstance(gradient, Tensor)
                else type(gradient).__name__
            )
            raise InputError(
                f"gradient(x) returned {came} for x of {probe.dtype}, {tuple(probe.shape)}; "
                "it must return the same shape and dtype, (replicate, coordinate)."
            )
        if len(probe) == 2 and bool(torch.isfinite(gradient).all()):
            alone = self.gradient(probe[:1])[0]
            if bool((alone - gradient[0]).norm() > 0.01 * alone.norm()):
                raise InputError(
                    "gradient(x) of one replicate depends on how many there are; it must return ∇f of each "
                    "row by itself: sum the losses of the replicates before autograd, do not average them."
                )
        if self.needs_variance and bool(torch.isinf(self.variance(probe[:1])).any()):
            raise InfiniteVarianceError(
                f"The noise has infinite variance, so {self.name} has no SDE; use SignSGDSDE, "
                "which needs P(g < 0) only, or fit noise with more than 2 degrees of freedom."
            )

    def settings(self) -> dict[str, Any]:
        """Return what repeats the SDE, as plain values."""
        text = repr(self.noise)
        # The address in a default repr is not the same in the next process.
        name = type(self.noise).__name__ if " at 0x" in text else text
        return {"noise": name, "schedule": self.schedule is not None, "order": self.order}

    def __repr__(self) -> str:
        settings = {"learning_rate": self.learning_rate, **self.settings()}
        noise = settings.pop("noise")
        shown = [f"{name}={value!r}" for name, value in settings.items() if value is not False]
        return f"{type(self).__name__}({', '.join([*shown, f'noise={noise}'])})"


def schedule_factor(schedule: Schedule, step: int) -> float:
    """Return the factor of ``schedule`` at ``step`` if it is a finite number of at least 0."""
    given = schedule(step)
    value = float(given) if isinstance(given, (int, float, Tensor)) else math.nan
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"The schedule gives {given!r} at step {step}; it must be finite and not negative.")
    return value


def is_normal(noise: NoiseModel) -> bool:
    """Return whether Σ^{1/2} z with normal z has the law of the noise itself, not only its covariance."""
    return isinstance(noise, GaussianNoise) or getattr(noise, "law", None) == "gaussian"


def positive_number(name: str, value: float) -> float:
    """Return ``value`` as a float if it is finite and above 0."""
    if not _is_number(value) or not math.isfinite(value) or value <= 0:
        raise InputError(f"{name} is {value!r}; it must be a finite number above 0.")
    return float(value)


def decay_number(name: str, value: float) -> float:
    """Return ``value`` as a float if it is finite and not negative."""
    if not _is_number(value) or not math.isfinite(value) or value < 0:
        raise InputError(f"{name} is {value!r}; it must be a finite number, 0 or above.")
    return float(value)


def averaging_number(name: str, value: float) -> float:
    """Return ``value`` as a float if it is in [0, 1)."""
    if not _is_number(value) or not 0 <= value < 1:
        raise InputError(f"{name} is {value!r}; it must be in [0, 1).")
    return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
