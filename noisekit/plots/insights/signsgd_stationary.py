"""Figure of SignSGD's stationary law under Gaussian and heavy-tailed noise."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from noisekit.plots.insights.panels import bars, panels
from noisekit.plots.style import MUTED, ROLE, themed
from noisekit.plots.ticks import plain_log_ticks

_SOURCE = {
    "published": ("published", ROLE["surrogate"], "s", -0.16),
    "sde": ("SDE", ROLE["sde"], "o", 0.0),
    "discrete": ("discrete", ROLE["theory"], "D", 0.16),
}


@themed
def draw_signsgd_stationary(data: xr.Dataset) -> Figure:
    """Draw the measured over the predicted stationary loss, and how far the covariances are apart.

    data: result of ``noisekit.truth.insights.signsgd_stationary``
    Returns the figure.
    """
    figure, axes = panels(2.4, 2.4)
    above, below = axes[:, 0]
    place = np.arange(data.sizes["law"])
    labels = [_readable(str(law)) for law in data["law"].values]
    above.axhline(1, color=MUTED, linestyle=":", linewidth=1.2)
    below.set_yscale("log")
    for source in data["source"].values:
        name, colour, marker, shift = _SOURCE[str(source)]
        row = data.sel(source=source)
        bars(
            above, place + shift, row["ratio"].values, row["ratio_error"].values, color=colour, fmt=marker,
            label=name,
        )  # fmt: skip
        below.plot(place + shift, row["distance"].values, marker, color=colour, markersize=4)
    below.plot(
        place, data["distance_floor"].values, "_", color=MUTED, markersize=18, label="Monte-Carlo error"
    )
    for ax in (above, below):
        ax.set_xticks(place, labels)
        ax.set_xlim(-0.5, place[-1] + 0.5)
        ax.grid(visible=False, axis="x")
    reach = 1.3 * max(0.05, float(np.abs(data["ratio"] - 1).max()))
    above.set_ylim(1 - reach, 1 + 2.2 * reach)
    above.set(ylabel="measured / predicted\n½ Tr(H Cov)", xlabel="noise")
    above.set_title("Stationary law of SignSGD")
    above.legend(loc="upper center", ncols=3, columnspacing=0.9, handletextpad=0.3)
    below.set(ylabel="distance of the\ncovariances (relative)", xlabel="noise")
    below.set_title("Frobenius distance of the covariance")
    below.legend(loc="upper right")
    low, high = below.get_ylim()
    below.set_ylim(low, 2 * high)
    plain_log_ticks(below.yaxis)
    return figure


def _readable(law: str) -> str:
    if law.startswith("t"):
        return f"t, ν = {law[1:]}"
    return "Gaussian" if law == "gaussian" else "Gaussian,\ncorrelated"
