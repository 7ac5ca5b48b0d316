"""Loss and gradient norm of the recorded training run."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.plots.groups import dataset, step_values
from noisekit.plots.style import BLUE, axes_or_new, themed
from noisekit.plots.ticks import whole_ticks


@themed
def plot_training_curve(tree: xr.DataTree, *, ax: Axes | None = None) -> Axes:
    """Draw the training loss of the recorded batches against the step.

    tree: result tree with ``/training``
    Returns the axes. Raises InputError where the tree has no recorded training.
    """
    data = dataset(tree, "training", "loss")
    loss = data["loss"].values.astype(float)
    ax = axes_or_new(ax)
    ax.plot(step_values(data), loss, "o-", color=BLUE, markersize=3)
    if np.nanmin(loss) > 0 and np.nanmax(loss) > 20 * np.nanmin(loss):
        ax.set_yscale("log")
    ax.set(xlabel="training step", ylabel="loss of the recorded batch", title="Recorded training")
    whole_ticks(ax.xaxis)
    return ax
