"""Example data of a study of truth, as it comes out where the SDE holds and the controls do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from noisekit.results.labelled import dataset

_ARMS: dict[str, tuple[str, str, float, float]] = {
    "consistent": ("SDE with the noise of the data at x", "prediction", 0.002, 1.02),
    "double_covariance": ("2 Σ", "control", 0.04, 1.6),
    "ode": ("no noise: the ordinary differential equation", "control", 0.05, 0.4),
}
_OBSERVABLES = ("loss", "gradient_norm_squared", "squared_distance")


def truth_groups(rng: np.random.Generator) -> dict[str, xr.Dataset]:
    """Return ``/truth/*`` of two experiments."""
    return {f"/truth/example_{name}": _truth(name, rng) for name in ("sgd", "adam")}


def _truth(optimizer: str, rng: np.random.Generator) -> xr.Dataset:
    step = np.arange(0, 42, 2)
    mean = np.stack([0.5 + 0.5 * np.exp(-step / 20), np.exp(-step / 10), 1 - np.exp(-step / 20)])
    std = 0.05 * mean * (1 - np.exp(-(step + 1) / 10))
    gap, ratio = (np.array([arm[place] for arm in _ARMS.values()]) for place in (2, 3))
    of_each = np.ones(len(_OBSERVABLES))
    spread = np.array([-1.64, 0.0, 1.64])[:, None]
    values: dict[str, Any] = {
        "arm": np.array(list(_ARMS)),
        "observable": np.array(_OBSERVABLES),
        "quantile": np.array([0.05, 0.5, 0.95]),
        "step": step,
        "time": 0.01 * step,
        "meaning": np.array([arm[0] for arm in _ARMS.values()]),
        "arm_kind": np.array([arm[1] for arm in _ARMS.values()]),
        "refusal": np.array([""] * len(_ARMS)),
        "gap": np.outer(gap * rng.uniform(0.9, 1.1, len(gap)), of_each),
        "gap_error": np.full((len(_ARMS), 3), 0.001),
        "worst_gap": np.outer(2 * gap, of_each),
        "worst_gap_error": np.full((len(_ARMS), 3), 0.002),
        "limit_gap": np.outer(np.where(np.arange(len(_ARMS)) == 0, gap, np.nan), of_each),
        "limit_gap_error": np.full((len(_ARMS), 3), 0.0015),
        "discretisation_error": np.full((len(_ARMS), 3), 0.0005),
        "gap_in_std": np.outer(20 * gap, of_each),
        "std_ratio": np.outer(ratio, of_each),
        "std_ratio_error": np.full((len(_ARMS), 3), 0.03),
        "wasserstein": 20 * gap + 0.05,
        "hitting_distance": np.minimum(1, 5 * gap),
        "hitting_p_value": np.exp(-100 * gap),
        "parameter_mean_distance": gap,
        "parameter_mean_null": np.full(len(_ARMS), 0.05),
        "parameter_variance_ratio": ratio**2,
        "covariance_distance": np.abs(ratio**2 - 1) + 0.05,
        "prediction_mean": (1 + gap)[:, None, None] * mean,
        "prediction_std": ratio[:, None, None] * std,
        "prediction_quantile": (1 + gap)[:, None, None] * (mean[0] + spread * std[0]),
        "reference_mean": mean,
        "reference_std": std,
        "reference_quantile": mean[0] + spread * std[0],
        "n_diverged": np.zeros(len(_ARMS), dtype=int),
    }
    same = {"wasserstein_null": 0.05, "covariance_null": 0.05, "hitting_level": 0.7, "cpu_seconds": 3.0}
    values |= {name: np.full(len(_ARMS), value) for name, value in same.items()}
    attributes = {"problem": "example", "optimizer": optimizer, "noise": "minibatch", "learning_rate": 0.01}
    return dataset(f"/truth/example_{optimizer}", values, attributes)
