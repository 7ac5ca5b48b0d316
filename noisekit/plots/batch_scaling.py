"""Does a scaling rule keep the result when the batch grows?"""

from __future__ import annotations

import xarray as xr
from matplotlib.axes import Axes

from noisekit.plots.groups import choose_optimizer, dataset, shorten
from noisekit.plots.style import CYCLE, MUTED, axes_or_new, themed


@themed
def plot_batch_scaling(tree: xr.DataTree, *, optimizer: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the final loss over the batch ratio, one line for each rule that rescales the hyper-parameters.

    A rule that holds is a horizontal line: the same loss after the same number of samples.

    tree: result tree with ``/batch_scaling/<optimizer>``: ``loss`` and ``loss_error`` (standard error of the
    mean) over (preset, batch_ratio)
    optimizer: which one (default: the first)
    Returns the axes. Raises InputError where the tree has no such experiment.
    """
    name = choose_optimizer(tree, optimizer, "batch_scaling")
    data = dataset(tree, f"batch_scaling/{name}", "loss").transpose("preset", "batch_ratio")
    ratio = data["batch_ratio"].values.astype(float)
    ax = axes_or_new(ax)
    for i, preset in enumerate(data["preset"].values):
        error = 1.96 * data["loss_error"].values[i] if "loss_error" in data else None
        shifted = ratio * 1.02 ** (i - (data.sizes["preset"] - 1) / 2)
        ax.errorbar(
            shifted, data["loss"].values[i], yerr=error, fmt="osD^vP"[i % 6] + "-", capsize=2,
            color=CYCLE[i % len(CYCLE)], label=shorten(preset),
        )  # fmt: skip
    ax.axvline(1.0, color=MUTED, linestyle=":", linewidth=1.2)
    ax.set(xscale="log", xlabel="batch size relative to the original", ylabel="final loss")
    ax.set_xticks(ratio.tolist(), [f"{r:g}" for r in ratio])
    ax.minorticks_off()
    ax.set_title(f"Batch scaling of {shorten(name)}")
    ax.legend(loc="best", title="rule")
    return ax
