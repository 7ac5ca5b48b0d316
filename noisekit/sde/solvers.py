"""Solvers: how an SDE is advanced over one substep. A solver knows nothing of optimizers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace

import torch

from noisekit._typing import State
from noisekit.sde.base import OptimizerSDE, Substep


class Solver(ABC):
    """A scheme for dY = b dt + √η c dW.

    ``order`` is its weak order in dt for noise that does not depend on the state; for noise that does, what
    remains is of order η·dt, because the noise of an optimizer SDE is of size √η.
    """

    order: int
    name: str
    uses_euler_step: bool = False
    """Whether the solver calls the equation's own Euler step, which may take the state in another order."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @abstractmethod
    def step(self, sde: OptimizerSDE, state: State, at: Substep) -> None:
        """Advance ``state`` in place from t to t + dt."""


class EulerMaruyama(Solver):
    """The Euler–Maruyama scheme, Y ← Y + b(Y) dt + c(Y) ΔW: weak order 1.

    Source: Kloeden, Platen 1992, chapter 14.
    """

    order = 1
    name = "euler-maruyama"
    uses_euler_step = True

    def step(self, sde: OptimizerSDE, state: State, at: Substep) -> None:
        sde.euler_step(state, at)


class StochasticHeun(Solver):
    """Heun's scheme in the Itô sense: weak order 2 for additive noise, dt² + η·dt otherwise.

    Ȳ = Y + b(Y) dt + c(Y) ΔW,  Y ← Y + ½(b(Y) + b(Ȳ)) dt + c(Y) ΔW: two gradients a substep.
    A state that must stay positive moves by D′(1 + noise/D), D and D′ its means after one and two stages.
    Source: Kloeden, Platen 1992, section 15.1; small noise: Milstein, Tretyakov 1997.
    """

    order = 2
    name = "stochastic-heun"

    def step(self, sde: OptimizerSDE, state: State, at: Substep) -> None:
        dt, root = at.dt, math.sqrt(at.dt)
        drift, noise = sde.terms(state, at)
        euler = {name: state[name] + dt * drift[name] for name in sde.state_names}
        moved = {name: euler[name] + root * noise[name] for name in sde.state_names}
        end = replace(at, index=at.index + 1)
        second = sde.drift(moved, end)
        for name in sde.state_names:
            mean = state[name] + (0.5 * dt) * (drift[name] + second[name])
            if name in sde.positive:
                mean = torch.where(mean > 0, mean, euler[name])
                state[name].copy_(mean * (1 + root * noise[name] / euler[name]))
            else:
                state[name].copy_(mean + root * noise[name])
