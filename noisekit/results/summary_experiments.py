"""The headline numbers of experiments over many runs: orders, powers of the noise, what rules keep, rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

Row = tuple[str, str, float, dict[str, Any]]
"""Topic, quantity, value, and the rest of a row of ``summary``."""


def experiment_rows(tree: xr.DataTree) -> Iterator[Row]:
    """Yield the rows of ``/weak_order``, ``/noise_sweep``, ``/batch_scaling`` and ``/stationary``."""
    rest: dict[str, Any]
    for name, data in _groups(tree, "weak_order", "slope"):
        slope = float(data["slope"])
        error = float(data["slope_error"]) if "slope_error" in data else np.nan
        yield "weak order", "slope of the gap over the learning rate", slope, _known(name, slope, error)
    for name, data in _groups(tree, "noise_sweep", "floor"):
        level, floor = data["noise_level"].values.astype(float), data["floor"].values.astype(float)
        good = np.isfinite(floor) & (floor > 0) & (level > 0)
        if good.sum() > 1:
            power = float(np.polyfit(np.log(level[good]), np.log(floor[good]), 1)[0])
            rest = {
                "of": name,
                "note": f"over {good.sum()} noise levels; theory: 2 for sgd, 1 for the others",
            }
            yield "noise sweep", "power of the noise in the floor", power, rest
    for name, data in _groups(tree, "batch_scaling", "loss"):
        data = data.transpose("preset", "batch_ratio", ...)
        for i, preset in enumerate(data["preset"].values):
            loss = data["loss"].values[i]
            if np.isfinite(loss).sum() > 1:
                change = float(np.nanmax(loss) / np.nanmin(loss) - 1) if np.nanmin(loss) > 0 else np.nan
                rest = {"of": f"{name}, {preset}", "note": f"over {np.isfinite(loss).sum()} batch sizes"}
                yield "batch scaling", "largest relative change of the final loss", change, rest
    yield from _truth_rows(tree)
    for name, data in _groups(tree, "stationary", "measured_variance"):
        if "predicted_variance" not in data:
            continue
        predicted, measured = (data[n].values for n in ("predicted_variance", "measured_variance"))
        good = np.isfinite(predicted) & np.isfinite(measured) & (predicted > 0)
        if good.any():
            ratio = measured[good] / predicted[good]
            low, high = np.quantile(ratio, [0.25, 0.75])
            note = f"median and quartiles over {good.sum()} coordinates"
            rest = {"of": name, "lower": float(low), "upper": float(high), "note": note}
            yield "stationary law", "variance of runs over predicted", float(np.median(ratio)), rest


def _truth_rows(tree: xr.DataTree) -> Iterator[Row]:
    """Yield gap and spread of the SDE in each experiment of a study of truth, and findings of insights."""
    for name, data in _groups(tree, "truth", "gap"):
        if "consistent" not in data["arm"].values or "loss" not in data["observable"].values:
            continue
        at = data.sel(observable="loss")
        own = at.sel(arm="consistent")
        refusal = str(own["refusal"].item()) if "refusal" in own else ""
        note = refusal or "SDE with the noise of the data beside real runs"
        if "ode" in data["arm"].values:
            note += f"; without noise {float(at['gap'].sel(arm='ode')):.3g}"
        for variable, quantity in (
            ("gap", "relative gap of the mean loss"),
            ("std_ratio", "standard deviation of the loss over that of the runs"),
        ):
            if variable in own:
                value = float(own[variable])
                error = float(own[f"{variable}_error"]) if f"{variable}_error" in own else np.nan
                ends = _known(name, value, error) | {"note": note}
                yield "truth", quantity, value, ends | {"lower": np.maximum(ends["lower"], 0.0)}
                note = refusal
    if "insight" in tree.children:
        for name, node in tree.children["insight"].children.items():
            finding, verdict = (str(node.attrs.get(key, "")) for key in ("finding", "verdict"))
            yield "insight", name.replace("_", " "), np.nan, {"note": f"{finding}: {verdict}"}


def _known(name: str, value: float, error: float) -> dict[str, Any]:
    return {"of": name, "lower": value - 1.96 * error, "upper": value + 1.96 * error}


def _groups(tree: xr.DataTree, root: str, variable: str) -> Iterator[tuple[str, xr.Dataset]]:
    if root in tree.children:
        for name, node in tree.children[root].children.items():
            if variable in node.data_vars:
                yield str(name), node.to_dataset().load()
