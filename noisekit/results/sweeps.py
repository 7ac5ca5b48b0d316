"""Floors and speeds along a sweep of the noise, from theory or from runs, as groups of the schema."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from noisekit.errors import InputError, unknown_name
from noisekit.results.ensembles import late_level, steps_to
from noisekit.results.labelled import dataset

if TYPE_CHECKING:
    from noisekit.sde.solution import Solution
    from noisekit.theory.robustness import RobustnessRow

SWEEPS = {"noise": ("noise_sweep", "noise_level"), "df": ("df_sweep", "df")}
SWEEPS["batch_size"] = ("batch_size_sweep", "batch_size")


def robustness_groups(
    rows: Iterable[RobustnessRow], *, attributes: Mapping[str, Any] | None = None
) -> dict[str, xr.Dataset]:
    """Return the rows of ``nk.robustness`` as groups ``/noise_sweep/<optimizer>`` and the like, by path.

    Floors computed in closed form become ``predicted_floor``; floors that were integrated ``floor``.

    Args:
        rows: of one or several sweeps.
        attributes: what else to store on each group, such as target and steps.

    Raises:
        InputError: if there is no row, or one value of a sweep has two rows.
    """
    rows = list(rows)
    if not rows:
        raise InputError("There is no row to store; call nk.robustness with at least one value.")
    groups: dict[str, xr.Dataset] = {}
    for sweep, optimizer in dict.fromkeys((row.sweep, row.optimizer) for row in rows):
        own = sorted((r for r in rows if (r.sweep, r.optimizer) == (sweep, optimizer)), key=lambda r: r.value)
        theory = np.array([row.source == "theory" for row in own])
        floor = np.array([row.floor for row in own], dtype=float)
        error = np.array([row.floor_error for row in own], dtype=float)
        values: dict[str, Any] = {
            "steps_to_target": np.array([row.steps_to_target for row in own], dtype=float),
            "source": np.array([row.source for row in own]),
            "note": np.array([row.note for row in own]),
        }
        if theory.any():
            values["predicted_floor"] = np.where(theory, floor, np.nan)
        if not theory.all():
            values["floor"] = np.where(theory, np.nan, floor)
            values["floor_error"] = np.where(theory, np.nan, error)
        path = f"/{_sweep(sweep)[0]}/{optimizer}"
        groups[path] = _group(sweep, path, [r.value for r in own], values, attributes)
    return groups


def sweep_groups(
    optimizer: str,
    solutions: Mapping[float, Solution],
    *,
    sweep: str = "noise",
    observable: str = "loss",
    minimum: float = 0.0,
    late: float = 0.1,
    target: float | None = None,
    predicted: Mapping[float, float] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, xr.Dataset]:
    """Return floors reached by runs along a sweep as one group, by path.

    Args:
        optimizer: its name.
        solutions: value of the sweep (σ over that of the file, ν, or B) → runs or SDE paths.
        sweep: "noise", "df" or "batch_size".
        observable: the loss, by its name in the solutions; minimum: its smallest value, which is subtracted.
        late: the part of the run at its end over which the floor is the mean.
        target: value of the observable, before the minimum is subtracted, whose first time is stored.
        predicted: value of the sweep → excess loss that theory says, such as ``StationaryLaw.excess_loss``.
        attributes: what else to store on the group.

    >>> import torch
    >>> from noisekit.sde.solution import Solution
    >>> def runs(level):
    ...     return Solution("sgd", "optimizer", torch.arange(2), torch.arange(2.0), {},
    ...                     {"loss": torch.full((3, 2), level)}, torch.full((3,), -1), 1.0, 0)
    >>> sweep_groups("sgd", {1.0: runs(0.1), 2.0: runs(0.4)})["/noise_sweep/sgd"]["floor"].values.round(3)
    array([0.1, 0.4])
    """
    if not solutions:
        raise InputError("A sweep needs at least one value with its runs; the mapping is empty.")
    order = sorted(solutions)
    levels = [late_level(solutions[value], observable, late) for value in order]
    first = solutions[order[0]]
    values: dict[str, Any] = {
        "floor": np.array([level.value for level in levels]) - minimum,
        "floor_error": np.array([level.error for level in levels]),
        "diverged_fraction": np.array([level.diverged_fraction for level in levels]),
        "source": np.array(["runs" if s.kind == "optimizer" else "integration" for s in solutions.values()]),
    }
    values["source"] = values["source"][[list(solutions).index(value) for value in order]]
    if target is not None:
        values["steps_to_target"] = np.array([steps_to(solutions[v], observable, target) for v in order])
    if predicted is not None:
        values["predicted_floor"] = np.array([float(predicted.get(v, np.nan)) for v in order])
    known: dict[str, Any] = {"learning_rate": float(first.learning_rate), "late": late, "minimum": minimum}
    known |= {"observable": observable} | ({} if target is None else {"target": target})
    path = f"/{_sweep(sweep)[0]}/{optimizer}"
    return {path: _group(sweep, path, order, values, known | dict(attributes or {}))}


def _sweep(sweep: str) -> tuple[str, str]:
    if sweep not in SWEEPS:
        raise unknown_name("sweep", sweep, SWEEPS)
    return SWEEPS[sweep]


def _group(
    sweep: str, path: str, where: list[float], values: dict[str, Any], attributes: Mapping[str, Any] | None
) -> xr.Dataset:
    axis = _sweep(sweep)[1]
    places = np.array(where, dtype=np.int64 if sweep == "batch_size" else float)
    if len(np.unique(places)) < len(places):
        raise InputError(f"A value of the sweep {sweep!r} has two rows for one optimizer; keep one of them.")
    return dataset(path, {axis: places, **values}, attributes)
