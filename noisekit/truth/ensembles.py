"""The two sides of an experiment: real runs of the optimizer, and paths of one prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import Observable, State
from noisekit.noise import GaussianNoise, NoiseModel, StudentTNoise
from noisekit.optimizers import simulate_optimizer
from noisekit.optimizers.named import build_optimizer
from noisekit.problems import ModelProblem, Problem, SampledProblem, load_problem
from noisekit.sde import Solution, integrate
from noisekit.sde.named import build_sde
from noisekit.study.equations import minibatch_noise_for
from noisekit.study.problem import first_samples
from noisekit.study.seeds import stage_seed
from noisekit.truth.arms import Arm
from noisekit.truth.experiment import Experiment
from noisekit.truth.fitted import fitted_noise

FEW_COORDINATES = 64
"""Up to so many coordinates the last states are kept, for covariances."""


def build_problem(experiment: Experiment, device: str | None = None) -> Problem:
    """Return the problem of an experiment, on its first samples."""
    problem = load_problem(experiment.problem, seed=experiment.seed, device=device, **experiment.options)
    return problem if experiment.n_samples is None else first_samples(problem, experiment.n_samples)


def true_noise(experiment: Experiment, problem: Problem) -> NoiseModel:
    """Return the noise of the truth: of minibatches, or the synthetic one that is added."""
    if experiment.noise == "minibatch":
        assert isinstance(problem, SampledProblem)
        return minibatch_noise_for(experiment.optimizer, problem, experiment.batch_size)
    if experiment.noise == "student_t":
        return StudentTNoise(scale=experiment.scale, df=experiment.df)
    if isinstance(problem, ModelProblem):
        return GaussianNoise(scale=experiment.scale)
    return GaussianNoise(factor=experiment.scale * correlated_factor(problem.x0, experiment.seed))


def correlated_factor(like: Tensor, seed: int) -> Tensor:
    """Return F with FFᵀ of unit mean variance and its own random axes: it commutes with no Hessian."""
    generator = torch.Generator().manual_seed(stage_seed(seed, "covariance"))
    d = len(like)
    rotation, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    spread = torch.logspace(-0.5, 0.5, d, dtype=torch.float64)
    return (rotation * (spread / spread.square().mean().sqrt())).to(like)


def observables(problem: Problem, start: Tensor) -> dict[str, Observable]:
    """Return what is measured: loss, |∇f|², and the squared distance from ``start`` (coordinate,)."""
    return {
        "loss": problem.loss,
        "gradient_norm_squared": lambda x: problem.gradient(x).square().sum(-1),
        "squared_distance": lambda x: (x - start).square().sum(-1),
    }


def pretrained(experiment: Experiment, problem: Problem) -> Tensor:
    """Return where the experiment begins, (coordinate,): x0, or x0 trained a little by SGD."""
    if experiment.pretraining == 0:
        return problem.x0
    run = simulate_optimizer(
        problem,
        build_optimizer("sgd", 0.1),
        problem.x0,
        steps=experiment.pretraining,
        save_every=experiment.pretraining,
        batch_size=32,
        seed=stage_seed(experiment.seed, "pretraining"),
    )
    return run.state["x"][0, -1]


def starts(experiment: Experiment, problem: Problem) -> tuple[Tensor, State]:
    """Return where pretraining ended, and x, m and v of every replicate after the warm-up."""
    x = pretrained(experiment, problem)
    if experiment.warmup == 0:
        return x, {"x": x.expand(experiment.replicates, -1)}
    steps = experiment.warmup
    warm = _simulate(experiment, problem, {"x": x}, "warm-up", steps=steps, save_every=steps)
    return x, warm.state_at(steps)


def real_runs(experiment: Experiment, device: str | None = None) -> Solution:
    """Return the truth: real runs of the torch optimizer."""
    problem = build_problem(experiment, device)
    x, start = starts(experiment, problem)
    return _simulate(
        experiment,
        problem,
        start,
        "optimizer",
        steps=experiment.steps,
        save_every=experiment.save_every,
        observables=observables(problem, x),
        keep_state=len(x) <= FEW_COORDINATES,
        quantiles=(),
        start_step=experiment.warmup,
    )


def predicted_paths(experiment: Experiment, arm: Arm, device: str | None = None) -> Solution:
    """Return paths of one prediction, each from the state in which one real run starts.

    Raises InfiniteVarianceError where the prediction does not exist.
    """
    problem = build_problem(experiment, device)
    x, start = starts(experiment, problem)
    if arm.fit:
        assert isinstance(problem, ModelProblem)
        noise = fitted_noise(arm.fit, experiment, problem, x)
    else:
        noise = true_noise(experiment, problem)
    if arm.change is not None:
        noise = arm.change(noise)
    of_arm: dict[str, Any] = {} if arm.order == 1 else {"order": arm.order}
    if experiment.optimizer not in ("sgd", "signsgd"):
        of_arm["variant"] = arm.variant
    sde = build_sde(
        experiment.optimizer,
        problem.gradient,
        noise,
        experiment.learning_rate,
        **experiment.settings,
        **of_arm,
    )
    if arm.equation is not None:
        sde = arm.equation(sde)
    return integrate(
        sde,
        start["x"],
        steps=experiment.steps,
        substeps=arm.substeps(experiment.substeps),
        replicates=experiment.replicates,
        save_every=experiment.save_every,
        observables=observables(problem, x),
        keep_state=len(x) <= FEW_COORDINATES,
        quantiles=(),
        seed=stage_seed(experiment.seed, "sde"),
        start_step=experiment.warmup,
        init_state=_without_x(start),
        whole_steps=arm.whole_steps,
    )


def _simulate(
    experiment: Experiment, problem: Problem, start: Mapping[str, Tensor], stage: str, **options: Any
) -> Solution:
    sampled = experiment.noise == "minibatch"
    return simulate_optimizer(
        problem,
        build_optimizer(experiment.optimizer, experiment.learning_rate, **experiment.settings),
        start["x"],
        replicates=experiment.replicates,
        noise=None if sampled else true_noise(experiment, problem),
        batch_size=experiment.batch_size if sampled else None,
        seed=stage_seed(experiment.seed, stage),
        init_state=_without_x(dict(start)),
        **options,
    )


def _without_x(state: State) -> State:
    return {key: value for key, value in state.items() if key != "x"}
