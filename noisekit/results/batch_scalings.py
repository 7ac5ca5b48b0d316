"""Runs at other batch sizes, hyper-parameters rescaled by a rule, as a group of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from noisekit.errors import InputError
from noisekit.results.ensembles import late_level, steps_to
from noisekit.results.labelled import dataset

if TYPE_CHECKING:
    from noisekit.sde.solution import Solution


def batch_scaling_groups(
    optimizer: str,
    solutions: Mapping[str, Mapping[float, Solution]],
    *,
    observable: str = "loss",
    late: float = 0.1,
    target: float | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, xr.Dataset]:
    """Return final loss and speed of runs at batch sizes δB as the group ``/batch_scaling/<optimizer>``.

    Args:
        optimizer: its name.
        solutions: rule, such as a preset of ``nk.scale_hyperparameters`` → δ → the runs at that batch size,
            all over the same number of samples. A δ that one rule lacks is NaN there.
        observable: the loss, by its name in the solutions.
        late: the part of the run at its end over which the final loss is the mean.
        target: value of the observable whose first time is stored, in batches of the original size: steps·δ.
        attributes: what else to store on the group.
    """
    ratios = sorted({float(ratio) for runs in solutions.values() for ratio in runs})
    if not ratios:
        raise InputError("Batch scaling needs at least one rule with runs at one batch ratio; there is none.")
    shape = (len(solutions), len(ratios))
    names = ["loss", "loss_error", "diverged_fraction"] + (
        ["samples_to_target"] if target is not None else []
    )
    values: dict[str, Any] = {name: np.full(shape, np.nan) for name in names}
    for i, runs in enumerate(solutions.values()):
        for ratio, solution in runs.items():
            at = i, ratios.index(float(ratio))
            level = late_level(solution, observable, late)
            values["loss"][at], values["loss_error"][at] = level.value, level.error
            values["diverged_fraction"][at] = level.diverged_fraction
            if target is not None:
                values["samples_to_target"][at] = ratio * steps_to(solution, observable, target)
    values |= {"preset": np.array(list(solutions)), "batch_ratio": np.array(ratios)}
    known: dict[str, Any] = {"observable": observable, "late": late}
    known |= {} if target is None else {"target": target}
    path = f"/batch_scaling/{optimizer}"
    return {path: dataset(path, values, known | dict(attributes or {}))}
