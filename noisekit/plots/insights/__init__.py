"""Figures of the insights, one function a file; each takes the data of its insight and returns a figure."""

from collections.abc import Callable

import xarray as xr
from matplotlib.figure import Figure

from noisekit.errors import InputError, unknown_name
from noisekit.plots.insights.batch_scaling import draw_batch_scaling
from noisekit.plots.insights.decoupled_decay import draw_decoupled_decay
from noisekit.plots.insights.floor_from_record import draw_floor_from_record
from noisekit.plots.insights.heavy_tails import draw_heavy_tails
from noisekit.plots.insights.noise_floors import draw_noise_floors
from noisekit.plots.insights.signsgd_phases import draw_signsgd_phases
from noisekit.plots.insights.signsgd_stationary import draw_signsgd_stationary

FIGURES: dict[str, Callable[[xr.Dataset], Figure]] = {
    "signsgd_phases": draw_signsgd_phases,
    "noise_floors": draw_noise_floors,
    "signsgd_stationary": draw_signsgd_stationary,
    "heavy_tails": draw_heavy_tails,
    "decoupled_decay": draw_decoupled_decay,
    "batch_scaling": draw_batch_scaling,
    "floor_from_record": draw_floor_from_record,
}


def draw_insight(data: xr.Dataset | xr.DataTree) -> Figure:
    """Draw the figure of an insight, whichever it is.

    data: what a function of ``noisekit.truth.insights`` returned, or the group of a file that holds it
    Returns the figure. Raises InputError for data that are not of an insight.
    """
    if isinstance(data, xr.DataTree):
        data = data.to_dataset()
    if not isinstance(data, xr.Dataset) or "insight" not in data.attrs:
        raise InputError("These data are not of an insight; give what noisekit.truth.insights returns.")
    name = str(data.attrs["insight"])
    if name not in FIGURES:
        raise unknown_name("insight", name, FIGURES)
    return FIGURES[name](data)


__all__ = ["FIGURES", "draw_insight", *sorted(f.__name__ for f in FIGURES.values())]
