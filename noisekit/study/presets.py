"""Settings for problems that are much costlier or steeper than those the defaults are made for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from noisekit.study.config import StudyConfig

_PRESETS: dict[str, dict[str, Any]] = {
    "rosenbrock": {"learning_rates": (0.0005, 0.01)},
    "fashion-resnet": {"n_samples": 128, "steps": 20, "warmup_steps": 12},
    "shakespeare-gpt": {"n_samples": 64, "steps": 20, "warmup_steps": 12, "training_batch_size": 64},
}


def with_preset(problem: str, config: StudyConfig) -> StudyConfig:
    """Return ``config`` with the problem's own settings wherever it has the defaults.

    >>> with_preset("fashion-resnet", StudyConfig(steps=8)).steps
    8
    """
    default = StudyConfig()
    own = dict(_PRESETS.get(problem, {}))
    if config.optimizers != default.optimizers:
        own.pop("learning_rates", None)
    return replace(config, **{k: v for k, v in own.items() if getattr(config, k) == getattr(default, k)})
