"""The SDE's paths beside real runs of the optimizer."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noisekit.errors import InputError
from noisekit.plots.ensembles import Ensemble, ensemble
from noisekit.plots.groups import choose_optimizer, optimizers_in, shorten
from noisekit.plots.style import COLUMN_WIDTH, ROLE, theme

_BANDS = ("quantiles", "standard_error")


def plot_trajectories(
    tree: xr.DataTree,
    *,
    optimizer: str | None = None,
    observable: str = "loss",
    band: str = "quantiles",
    ax: Axes | None = None,
) -> Axes | Figure:
    """Draw the mean over replicates of the SDE and of the real optimizer, each with a band.

    tree: result tree with ``/sde/<optimizer>`` and ``/optimizer/<optimizer>``; one of them alone is drawn too
    optimizer: which one; None draws all, one panel each
    observable: what is drawn, such as ``loss``
    band: "quantiles" (10 % to 90 % of the replicates) or "standard_error" (95 % interval of the mean)
    Returns the axes if ``optimizer`` or ``ax`` is given, else the figure.
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
        columns = min(2, len(names))
        rows = -(-len(names) // columns)
        size = (COLUMN_WIDTH[0] * columns, COLUMN_WIDTH[1] * rows)
        figure, panels = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        for panel, name in zip(panels.flat, names, strict=False):
            _panel(tree, name, observable, band, panel)
        for panel in panels.flat[len(names) :]:
            panel.set_visible(False)
        return figure


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
    ax.legend(loc="best")
    return ax


def _band(ax: Axes, runs: Ensemble, role: str, band: str) -> None:
    mean = runs.mean
    if runs.n > 1:
        if band == "quantiles":
            low, high = np.quantile(runs.values, [0.1, 0.9], axis=0)
        else:
            low, high = mean - 1.96 * runs.standard_error, mean + 1.96 * runs.standard_error
        ax.fill_between(runs.step, low, high, color=ROLE[role], alpha=0.18, linewidth=0)
        if role == "sde":
            for edge in (low, high):
                ax.plot(runs.step, edge, color=ROLE[role], linewidth=0.7, alpha=0.8)
    text = f"{_name(runs, role)} ({runs.n}" + (f", {runs.n_diverged} diverged)" if runs.n_diverged else ")")
    ax.plot(runs.step, mean, color=ROLE[role], linestyle="--" if role == "sde" else "-", label=text)


def _name(runs: Ensemble, role: str) -> str:
    if role == "real":
        return "real runs"
    return "surrogate paths" if runs.kind == "surrogate" else "SDE paths"
