"""The optimizers a study knows by name: their noise, their SDE, and torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from noisekit._typing import OptimizerFactory
from noisekit.noise import GaussianNoise, MinibatchNoise, NoiseModel
from noisekit.optimizers import RMSpropW, SignSGD
from noisekit.problems import Problem, SampledProblem
from noisekit.sde import SGDSDE, AdamSDE, OptimizerSDE, RMSpropSDE, SignSGDSDE
from noisekit.study.config import StudyConfig


def study_noise(name: str, problem: Problem, config: StudyConfig) -> NoiseModel:
    """Return the noise of the problem's minibatches at x, or white Gaussian noise where it has no samples.

    SignSGD takes the law of the minibatches themselves; for the others their covariance is enough.
    """
    if isinstance(problem, SampledProblem):
        return MinibatchNoise(
            problem, config.batch_size, law="empirical" if name == "signsgd" else "gaussian"
        )
    return GaussianNoise(scale=config.artificial_noise)


def build_sde(name: str, problem: Problem, noise: NoiseModel, config: StudyConfig) -> OptimizerSDE:
    """Return the SDE of the optimizer called ``name``."""
    rate, decay = config.learning_rate(name), config.weight_decay
    gradient = problem.gradient
    kind = "decoupled" if name.endswith("w") else "l2"
    match name:
        case "sgd":
            return SGDSDE(gradient, noise, rate, weight_decay=decay)
        case "signsgd":
            return SignSGDSDE(gradient, noise, rate)
        case "rmsprop" | "rmspropw":
            return RMSpropSDE(gradient, noise, rate, weight_decay=decay, decay=kind)
        case _:
            return AdamSDE(gradient, noise, rate, weight_decay=decay, decay=kind)


def build_optimizer(name: str, config: StudyConfig) -> OptimizerFactory:
    """Return the function that makes the torch optimizer called ``name``, with its defaults."""
    makers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "signsgd": SignSGD,
        "rmsprop": torch.optim.RMSprop,
        "rmspropw": RMSpropW,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    options: dict[str, Any] = {"lr": config.learning_rate(name)}
    if name != "signsgd":
        options["weight_decay"] = config.weight_decay
    return lambda parameters: makers[name](parameters, **options)
