"""What a figure shows of replicates: their mean, its standard error, their quantiles, their late level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from noisekit.errors import unknown_name
from noisekit.plots.groups import dataset


@dataclass(frozen=True)
class Ensemble:
    """An observable of the replicates that did not diverge: ``values`` (replicate, time) at ``step``."""

    step: np.ndarray
    values: np.ndarray
    n_diverged: int
    kind: str

    @property
    def n(self) -> int:
        """Number of replicates that did not diverge."""
        return self.values.shape[0]

    @property
    def mean(self) -> np.ndarray:
        """Mean over replicates, (time,)."""
        return self.values.mean(axis=0)

    @property
    def standard_error(self) -> np.ndarray:
        """Standard error of the mean, (time,); NaN for fewer than two replicates."""
        if self.n < 2:
            return np.full(self.values.shape[1], np.nan)
        return self.values.std(axis=0, ddof=1) / np.sqrt(self.n)

    def late(self, fraction: float = 0.1) -> tuple[float, float]:
        """Return the mean over the last ``fraction`` of the saved instants, and its standard error."""
        last = max(1, int(np.ceil(fraction * self.values.shape[1])))
        each = self.values[:, -last:].mean(axis=1)
        error = each.std(ddof=1) / np.sqrt(self.n) if self.n > 1 else np.nan
        return float(each.mean()), float(error)

    def still_falling(self) -> bool:
        """Return whether the mean of the last tenth lies clearly below that of the tenth before it."""
        width = int(np.ceil(0.1 * self.values.shape[1]))
        if self.n < 2 or self.values.shape[1] < 3 * width:
            return False
        change = self.values[:, -width:].mean(axis=1) - self.values[:, -2 * width : -width].mean(axis=1)
        return bool(change.mean() < -3 * change.std(ddof=1) / np.sqrt(self.n))


def ensemble(tree: xr.DataTree, kind: str, optimizer: str, observable: str = "loss") -> Ensemble:
    """Return an observable of ``/sde/<optimizer>`` or ``/optimizer/<optimizer>`` (``kind`` says which).

    Raises InputError where the group or the observable is missing, or where every replicate diverged.
    """
    data = dataset(tree, f"{kind}/{optimizer}", seeds=True)
    known = observables_in(data)
    if observable not in known:
        raise unknown_name(f"observable in /{kind}/{optimizer}", observable, known)
    values = _stacked(data[observable], "replicate", "time").astype(float)
    good = np.isfinite(values).all(axis=1)
    if "diverged" in data:
        good &= _stacked(data["diverged"], "replicate") < 0
    if "seed" in data.dims and "step" in data.variables:
        data = data.assign_coords(step=("time", data["step"].values.reshape(-1, values.shape[1])[0]))
    step = data["step"].values if "step" in data.variables else np.arange(values.shape[1])
    label = str(data.attrs.get("kind", kind))
    return Ensemble(step, values[good], int((~good).sum()), label)


def _stacked(values: xr.DataArray, *axes: str) -> np.ndarray:
    """Return values over ``axes``; the replicates of all seeds become replicates of one ensemble."""
    if "seed" not in values.dims:
        return values.transpose(*axes).values
    whole = values.transpose("seed", *axes).values
    return whole.reshape(-1, *whole.shape[2:])


def observables_in(data: xr.Dataset) -> list[str]:
    """Return the names of the (replicate, time) variables of a trajectory group."""
    return [str(name) for name, v in data.data_vars.items() if {*v.dims} - {"seed"} == {"replicate", "time"}]
