"""Phases of SignSGD along its runs: which share of the coordinates is far from, near or inside the noise."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.groups import choose_optimizer, dataset, shorten, step_values
from noisekit.plots.style import BLUE, INK, ORANGE, SKY, axes_or_new, legend_below, themed
from noisekit.plots.ticks import whole_ticks

_LABEL = {1: "1: |Y| > 3/2", 2: "2: 1 < |Y| < 3/2", 3: "3: |Y| < 1"}
_COLOUR = {1: BLUE, 2: SKY, 3: ORANGE}


@themed
def plot_phase_course(tree: xr.DataTree, *, optimizer: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the share of coordinates in each phase of SignSGD over the steps, and the excess loss beside it.

    Y = ∇f/(√2 σ): in phase 1 the loss falls at full speed whatever the noise, in phase 3 like a gradient step
    divided by σ, until the floor. The loss is relative to that of the first instant, on the same axis.
    Source: Compagnoni et al. 2025, arXiv 2411.15958.

    tree: result tree with ``/phases/<optimizer>``, as ``results.phase_groups`` makes it
    optimizer: which one (default: the first)
    Returns the axes. Raises InputError where the tree has no phases along runs.
    """
    name = choose_optimizer(tree, optimizer, "phases")
    data = dataset(tree, f"phases/{name}", "phase_fraction")
    share = 100 * data["phase_fraction"].transpose("phase", "time").values.astype(float)
    if not np.isfinite(share).all():
        raise InputError(f"The phases of {name} are not finite numbers; compute them from finite gradients.")
    step = data["step"].values if "step" in data.variables else step_values(data, "time")
    phases = [int(p) for p in data["phase"].values]
    ax = axes_or_new(ax)
    ax.stackplot(
        step, share, colors=[_COLOUR[p] for p in phases], labels=[_LABEL[p] for p in phases],
        alpha=0.75, linewidth=0,
    )  # fmt: skip
    if "excess_loss" in data:
        excess = data["excess_loss"].values.astype(float)
        ax.plot(step, 100 * excess / excess[0], color=INK, label="excess loss, % of the first")
    ax.set(xlabel="optimizer step", ylabel="share of coordinates (%)", ylim=(0, 100))
    ax.set_xlim(step.min(), step.max())
    ax.set_title(f"Phases of {shorten(name)} along its runs")
    ax.grid(visible=False)
    whole_ticks(ax.xaxis)
    legend_below(ax, columns=2, centre=0.5)
    return ax
