"""Panels at column width, one above the other."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noisekit.plots.style import COLUMN_WIDTH

NAMES = {
    "sgd": "SGD",
    "signsgd": "SignSGD",
    "rmsprop": "RMSprop",
    "rmspropw": "RMSpropW",
    "adam": "Adam",
    "adamw": "AdamW",
}


def panels(*heights: float, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """Return a figure of column width and its axes (row, column), rows of ``heights`` inches."""
    figure, axes = plt.subplots(
        len(heights),
        columns,
        figsize=(COLUMN_WIDTH[0], sum(heights)),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    return figure, axes


def bars(ax: Axes, x: np.ndarray, y: np.ndarray, error: np.ndarray, **style: Any) -> None:
    """Draw points with 95 % intervals, which do not reach 0 on a logarithmic axis."""
    reach = 1.96 * np.nan_to_num(error)
    below = np.minimum(reach, 0.9 * y) if ax.get_yscale() == "log" else reach
    ax.errorbar(
        x, y, yerr=[below, reach], **{"fmt": "o", "markersize": 4, "capsize": 2, "elinewidth": 1, **style}
    )
