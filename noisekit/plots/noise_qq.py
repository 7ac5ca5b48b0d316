"""Quantiles of the gradient noise against those of the Gaussian and of the fitted Student-t."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.plots.fits import NoiseOf
from noisekit.plots.pooled_noise import pooled_noise
from noisekit.plots.style import MUTED, ROLE, axes_or_new, themed
from noisekit.plots.wide_scale import FAR, set_wide


@themed
def plot_noise_qq(
    tree: xr.DataTree,
    *,
    step: int | None = None,
    block: str | None = None,
    of: NoiseOf = "sample",
    points: int = 120,
    ax: Axes | None = None,
) -> Axes:
    """Draw measured against expected quantiles; a law that fits lies on the diagonal.

    Where the noise reaches beyond 30 scales both axes are logarithmic in the tails.

    tree: result tree with ``/gradient_noise/samples`` or ``/minibatch_noise``;
    the Student-t comes from ``/noise_model`` or ``/minibatch_noise``
    step, block: which recorded step (default: the last) and which parameter tensor (default: all)
    of: whose noise, that of one "sample" or that of a "minibatch" where training ended
    points: how many quantiles, spaced evenly in log-odds so that both tails are seen
    Returns the axes. Raises InputError where the tree has no recorded noise.
    """
    noise = pooled_noise(tree, step, block, of)
    ax = axes_or_new(ax)
    outermost = np.log(2.0 * noise.values.size - 1.0)
    probability = 1.0 / (1.0 + np.exp(-np.linspace(-outermost, outermost, points)))
    measured = np.quantile(noise.values, probability, method="hazen")
    expected = {"Gaussian fits": (noise.quantile(probability, "gaussian"), "gaussian", "o")}
    if noise.has_fit:
        expected["Student-t fits"] = (noise.quantile(probability, "fitted"), "student_t", "D")
    # A law that expects far more than was measured leaves the axis.
    farthest = float(np.abs(measured).max())
    reach = 1.05 * max(farthest, *(min(np.abs(x).max(), 30 * farthest) for x, _, _ in expected.values()))
    ax.plot([-reach, 0, reach], [-reach, 0, reach], color=MUTED, linewidth=0.9, label="perfect fit", zorder=1)
    for label, (x, role, marker) in expected.items():
        ax.plot(
            x, measured, marker, color=ROLE[role], markersize=3.2, label=label, alpha=0.85, markeredgewidth=0
        )
    ax.set(
        xlim=(-reach, reach),
        ylim=(-reach, reach),
        xlabel=f"expected quantile ({noise.unit}s)",
        ylabel="measured quantile",
        title=f"Quantiles of the noise {noise.where}",
    )
    if reach > FAR:
        set_wide(ax, "x", reach)
        set_wide(ax, "y", reach)
    ax.legend(loc="upper left")
    return ax
