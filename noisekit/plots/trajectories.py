"""The SDE's paths beside real runs of the optimizer."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from noisekit.errors import InputError
from noisekit.plots.ensembles import Ensemble, ensemble
from noisekit.plots.groups import choose_optimizer, optimizers_in, shorten
from noisekit.plots.style import COLUMN_WIDTH, ROLE, theme
from noisekit.plots.ticks import whole_ticks

_BANDS = ("quantiles", "standard_error")


def plot_trajectories(
    tree: xr.DataTree,
    *,
    optimizer: str | None = None,
    observable: str = "loss",
    band: str = "quantiles",
    ax: Axes | None = None,
) -> Axes | sns.FacetGrid:
    """Draw the mean over replicates of the SDE and of the real optimizer, each with a band.

    tree: result tree with ``/sde/<optimizer>`` and ``/optimizer/<optimizer>``; one of them alone is drawn too
    optimizer: which one; None draws all, one panel each
    observable: what is drawn, such as ``loss``
    band: "quantiles" (10 % to 90 % of the replicates) or "standard_error" (95 % interval of the mean)
    Returns the axes if ``optimizer`` or ``ax`` is given, else the seaborn FacetGrid.
    Raises InputError for an unknown optimizer, observable or band, and where the tree has no trajectories.
    """
    if band not in _BANDS:
        raise InputError(f"band = {band!r} is not known; use 'quantiles' or 'standard_error'.")
    names = list(dict.fromkeys([*optimizers_in(tree, "sde"), *optimizers_in(tree, "optimizer")]))
    if not names:
        choose_optimizer(tree, optimizer, "sde")
    with theme():
        if optimizer is not None or ax is not None:
            name = names[0] if optimizer is None else optimizer
            if name not in names:
                choose_optimizer(tree, name, "optimizer")
            return _panel(tree, name, observable, band, ax or plt.subplots(layout="constrained")[1])
        frame = pd.DataFrame({"optimizer": names})
        grid = sns.FacetGrid(
            frame, col="optimizer", col_wrap=min(2, len(names)), sharex=False, sharey=False,
            height=COLUMN_WIDTH[1], aspect=COLUMN_WIDTH[0] / COLUMN_WIDTH[1],
        )  # fmt: skip
        for name, panel in grid.axes_dict.items():
            _panel(tree, name, observable, band, panel)
        grid.figure.set_layout_engine("constrained")
        return grid


def _panel(tree: xr.DataTree, optimizer: str, observable: str, band: str, ax: Axes) -> Axes:
    drawn = False
    for kind, role in (("optimizer", "real"), ("sde", "sde")):
        if optimizer not in optimizers_in(tree, kind):
            continue
        runs = ensemble(tree, kind, optimizer, observable)
        if runs.n == 0:
            ax.plot([], [], color=ROLE[role], label=f"{_name(runs, role)}: all {runs.n_diverged} diverged")
            continue
        drawn = True
        _band(ax, runs, role, band)
    title = shorten(optimizer) + ("" if drawn else ": nothing but diverged replicates")
    ax.set(xlabel="optimizer step", ylabel=shorten(observable.replace("_", " ")), title=title)
    whole_ticks(ax.xaxis)
    ax.legend(loc="best")
    return ax


def _band(ax: Axes, runs: Ensemble, role: str, band: str) -> None:
    frame = pd.DataFrame({"step": np.tile(runs.step, runs.n), "value": runs.values.ravel()})
    colour, edge = ROLE[role], 0.8 if role == "sde" else 0.0
    text = f"{_name(runs, role)} ({runs.n}" + (f", {runs.n_diverged} diverged)" if runs.n_diverged else ")")
    sns.lineplot(
        frame,
        x="step",
        y="value",
        errorbar=("pi", 80) if band == "quantiles" else ("se", 1.96),
        err_kws={
            "alpha": None,
            "facecolor": to_rgba(colour, 0.18),
            "edgecolor": to_rgba(colour, edge),
            "linewidth": 0.7 if edge else 0,
        },
        color=colour,
        linestyle="--" if role == "sde" else "-",
        label=text,
        ax=ax,
    )


def _name(runs: Ensemble, role: str) -> str:
    if role == "real":
        return "real runs"
    return "surrogate paths" if runs.kind == "surrogate" else "SDE paths"
