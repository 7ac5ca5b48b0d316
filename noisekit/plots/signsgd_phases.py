"""Phases of SignSGD: how far the gradient of each coordinate stands out of its noise."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.groups import dataset, optimizers_in
from noisekit.plots.numbers import format_percent
from noisekit.plots.style import BLUE, ORANGE, SKY, axes_or_new, themed

_PHASES = {
    1: ("1: far from the noise, |Y| > 3/2", BLUE),
    2: ("2: near, 1 < |Y| < 3/2", SKY),
    3: ("3: inside the noise, |Y| < 1", ORANGE),
}


@themed
def plot_signsgd_phases(tree: xr.DataTree, *, optimizer: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the share of coordinates in each phase of SignSGD, Y = ∇f/(√2 σ) coordinate by coordinate.

    In phase 1 SignSGD moves at full speed, in phase 3 like SGD with a step divided by σ.
    Source: Compagnoni et al. 2025, arXiv 2411.15958.

    tree: result tree with ``phase_fraction`` in ``/theory/<optimizer>``
    optimizer: which one (default: the first that has phases)
    Returns the axes. Raises InputError where the tree has no phases.
    """
    having = [
        name
        for name in optimizers_in(tree, "theory")
        if "phase_fraction" in tree[f"theory/{name}"] and optimizer in (None, name)
    ]
    if not having:
        dataset(tree, f"theory/{optimizer or 'signsgd'}", "phase_fraction")
    data = dataset(tree, f"theory/{having[0]}")
    fraction = dict(zip(data["phase"].values.tolist(), data["phase_fraction"].values.tolist(), strict=True))
    if not np.isfinite(list(fraction.values())).all():
        raise InputError("The phases of SignSGD are not finite numbers; compute them from finite gradients.")
    ax = axes_or_new(ax)
    for row, (phase, (label, colour)) in enumerate(_PHASES.items()):
        share = float(fraction.get(phase, 0.0))
        ax.barh(row, 100 * share, color=colour, height=0.55)
        ax.annotate(
            format_percent(share),
            (100 * share, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            ha="left",
        )
        ax.annotate(
            label, (0, row - 0.33), (1, 0), textcoords="offset points", va="bottom", ha="left", fontsize=8.5
        )
    ax.set_yticks([])
    ax.set(xlim=(0, 118), ylim=(2.5, -0.75), xlabel="share of coordinates (%)", title="Phases of SignSGD")
    ax.set_xticks([0, 25, 50, 75, 100])
    ax.grid(visible=False, axis="y")
    return ax
