"""Hill plot: the tail index against the number of extremes it is estimated from."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.fits import NoiseOf
from noisekit.plots.pooled_noise import pooled_noise
from noisekit.plots.style import MUTED, ROLE, axes_or_new, themed


def hill_estimates(values: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Return the Hill estimator α̂(k) = [(1/k) Σ_{i≤k} log(x₍ᵢ₎/x₍ₖ₊₁₎)]⁻¹ of |values| for every ``k``.

    Source: Hill 1975, "A simple general approach to inference about the tail of a distribution".
    """
    log = np.log(np.sort(np.abs(values[values != 0]))[::-1])
    mean_excess = np.cumsum(log)[k - 1] / k - log[k]
    with np.errstate(divide="ignore"):
        return 1.0 / mean_excess


@themed
def plot_hill(
    tree: xr.DataTree,
    *,
    step: int | None = None,
    block: str | None = None,
    of: NoiseOf = "sample",
    ax: Axes | None = None,
) -> Axes:
    """Draw the Hill estimate of the tail index with its 95 % interval, α̂(1 ± 1.96/√k).

    A plateau is a tail index; a curve that keeps falling with k is no power law. Values of different
    coordinates of one sample are not independent, so the interval is a lower bound of the uncertainty.

    tree: result tree with ``/gradient_noise/samples`` or ``/minibatch_noise``
    step, block: which recorded step (default: the last) and which parameter tensor (default: all)
    of: whose noise, that of one "sample" or that of a "minibatch" where training ended
    Returns the axes. Raises InputError where the tree has no or too little recorded noise.
    """
    noise = pooled_noise(tree, step, block, of)
    n = int(np.count_nonzero(noise.values))
    if n < 50:
        raise InputError(
            f"A Hill plot needs at least 50 noise values, and there are {n}; record more coordinates."
        )
    k = np.unique(np.geomspace(10, n // 5, 200).astype(int))
    alpha = hill_estimates(noise.values, k)
    error = 1.96 * alpha / np.sqrt(k)
    ax = axes_or_new(ax)
    ax.fill_between(k, np.maximum(alpha - error, 0), alpha + error, color=ROLE["sde"], alpha=0.2, linewidth=0)
    ax.plot(k, alpha, color=ROLE["sde"], label="Hill estimate, 95 % interval")
    ax.axhline(2.0, color=MUTED, linestyle=":", linewidth=1.2, label="below 2: infinite variance")
    ax.set(
        xscale="log",
        ylim=(0, 1.25 * float(np.nanmax((alpha + error)[k >= min(30, k[-1])]))),
        xlim=(k[0], k[-1]),
        xlabel="number of extreme values used, k",
        ylabel="tail index α",
        title=f"Hill plot of the noise {noise.where}",
    )
    ax.legend(loc="best")
    return ax
