"""Figure of floors of a real network over what the recorded variance predicts."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from noisekit.plots.insights.panels import NAMES, panels
from noisekit.plots.numbers import format_with_error
from noisekit.plots.style import MUTED, optimizer_colour, themed
from noisekit.plots.ticks import plain_log_ticks


@themed
def draw_floor_from_record(data: xr.Dataset) -> Figure:
    """Draw the excess loss that real runs reach over its prediction, one row a setting.

    Runs on a loss without a minimum (no penalty, λ = 0) end below where they began; they are marked at the
    left edge.

    data: result of ``noisekit.truth.insights.floor_from_record``
    Returns the figure.
    """
    n = data.sizes["run"]
    figure, axes = panels(1.0 + 0.27 * n)
    ax = axes[0, 0]
    ratio, error = data["ratio"].values, data["ratio_error"].values
    positive = ratio > 0
    right = max(3.0, 1.6 * float(ratio[positive].max(initial=1)))
    left = min(0.3, 0.6 * float(ratio[positive].min(initial=1)))
    ax.axvline(1, color=MUTED, linestyle=":", linewidth=1.2)
    labels = []
    for row in range(n):
        item = data.isel(run=row)
        name = str(item["optimizer"].values)
        colour = optimizer_colour(name)
        if positive[row]:
            reach = 1.96 * error[row]
            below = min(reach, 0.9 * ratio[row])
            ax.errorbar(ratio[row], row, xerr=[[below], [reach]], fmt="o", color=colour, capsize=2)
        else:
            ax.plot(1.12 * left, row, "<", color=colour)
            text = f"below the start: {format_with_error(float(ratio[row]), float(error[row]))}"
            ax.annotate(text, (1.3 * left, row), va="center", fontsize=8.5)
        penalty = "" if float(item["penalty"]) > 0 else ", λ = 0"
        rate, batch = float(item["learning_rate"]), float(item["batch_size"])
        labels.append(f"{NAMES.get(name, name)}, η = {rate:g}, B = {batch:g}{penalty}")
    ax.set(xscale="log", xlim=(left, right), ylim=(n - 0.5, -0.5))
    ax.set_yticks(np.arange(n), labels)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("floor reached / predicted")
    ax.set_title("Floor from the record")
    plain_log_ticks(ax.xaxis)
    return figure
