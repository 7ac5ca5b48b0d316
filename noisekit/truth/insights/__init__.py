"""The published insights, each a small experiment with real optimizers beside the theory.

Every function takes ``preset`` ("quick", "full", or sizes of its own), ``seed`` and ``progress`` (a function
of the share of the work done, or None), and returns an xarray Dataset whose attributes hold ``claim``,
``verdict`` (what came out, with numbers) and ``finding`` ("held", "held in part" or "failed", by a rule in
the code).
The figure of an insight has its name in :mod:`noisekit.plots.insights`.
"""

from collections.abc import Callable

import xarray as xr

from noisekit.truth.insights.batch_scaling import batch_scaling
from noisekit.truth.insights.decoupled_decay import decoupled_decay
from noisekit.truth.insights.floor_from_record import floor_from_record
from noisekit.truth.insights.heavy_tails import heavy_tails
from noisekit.truth.insights.noise_floors import noise_floors
from noisekit.truth.insights.signsgd_phases import signsgd_phases
from noisekit.truth.insights.signsgd_stationary import signsgd_stationary

INSIGHTS: dict[str, Callable[..., xr.Dataset]] = {
    "signsgd_phases": signsgd_phases,
    "noise_floors": noise_floors,
    "signsgd_stationary": signsgd_stationary,
    "heavy_tails": heavy_tails,
    "decoupled_decay": decoupled_decay,
    "batch_scaling": batch_scaling,
    "floor_from_record": floor_from_record,
}

__all__ = [
    "INSIGHTS",
    "batch_scaling",
    "decoupled_decay",
    "floor_from_record",
    "heavy_tails",
    "noise_floors",
    "signsgd_phases",
    "signsgd_stationary",
]
