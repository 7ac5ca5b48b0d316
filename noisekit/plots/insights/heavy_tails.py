"""Figure of who survives heavy-tailed noise: loss over time of real runs, one panel a tail."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from noisekit.plots.insights.panels import NAMES, panels
from noisekit.plots.numbers import format_percent
from noisekit.plots.style import INK, MUTED, optimizer_colour, themed


@themed
def draw_heavy_tails(data: xr.Dataset) -> Figure:
    """Draw the median loss and its 10 to 90 % band of real runs, and the SDE's median where an SDE exists.

    data: result of ``noisekit.truth.insights.heavy_tails``
    Returns the figure.
    """
    figure, axes = panels(*[2.2] * data.sizes["df"])
    step = data["step"].values
    for ax, df in zip(axes[:, 0], data["df"].values, strict=True):
        lost = []
        for name in data["optimizer"].values:
            row, colour = data.sel(df=df, optimizer=name), optimizer_colour(name)
            low, middle, high = row["loss"].transpose("quantile", "step").values
            ax.fill_between(step, low, high, color=colour, alpha=0.15, linewidth=0)
            ax.plot(step, middle, color=colour, label=NAMES.get(str(name), str(name)))
            sde = row["sde_loss"].transpose("quantile", "step").values[1]
            if np.isfinite(sde).any():
                every = slice(None, None, max(1, step.size // 17))
                ax.plot(step[every], sde[every], "o", mfc="none", mec=INK, markersize=4, mew=0.8)
            share = float(row["lost"])
            if share >= 0.005:
                lost.append(f"{NAMES.get(str(name), name)}: {format_percent(share)} of runs lost")
        ax.axhline(float(data["start_loss"]), color=MUTED, linestyle=":", linewidth=1)
        ax.set(yscale="log", ylabel="loss", xlim=(0, step[-1]))
        finite = data["loss"].sel(df=df).values
        top = np.nanmax(finite[np.isfinite(finite)])
        bottom = np.nanmin(finite[finite > 0])
        ax.set_ylim(0.6 * bottom, (30 if lost else 1.6) * min(top, 1e4 * float(data["start_loss"])))
        tail = "infinite variance" if df <= 2 else "finite variance"
        ax.set_title(f"Student-t noise, ν = {df:g}: {tail}")
        if lost:
            ax.text(0.99, 0.97, "; ".join(lost), transform=ax.transAxes, ha="right", va="top", fontsize=8.5)
    axes[-1, 0].set_xlabel("optimizer step")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    mark = axes[0, 0].plot([], [], "o", mfc="none", mec=INK, markersize=4, mew=0.8)[0]
    figure.legend([*handles, mark], [*labels, "SDE"], loc="outside lower center", ncols=5, columnspacing=1.0)
    return figure
