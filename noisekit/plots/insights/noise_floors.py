"""Figure of the loss floor over the noise level, on a quadratic and on real minibatches."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from noisekit.plots.insights.panels import NAMES, bars, panels
from noisekit.plots.numbers import format_with_error
from noisekit.plots.style import optimizer_colour, themed
from noisekit.plots.ticks import plain_log_ticks

_TITLE = {
    "quadratic": ("Quadratic, H and Σ do not commute", "noise level σ (gradient)"),
    "linear-regression": ("Least squares, real minibatches", "noise level, B$^{-1/2}$"),
}
_MARKER = {"sgd": "o", "signsgd": "s", "rmsprop": "D", "adam": "^"}


@themed
def draw_noise_floors(data: xr.Dataset) -> Figure:
    """Draw measured floors over the noise level with their fitted slopes; lines are the closed forms.

    data: result of ``noisekit.truth.insights.noise_floors``
    Returns the figure.
    """
    figure, axes = panels(3.1, 3.1)
    for ax, problem in zip(axes[:, 0], data["problem"].values, strict=True):
        ax.set(xscale="log", yscale="log")
        for name in data["optimizer"].values:
            row = data.sel(problem=problem, optimizer=name)
            level = row["noise_level"].values
            order = np.argsort(level)[: int(np.isfinite(level).sum())]
            colour = optimizer_colour(name)
            slope = format_with_error(float(row["slope"]), float(row["slope_error"]))
            ax.plot(level[order], row["noise_floor"].values[order], color=colour, linewidth=1)
            bars(
                ax, level[order], row["floor"].values[order], row["floor_error"].values[order], color=colour,
                fmt=_MARKER.get(str(name), "o"), label=f"{NAMES.get(str(name), name)}: slope {slope}",
            )  # fmt: skip
        title, label = _TITLE.get(str(problem), (str(problem), "noise level"))
        ax.set(xlabel=label, ylabel="loss floor")
        ax.set_title(title)
        plain_log_ticks(ax.xaxis)
        plain_log_ticks(ax.yaxis)
        ax.legend(loc="upper left")
    return figure
