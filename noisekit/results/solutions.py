"""Trajectories and comparisons as labelled data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from noisekit.results.attributes import storable, to_json
from noisekit.results.labelled import array, dataset
from noisekit.results.schema import GROUPS

if TYPE_CHECKING:
    from noisekit.sde.solution import Solution
    from noisekit.validation.comparison import Comparison


def solution_to_dataset(solution: Solution) -> xr.Dataset:
    """Return a Solution as a Dataset with axes replicate, time, coordinate.

    Observables keep their names; states are x, m, v, or
    their statistics over replicates; ``diverged`` is the first bad step or -1.
    """
    group = f"/{'optimizer' if solution.kind == 'optimizer' else 'sde'}/{solution.optimizer}"
    diverged = array(solution.diverged)
    return dataset(
        group,
        {
            "time": array(solution.time),
            "step": array(solution.step),
            "replicate": np.arange(len(diverged)),
            "diverged": diverged,
            **{name: array(values) for name, values in solution.observables.items()},
            **{name: array(values) for name, values in solution.state.items()},
            **_statistics(solution),
        },
        {
            "optimizer": solution.optimizer,
            "kind": solution.kind,
            "learning_rate": float(solution.learning_rate),
            "substeps": solution.substeps,
            "seed": solution.seed,
            "n_diverged": int((diverged >= 0).sum()),
            "settings_json": to_json(solution.settings),
        },
    )


def _statistics(solution: Solution) -> dict[str, Any]:
    """Return what was kept instead of states, with the probabilities of the quantiles."""
    values: dict[str, Any] = {name: array(v) for name, v in solution.statistics.items()}
    if "x_quantile" in values:
        values["quantile"] = np.array(solution.settings["quantiles"], dtype=float)
    return values


def comparison_to_dataset(comparison: Comparison) -> xr.Dataset:
    """Return a Comparison as a Dataset with axes observable and time."""
    rows = list(comparison.observables.values())
    summaries = ("mean_relative_gap", "max_relative_gap", "mean_standard_error", "mean_discretisation_error")
    names = [f.name for f in fields(rows[0]) if f.name != "name"]
    names += [*summaries, "mean_gap_in_std", "mean_gap_in_change", "mean_std_ratio"]
    values: dict[str, Any] = {name: np.array([getattr(row, name) for row in rows]) for name in names}
    values |= {
        "time": comparison.time,
        "step": comparison.step,
        "observable": np.array([row.name for row in rows]),
    }
    counts = ("n_prediction", "n_reference", "n_diverged_prediction", "n_diverged_reference", "substeps")
    attributes = {name: getattr(comparison, name) for name in counts}
    attributes |= {"optimizer": comparison.optimizer, "verdict": comparison.verdict}
    attributes["paired"] = int(comparison.paired)  # netCDF has no truth values
    attributes |= {"verdict_text": comparison.verdict_text, "prediction_kind": comparison.prediction_kind}
    return dataset(f"/comparison/{comparison.optimizer}", values, attributes)


def law_to_dataset(optimizer: str, law: Mapping[str, Any]) -> xr.Dataset:
    """Return what theory says about an optimizer, given by the names of ``/theory/*`` in the schema.

    Scalars of other names, such as the ingredients of a floor, become attributes.
    """
    known = GROUPS["/theory/*"]
    names = known.coordinates | known.variables
    values = {name: array(value) for name, value in law.items() if name in names}
    attributes = storable({name: value for name, value in law.items() if name not in names})
    return dataset(f"/theory/{optimizer}", values, attributes)
