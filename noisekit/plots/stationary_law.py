"""Stationary variance of the parameters: predicted against real runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError, unknown_name
from noisekit.plots.groups import dataset, has_group, optimizers_in, shorten
from noisekit.plots.style import MUTED, ROLE, axes_or_new, themed
from noisekit.plots.ticks import plain_log_ticks, whole_ticks


@themed
def plot_stationary_law(tree: xr.DataTree, *, optimizer: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the variance of the parameters at the end of real runs against that of the stationary law.

    Each point is a coordinate, with its 95 % interval. Points below the diagonal have not come to rest yet or
    are held tighter than the law says. A closed form of the literature is drawn beside it where it is stored.

    tree: result tree with ``/stationary/<optimizer>``, or with ``stationary_variance`` in
    ``/theory/<optimizer>`` and ``x`` in ``/optimizer/<optimizer>`` (the interval of a variance from n
    replicates is then var·√(2/(n−1))·1.96); without measured variances the predicted ones are drawn in order
    optimizer: which one (default: the first that has a stationary law)
    Returns the axes. Raises InputError where the tree has no stationary law.
    """
    name, law = read_law(tree, optimizer)
    ax = axes_or_new(ax)
    if law.measured is None or law.error is None:
        _ordered(ax, law, name)
    else:
        _against_runs(ax, law, law.measured, law.error, name)
    ax.set_title(f"Stationary law of {shorten(name)}")
    ax.legend(loc="best", labelcolor=None if law.measured is not None else MUTED)
    return ax


@dataclass(frozen=True)
class DrawnLaw:
    """Variances by coordinate: predicted, published (NaN where unknown), measured with its standard error."""

    predicted: np.ndarray
    published: np.ndarray
    measured: np.ndarray | None = None
    error: np.ndarray | None = None
    n: int = 0


def read_law(tree: xr.DataTree, optimizer: str | None) -> tuple[str, DrawnLaw]:
    """Return the optimizer and its law, from ``/stationary`` where the tree has it, else ``/theory``."""
    stored = optimizers_in(tree, "stationary")
    theory = [n for n in optimizers_in(tree, "theory") if "stationary_variance" in tree[f"theory/{n}"]]
    if not stored and not theory:
        dataset(tree, f"stationary/{optimizer or '*'}", "predicted_variance")
    name = [*stored, *theory][0] if optimizer is None else optimizer
    if name in stored:
        return name, _stored_law(dataset(tree, f"stationary/{name}", "predicted_variance"))
    if name not in theory:
        raise unknown_name("optimizer with a stationary law in this tree", name, {*stored, *theory})
    law = dataset(tree, f"theory/{name}")["stationary_variance"].values.astype(float)
    measured, n = measured_variance(tree, name, law.size)
    error = None if measured is None else measured * np.sqrt(2 / (n - 1))
    return name, DrawnLaw(law, np.full(law.shape, np.nan), measured, error, n)


def _stored_law(data: xr.Dataset) -> DrawnLaw:
    predicted = data["predicted_variance"].values.astype(float)
    nothing = np.full(predicted.shape, np.nan)
    published = data["published_variance"].values if "published_variance" in data else nothing
    if "measured_variance" not in data:
        return DrawnLaw(predicted, published)
    error = data["measured_variance_error"].values if "measured_variance_error" in data else 0 * predicted
    measured = data["measured_variance"].values.astype(float)
    return DrawnLaw(predicted, published, measured, error, int(data.attrs.get("n_replicates", 0)))


def _ordered(ax: Axes, law: DrawnLaw, name: str) -> None:
    usable = np.isfinite(law.predicted) & (law.predicted > 0)
    if not usable.any():
        raise InputError(f"No stationary variance of {name} is positive; nothing can be drawn.")
    ordered = np.sort(law.predicted[usable])[::-1]
    rank = 1 + np.arange(ordered.size)
    ax.plot(rank, ordered, "o-", color=ROLE["theory"], markersize=3, label="closed form")
    ax.set(yscale="log", xlabel="coordinate, largest first", ylabel="stationary variance")
    whole_ticks(ax.xaxis)


def _against_runs(ax: Axes, law: DrawnLaw, measured: np.ndarray, error: np.ndarray, name: str) -> None:
    usable = np.isfinite(law.predicted) & (law.predicted > 0) & np.isfinite(measured) & (measured > 0)
    if not usable.any():
        raise InputError(f"No coordinate of {name} has both a predicted and a measured variance above zero.")
    x, y, bar = law.predicted[usable], measured[usable], 1.96 * error[usable]
    label = f"{law.n} real runs" if law.n else "real runs"
    ax.errorbar(
        x, y, yerr=[np.minimum(bar, 0.9 * y), bar], fmt="o", color=ROLE["real"], markersize=4,
        elinewidth=0.7, alpha=0.75, label=label,
    )  # fmt: skip
    ends = np.array([0.6 * min(x.min(), y.min()), 1.7 * max(x.max(), y.max())])
    ax.plot(ends, ends, color=ROLE["theory"], linewidth=1, label="equal")
    published = law.published[usable]
    shown = np.isfinite(published) & (published > 0)
    if shown.any():
        ax.plot(
            x[shown], published[shown], "x", color=ROLE["surrogate"], markersize=6, label="published form"
        )
    ax.set(xscale="log", yscale="log", xlim=tuple(ends), ylim=tuple(ends))
    plain_log_ticks(ax.xaxis)
    plain_log_ticks(ax.yaxis)
    ax.set(xlabel="predicted stationary variance", ylabel="variance of real runs")


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
