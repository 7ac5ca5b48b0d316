"""Histogram of the gradient noise beside the Gaussian and the fitted Student-t."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.plots.numbers import format_number
from noisekit.plots.pooled_noise import pooled_noise
from noisekit.plots.style import INK, ROLE, axes_or_new, themed


@themed
def plot_noise_histogram(
    tree: xr.DataTree,
    *,
    step: int | None = None,
    block: str | None = None,
    bins: int = 80,
    ax: Axes | None = None,
) -> Axes:
    """Draw the density of the per-sample gradient noise, every coordinate in units of its own scale.

    The vertical axis is logarithmic, because the laws differ in the tails. Each curve is the mean
    of the densities fitted to the single coordinates.

    tree: result tree with ``/gradient_noise/samples``, and ``/noise_model`` for the fitted curve
    step, block: which recorded step (default: the last) and which parameter tensor (default: all)
    bins: number of bins between the extremes
    Returns the axes. Raises InputError where the tree has no recorded noise.
    """
    noise = pooled_noise(tree, step, block)
    ax = axes_or_new(ax)
    reach = min(max(4.0, float(np.abs(noise.values).max())), 30.0)
    ax.hist(
        np.clip(noise.values, -reach, reach),
        bins=np.linspace(-reach, reach, bins + 1).tolist(),
        density=True,
        color=INK,
        alpha=0.22,
        label="measured",
    )
    z = np.linspace(-reach, reach, 401)
    ax.plot(z, noise.density(z, "gaussian"), color=ROLE["gaussian"], linestyle="--", label="Gaussian fits")
    if noise.has_fit:
        label = f"Student-t fits, median ν = {format_number(float(np.median(noise.df)), 2)}"
        ax.plot(z, noise.density(z, "fitted"), color=ROLE["student_t"], label=label)
    lowest = 1.0 / (noise.values.size * 2 * reach / bins)
    ax.set(
        yscale="log",
        ylim=(0.4 * lowest, 60.0),
        xlim=(-reach, reach),
        xlabel=f"noise of one sample's gradient ({noise.unit}s)",
        ylabel="density",
        title=f"Gradient noise at step {noise.step}",
    )
    ax.legend(loc="upper right")
    return ax
