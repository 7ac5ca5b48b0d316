"""The problem a study trains on, and the part of its data on which optimizers are compared."""

from __future__ import annotations

from typing import Any

from noisekit.problems import ModelProblem, Problem, load_problem
from noisekit.study.config import StudyConfig

_TRAINING_SAMPLES = {"fashion-cnn": 6000, "fashion-resnet": 6000, "shakespeare-gpt": 2048}
"""Samples to train on where the catalog's small size takes fewer."""


def load_study_problem(name: str, config: StudyConfig) -> Problem:
    """Return the problem called ``name``, with as much data as a study trains on.

    Raises:
        InputError: if there is no such problem, naming the nearest.
    """
    options: dict[str, Any] = {"n_samples": _TRAINING_SAMPLES[name]} if name in _TRAINING_SAMPLES else {}
    return load_problem(name, seed=config.seed, **options)


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
