"""The recorded training run: a network trains on real data while the noise of its gradients is recorded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from noisekit._typing import OptimizerFactory
from noisekit.errors import InputError, NonFiniteError
from noisekit.gradients import GradientNoiseRecorder, GradientRecord, every, gradient_statistics
from noisekit.gradients.schedule import Schedule
from noisekit.problems import ModelProblem
from noisekit.study.config import StudyConfig
from noisekit.study.progress import bar
from noisekit.study.seeds import stage_seed

MOST_SAMPLES = 16_384
CHUNK = 500


@dataclass(frozen=True)
class TrainingRun:
    """What training left: the record, where it ended, and how exact the recorded gradients were."""

    record: GradientRecord
    x: Tensor
    """The parameters after training, (coordinate,)."""
    mean_gradient_error: Tensor
    """|mean of the per-sample gradients − training gradient| / |training gradient|, (step,), float64."""
    final_gradients: Tensor | None = None
    """Per-sample gradients at ``x`` at the recorded coordinates, (sample, coordinate)."""


@dataclass(frozen=True)
class Recording:
    """How a network is trained and which of its steps are recorded."""

    make_optimizer: OptimizerFactory
    schedule: Schedule
    steps: int
    batch_size: int
    coordinates: int
    sketch: int
    seed: int
    prefix: str = ""
    """What stands before the names of these settings where a user gives them."""


def train_and_record(problem: ModelProblem, config: StudyConfig, *, progress: bool = False) -> TrainingRun:
    """Train a copy of the problem's network by SGD with a GradientNoiseRecorder attached.

    Raises:
        InputError: if there are fewer samples than a minibatch takes.
        NonFiniteError: if the loss is NaN or infinite, naming the step.
    """
    recording = Recording(
        make_optimizer=lambda parameters: torch.optim.SGD(parameters, lr=config.training_learning_rate),
        schedule=every(config.record_every),
        steps=config.training_steps,
        batch_size=config.training_batch_size,
        coordinates=config.coordinates,
        sketch=config.sketch,
        seed=config.seed,
        prefix="training_",
    )
    run, model = record_training(problem, recording, progress=progress)
    return replace(run, final_gradients=final_gradients(problem, model, run.record))


def record_training(
    problem: ModelProblem, recording: Recording, *, progress: bool = False
) -> tuple[TrainingRun, nn.Module]:
    """Train a copy of the problem's network with a GradientNoiseRecorder attached; return it too.

    Raises:
        InputError: if there are fewer samples than a minibatch takes.
        NonFiniteError: if the loss is NaN or infinite, naming the step.
    """
    if recording.batch_size > problem.n_samples:
        raise InputError(
            f"{recording.prefix}batch_size is {recording.batch_size} and {problem.name} has "
            f"{problem.n_samples} samples; take a smaller minibatch."
        )
    seed = stage_seed(recording.seed, "training")
    model = copy.deepcopy(problem.model)
    optimizer = recording.make_optimizer(list(model.parameters()))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients: dict[int, dict[str, Tensor]] = {}
    recorder = GradientNoiseRecorder(
        model,
        problem.loss_fn,
        optimizer,
        schedule=recording.schedule,
        coordinates=min(recording.coordinates, problem.n_parameters),
        sketch=recording.sketch if recording.sketch < problem.n_parameters else 0,
        seed=seed,
    )
    batches = minibatches(problem.n_samples, recording.batch_size, seed, problem.device)
    with recorder, bar("Training with the recorder", recording.steps, show=progress) as shown:
        for step in range(recording.steps):
            index = next(batches)
            optimizer.zero_grad()
            loss = problem.loss_fn(model(problem.inputs[index]), problem.targets[index])
            loss.backward()
            if not torch.isfinite(loss):
                rate = float(optimizer.param_groups[0]["lr"])
                raise _not_finite(step, loss, trained, f"{recording.prefix}learning_rate, now {rate:g}")
            if recording.schedule(step):
                gradients[step] = {
                    n: p.grad.detach().clone() for n, p in trained.items() if p.grad is not None
                }
            optimizer.step()
            shown.update()
    record = recorder.result()
    x = problem.flatten({name: p.detach() for name, p in trained.items()})
    return TrainingRun(record, x, mean_gradient_error(record, gradients)), model


def _not_finite(step: int, loss: Tensor, parameters: dict[str, nn.Parameter], rate: str) -> NonFiniteError:
    bad = [n for n, p in parameters.items() if p.grad is not None and not p.grad.isfinite().all()]
    where = f", with NaN or infinite gradients in {', '.join(bad)}" if bad else ""
    return NonFiniteError(
        f"The training loss is {loss.item()} at step {step}{where}; look for NaN in the data, or lower "
        f"{rate}."
    )


def final_gradients(problem: ModelProblem, model: nn.Module, record: GradientRecord) -> Tensor | None:
    """Return per-sample gradients of the first samples at the record's coordinates, (sample, coordinate)."""
    if record.coordinate_index is None:
        return None
    n = min(problem.n_samples, MOST_SAMPLES)
    parts = [
        gradient_statistics(
            model,
            problem.loss_fn,
            problem.inputs[start : min(start + CHUNK, n)],
            problem.targets[start : min(start + CHUNK, n)],
            coordinates=record.coordinate_index,
            sketch=0,
            gram=False,
        ).coordinate_values
        for start in range(0, n - 1, CHUNK)
    ]
    return torch.cat([part for part in parts if part is not None])


def minibatches(n_samples: int, size: int, seed: int, device: torch.device | str) -> Iterator[Tensor]:
    """Yield minibatches for ever, shuffled anew each epoch; a smaller one at its end is dropped."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(n_samples, generator=generator).to(device)
        yield from order[: n_samples - n_samples % size].split(size)


def mean_gradient_error(record: GradientRecord, gradients: dict[int, dict[str, Tensor]]) -> Tensor:
    """Return how far the mean of the recorded per-sample gradients is from the training gradient, (step,).

    Both are read at the recorded coordinates and the difference is relative to the norm of the training
    gradient there. NaN at steps whose training gradient was not kept.
    """
    errors = torch.full((len(record.step),), torch.nan, dtype=torch.float64)
    if record.coordinate_values is None or record.coordinate_index is None:
        return errors
    for row, step in enumerate(record.step.tolist()):
        if step not in gradients:
            continue
        whole = torch.cat([gradients[step][name].reshape(-1) for name in record.block]).double()
        expected = whole[record.coordinate_index.to(whole.device)].cpu()
        found = record.coordinate_values[row].double().mean(0).cpu()
        size = expected.norm()
        errors[row] = (found - expected).norm() / size if size > 0 else (found - expected).norm()
    return errors
