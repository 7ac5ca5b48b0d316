"""How low each optimizer gets: real runs, the SDE, and the part that noise alone sets."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.ensembles import ensemble
from noisekit.plots.floor_against_noise import predicted_floor
from noisekit.plots.groups import dataset, optimizers_in, shorten
from noisekit.plots.style import ROLE, axes_or_new, legend_below, themed
from noisekit.plots.ticks import plain_log_ticks


@themed
def plot_noise_floors(tree: xr.DataTree, *, ax: Axes | None = None) -> Axes:
    """Draw the final loss (mean over the last tenth of the run, 95 % interval) of every optimizer, two ways.

    Real runs and SDE paths stand side by side; the third mark is the predicted noise floor, the stationary
    excess loss that the gradient noise alone keeps up, first order in the learning rate.

    tree: result tree with ``/optimizer/<name>``, ``/sde/<name>`` or ``/theory/<name>``
    Returns the axes. Raises InputError where the tree has none of them.
    """
    names = list(
        dict.fromkeys(n for root in ("optimizer", "sde", "theory") for n in optimizers_in(tree, root))
    )
    if not names:
        dataset(tree, "optimizer/*")
    ax = axes_or_new(ax)
    labelled: set[str] = set()
    values: list[float] = []
    for row, name in enumerate(names):
        marks = (("optimizer", "real", "real runs", "o", -0.2), ("sde", "sde", "SDE paths", "D", 0.0))
        for kind, role, label, marker, offset in marks:
            if name not in optimizers_in(tree, kind):
                continue
            runs = ensemble(tree, kind, name)
            if runs.n == 0:
                continue
            level, error = runs.late()
            ax.errorbar(
                level, row + offset, xerr=1.96 * np.nan_to_num(error), fmt=marker, color=ROLE[role],
                capsize=2, markersize=5, label=None if label in labelled else label,
            )  # fmt: skip
            labelled.add(label)
            values.append(level)
        floor = predicted_floor(tree, name)
        if floor > 0:
            label = "predicted noise floor (excess loss)"
            ax.plot(floor, row + 0.2, "s", color=ROLE["theory"], label=None if label in labelled else label)
            labelled.add(label)
            values.append(floor)
    positive = [v for v in values if np.isfinite(v)]
    if not positive:
        raise InputError(
            "Every replicate of every optimizer diverged and no floor is known; nothing can be drawn."
        )
    if min(positive) > 0:
        ax.set_xscale("log")
        if max(positive) < 3 * min(positive):
            ax.set_xlim(0.5 * min(positive), 2 * max(positive))
        plain_log_ticks(ax.xaxis)
    ax.set_yticks(range(len(names)), [shorten(n) for n in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.set(xlabel="loss", title="How low each optimizer gets")
    legend_below(ax, columns=2)
    return ax
