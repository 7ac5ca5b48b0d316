"""The look that all figures share: colour-blind safe, legible at column width, one colour for one thing.

Colours are from Okabe and Ito (2008), darkened where needed to read on white; each optimizer and each role
(real runs, SDE, Gaussian, Student-t, theory) keeps its colour in all figures.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

P = ParamSpec("P")
R = TypeVar("R")

INK = "#24292e"
"""Text, ticks and axes."""
MUTED = "#6b7077"
"""Reference lines and remarks."""
GRID = "#e3e6ea"
"""Grid lines."""
PAPER = "#ffffff"
"""The page behind a figure."""

BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072b2", "#d98e04", "#00916a", "#d1500c", "#b5609a", "#4aa3df"

CYCLE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
"""Colours in the order they are given to unnamed series."""

ROLE = {"real": INK, "sde": RED, "gaussian": BLUE, "student_t": ORANGE, "theory": GREEN, "surrogate": PURPLE}

_FAMILY_COLOUR = {
    "sgd": BLUE,
    "signsgd": ORANGE,
    "rmsprop": GREEN,
    "rmspropw": GREEN,
    "adam": RED,
    "adamw": RED,
}

COLUMN_WIDTH = (4.8, 3.2)
"""Default figure size, inches: one column of a paper, or a phone held upright."""

RC: Any = {
    "figure.figsize": COLUMN_WIDTH,
    "figure.facecolor": PAPER,
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "savefig.bbox": "tight",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.3,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.which": "major",
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-3, 4),
    "axes.formatter.use_mathtext": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "patch.linewidth": 0.5,
    "mathtext.fontset": "dejavusans",
}


def theme() -> AbstractContextManager[None]:
    """Return a context in which matplotlib and seaborn draw in the style of noisekit."""
    return mpl.rc_context(RC)


def themed(function: Callable[P, R]) -> Callable[P, R]:
    """Run a plotting function inside ``theme()``; the user's own settings are left as they were."""

    @wraps(function)
    def in_theme(*args: P.args, **kwargs: P.kwargs) -> R:
        with theme():
            return function(*args, **kwargs)

    return in_theme


def axes_or_new(ax: Axes | None, *, height: float = COLUMN_WIDTH[1]) -> Axes:
    """Return ``ax``, or the axes of a fresh figure of column width, ``height`` inches high."""
    if ax is None:
        _, ax = plt.subplots(figsize=(COLUMN_WIDTH[0], height), layout="constrained")
    return ax


def legend_below(ax: Axes, *handles: Any, columns: int, centre: float = 0.45) -> None:
    """Draw the legend under ticks and label: by a length, because shares depend on how high the axes are.

    ax: axes whose x axis is labelled; handles: handles and labels, if not those of the axes; columns: at most
    so many; centre: of the legend, in widths of the axes
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    below = ax.transAxes + ScaledTranslation(0, -0.42, figure.dpi_scale_trans)
    ax.legend(
        *handles, loc="upper center", bbox_to_anchor=(centre, 0), bbox_transform=below, ncols=columns,
        columnspacing=1.2,
    )  # fmt: skip


def optimizer_colour(name: str) -> str:
    """Return the colour of an optimizer: the family decides, so that AdamW looks like Adam everywhere."""
    key = name.lower().replace("-", "").replace("_", "")
    for family in sorted(_FAMILY_COLOUR, key=len, reverse=True):
        if key.startswith(family):
            return _FAMILY_COLOUR[family]
    return CYCLE[sum(map(ord, name)) % len(CYCLE)]
