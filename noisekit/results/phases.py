"""Phases of SignSGD along its runs, as a group of the schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from noisekit.errors import InputError
from noisekit.results.ensembles import curves, survivors
from noisekit.results.labelled import array, dataset

if TYPE_CHECKING:
    from noisekit.sde.solution import Solution

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def phase_groups(
    optimizer: str,
    solution: Solution,
    gradient: Callable[[Any], Any],
    noise: Any,
    *,
    observable: str = "loss",
    minimum: float = 0.0,
    loss_bound: Mapping[int, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, xr.Dataset]:
    """Return the share of coordinates in each phase along runs as the group ``/phases/<optimizer>``.

    Y = ∇f/(√2 σ) is read at every replicate and saved instant by ``nk.signsgd_phase``.

    Args:
        optimizer: its name, usually "signsgd".
        solution: runs or SDE paths with states.
        gradient: maps x (replicate, coordinate) to the full gradient of the same shape.
        noise: of the minibatch gradient: a noise model, read at each x, or its variance (coordinate,).
        observable: the loss, by its name in the solution; minimum: its smallest value, which is subtracted.
        loss_bound: phase → bound of the excess loss at each saved instant, from ``nk.loss_bound``.
        attributes: what else to store on the group.

    Raises:
        InputError: the solution has no states, or every replicate diverged.
    """
    from noisekit.theory import signsgd_phase

    if "x" not in solution.state:
        raise InputError("Phases are read along states; run with keep_state=True.")
    good = survivors(solution)
    if not good.any():
        raise InputError("Every replicate diverged, so there is no phase to read.")
    x = solution.state["x"][good.nonzero()[0]]
    fraction, quantile = [], []
    for instant in range(x.shape[1]):
        here = x[:, instant]
        found = [signsgd_phase(g, noise, at=at) for g, at in zip(gradient(here), here, strict=True)]
        fraction.append([np.mean([f.fraction[k] for f in found]) for k in (1, 2, 3)])
        quantile.append(np.quantile(np.abs(np.concatenate([f.ratio for f in found])), QUANTILES))
    values: dict[str, Any] = {
        "time": array(solution.time),
        "step": array(solution.step),
        "phase": np.array([1, 2, 3]),
        "quantile": np.array(QUANTILES),
        "phase_fraction": np.array(fraction),
        "ratio_quantile": np.array(quantile),
    }
    if observable in solution.observables:
        loss = curves(solution, observable) - minimum
        values["excess_loss"] = loss.mean(axis=0)
        if len(loss) > 1:
            values["excess_loss_error"] = loss.std(axis=0, ddof=1) / np.sqrt(len(loss))
    if loss_bound is not None:
        nothing = np.full(len(array(solution.step)), np.nan)
        values["loss_bound"] = np.stack([array(loss_bound.get(k, nothing)) for k in (1, 2, 3)])
    known = {"kind": solution.kind, "n_replicates": int(good.sum()), "n_diverged": int((~good).sum())}
    known |= {"learning_rate": float(solution.learning_rate), "observable": observable, "minimum": minimum}
    path = f"/phases/{optimizer}"
    return {path: dataset(path, values, known | dict(attributes or {}))}
