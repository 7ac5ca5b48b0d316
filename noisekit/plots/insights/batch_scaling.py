"""Figure of floor and speed over the batch size under several scaling rules."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from noisekit.plots.insights.panels import NAMES, bars, panels
from noisekit.plots.style import CYCLE, MUTED, themed

_QUANTITY = {"floor": "floor / original", "time": "time / original"}


@themed
def draw_batch_scaling(data: xr.Dataset, *, optimizer: str | None = None) -> Figure:
    """Draw floor and time to learn, over those of the original batch; a rule that holds is a line at 1.

    data: result of ``noisekit.truth.insights.batch_scaling``
    optimizer: which one (default: the first)
    Returns the figure.
    """
    name = str(data["optimizer"].values[0]) if optimizer is None else optimizer
    rows = data.sel(optimizer=name)
    problems = [p for p in data["problem"].values if np.isfinite(rows["floor"].sel(problem=p)).any()]
    figure, axes = panels(*[1.95] * len(problems), columns=2)
    ratio = data["ratio"].values
    for line, problem in zip(axes, problems, strict=True):
        for ax, (quantity, label) in zip(line, _QUANTITY.items(), strict=True):
            if not np.isfinite(rows[quantity].sel(problem=problem)).any():
                ax.set_axis_off()
                ax.text(0.5, 0.5, "starts at its floor", ha="center", color=MUTED, transform=ax.transAxes)
                continue
            ax.set(xscale="log", yscale="log")
            ax.axhline(1, color=MUTED, linestyle=":", linewidth=1.2)
            for k, rule in enumerate(data["rule"].values):
                value = rows[quantity].sel(problem=problem, rule=rule).values
                error = rows[f"{quantity}_error"].sel(problem=problem, rule=rule).values
                known = np.isfinite(value) & np.isfinite(value[ratio == 1])
                if not known.any():
                    continue
                original = value[ratio == 1]
                bars(
                    ax, ratio[known] * 1.04 ** (k - 2), (value / original)[known], (error / original)[known],
                    color=CYCLE[k], fmt="osD^v"[k] + "-", linewidth=2.2 if k == 0 else 1.1, label=str(rule),
                )  # fmt: skip
            low, high = ax.get_ylim()
            ax.set_ylim(min(low, 0.4), max(high, 2.5))
            ticks = [t for t in (0.1, 0.25, 0.5, 1, 2, 4, 10) if ax.get_ylim()[0] <= t <= ax.get_ylim()[1]]
            ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
            ax.set_xticks(ratio.tolist(), ["¼" if r == 0.25 else f"{r:g}" for r in ratio])
            ax.minorticks_off()
            ax.set_ylabel(label)
            ax.set_xlabel("batch size ratio δ")
        line[0].set_title(_short(str(problem), NAMES.get(name, name)))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, title="rule", columnspacing=1.0)
    return figure


def _short(problem: str, optimizer: str) -> str:
    text = {"quadratic": "quadratic", "linear-regression": "minibatches"}.get(problem, "strong decay")
    return f"{optimizer}, {text}"
