"""Predictions of every kind beside real training, experiment by experiment."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.groups import dataset, optimizers_in
from noisekit.plots.style import (
    BLUE,
    GRID,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    axes_or_new,
    legend_below,
    themed,
)
from noisekit.plots.ticks import plain_log_ticks

MARKS = {
    "consistent": ("SDE, Σ(x) of the data", "o", RED),
    "fitted_covariance": ("SDE, Σ recorded under another seed", "s", ORANGE),
    "fitted_gaussian": ("SDE, fitted independent Gaussian", "D", SKY),
    "published": ("SDE as published", "^", PURPLE),
    "double_covariance": ("2 Σ", "P", MUTED),
    "isotropic": ("isotropic Σ", "X", BLUE),
    "ode": ("no noise (ODE)", "|", INK),
}
"""Arms that are drawn, with label, marker and colour; in this order."""


def height_for(rows: int) -> float:
    """Return the height in inches of a figure with so many experiments."""
    return 1.4 + 0.42 * rows


@themed
def plot_truth(
    tree: xr.DataTree,
    *,
    quantity: Literal["gap", "std_ratio"] = "gap",
    only: str = "",
    observable: str = "loss",
    ax: Axes | None = None,
) -> Axes:
    """Draw, for each experiment, how far predictions are from real runs: a row an experiment, a mark an arm.

    gap: mean over time of |gap of the means|, relative, in per cent; whiskers reach one Monte-Carlo error
    either way. std_ratio: standard deviation over that of the real runs.

    tree: result tree with ``/truth/<experiment>``; only: regular expression that chooses experiments
    Returns the axes. Raises InputError where there is none, or for another quantity.
    """
    if quantity not in ("gap", "std_ratio"):
        raise InputError(f"quantity = {quantity!r} is not known; use 'gap' or 'std_ratio'.")
    names = optimizers_in(tree, "truth")
    if not names:
        dataset(tree, "truth/*")
    found = {name: dataset(tree, f"truth/{name}", "gap") for name in names if re.search(only, name)}
    if not found:
        raise InputError(f"No experiment of the tree matches {only!r}.")
    ax = axes_or_new(ax, height=height_for(len(found)))
    present = [arm for arm in MARKS if any(arm in d["arm"].values for d in found.values())]
    for place, arm in enumerate(present):
        label, marker, colour = MARKS[arm]
        rows, values, errors = [], [], []
        for row, data in enumerate(found.values()):
            if arm not in data["arm"].values:
                continue
            at = data.sel(arm=arm, observable=observable)
            factor = 100.0 if quantity == "gap" else 1.0
            rows.append(row + 0.09 * (place - (len(present) - 1) / 2))
            values.append(factor * float(at[quantity]))
            errors.append(factor * float(at[f"{quantity}_error"]))
        low = [min(e, 0.7 * v) for e, v in zip(errors, values, strict=True)]
        ax.errorbar(
            values, rows, xerr=np.array([low, errors]), fmt=marker, color=colour, label=label,
            markersize=4.5, elinewidth=0.8, zorder=4 if arm == "consistent" else 3,
        )  # fmt: skip
    ax.set_xscale("log")
    plain_log_ticks(ax.xaxis)
    ax.set_yticks(range(len(found)), [_row_name(name, data) for name, data in found.items()])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    for row, data in enumerate(found.values()):
        if row:
            ax.axhline(row - 0.5, color=GRID, linewidth=0.7)
        drawn = data[quantity].sel(observable=observable, arm=[a for a in MARKS if a in data["arm"].values])
        if not np.isfinite(drawn.values).any():
            ax.text(
                0.02, row, "no SDE: infinite variance", transform=ax.get_yaxis_transform(),
                color=MUTED, fontsize=8, va="center",
            )  # fmt: skip
    if quantity == "gap":
        ax.set(xlabel=f"gap of the mean {observable}, %", title="How far the mean is off")
    else:
        ax.axvline(1, color=INK, linewidth=0.8)
        ax.set(xlabel=f"std of the {observable}, predicted / real", title="How far the spread is off")
    legend_below(ax, columns=2, centre=0.4)
    return ax


def _row_name(name: str, data: xr.Dataset) -> str:
    start = ", from zero" if name.endswith("from-zero") else ""
    noise = "" if data.attrs["noise"] == "minibatch" else f", {data.attrs['noise']}"
    return f"{data.attrs['problem']}\n{data.attrs['optimizer']}{start}{noise}"
