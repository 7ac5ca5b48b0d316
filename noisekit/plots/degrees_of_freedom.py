"""Degrees of freedom of the fitted Student-t across the layers."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.blocks import largest_blocks, name_blocks
from noisekit.plots.groups import at_step, dataset
from noisekit.plots.numbers import format_percent
from noisekit.plots.style import MUTED, ROLE, axes_or_new, themed

_LARGEST = 200.0


@themed
def plot_degrees_of_freedom(
    tree: xr.DataTree, *, step: int | None = None, max_blocks: int = 12, ax: Axes | None = None
) -> Axes:
    """Draw the degrees of freedom ν fitted to the coordinates of each block: median, quartiles, 10–90 %.

    Fits above 200 are drawn at 200: no sample of usual size can tell them from the Gaussian.
    On the right: the share of coordinates where the Gaussian is rejected (false-discovery rate 5 %).

    tree: result tree with ``/noise_model``; step: which recorded step (default: the last)
    max_blocks: of larger models only the blocks with the most parameters are shown
    Returns the axes. Raises InputError where the tree has no fits.
    """
    data = at_step(dataset(tree, "noise_model", "df", "coordinate_block"), step)
    block = data["coordinate_block"].values.astype(str)
    df = data["df"].values.astype(float)
    names = np.array(list(dict.fromkeys(block[df > 0])))
    if names.size == 0:
        raise InputError("No coordinate has a fitted df; record more samples and fit again.")
    shown = largest_blocks(tree, names, max_blocks)
    heavy = data["is_heavy_tailed"].values if "is_heavy_tailed" in data else None
    ax = axes_or_new(ax)
    for row, name in enumerate(names[shown]):
        inside = (block == name) & (df > 0)
        q = np.quantile(np.clip(df[inside], 0.3, _LARGEST), [0.1, 0.25, 0.5, 0.75, 0.9])
        ax.hlines(row, q[0], q[4], color=ROLE["student_t"], linewidth=1.2)
        ax.hlines(row, q[1], q[3], color=ROLE["student_t"], linewidth=6, alpha=0.55)
        ax.plot(q[2], row, "o", color=ROLE["student_t"], markersize=5)
        if heavy is not None:
            share = format_percent(float(np.mean(heavy[inside] == 1)))
            ax.annotate(
                share, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=MUTED
            )
    if heavy is not None:
        ax.annotate(
            "heavy", (1.02, -0.55), xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color=MUTED
        )
    ax.axvline(2.0, color=MUTED, linestyle=":", linewidth=1.2)
    lowest = max(0.3, min(1.5, 0.8 * float(np.quantile(df[df > 0], 0.01))))
    ax.set(
        xscale="log",
        xlim=(lowest, 1.1 * _LARGEST),
        xlabel="degrees of freedom ν (dotted: infinite variance below 2)",
    )
    ticks = [t for t in (0.5, 1, 2, 5, 10, 30, 80, 200) if t >= lowest]
    ax.set_xticks(ticks, ["Gauss" if t == _LARGEST else f"{t:g}" for t in ticks])
    ax.minorticks_off()
    ax.set_title(f"Student-t fits at step {int(data['step'])}" if "step" in data.coords else "Student-t fits")
    name_blocks(ax, names[shown], names.size)
    return ax
