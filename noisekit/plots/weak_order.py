"""Weak order: how fast the SDE's error vanishes with the learning rate."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.groups import dataset, optimizers_in, shorten
from noisekit.plots.numbers import format_with_error
from noisekit.plots.style import CYCLE, axes_or_new, optimizer_colour, themed
from noisekit.plots.ticks import plain_log_ticks


@themed
def plot_weak_order(
    tree: xr.DataTree, *, optimizers: list[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the largest gap between SDE and optimizer over time against the learning rate, with fitted slopes.

    A weak approximation of order p has slope p on these axes.

    tree: result tree with ``/weak_order/<optimizer>``: ``gap`` and ``gap_error`` (standard error) over
    ``learning_rate``, and the numbers ``slope`` and ``slope_error``
    optimizers: which ones (default: all)
    Returns the axes. Raises InputError where the tree has no such experiment.
    """
    known = optimizers_in(tree, "weak_order")
    names = [name for name in known if optimizers is None or name in optimizers]
    if not names:
        dataset(tree, f"weak_order/{(optimizers or ['*'])[0]}", "gap")
    ax = axes_or_new(ax)
    used: list[str] = []
    for name, marker in zip(names, cycle("osD^vP"), strict=False):
        data = dataset(tree, f"weak_order/{name}", "gap")
        rate, gap = data["learning_rate"].values.astype(float), data["gap"].values.astype(float)
        good = np.isfinite(gap) & (gap > 0)
        if good.sum() < 2:
            continue
        colour = optimizer_colour(name)
        colour = colour if colour not in used else next((c for c in CYCLE if c not in used), colour)
        used.append(colour)
        fitted, level = np.polyfit(np.log(rate[good]), np.log(gap[good]), 1)
        slope = float(data["slope"]) if "slope" in data else float(fitted)
        error = float(data["slope_error"]) if "slope_error" in data else float("nan")
        if "gap_error" in data:
            bar = 1.96 * data["gap_error"].values[good]
            bars = [np.minimum(bar, 0.9 * gap[good]), bar]
            ax.errorbar(rate[good], gap[good], yerr=bars, fmt="none", color=colour, capsize=2, linewidth=1)
        label = f"{shorten(name)}: slope {format_with_error(slope, error)}"
        ax.plot(rate[good], gap[good], marker, color=colour, label=label)
        centre = np.exp(level + fitted * np.log(rate[good]).mean())
        ax.plot(rate[good], centre * (rate[good] / np.exp(np.log(rate[good]).mean())) ** slope, color=colour)
    if not used:
        raise InputError(
            "No optimizer has two learning rates with a gap above zero; a slope needs at least two."
        )
    ax.set(
        xscale="log", yscale="log", xlabel="learning rate η", ylabel="largest gap over time",
        title="Weak order of the SDEs",
    )  # fmt: skip
    plain_log_ticks(ax.xaxis)
    plain_log_ticks(ax.yaxis)
    ax.legend(loc="best")
    return ax
