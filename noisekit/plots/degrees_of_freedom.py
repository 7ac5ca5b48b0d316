"""Degrees of freedom of the fitted Student-t across the layers."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.plots.blocks import largest_blocks, name_blocks
from noisekit.plots.fits import NoiseOf, read_fits
from noisekit.plots.numbers import format_percent
from noisekit.plots.style import MUTED, ROLE, axes_or_new, themed

_SMALLEST, _LARGEST = 0.1, 200.0


@themed
def plot_degrees_of_freedom(
    tree: xr.DataTree,
    *,
    step: int | None = None,
    of: NoiseOf = "sample",
    max_blocks: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Draw the degrees of freedom ν fitted to the coordinates of each block: median, quartiles, 10–90 %.

    Fits above 200 are drawn at 200: no sample of usual size can tell them from the Gaussian.
    On the right: the share of coordinates where the Gaussian is rejected (false-discovery rate 5 %).

    tree: result tree with ``/noise_model`` or ``/minibatch_noise``
    step: which recorded step (default: the last)
    of: whose noise, that of one "sample" or that of a "minibatch" where training ended
    max_blocks: of larger models only the blocks with the most parameters are shown
    Returns the axes. Raises InputError where the tree has no fits.
    """
    fits = read_fits(tree, of, step)
    block, df, heavy = fits.block, fits.df, fits.heavy
    names = np.array(list(dict.fromkeys(block)))
    shown = largest_blocks(tree, names, max_blocks)
    ax = axes_or_new(ax)
    for row, name in enumerate(names[shown]):
        inside = block == name
        q = np.quantile(np.clip(df[inside], _SMALLEST, _LARGEST), [0.1, 0.25, 0.5, 0.75, 0.9])
        ax.hlines(row, q[0], q[4], color=ROLE["student_t"], linewidth=1.2)
        ax.hlines(row, q[1], q[3], color=ROLE["student_t"], linewidth=6, alpha=0.55)
        ax.plot(q[2], row, "o", color=ROLE["student_t"], markersize=5)
        if heavy is not None:
            share = format_percent(float(heavy[inside].mean()))
            ax.annotate(
                share, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=MUTED
            )
    if heavy is not None:
        ax.annotate(
            "heavy", (1.02, -0.55), xycoords=("axes fraction", "data"), va="bottom", fontsize=8, color=MUTED
        )
    ax.axvline(2.0, color=MUTED, linestyle=":", linewidth=1.2)
    lowest = max(_SMALLEST, min(1.5, 0.8 * float(np.quantile(np.minimum(df, _LARGEST), 0.01))))
    ax.set(
        xscale="log",
        xlim=(lowest, 1.1 * _LARGEST),
        xlabel="degrees of freedom ν (dotted: infinite variance below 2)",
    )
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 80, 200) if t >= lowest]
    ax.set_xticks(ticks, ["Gauss" if t == _LARGEST else f"{t:g}" for t in ticks])
    ax.minorticks_off()
    where = "where training ended" if fits.step is None else f"at step {fits.step}"
    ax.set_title(f"Student-t fits {where}")
    name_blocks(ax, names[shown], names.size)
    return ax
