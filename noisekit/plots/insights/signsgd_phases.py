"""Figure of the three phases of SignSGD: its drift over |Y|, and its loss beside SDE and bounds."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from noisekit.plots.insights.panels import bars, panels
from noisekit.plots.style import BLUE, MUTED, ORANGE, PURPLE, ROLE, SKY, themed

_PHASES = ((1, BLUE), (2, SKY), (3, ORANGE))


@themed
def draw_signsgd_phases(data: xr.Dataset) -> Figure:
    """Draw the mean step over the ratio of gradient to noise, and the mean loss of one coordinate over time.

    data: result of ``noisekit.truth.insights.signsgd_phases``
    Returns the figure.
    """
    figure, axes = panels(2.5, 2.9)
    above, below = axes[:, 0]
    ratio = data["ratio"].values
    for (low, high), (phase, colour) in zip(((1.5, ratio[-1]), (1.0, 1.5), (0, 1.0)), _PHASES, strict=True):
        above.axvspan(low, high, color=colour, alpha=0.12, linewidth=0)
        above.text((low + high) / 2, 1.24, f"phase {phase}", ha="center", va="top", fontsize=8.5)
    for part in (ratio <= 1, (ratio > 1) & (ratio <= 1.5), ratio > 1.5):
        label = "straight line of the phase" if part[0] else None
        above.plot(ratio[part], data["drift_line"].values[part], "--", color=PURPLE, label=label)
    above.plot(ratio, data["drift_erf"].values, color=ROLE["sde"], label="erf|Y| (SDE)")
    bars(
        above, ratio, data["drift"].values, data["drift_error"].values, color=ROLE["real"], markersize=3,
        label="real SignSGD",
    )  # fmt: skip
    above.set(xlabel="|Y| = |∇f| / (√2 σ)", ylabel="mean step / η", xlim=(0, ratio[-1]), ylim=(0, 1.26))
    above.set_title("How fast SignSGD moves")
    above.legend(loc="lower right")

    step, one = data["step"].values, data.sel(problem="one coordinate")
    for start in data["phase_start"].values[1:]:
        below.axvline(start, color=MUTED, linestyle=":", linewidth=1)
    for line, style in zip(data["line"].values, ((0, (4, 2)),) * 3 + ((0, (1, 1)),), strict=True):
        bound = data["bounds"].sel(line=line).values
        label = {"phase 1": "bounds of the phases", "phase 3, tangent": "phase 3 as published"}.get(str(line))
        colour = ROLE["theory"] if style[1] == (4, 2) else PURPLE
        below.plot(step, bound, linestyle=style, color=colour, linewidth=1.6, label=label)
    below.plot(step, one["sde_loss"].values, color=ROLE["sde"], label="erf SDE")
    few = slice(None, None, max(1, step.size // 35))
    bars(
        below, step[few], one["loss"].values[few], one["loss_error"].values[few], color=ROLE["real"],
        markersize=3, label="real SignSGD",
    )  # fmt: skip
    below.set(xlabel="optimizer step", ylabel="mean loss", yscale="log", xlim=(0, step[-1]))
    low = np.nanmin(one["loss"].values)
    below.set_ylim(0.4 * low, 2 * np.nanmax(one["loss"].values))
    below.set_title("One coordinate through the phases")
    below.legend(loc="upper right")
    return figure
