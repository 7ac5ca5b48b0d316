"""Where the runs of each optimizer end."""

from __future__ import annotations

from dataclasses import dataclass

import xarray as xr

from noisekit.plots.ensembles import ensemble, observables_in
from noisekit.plots.groups import dataset, optimizers_in


@dataclass(frozen=True)
class FinalLoss:
    """Mean loss over the last tenth of the saved instants, with its standard error over ``n`` replicates."""

    level: float
    error: float
    n: int
    n_diverged: int
    step: int
    still_falling: bool


def final_losses(tree: xr.DataTree, kind: str = "optimizer") -> dict[str, FinalLoss]:
    """Return the final loss of each optimizer that has replicates left; ``kind`` is "optimizer" or "sde"."""
    result = {}
    for name in optimizers_in(tree, kind):
        if "loss" not in observables_in(dataset(tree, f"{kind}/{name}")):
            continue
        runs = ensemble(tree, kind, name)
        if runs.n == 0:
            continue
        level, error = runs.late()
        step = int(runs.step[-1])
        result[name] = FinalLoss(level, error, runs.n, runs.n_diverged, step, runs.still_falling())
    return result
