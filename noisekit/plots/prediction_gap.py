"""The gap between the SDE's mean and that of real runs, with its error."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import unknown_name
from noisekit.plots.groups import dataset, optimizers_in, shorten, step_values
from noisekit.plots.style import CYCLE, INK, MUTED, axes_or_new, optimizer_colour, themed
from noisekit.plots.ticks import whole_ticks


@themed
def plot_prediction_gap(
    tree: xr.DataTree,
    *,
    observable: str = "loss",
    optimizers: list[str] | None = None,
    tolerance: float = 0.05,
    ax: Axes | None = None,
) -> Axes:
    """Draw (SDE mean − real mean)/|real mean| in per cent, with the 95 % Monte-Carlo interval of the gap.

    A curve whose band holds zero cannot be told from a perfect prediction with this many replicates.

    tree: result tree with ``/comparison/<optimizer>``; observable: what is compared
    optimizers: which ones (default: all); tolerance: half-width of the marked corridor, a fraction;
    it is not drawn where all gaps are far inside
    Returns the axes. Raises InputError where the tree has no comparison.
    """
    known = optimizers_in(tree, "comparison")
    if not known:
        dataset(tree, "comparison/*")
    names = known if optimizers is None else optimizers
    ax = axes_or_new(ax)
    ax.axhline(0.0, color=INK, linewidth=0.8)
    reach = 20 * tolerance
    used: list[str] = []
    for name, style in zip(names, cycle(("-", "--", "-.", ":")), strict=False):
        if name not in known:
            raise unknown_name("optimizer in /comparison", name, known)
        data = dataset(tree, f"comparison/{name}", "relative_gap")
        seen = [str(o) for o in data["observable"].values]
        if observable not in seen:
            raise unknown_name(f"observable in /comparison/{name}", observable, seen)
        row = data.isel(observable=seen.index(observable))
        gap = 100 * row["relative_gap"].values.astype(float)
        x = row["step"].values if "step" in row.variables else step_values(row, "time")
        colour = optimizer_colour(name)
        colour = colour if colour not in used else next((c for c in CYCLE if c not in used), colour)
        used.append(colour)
        error = np.zeros_like(gap)
        if "relative_gap_error" in row:
            error = np.nan_to_num(196 * row["relative_gap_error"].values.astype(float))
            ax.fill_between(x, gap - error, gap + error, color=colour, alpha=0.16, linewidth=0)
        ax.plot(x, gap, style, color=colour, label=shorten(name))
        finite = np.abs(gap) + error
        reach = max(reach, float(np.nanmax(finite, initial=0.0, where=np.isfinite(finite))))
    if 1.15 * reach > 100 * tolerance:
        corridor = (-100 * tolerance, 100 * tolerance)
        ax.axhspan(*corridor, color=MUTED, alpha=0.10, linewidth=0, label=f"± {100 * tolerance:g} %")
    ax.set(
        ylim=(-1.15 * reach, 1.15 * reach),
        xlabel="optimizer step",
        ylabel=f"gap of the mean {shorten(observable.replace('_', ' '))} (%)",
        title="Prediction minus real runs",
    )
    whole_ticks(ax.xaxis)
    ax.legend(loc="best", ncols=2)
    return ax
