"""Loss floors of real optimizers, measured on many quadratics side by side in one run."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from noisekit.noise import GaussianNoise
from noisekit.optimizers import simulate_optimizer
from noisekit.optimizers.named import build_optimizer
from noisekit.problems import Problem
from noisekit.truth.insights.estimates import Array, mean_and_error
from noisekit.truth.insights.losses import block_losses


class Run(Protocol):
    """How long and how often an optimizer runs."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def replicates(self) -> int: ...

    @property
    def settle(self) -> int: ...

    @property
    def keep(self) -> int: ...


def floors_at_rest(
    name: str,
    problem: Problem,
    hessian: Tensor,
    factor: Tensor,
    run: Run,
    *,
    seed: int,
    minimum: Tensor | float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Array, Array]:
    """Return mean excess loss and its standard error over replicates for each block of ``problem``, (block,).

    Runs start at 0; the ``settle`` steps before those that are kept are left out.

    Arguments: ``hessian`` (d, d) of every block; ``factor`` F of the Gaussian noise, Σ = FFᵀ, of all blocks;
    ``minimum`` of all blocks.
    """
    solution = simulate_optimizer(
        problem,
        build_optimizer(name, run.learning_rate, weight_decay=weight_decay),
        torch.zeros_like(problem.x0),
        steps=run.settle + run.keep,
        replicates=run.replicates,
        noise=GaussianNoise(factor=factor),
        save_every=20,
        seed=seed,
    )
    late = solution.state["x"][:, solution.step > run.settle] - minimum
    found = [mean_and_error(column) for column in block_losses(late, hessian).mean(1).unbind(-1)]
    value, error = np.array(found).T
    return value, error
