"""One experiment: an optimizer that runs for real, and the predictions that are set beside it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

TruthNoise = Literal["minibatch", "gaussian", "student_t"]


@dataclass(frozen=True)
class Experiment:
    """What is run and predicted; every field that changes the numbers is here, so that a cell can be resumed.

    The noise is that of real minibatches, or synthetic and added to the full gradient. ``warmup`` real steps
    of the same optimizer come before the comparison, so that the SDE starts from its own state; with 0 both
    start from nothing. ``pretraining`` steps of plain SGD, the same in every replicate, come before all.
    """

    problem: str
    optimizer: str
    learning_rate: float
    steps: int
    replicates: int
    noise: TruthNoise = "minibatch"
    arms: tuple[str, ...] = ("consistent", "fine")
    """Names of predictions, see ``noisekit.truth.arms``."""
    batch_size: int = 16
    n_samples: int | None = None
    """Samples of the problem, the first of its training set; None for all."""
    scale: float = 0.1
    """Standard deviation, or Student-t scale, of synthetic noise in a coordinate."""
    df: float = float("inf")
    """Degrees of freedom ν of synthetic Student-t noise."""
    warmup: int = 20
    pretraining: int = 0
    substeps: int = 2
    """SDE steps in an optimizer step of every arm but "surrogate" (1) and "fine" (twice as many)."""
    save_every: int = 2
    settings: dict[str, Any] = field(default_factory=dict)
    """Hyper-parameters besides the learning rate, by their names in the SDE."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the problem, such as its dimension or size."""
    seed: int = 0

    @property
    def name(self) -> str:
        """A short name, also of the experiment's group in the file; unlike experiments differ in it."""
        parts = [self.problem, self.optimizer]
        if self.noise == "student_t":
            parts.append(f"t{self.df:g}")
        elif self.noise == "gaussian":
            parts.append("gaussian")
        if self.warmup == 0 and self.optimizer not in ("sgd", "signsgd"):
            parts.append("from-zero")
        if self.second_beta < 0.95:
            parts.append("short-memory")
        return "_".join(parts)

    @property
    def second_beta(self) -> float:
        """β of RMSprop or β₂ of Adam where it is given, 1 where it is not."""
        return float(self.settings.get("beta", self.settings.get("betas", (0.0, 1.0))[1]))

    def key(self, arm: str) -> str:
        """Return what names the numbers of one cell: all settings that enter it, in 16 hexadecimal digits."""
        numbers = asdict(replace(self, arms=(arm,)))
        text = json.dumps({"cells": CELL_VERSION, **numbers}, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


CELL_VERSION = 2
"""Raised when cells of the same settings would come out different, so that none is taken for another."""

TRUTH = "truth"
"""The cell of an experiment that holds the real runs."""
