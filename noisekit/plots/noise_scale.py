"""Gradient noise scale over training."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.plots.groups import dataset, step_values
from noisekit.plots.numbers import format_count
from noisekit.plots.style import MUTED, ORANGE, axes_or_new, themed
from noisekit.plots.ticks import plain_log_ticks, whole_ticks


@themed
def plot_noise_scale(tree: xr.DataTree, *, ax: Axes | None = None) -> Axes:
    """Draw the gradient noise scale of the whole model, with its 95 % interval, against the step.

    Batches well below it gain from more samples; above it, hardly. Where the
    interval has no upper end, the batch was too small to see the signal; it is drawn to the top.
    Source: McCandlish et al. 2018, arXiv 1812.06162.

    tree: result tree with ``/gradient_noise``
    Returns the axes. Raises InputError where the tree has no noise scale.
    """
    data = dataset(tree, "gradient_noise", "total_noise_scale")
    step = step_values(data)
    value = data["total_noise_scale"].values.astype(float)
    visible = np.isfinite(value) & (value > 0)
    batch = data.attrs.get("batch_size", tree.attrs.get("batch_size"))
    ends = [value[visible]]
    ax = axes_or_new(ax)
    if "total_noise_scale_interval" in data:
        interval = data["total_noise_scale_interval"].transpose("step", "bound").values.astype(float)
        low, high = interval[:, 0].copy(), interval[:, 1].copy()
        ends += [low[np.isfinite(low) & (low > 0)], high[np.isfinite(high) & (high > 0)]]
    if batch:
        ends.append(np.array([float(batch)]))
    span = np.concatenate(ends) if any(e.size for e in ends) else np.array([1.0])
    bottom, top = 0.6 * span.min(), 1.7 * span.max()
    if "total_noise_scale_interval" in data:
        low = np.where(np.isfinite(low) & (low > 0), low, bottom)
        high = np.where(np.isfinite(high) & (high > 0), high, top)
        ax.fill_between(step, low, high, color=ORANGE, alpha=0.25, linewidth=0, label="95 % interval")
    ax.plot(step[visible], value[visible], "o-", color=ORANGE, markersize=3.5, label="noise scale")
    if batch:
        ax.axhline(
            float(batch),
            color=MUTED,
            linestyle="--",
            linewidth=1,
            label=f"batch size {format_count(int(batch))}",
        )
    ax.set(
        yscale="log", ylim=(bottom, top), xlabel="training step", ylabel="noise scale (samples)",
        title="Gradient noise scale",
    )  # fmt: skip
    plain_log_ticks(ax.yaxis)
    whole_ticks(ax.xaxis)
    ax.legend(loc="best")
    return ax
