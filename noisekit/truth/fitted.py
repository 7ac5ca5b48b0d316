"""Noise models fitted to gradients that a recorder took from another run: from hooks to prediction."""

from __future__ import annotations

import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.gradients import GradientNoiseRecorder, GradientRecord, every
from noisekit.noise import NoiseModel, fit_noise, noise_covariance
from noisekit.optimizers.named import build_optimizer
from noisekit.problems import ModelProblem
from noisekit.study.seeds import stage_seed
from noisekit.truth.experiment import Experiment

BATCHES = 512
"""Minibatches recorded at one point for a fit; per-sample gradients are those of the first eighth of them."""


def fitted_noise(kind: str, experiment: Experiment, problem: ModelProblem, x: Tensor) -> NoiseModel:
    """Return a noise model fitted where a run with other minibatches stands after the warm-up.

    The network trains in an ordinary loop with the experiment's own torch optimizer from ``x``
    (coordinate,); then the recorder sees minibatches at those weights, since moving weights fake heavy tails.
    ``kind``: "gaussian" and "student_t" fit each coordinate of the minibatch noise by maximum likelihood;
    "covariance" takes the covariance of the per-sample gradients, with Ledoit–Wolf shrinkage.
    """
    if not isinstance(problem, ModelProblem):
        raise InputError(f"A fit needs a network whose gradients can be recorded, not {problem.name}.")
    record = recorded(experiment, problem, x)
    if kind == "covariance":
        values = record.coordinate_values
        assert values is not None
        samples = values[: BATCHES // 8].flatten(0, 1)
        estimate = noise_covariance(samples, kind="dense", shrinkage="ledoit_wolf")
        return estimate.noise(experiment.batch_size)
    noise = record.minibatch_noise()
    if kind == "gaussian":
        return fit_noise(noise, family="gaussian", batch_size=experiment.batch_size).model
    return fit_noise(noise, family="student_t", batch_size=experiment.batch_size).model


def recorded(experiment: Experiment, problem: ModelProblem, x: Tensor) -> GradientRecord:
    """Return every coordinate of per-sample gradients of minibatches at one point of another run."""
    generator = torch.Generator().manual_seed(stage_seed(experiment.seed, "recorded", experiment.name))
    model = problem.module_at(x)
    trained = [p for p in model.parameters() if p.requires_grad]
    make = build_optimizer(experiment.optimizer, experiment.learning_rate, **experiment.settings)
    optimizer = make(trained)

    def batch() -> tuple[Tensor, Tensor]:
        drawn = torch.randint(problem.n_samples, (experiment.batch_size,), generator=generator)
        index = drawn.to(problem.device)
        return problem.inputs[index], problem.targets[index]

    for _ in range(experiment.warmup):
        inputs, targets = batch()
        optimizer.zero_grad()
        problem.loss_fn(model(inputs), targets).backward()
        optimizer.step()
    recorder = GradientNoiseRecorder(
        model,
        problem.loss_fn,
        optimizer,
        schedule=every(1),
        coordinates=problem.n_parameters,
        sketch=0,
        gram=False,
    )
    with recorder:
        recorder.repeat(batch() for _ in range(BATCHES))
    return recorder.result()
