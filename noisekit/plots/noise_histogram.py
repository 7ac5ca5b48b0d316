"""Histogram of the gradient noise beside the Gaussian and the fitted Student-t."""

from __future__ import annotations

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from noisekit.plots.fits import NoiseOf
from noisekit.plots.numbers import format_number
from noisekit.plots.pooled_noise import pooled_noise
from noisekit.plots.style import INK, ROLE, axes_or_new, themed
from noisekit.plots.wide_scale import FAR, set_wide, wide_grid


@themed
def plot_noise_histogram(
    tree: xr.DataTree,
    *,
    step: int | None = None,
    block: str | None = None,
    of: NoiseOf = "sample",
    bins: int = 80,
    ax: Axes | None = None,
) -> Axes:
    """Draw the density of the per-sample gradient noise, every coordinate in units of its own scale.

    The density is on a logarithmic axis, because the laws differ in the tails; where the noise reaches beyond
    30 scales, the horizontal axis is logarithmic in the tails too. Each curve is the mean
    of the densities fitted to the single coordinates.

    tree: result tree with ``/gradient_noise/samples`` or ``/minibatch_noise``;
    the fitted curve comes from ``/noise_model`` or ``/minibatch_noise``
    step, block: which recorded step (default: the last) and which parameter tensor (default: all)
    of: whose noise, that of one "sample" or that of a "minibatch" where training ended
    bins: number of bins between the extremes
    Returns the axes. Raises InputError where the tree has no recorded noise.
    """
    noise = pooled_noise(tree, step, block, of)
    ax = axes_or_new(ax)
    farthest = max(4.0, 1.02 * float(np.abs(noise.values).max()))
    is_wide = farthest > FAR
    edges = wide_grid(farthest, bins + 1) if is_wide else np.linspace(-farthest, farthest, bins + 1)
    density, _ = np.histogram(noise.values, edges, density=True)
    bars = {"element": "step", "color": INK, "alpha": 0.22, "linewidth": 0, "label": "measured"}
    sns.histplot(x=noise.values, bins=edges.tolist(), stat="density", ax=ax, **bars)
    z = wide_grid(farthest, 401) if is_wide else np.linspace(-farthest, farthest, 401)
    ax.plot(z, noise.density(z, "gaussian"), color=ROLE["gaussian"], linestyle="--", label="Gaussian fits")
    if noise.has_fit:
        middle = float(np.median(noise.df))
        is_gaussian = not np.isfinite(middle)
        label = (
            "fits, mostly Gaussian"
            if is_gaussian
            else f"Student-t fits, median ν = {format_number(middle, 2)}"
        )
        ax.plot(z, noise.density(z, "fitted"), color=ROLE["student_t"], label=label)
    lowest, highest = float(density[density > 0].min()), float(density.max())
    # The upper third of the axis is left for the legend.
    ylim = (0.4 * lowest, highest * max(30.0, (highest / lowest) ** 0.45))
    ax.set(
        yscale="log",
        ylim=ylim,
        xlim=(-farthest, farthest),
        xlabel=f"gradient noise of {noise.of} ({noise.unit}s)",
        ylabel="density",
        title=f"Gradient noise {noise.where}",
    )
    if is_wide:
        set_wide(ax, "x", farthest)
    ax.legend(loc="upper right")
    return ax
