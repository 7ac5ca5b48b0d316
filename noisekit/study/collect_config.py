"""How a network is trained and recorded by ``collect``."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from noisekit.errors import InputError, unknown_name
from noisekit.study.config import LEARNING_RATES, MOST, command_line
from noisekit.study.device import check_device


@dataclass(frozen=True)
class CollectConfig:
    """One training run with the recorder on, and nothing else."""

    steps: int = 100
    """Optimizer steps."""
    batch_size: int = 128
    """Samples in a minibatch."""
    optimizer: str = "sgd"
    """Optimizer to train with: sgd, signsgd, rmsprop, rmspropw, adam or adamw."""
    learning_rate: float | None = None
    """Learning rate, --lr for short; by default 0.1 for sgd, 0.001 for adam, 0.0005 for the others."""
    weight_decay: float = 0.0
    """Weight decay."""
    momentum: float = 0.0
    """Momentum of sgd."""
    every: int | None = None
    """Steps between recorded batches; 4 if neither this nor --logarithmic is given."""
    logarithmic: int | None = None
    """Record evenly in the logarithm of the step instead: so many batches to each factor of ten."""
    coordinates: int = 512
    """Number of parameters whose per-sample gradients are kept."""
    sketch: int = 64
    """Dimensions of the random projection of each sample's gradient; 0 keeps none."""
    device: str | None = None
    """cpu or cuda; where the problem puts itself if not given, which is the CPU for those of the list."""
    seed: int = 0
    """Seed of every random number."""

    def check(self) -> None:
        """Raise InputError for the first setting that cannot be used, saying what is needed instead."""
        if self.optimizer not in LEARNING_RATES:
            raise unknown_name("optimizer", self.optimizer, LEARNING_RATES)
        least = {"batch_size": 4, "coordinates": 2, "sketch": 0, "seed": 0}
        for name in ("steps", "batch_size", "every", "logarithmic", "coordinates", "sketch", "seed"):
            value = getattr(self, name)
            if value is not None and value < least.get(name, 1):
                raise InputError(f"{name} is {value}; it needs to be at least {least.get(name, 1)}.")
            if value is not None and value > MOST:
                raise InputError(f"{name} is {value}; it needs to be at most {MOST:,}.")
        rate = self.learning_rate
        if rate is not None and not 0 < rate < math.inf:
            raise InputError(f"learning_rate is {rate}; it needs to be a positive number.")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay}; it needs to be zero or positive.")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum is {self.momentum}; it needs to be at least 0 and below 1.")
        if self.momentum and self.optimizer != "sgd":
            raise InputError(f"momentum is a setting of sgd; leave it out for {self.optimizer}.")
        if self.every is not None and self.logarithmic is not None:
            raise InputError("every and logarithmic are two schedules; give one of them.")
        check_device(self.device)

    @property
    def rate(self) -> float:
        """The learning rate, with the default of the optimizer filled in."""
        default = 0.1 if self.optimizer == "sgd" else LEARNING_RATES[self.optimizer]
        return default if self.learning_rate is None else self.learning_rate

    def as_dict(self) -> dict[str, Any]:
        """Return the settings for the file, without those that are not set."""
        values = {f.name: getattr(self, f.name) for f in fields(self)} | {"learning_rate": self.rate}
        return {name: value for name, value in values.items() if value is not None}

    def command(self, problem: str) -> str:
        """Return the command line that repeats the recording of ``problem`` with these settings."""
        return command_line("collect", problem, self)
