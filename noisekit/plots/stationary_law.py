"""Stationary variance of the parameters: predicted against real runs."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.groups import choose_optimizer, dataset, has_group, shorten
from noisekit.plots.style import MUTED, ROLE, axes_or_new, themed


@themed
def plot_stationary_law(tree: xr.DataTree, *, optimizer: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the variance over replicates at the end of the runs against the stationary one of the closed form.

    Each point is a coordinate, with the 95 % interval of a variance from n replicates, var·√(2/(n−1))·1.96.
    Points below the diagonal have not equilibrated yet or are held tighter than the closed form says.

    tree: result tree with ``stationary_variance`` in ``/theory/<optimizer>`` and, for the measured axis,
    ``x`` in ``/optimizer/<optimizer>``; without ``x`` the predicted variances are drawn in order
    optimizer: which one (default: the first that has a stationary law)
    Returns the axes. Raises InputError where the tree has no stationary law.
    """
    name = choose_optimizer(tree, optimizer, "theory")
    predicted = dataset(tree, f"theory/{name}", "stationary_variance")["stationary_variance"].values.astype(
        float
    )
    measured, n = measured_variance(tree, name, predicted.size)
    ax = axes_or_new(ax)
    usable = np.isfinite(predicted) & (predicted > 0)
    if measured is None:
        if not usable.any():
            raise InputError(f"No stationary variance of {name} is positive; nothing can be drawn.")
        ordered = np.sort(predicted[usable])[::-1]
        ax.plot(
            1 + np.arange(ordered.size),
            ordered,
            "o-",
            color=ROLE["theory"],
            markersize=3,
            label="closed form",
        )
        ax.set(yscale="log", xlabel="coordinate, largest first", ylabel="stationary variance")
    else:
        usable &= np.isfinite(measured) & (measured > 0)
        if not usable.any():
            raise InputError(
                f"No coordinate of {name} has both a predicted and a measured variance above zero."
            )
        x, y = predicted[usable], measured[usable]
        error = 1.96 * y * np.sqrt(2 / (n - 1))
        ax.errorbar(
            x, y, yerr=[np.minimum(error, 0.9 * y), error], fmt="o", color=ROLE["real"], markersize=3,
            elinewidth=0.7, alpha=0.75, label=f"{n} real runs",
        )  # fmt: skip
        ends = np.array([0.6 * min(x.min(), y.min()), 1.7 * max(x.max(), y.max())])
        ax.plot(ends, ends, color=ROLE["theory"], linewidth=1, label="equal")
        ax.set(xscale="log", yscale="log", xlim=tuple(ends), ylim=tuple(ends))
        ax.set(xlabel="predicted stationary variance", ylabel="variance of real runs")
    ax.set_title(f"Stationary law of {shorten(name)}")
    ax.legend(loc="best", labelcolor=None if measured is not None else MUTED)
    return ax


def measured_variance(tree: xr.DataTree, name: str, size: int) -> tuple[np.ndarray | None, int]:
    path = f"optimizer/{name}"
    if not has_group(tree, path):
        return None, 0
    runs = dataset(tree, path)
    if "x" not in runs or runs.sizes["coordinate"] != size:
        return None, 0
    x = runs["x"].transpose("replicate", "time", "coordinate").isel(time=-1).values.astype(float)
    good = np.isfinite(x).all(axis=1)
    if "diverged" in runs:
        good &= runs["diverged"].values < 0
    return (x[good].var(axis=0, ddof=1), int(good.sum())) if good.sum() > 1 else (None, 0)
