"""Blocks (named parameter tensors) along an axis: which are shown and how their names fit."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from noisekit.plots.groups import dataset, has_group, shorten_all
from noisekit.plots.style import MUTED


def largest_blocks(
    tree: xr.DataTree, names: np.ndarray, most: int, usable: np.ndarray | None = None
) -> np.ndarray:
    """Return positions of at most ``most`` usable blocks, the largest, in the model's order."""
    size = np.ones(names.size)
    if has_group(tree, "gradient_noise") and "block_size" in tree["gradient_noise"]:
        data = dataset(tree, "gradient_noise")
        known = dict(zip(data["block"].values.astype(str), data["block_size"].values, strict=True))
        size = np.array([known.get(name, 1) for name in names], dtype=float)
    position = np.arange(names.size) if usable is None else np.flatnonzero(usable)
    order = position[np.argsort(-size[position], kind="stable")][:most]
    return np.sort(order)


def name_blocks(ax: Axes, names: np.ndarray, n_blocks: int) -> None:
    """Write block names down the vertical axis, first block on top, and say how many are left out."""
    ax.set_yticks(range(len(names)), shorten_all([str(name) for name in names]))
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.tick_params(axis="y", length=0)
    if len(names) < n_blocks:
        ax.annotate(
            f"{len(names)} of {n_blocks} blocks", (1, 1), (0, 3), xycoords="axes fraction",
            textcoords="offset points", ha="right", va="bottom", color=MUTED, fontsize=8,
        )  # fmt: skip
