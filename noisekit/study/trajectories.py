"""SDE paths and real runs of one optimizer from the same states, and their comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import Observable, OptimizerFactory, State
from noisekit.noise import GaussianNoise, MinibatchNoise, NoiseModel
from noisekit.optimizers import RMSpropW, SignSGD, simulate_optimizer
from noisekit.problems import Problem, SampledProblem
from noisekit.sde import SGDSDE, AdamSDE, OptimizerSDE, RMSpropSDE, SignSGDSDE, Solution, integrate
from noisekit.study.config import StudyConfig
from noisekit.study.progress import bar
from noisekit.study.seeds import stage_seed
from noisekit.validation import Comparison, compare


@dataclass(frozen=True)
class Ensembles:
    """The prediction at dt = η/substeps, the real runs, and how far they are apart."""

    prediction: Solution
    reference: Solution
    comparison: Comparison


def compare_optimizer(
    name: str, problem: Problem, x: Tensor, config: StudyConfig, *, progress: bool = False
) -> Ensembles:
    """Run ``name`` for real from ``x`` and predict the same steps by its SDE.

    The real optimizer takes ``warmup_steps`` first, because an SDE that starts from an empty optimizer
    state has an error of its own; each SDE path starts from x, m and v of one real run. Afterwards their
    noise is independent.
    """
    noise = study_noise(name, problem, config)
    start = _warm_state(name, problem, x, config, noise)
    reference = _run(name, problem, start, x, config, noise, progress=progress)
    sde = build_sde(name, problem, noise, config)
    coarse, fine = (
        _integrate(sde, name, problem, start, x, config, substeps, progress=progress)
        for substeps in (config.substeps, 2 * config.substeps)
    )
    comparison = compare(coarse, reference, observables=list(_observables(problem, x)), refined=fine)
    return Ensembles(coarse, reference, comparison)


def study_noise(name: str, problem: Problem, config: StudyConfig) -> NoiseModel:
    """Return the noise of the problem's minibatches at x, or white Gaussian noise where it has no samples.

    SignSGD takes the law of the minibatches themselves; for the others their covariance is enough.
    """
    if isinstance(problem, SampledProblem):
        law = "empirical" if name == "signsgd" else "gaussian"
        return MinibatchNoise(problem, config.batch_size, law=law)
    return GaussianNoise(scale=config.artificial_noise)


def build_sde(name: str, problem: Problem, noise: NoiseModel, config: StudyConfig) -> OptimizerSDE:
    """Return the SDE of the optimizer called ``name``."""
    rate, decay = config.learning_rate(name), config.weight_decay
    gradient = problem.gradient
    match name:
        case "sgd":
            return SGDSDE(gradient, noise, rate, weight_decay=decay)
        case "signsgd":
            return SignSGDSDE(gradient, noise, rate)
        case "rmsprop" | "rmspropw":
            return RMSpropSDE(gradient, noise, rate, weight_decay=decay, decay=_kind_of_decay(name))
        case _:
            return AdamSDE(gradient, noise, rate, weight_decay=decay, decay=_kind_of_decay(name))


def _kind_of_decay(name: str) -> str:
    return "decoupled" if name.endswith("w") else "l2"


def build_optimizer(name: str, config: StudyConfig) -> OptimizerFactory:
    """Return the function that makes the torch optimizer called ``name``, with its defaults."""
    rate, decay = config.learning_rate(name), config.weight_decay
    makers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": torch.optim.SGD,
        "signsgd": SignSGD,
        "rmsprop": torch.optim.RMSprop,
        "rmspropw": RMSpropW,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    options: dict[str, Any] = {"lr": rate}
    if name != "signsgd":
        options["weight_decay"] = decay
    return lambda parameters: makers[name](parameters, **options)


def _observables(problem: Problem, x: Tensor, count: Callable[[int], Any] = int) -> dict[str, Observable]:
    """Return what is compared; ``count`` is told how many replicates were evaluated."""

    def loss(at: Tensor) -> Tensor:
        count(len(at))
        return problem.loss(at)

    return {"loss": loss, "squared_distance": lambda at: (at - x).square().sum(-1)}


def _warm_state(name: str, problem: Problem, x: Tensor, config: StudyConfig, noise: NoiseModel) -> State:
    """Return x, m and v of every replicate after the warm-up, each (replicate, coordinate)."""
    if not config.warmup_steps:
        return {"x": x}
    steps = config.warmup_steps
    warm = _simulate(name, problem, x, config, noise, steps=steps, save_every=steps, seed="warm-up")
    return warm.state_at(steps)


def _run(
    name: str,
    problem: Problem,
    start: State,
    x: Tensor,
    config: StudyConfig,
    noise: NoiseModel,
    *,
    progress: bool,
) -> Solution:
    """Return the real runs, from ``start`` on."""
    total = config.replicates * (config.steps // config.save_every + 1)
    with bar(f"Running {name}", total, show=progress) as shown:
        return _simulate(
            name,
            problem,
            start["x"],
            config,
            noise,
            steps=config.steps,
            save_every=config.save_every,
            observables=_observables(problem, x, shown.update),
            keep_state=False,
            start_step=config.warmup_steps,
            init_state=_without_x(start),
            seed="optimizer",
        )


def _simulate(
    name: str,
    problem: Problem,
    x0: Tensor,
    config: StudyConfig,
    noise: NoiseModel,
    *,
    seed: str,
    **options: Any,
) -> Solution:
    sampled = isinstance(problem, SampledProblem)
    solution = simulate_optimizer(
        problem,
        build_optimizer(name, config),
        x0,
        replicates=config.replicates,
        noise=None if sampled else noise,
        batch_size=config.batch_size if sampled else None,
        seed=stage_seed(config.seed, seed, name),
        **options,
    )
    return replace(solution, optimizer=name)


def _integrate(
    sde: OptimizerSDE,
    name: str,
    problem: Problem,
    start: State,
    x: Tensor,
    config: StudyConfig,
    substeps: int,
    *,
    progress: bool,
) -> Solution:
    total = config.replicates * (config.steps // config.save_every + 1)
    with bar(f"Integrating the SDE of {name}, η/{substeps}", total, show=progress) as shown:
        solution = integrate(
            sde,
            start["x"],
            steps=config.steps,
            substeps=substeps,
            replicates=config.replicates,
            save_every=config.save_every,
            observables=_observables(problem, x, shown.update),
            keep_state=False,
            seed=stage_seed(config.seed, "sde", name),
            start_step=config.warmup_steps,
            init_state=_without_x(start),
        )
    return replace(solution, optimizer=name)


def _without_x(state: State) -> State:
    return {key: value for key, value in state.items() if key != "x"}
