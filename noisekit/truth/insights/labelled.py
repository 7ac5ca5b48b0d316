"""The data set of an insight: every variable with its name and unit, one sentence of verdict, one finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from noisekit.results.attributes import storable

Finding = Literal["held", "held in part", "failed"]
Progress = Any
"""None, or a function of the share of the work that is done, from 0 to 1."""


def variable(
    dims: str | Sequence[str], values: Any, long_name: str, units: str = "1"
) -> tuple[tuple[str, ...], Any, dict[str, str]]:
    """Return a variable or coordinate over ``dims`` with its attributes."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    axes = (dims,) if isinstance(dims, str) else tuple(dims)
    return axes, np.asarray(values), {"long_name": long_name, "units": units}


def insight_dataset(
    name: str,
    claim: str,
    variables: Mapping[str, Any],
    coordinates: Mapping[str, Any],
    *,
    verdict: str,
    finding: Finding,
    settings: Mapping[str, Any],
) -> xr.Dataset:
    """Return the data of one insight.

    ``claim`` is what was to be shown, ``verdict`` what came out, with numbers, and ``finding`` "held",
    "held in part" or "failed"; ``settings`` is everything that repeats the experiment.
    """
    data = xr.Dataset(dict(variables), dict(coordinates))
    data.attrs = storable(
        {
            "title": name.replace("_", " "),
            "insight": name,
            "claim": claim,
            "verdict": verdict,
            "finding": finding,
            "settings": dict(settings),
        }
    )
    return data


def report(progress: Progress, share: float) -> None:
    """Tell ``progress``, if there is one, which share of the work is done."""
    if progress is not None:
        progress(min(1.0, float(share)))
