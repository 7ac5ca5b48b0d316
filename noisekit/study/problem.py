"""The problem a study trains on, and the part of its data on which optimizers are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast

from noisekit.errors import InputError
from noisekit.problems import ModelProblem, Problem, list_problems, load_problem
from noisekit.problems.datasets import images_from_folder
from noisekit.study.device import check_device, moved_to

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
        return cast(Problem, moved_to(load_problem(name, seed=config.seed), config.device))
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
    return ModelProblem(
        problem.model,
        problem.loss_fn,
        problem.inputs[:n],
        problem.targets[:n],
        name=problem.name,
        test_inputs=problem.test_inputs,
        test_targets=problem.test_targets,
        metadata=problem.metadata,
    )
