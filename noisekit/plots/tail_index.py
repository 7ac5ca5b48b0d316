"""Tail index of the noise, block by block."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.blocks import largest_blocks, name_blocks
from noisekit.plots.groups import at_step, dataset
from noisekit.plots.style import CYCLE, MUTED, axes_or_new, legend_below, themed

_LARGEST = 100.0


@themed
def plot_tail_index(
    tree: xr.DataTree,
    *,
    step: int | None = None,
    estimators: list[str] | None = None,
    max_blocks: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Draw the extreme-value tail index α of each block with its 95 % interval.

    An estimate or an interval that leaves the axis on the right speaks of a tail too light to be measured.

    tree: result tree with ``/tail_index``
    step: which recorded step (default: the last); estimators: which ones (default: all)
    max_blocks: of larger models only the blocks with the most parameters are shown
    Returns the axes. Raises InputError where the tree has no tail index.
    """
    data = at_step(dataset(tree, "tail_index", "alpha"), step)
    known = [str(name) for name in data["estimator"].values]
    wanted = known if estimators is None else [name for name in known if name in estimators]
    if not wanted:
        raise InputError(
            f"No estimator {', '.join(estimators or [])} in the tree; it has {', '.join(known)}."
        )
    known_blocks = np.any(data["alpha"].transpose("block", "estimator").values > 0, axis=1)
    shown = largest_blocks(tree, data["block"].values.astype(str), max_blocks, known_blocks)
    if not shown.size:
        raise InputError("No tail index could be estimated in any block; record more samples or coordinates.")
    ax = axes_or_new(ax)
    position = np.arange(shown.size)
    ends = [1.5, 6.0]
    beyond = []
    for i, name in enumerate(wanted):
        alpha = data["alpha"].sel(estimator=name).values[shown].astype(float)
        offset = position + 0.22 * (i - (len(wanted) - 1) / 2)
        colour = CYCLE[i % len(CYCLE)]
        if "alpha_interval" in data:
            interval = data["alpha_interval"].sel(estimator=name).transpose("block", "bound").values[shown]
            low = np.where(interval[:, 0] > 0, interval[:, 0], 1e-3)
            high = np.where(np.isnan(interval[:, 1]), alpha, np.minimum(interval[:, 1], 1e6))
            ax.hlines(offset, low, high, color=colour, alpha=0.55, linewidth=2)
            finite = np.isfinite(alpha)
            ends += [*np.maximum(low, alpha / 4)[finite], *np.minimum(high, 4 * alpha)[finite]]
        ax.plot(alpha, offset, "o", color=colour, label=name)
        ends += list(alpha)
        beyond.append((alpha, offset, colour))
    ax.axvline(2.0, color=MUTED, linestyle=":", linewidth=1.2)
    ends = [end for end in ends if np.isfinite(end)]
    left, right = max(0.1, 0.85 * min(ends)), min(_LARGEST, 1.15 * max(ends))
    for alpha, offset, colour in beyond:
        outside = alpha > right
        ax.plot(np.full(outside.sum(), right), offset[outside], ">", color=colour, clip_on=False)
    candidates = (
        (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if right > 15 * left else (0.5, 1, 2, 3, 4, 6, 8, 12, 20)
    )
    ticks = [t for t in candidates if left <= t <= right]
    ax.set(
        xscale="log",
        xlim=(left, right),
        xlabel="tail index α (dotted: below 2 the variance is infinite)",
        title=f"Tail index at step {int(data['step'])}" if "step" in data.coords else "Tail index",
    )
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.minorticks_off()
    name_blocks(ax, data["block"].values[shown], known_blocks.size)
    if len(wanted) > 1:
        legend_below(ax, columns=4, centre=0.4)
    return ax
