"""The optimizers known by name: their noise, their SDE, and torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from noisekit._typing import GradientFunction, OptimizerFactory
from noisekit.noise import GaussianNoise, MinibatchNoise, NoiseModel
from noisekit.optimizers import RMSpropW, SignSGD
from noisekit.problems import Problem, SampledProblem
from noisekit.sde import SGDSDE, AdamSDE, OptimizerSDE, RMSpropSDE, SignSGDSDE
from noisekit.study.config import StudyConfig


def minibatch_noise_for(name: str, problem: SampledProblem, batch_size: int) -> MinibatchNoise:
    """Return the noise of the problem's minibatches at x, as the optimizer called ``name`` needs it.

    SignSGD takes the law of the minibatches themselves; for the others their covariance is enough.
    """
    return MinibatchNoise(problem, batch_size, law="empirical" if name == "signsgd" else "gaussian")


def study_noise(name: str, problem: Problem, config: StudyConfig) -> NoiseModel:
    """Return the noise of the problem's minibatches, or white Gaussian noise where it has no samples."""
    if isinstance(problem, SampledProblem):
        return minibatch_noise_for(name, problem, config.batch_size)
    return GaussianNoise(scale=config.artificial_noise)


def build_sde(
    name: str, gradient: GradientFunction, noise: NoiseModel, learning_rate: float, **settings: Any
) -> OptimizerSDE:
    """Return the SDE of the optimizer called ``name``; ``settings`` are those of its class.

    Names that end in w have decoupled weight decay, others of L2 kind.
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
    raise ValueError(name)


def build_optimizer(name: str, learning_rate: float, **settings: Any) -> OptimizerFactory:
    """Return the function that makes the torch optimizer called ``name``; ``settings`` as of its SDE."""
    makers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "signsgd": SignSGD,
        "rmsprop": torch.optim.RMSprop,
        "rmspropw": RMSpropW,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    # AdamW decays by default in torch, and RMSprop calls its β alpha.
    options = {"lr": learning_rate, "weight_decay": 0.0} | settings
    if "beta" in options:
        options["alpha"] = options.pop("beta")
    return lambda parameters: makers[name](parameters, **options)
