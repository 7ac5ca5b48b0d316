"""Eigenvalues of the per-sample gradient covariance."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.groups import dataset, step_values
from noisekit.plots.style import BLUE, MUTED, ORANGE, axes_or_new, themed


@themed
def plot_covariance_spectrum(
    tree: xr.DataTree, *, steps: list[int] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the eigenvalues of Σ₁ in decreasing order, early and late in training.

    A batch of N samples shows at most N − 1 eigenvalues; flat at the left end means many directions share the
    noise, steep means few carry it.

    tree: result tree with eigenvalues in ``/gradient_noise``
    steps: which recorded steps (default: first, middle, last)
    Returns the axes. Raises InputError where the tree has no eigenvalues.
    """
    data = dataset(tree, "gradient_noise", "eigenvalue")
    eigenvalue = data["eigenvalue"].transpose("step", "component").values.astype(float)
    known = step_values(data)
    if steps is None:
        rows = sorted({0, (len(known) - 1) // 2, len(known) - 1})
    else:
        rows = [int(i) for i in np.flatnonzero(np.isin(known, steps))]
    if not rows:
        raise InputError(
            f"None of the steps {steps} was recorded; there are {len(known)} from {known[0]} to {known[-1]}."
        )
    ax = axes_or_new(ax)
    largest = float(np.nanmax(eigenvalue[rows]))
    if not largest > 0:
        raise InputError("No eigenvalue of the gradient covariance is positive; nothing can be drawn.")
    for row, colour, style in zip(rows, _colours(len(rows)), _styles(len(rows)), strict=True):
        # Below the rounding error of float32 an eigenvalue is zero.
        usable = eigenvalue[row] > 1e-7 * largest
        rank = 1 + np.arange(eigenvalue.shape[1])
        ax.plot(
            rank[usable],
            eigenvalue[row][usable],
            style,
            color=colour,
            label=f"step {known[row]}",
            markersize=3,
        )
    ax.set(xscale="log", yscale="log", xlabel="rank", ylabel="eigenvalue of Σ₁", title="Covariance spectrum")
    ax.legend(loc="lower left")
    return ax


def _colours(n: int) -> list[str]:
    return [BLUE] if n == 1 else [MUTED, *[BLUE] * (n - 2), ORANGE]


def _styles(n: int) -> list[str]:
    return ["o-", "s-", "D-", "^-", "v-", "P-"][:n] if n <= 6 else ["o-"] * n
