"""How the laws of two paired ensembles differ, each distance with what two samples of one law would show."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import ks_2samp, wasserstein_distance

_Array = NDArray[np.float64]

EXCHANGES = 20
"""Random exchanges behind the Wasserstein distance of two samples of one law."""


def loss_laws(predicted: _Array, real: _Array) -> dict[str, float]:
    """Return how far the laws of the last loss and of the first passage of a level are apart.

    predicted, real: losses (replicate, time), of which row i of both starts from one state. The level is the
    mean real loss half-way; passages are counted on the saved instants, which both sides share, and over the
    pairs that start above it. ``wasserstein_null``: the mean over exchanges of path and run within pairs,
    which leave the law unchanged if both have one.
    """
    last, truth = predicted[:, -1], real[:, -1]
    unit = truth.std() or np.nan
    rng = np.random.default_rng(0)
    null = []
    for _ in range(EXCHANGES):
        swap = rng.random(len(last)) < 0.5
        null.append(wasserstein_distance(np.where(swap, truth, last), np.where(swap, last, truth)) / unit)
    level = float(real.mean(0)[real.shape[1] // 2])
    above = (predicted[:, 0] > level) & (real[:, 0] > level)
    distance, p_value = np.nan, np.nan
    if above.sum() > 1:
        test = ks_2samp(_first_at(predicted[above], level), _first_at(real[above], level), method="asymp")
        distance, p_value = test.statistic, test.pvalue
    return {
        "wasserstein": float(wasserstein_distance(last, truth) / unit),
        "wasserstein_null": float(np.mean(null)),
        "hitting_distance": float(distance),
        "hitting_p_value": float(p_value),
        "hitting_level": level,
    }


def parameter_laws(data: xr.Dataset, truth: xr.Dataset) -> dict[str, float]:
    """Return how the law of the parameters at the end differs: mean, total variance, covariance if kept."""
    variance = truth["x_variance"].values[-1]
    other_variance = data["x_variance"].values[-1]
    shift = np.linalg.norm(data["x_mean"].values[-1] - truth["x_mean"].values[-1])
    n_real, n_predicted = (int((d["diverged"].values < 0).sum()) for d in (truth, data))
    found = {
        "parameter_mean_distance": float(shift / np.sqrt(variance)),
        # Common starts make it smaller still.
        "parameter_mean_null": float(np.sqrt(1 / n_real + other_variance / variance / n_predicted)),
        "parameter_variance_ratio": float(other_variance / variance),
        "covariance_distance": np.nan,
        "covariance_null": np.nan,
    }
    if "final_x" in data and "final_x" in truth:
        real = truth["final_x"].values.astype(np.float64)
        whole = np.cov(real.T)
        size = np.linalg.norm(whole)
        other = np.cov(data["final_x"].values.astype(np.float64).T)
        found["covariance_distance"] = float(np.linalg.norm(other - whole) / size)
        half = len(real) // 2
        halves = np.cov(real[:half].T) - np.cov(real[half:].T)
        # Two halves of n/2 differ by √2 times what two samples of n do.
        found["covariance_null"] = float(np.linalg.norm(halves) / size / np.sqrt(2))
    return found


def _first_at(values: _Array, level: float) -> _Array:
    """Return the number of the first instant with the loss at most ``level``, past the end if never."""
    below = values <= level
    return np.where(below.any(axis=1), below.argmax(axis=1), values.shape[1])
