"""Signal-to-noise ratio of a batch gradient, block by block, over training."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.plots.blocks import largest_blocks
from noisekit.plots.groups import dataset, shorten_all, step_values
from noisekit.plots.style import CYCLE, INK, MUTED, axes_or_new, legend_below, themed
from noisekit.plots.ticks import plain_log_ticks, whole_ticks


@themed
def plot_signal_to_noise(tree: xr.DataTree, *, max_blocks: int = 4, ax: Axes | None = None) -> Axes:
    """Draw (|∇f|² of the batch, unbiased)/(tr Σ₁/B) of the largest blocks and of the whole model.

    Above 1 the batch gradient points mostly along the true one. Instants where the unbiased signal is not
    positive cannot stand on the logarithmic axis; they are marked at its lower end.

    tree: result tree with ``/gradient_noise``; max_blocks: how many blocks, those with the most parameters
    Returns the axes. Raises InputError where the tree has no signal-to-noise ratio.
    """
    data = dataset(tree, "gradient_noise", "signal_to_noise")
    step = step_values(data)
    ratio = data["signal_to_noise"].transpose("step", "block").values.astype(float)
    names = data["block"].values.astype(str)
    ax = axes_or_new(ax)
    shown = largest_blocks(tree, names, max_blocks)
    labels = shorten_all([str(names[i]) for i in shown], 18)
    series = [(labels[n], ratio[:, i], CYCLE[n % len(CYCLE)]) for n, i in enumerate(shown)]
    total = total_signal_to_noise(data)
    if total is not None:
        series.append(("all blocks", total, INK))
    positive = np.concatenate([y[np.isfinite(y) & (y > 0)] for _, y, _ in series] or [np.ones(1)])
    bottom = 0.5 * max(float(positive.min()), 1e-3 * float(np.median(positive))) if positive.size else 0.1
    hidden = 0
    for label, y, colour in series:
        seen = np.isfinite(y) & (y > bottom)
        width = 2.0 if label == "all blocks" else 1.2
        ax.plot(
            step, np.where(seen, y, np.nan), "o-", color=colour, label=label, linewidth=width, markersize=2.5
        )
        ax.plot(step[~seen], np.full((~seen).sum(), bottom), "v", color=colour, clip_on=False, markersize=4)
        hidden += int((~seen).sum())
    ax.axhline(1.0, color=MUTED, linestyle=":", linewidth=1.2)
    ax.set(
        yscale="log",
        xlabel="training step",
        ylabel="signal / noise of a batch",
        title="Signal-to-noise ratio",
    )
    ax.set_ylim(bottom=bottom)
    plain_log_ticks(ax.yaxis)
    whole_ticks(ax.xaxis)
    if hidden:
        ax.annotate(
            "▾ no signal seen", (1, 1), (0, 3), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="bottom", color=MUTED, fontsize=8,
        )  # fmt: skip
    handles, labels = ax.get_legend_handles_labels()
    columns = 3 if max(map(len, labels)) <= 14 else 2
    legend_below(ax, handles[::-1], labels[::-1], columns=columns)
    return ax


def total_signal_to_noise(data: xr.Dataset) -> np.ndarray | None:
    """Return the ratio of all blocks, (step,): batch size over noise scale, or 0 if no signal is seen.

    Without a noise scale in the file numerators and denominators are summed over the blocks, not the ratios.
    """
    batch = data.attrs.get("batch_size")
    if "total_noise_scale" in data and batch:
        scale = data["total_noise_scale"].values.astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(scale > 0, float(batch) / scale, 0.0)
    if not {"trace", "signal_to_noise"} <= set(data) or data.sizes["block"] < 2:
        return None
    trace = data["trace"].transpose("step", "block").values.astype(float)
    signal = data["signal_to_noise"].transpose("step", "block").values * trace
    usable = np.isfinite(signal)
    whole = np.where(usable, trace, 0).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(usable, signal, 0).sum(1) / whole
