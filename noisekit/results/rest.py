"""The law in which parameters come to rest, predicted and measured, as a group of the schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from noisekit.errors import InputError
from noisekit.results.ensembles import late_instants, survivors
from noisekit.results.labelled import array, dataset

if TYPE_CHECKING:
    from noisekit.sde.solution import Solution
    from noisekit.theory.stationary import StationaryLaw


def stationary_groups(
    optimizer: str,
    law: StationaryLaw,
    solution: Solution | None = None,
    *,
    late: float = 0.25,
    coordinates: Any = None,
    covariance: bool | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, xr.Dataset]:
    """Return a stationary law, and what runs measure of it, as the group ``/stationary/<optimizer>``.

    The measured variance is Σ_r (x_r − x̄)²/(R − 1) over the R replicates, averaged over the late instants;
    its standard error comes from the spread of the replicates' own averages, which counts that the instants
    of one run depend on each other.

    Args:
        optimizer: its name.
        law: as ``nk.stationary_law`` returns it, (d,) coordinates.
        solution: runs or SDE paths with states, (replicate, time, d); None stores the law alone.
        late: the part of the saved instants at the end that is taken as rest.
        coordinates: flat positions of the d coordinates, where they are not 0 … d − 1.
        covariance: whether the (d, d) matrices are stored; by default up to d = 64.
        attributes: what else to store on the group.

    Raises:
        InputError: the solution has no states or another dimension, or fewer than two replicates are left.
    """
    d = law.mean.size
    place = np.arange(d) if coordinates is None else array(coordinates)
    if place.shape != (d,):
        raise InputError(f"coordinates has shape {place.shape}, and the law has {d} coordinates; give {d}.")
    full = d <= 64 if covariance is None else covariance
    values: dict[str, Any] = {
        "coordinate": place,
        "predicted_mean": law.mean,
        "predicted_variance": np.diag(law.covariance),
        "published_variance": np.diag(law.published_covariance),
    }
    known: dict[str, Any] = {"optimizer": law.optimizer, "source": law.source, "variant": law.variant}
    known |= {"excess_loss": law.excess_loss, "relaxation_steps": law.relaxation_steps}
    if full:
        values |= {"other_coordinate": place, "predicted_covariance": law.covariance}
    if solution is not None:
        measured, counts = _measured(solution, d, late, full)
        values, known = values | measured, known | counts
    path = f"/stationary/{optimizer}"
    return {path: dataset(path, values, known | dict(attributes or {}))}


def _measured(solution: Solution, d: int, late: float, full: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    if "x" not in solution.state:
        raise InputError("The stationary law is measured from states; run with keep_state=True.")
    x = array(solution.state["x"])[survivors(solution)]
    if x.shape[-1] != d:
        raise InputError(f"The runs have {x.shape[-1]} coordinates and the law {d}; make them equal.")
    n = len(x)
    if n < 2:
        raise InputError(f"{n} replicates did not diverge; a variance over replicates needs at least 2.")
    count = late_instants(x.shape[1], late)
    x = x[:, -count:].astype(np.float64)
    off = x - x.mean(axis=0)
    each = (off**2).mean(axis=1) * n / (n - 1)
    values: dict[str, Any] = {
        "measured_mean": x.mean(axis=(0, 1)),
        "measured_mean_error": x.mean(axis=1).std(axis=0, ddof=1) / np.sqrt(n),
        "measured_variance": each.mean(axis=0),
        "measured_variance_error": each.std(axis=0, ddof=1) / np.sqrt(n),
    }
    if full:
        values["measured_covariance"] = np.einsum("rti,rtj->ij", off, off) / (count * (n - 1))
    known = {"n_replicates": n, "n_diverged": int((~survivors(solution)).sum()), "n_instants": count}
    first, last = (int(array(solution.step)[i]) for i in (-count, -1))
    return values, known | {"kind": solution.kind, "first_step": first, "last_step": last}
