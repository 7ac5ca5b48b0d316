"""The problem a study trains on, and the part of its data on which optimizers are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.problems import ModelProblem, Problem, list_problems, load_problem
from noisekit.problems.datasets import images_from_folder
from noisekit.study.device import check_device

_TRAINING_SAMPLES = {"fashion-cnn": 6000, "fashion-resnet": 6000, "shakespeare-gpt": 2048}
"""Samples to train on where the catalog's small size takes fewer."""


class Settings(Protocol):
    """What a problem is loaded with."""

    @property
    def seed(self) -> int: ...

    @property
    def device(self) -> str | None: ...


def load_study_problem(name: str, config: Settings) -> Problem:
    """Return the problem called ``name``, with as much data as a study trains on.

    Args:
        name: one of ``list_problems()``; or "my_module.py:make_problem"; or a folder of images in the formats
            of MNIST or CIFAR-10, on which the small convolutional network trains.
        config: whose seed and device the problem gets.

    Raises:
        InputError: if there is no such problem, naming the nearest.
    """
    check_device(config.device)
    if ":" in name:
        return _moved_to(load_problem(name, seed=config.seed), config.device)
    options: dict[str, Any] = {} if config.device is None else {"device": config.device}
    if name not in {info.name for info in list_problems()} and Path(name).is_dir():
        n = min(_TRAINING_SAMPLES["fashion-cnn"], len(images_from_folder(name).inputs))
        return load_problem("fashion-cnn", seed=config.seed, folder=name, n_samples=n, **options)
    _refuse_absent_path(name)
    if name in _TRAINING_SAMPLES:
        options["n_samples"] = _TRAINING_SAMPLES[name]
    return load_problem(name, seed=config.seed, **options)


def _refuse_absent_path(name: str) -> None:
    """Raise InputError where ``name`` can only be a path, of a folder that is absent or of a file."""
    path = Path(name)
    if path.suffix == ".py":
        raise InputError(
            f"{name} names no function; give {name}:make_problem, where make_problem returns a ModelProblem."
        )
    if path.is_file():
        raise InputError(f"{name} is a file; give a folder of images, or my_module.py:make_problem.")
    if len(path.parts) > 1:
        raise InputError(
            f"There is no folder {name}; give one of images, or a name that noisekit list shows."
        )


def first_samples(problem: Problem, n: int) -> Problem:
    """Return ``problem`` on its first ``n`` training samples; unchanged if that is all, or no network."""
    if not isinstance(problem, ModelProblem) or problem.n_samples <= n:
        return problem
    return _like(problem, problem.inputs[:n], problem.targets[:n])


def _moved_to(problem: Problem, device: str | None) -> Problem:
    """Return a user's own problem on ``device``; as it is if None or if it is there already."""
    place = str(problem.x0.device)
    if device is None or device in (place, place.partition(":")[0]):
        return problem
    if not isinstance(problem, ModelProblem):
        raise InputError(
            f"{problem.name} lives on {place}; make it on {device!r} yourself, or leave the device out."
        )
    return _like(problem, problem.inputs, problem.targets, device=device)


def _like(
    problem: ModelProblem, inputs: Tensor, targets: Tensor, *, device: str | None = None
) -> ModelProblem:
    """Return the same problem, evaluated in the same way, with other training data or on another device."""
    return ModelProblem(
        problem.model,
        problem.loss_fn,
        inputs,
        targets,
        name=problem.name,
        device=device,
        test_inputs=problem.test_inputs,
        test_targets=problem.test_targets,
        metadata=problem.metadata,
        replicates=problem.replicates,
        chunk_size=problem.chunk_size,
    )


def facts_of(problem: Problem) -> dict[str, Any]:
    """Return what the provenance of a file says of its problem: data, device, type, determinism."""
    known = getattr(problem, "metadata", {})
    return {
        "dataset": known.get("dataset", ""),
        "dataset_sha256": known.get("dataset_sha256", ""),
        "device": problem.x0.device.type,
        "dtype": str(problem.x0.dtype).removeprefix("torch."),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "n_parameters": len(problem.x0),
    }
