"""Figure of the loss floor over the noise level with decoupled decay and with L2."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from noisekit.plots.insights.panels import NAMES, bars, panels
from noisekit.plots.style import BLUE, GREEN, MUTED, ORANGE, RED, themed
from noisekit.plots.ticks import plain_log_ticks

_LOOK = {"rmspropw": (GREEN, "o"), "adamw": (BLUE, "s"), "rmsprop": (ORANGE, "D"), "adam": (RED, "^")}


@themed
def draw_decoupled_decay(data: xr.Dataset) -> Figure:
    """Draw measured floors, the stationary law as lines, and for a minimum at 0 the published bounds.

    data: result of ``noisekit.truth.insights.decoupled_decay``
    Returns the figure.
    """
    figure, axes = panels(2.9, 2.7)
    level = data["level"].values
    for ax, centre in zip(axes[:, 0], data["centre"].values, strict=True):
        ax.set(xscale="log", yscale="log")
        for k, name in enumerate(data["optimizer"].values):
            row = data.sel(centre=centre, optimizer=name)
            colour, marker = _LOOK.get(str(name), (BLUE, "o"))
            kind = "decoupled" if str(name).endswith("w") else "L2"
            ax.plot(level, row["stationary_law"].values, color=colour, linewidth=1)
            if centre == data["centre"].values[0]:
                label = "published bounds" if k == 0 else None
                ax.plot(level, row["bound"].values, linestyle=":", color=MUTED, linewidth=1.2, label=label)
            bars(
                ax, level, row["floor"].values, row["floor_error"].values, color=colour, fmt=marker,
                mfc="none", markersize=4 if k % 2 else 7, label=f"{NAMES.get(str(name), name)} ({kind})",
            )  # fmt: skip
        ax.set(xlabel="noise level σ (gradient)", ylabel="loss floor")
        ax.set_title(f"Weight decay, {centre}")
        plain_log_ticks(ax.xaxis)
        plain_log_ticks(ax.yaxis)
    axes[0, 0].legend(loc="upper left")
    return figure
