"""One training run with the recorder on, as a labelled tree: gradient noise, samples, training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noisekit.errors import InputError
from noisekit.gradients import every, logarithmic
from noisekit.noise import record_noise_scale
from noisekit.optimizers.named import build_optimizer
from noisekit.problems import ModelProblem, Problem
from noisekit.results import provenance, to_datatree
from noisekit.study.collect_config import CollectConfig
from noisekit.study.parallel import torch_threads, usable_cores
from noisekit.study.problem import facts_of, first_samples
from noisekit.study.sharpness import measure_sharpness
from noisekit.study.training import Recording, record_training

if TYPE_CHECKING:
    import xarray as xr

EVERY = 4
SHARPNESS_SAMPLES = 512
"""Training samples on which the curvature is measured where training ended."""


def collect(
    problem: Problem, config: CollectConfig | None = None, *, command: str = "", progress: bool = False
) -> xr.DataTree:
    """Train a copy of the problem's network and return what the recorder saw, without fitting anything.

    The noise scale is computed from the recorded traces, and the largest curvature λ_max is measured where
    training ended, on the first 512 samples: with both, ``predict`` can say what an optimizer would do.

    Args:
        problem: a ``ModelProblem``, whose model is not changed.
        config: how to train and what to keep; ``CollectConfig()`` if not given.
        command: the line that repeats it, stored in the tree.
        progress: whether to show a bar on stderr.

    Raises:
        InputError: if a setting cannot be used, or the problem has no network.
        NonFiniteError: if training diverges.
        UnsupportedModelError: if the model mixes samples.
    """
    config = config or CollectConfig()
    config.check()
    if not isinstance(problem, ModelProblem):
        raise InputError(
            f"{problem.name} has no network, and so no gradients of single samples to collect; study it by "
            "noisekit run, or take a problem with a network, such as digits-mlp."
        )
    with torch_threads(usable_cores()):
        return _collect(problem, config, command, progress)


def _collect(problem: ModelProblem, config: CollectConfig, command: str, progress: bool) -> xr.DataTree:
    per_decade = config.logarithmic
    settings: dict[str, Any] = {"weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        settings["momentum"] = config.momentum
    recording = Recording(
        make_optimizer=build_optimizer(config.optimizer, config.rate, **settings),
        schedule=logarithmic(per_decade) if per_decade else every(config.every or EVERY),
        steps=config.steps,
        batch_size=config.batch_size,
        coordinates=config.coordinates,
        sketch=config.sketch,
        seed=config.seed,
    )
    trained, _ = record_training(problem, recording, progress=progress)
    part = first_samples(problem, SHARPNESS_SAMPLES)
    where = f"where training ended, on the first {min(problem.n_samples, SHARPNESS_SAMPLES)} samples"
    curvature = measure_sharpness(part, trained.x, whole=problem, seed=config.seed, where=where)
    tree = to_datatree(
        record=trained.record,
        noise_scale=record_noise_scale(trained.record),
        mean_gradient_error=trained.mean_gradient_error,
        provenance=provenance(
            problem=problem.name,
            seed=config.seed,
            config=config.as_dict(),
            command=command,
            **facts_of(problem),
            sampling="without-replacement",
            batch_size=config.batch_size,
            n_samples=problem.n_samples,
        ),
    )
    tree["training"].attrs |= {
        "optimizer": config.optimizer,
        **curvature.as_attributes(),
        "sharpness_where": curvature.source,
    }
    return tree
