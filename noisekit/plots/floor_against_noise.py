"""Noise floor against the level of the noise: quadratic for SGD, linear for adaptive and sign methods."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.errors import InputError
from noisekit.plots.groups import dataset, has_group, optimizers_in, shorten
from noisekit.plots.style import CYCLE, MUTED, axes_or_new, optimizer_colour, themed


@themed
def plot_floor_against_noise(
    tree: xr.DataTree, *, optimizers: list[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the predicted noise floor over the noise level, and measured floors where the tree has them.

    The noise level is the standard deviation of the gradient noise relative to that of the file; halving it
    takes four times the batch. First order in the learning rate, the floor of SGD goes with its square,
    (η/4) Tr Σ, and that of sign and adaptive methods to itself, (η/4) Σσ_i up to a constant: below the
    crossing SGD is the quieter one.

    tree: result tree with ``noise_floor`` in ``/theory/<optimizer>``; measured floors come from
    ``/noise_sweep/<optimizer>``, variables ``floor`` and ``floor_error`` over the axis ``noise_level``, and
    ``predicted_floor`` there, where it is given, takes the place of the first-order curve
    optimizers: which ones (default: all)
    Returns the axes. Raises InputError where the tree has no floor.
    """
    known = list(dict.fromkeys([*optimizers_in(tree, "theory"), *optimizers_in(tree, "noise_sweep")]))
    names = [name for name in known if optimizers is None or name in optimizers]
    if not names:
        dataset(tree, f"theory/{(optimizers or ['*'])[0]}", "noise_floor")
    ax = axes_or_new(ax)
    level = np.geomspace(1 / 8, 8, 61)
    used: list[str] = []
    for name in names:
        colour = optimizer_colour(name)
        colour = colour if colour not in used else next((c for c in CYCLE if c not in used), colour)
        has_sweep = has_group(tree, f"noise_sweep/{name}")
        sweep = dataset(tree, f"noise_sweep/{name}", "noise_level") if has_sweep else xr.Dataset()
        floor = predicted_floor(tree, name)
        drawn = False
        if "predicted_floor" in sweep and _positive(sweep["predicted_floor"]).any():
            drawn = True
            ax.plot(
                sweep["noise_level"].values,
                sweep["predicted_floor"].values,
                color=colour,
                label=shorten(name),
            )
        elif floor > 0:
            drawn = True
            ax.plot(level, floor * level ** floor_power(name), color=colour, label=shorten(name))
            ax.plot(1, floor, "o", color=colour)
        if "floor" in sweep and _positive(sweep["floor"]).any():
            drawn = True
            error = 1.96 * sweep["floor_error"].values if "floor_error" in sweep else None
            ax.errorbar(
                sweep["noise_level"].values, sweep["floor"].values, yerr=error, fmt="D", color=colour,
                markersize=4, capsize=2, label=f"{shorten(name)}, measured",
            )  # fmt: skip
        used += [colour] if drawn else []
    if not used:
        raise InputError(
            "No optimizer in this tree has a finite noise floor above zero; nothing can be drawn."
        )
    ax.axvline(1.0, color=MUTED, linestyle=":", linewidth=1.2)
    batch = tree.attrs.get("batch_size")
    here = f" (1: batch of {int(batch)})" if batch else " (1: this file)"
    ax.set(
        xscale="log", yscale="log", xlabel="noise level" + here, ylabel="noise floor (excess loss)",
        title="Floor against noise",
    )  # fmt: skip
    ax.set_xticks([0.125, 0.25, 0.5, 1, 2, 4, 8], ["⅛", "¼", "½", "1", "2", "4", "8"])
    ax.minorticks_off()
    ax.legend(loc="best")
    return ax


def _positive(values: xr.DataArray) -> np.ndarray:
    return np.isfinite(values.values) & (values.values > 0)


def floor_power(name: str) -> int:
    """Return the power of the noise's standard deviation in the floor: 2 for SGD, 1 for the others."""
    return 2 if name.lower().startswith("sgd") else 1


def predicted_floor(tree: xr.DataTree, name: str) -> float:
    if not has_group(tree, f"theory/{name}") or "noise_floor" not in tree[f"theory/{name}"]:
        return float("nan")
    return float(tree[f"theory/{name}"]["noise_floor"].mean())
