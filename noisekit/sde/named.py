"""The SDE of an optimizer that is known by name."""

from __future__ import annotations

from typing import Any

from noisekit._typing import GradientFunction
from noisekit.errors import unknown_name
from noisekit.noise.base import NoiseModel
from noisekit.sde.adam import AdamSDE
from noisekit.sde.base import OptimizerSDE
from noisekit.sde.rmsprop import RMSpropSDE
from noisekit.sde.sgd import SGDSDE
from noisekit.sde.signsgd import SignSGDSDE


def build_sde(
    name: str, gradient: GradientFunction, noise: NoiseModel, learning_rate: float, **settings: Any
) -> OptimizerSDE:
    """Return the SDE of the optimizer called ``name``; ``settings`` are those of its class.

    Names of adaptive optimizers that end in w have decoupled weight decay, others of L2 kind.
    Raises InputError for another name.
    """
    match name:
        case "sgd":
            return SGDSDE(gradient, noise, learning_rate, **settings)
        case "signsgd":
            return SignSGDSDE(gradient, noise, learning_rate, **settings)
        case "rmsprop" | "rmspropw" | "adam" | "adamw":
            kind = "decoupled" if name.endswith("w") else "l2"
            made = RMSpropSDE if name.startswith("rmsprop") else AdamSDE
            return made(gradient, noise, learning_rate, decay=kind, **settings)
    raise unknown_name("optimizer", name, ("sgd", "signsgd", "rmsprop", "rmspropw", "adam", "adamw"))
