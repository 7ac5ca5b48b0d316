"""The experiments of the example file: weak order, sweeps, batch scaling, phases, law of rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from noisekit.results.example_truth import truth_groups

_RATES = np.array([0.005, 0.01, 0.02, 0.04])
_LEVELS = np.array([0.25, 0.5, 1.0, 2.0, 4.0])
_DF = np.array([1.0, 2.0, 3.0, 5.0, 10.0])
_BATCHES = np.array([16, 32, 64, 128, 256])
_RATIOS = np.array([0.25, 1.0, 4.0, 16.0])


def experiment_groups(floors: Mapping[str, float], rng: np.random.Generator) -> dict[str, xr.Dataset]:
    """Return made-up experiments by path, for the optimizers in ``floors`` (their noise floors)."""
    groups: dict[str, xr.Dataset] = {}
    for name, floor in floors.items():
        power = 2 if name == "sgd" else 1
        groups[f"/weak_order/{name}"] = _weak_order(rng)
        groups[f"/noise_sweep/{name}"] = _sweep("noise_level", _LEVELS, floor * _LEVELS**power, rng)
        tails = np.where((_DF > 2) | (name == "signsgd"), floor * _DF / np.maximum(_DF - 2, 0.5), np.nan)
        groups[f"/df_sweep/{name}"] = _sweep("df", _DF, tails, rng)
        batches = floor * (64 / _BATCHES) ** (power / 2)
        groups[f"/batch_size_sweep/{name}"] = _sweep("batch_size", _BATCHES, batches, rng)
        groups[f"/batch_scaling/{name}"] = _batch_scaling(rng)
        groups[f"/stationary/{name}"] = _rest(rng)
    groups["/phases/signsgd"] = _phases()
    groups |= truth_groups(rng)
    return groups


def _weak_order(rng: np.random.Generator) -> xr.Dataset:
    gap = 0.4 * _RATES * rng.uniform(0.95, 1.05, _RATES.size)
    return xr.Dataset(
        {
            "gap": ("learning_rate", gap),
            "gap_error": ("learning_rate", np.full(gap.size, 2e-4)),
            "slope": ((), 1.01),
            "slope_error": ((), 0.05),
        },
        coords={"learning_rate": _RATES},
        attrs={"observable": "loss", "resolved": 1},
    )


def _sweep(axis: str, where: Any, predicted: Any, rng: np.random.Generator) -> xr.Dataset:
    floor = predicted * rng.uniform(0.97, 1.03, predicted.size)
    known = np.isfinite(predicted)
    refused = "the noise variance is infinite: there is no SDE"
    return xr.Dataset(
        {
            "floor": (axis, floor),
            "floor_error": (axis, 0.02 * floor),
            "predicted_floor": (axis, predicted),
            "steps_to_target": (axis, np.where(known, 40.0, np.nan)),
            "diverged_fraction": (axis, np.where(known, 0.0, np.nan)),
            "source": (axis, np.where(known, "runs", "none")),
            "note": (axis, np.where(known, "", refused)),
        },
        coords={axis: where},
    )


def _batch_scaling(rng: np.random.Generator) -> xr.Dataset:
    loss = np.array([np.full(_RATIOS.size, 0.7), 0.7 + 0.04 * np.log2(_RATIOS)])
    axes = ("preset", "batch_ratio")
    return xr.Dataset(
        {
            "loss": (axes, loss + rng.normal(0, 0.003, loss.shape)),
            "loss_error": (axes, np.full(loss.shape, 0.004)),
            "samples_to_target": (axes, np.array([np.full(_RATIOS.size, 80.0), 80.0 * _RATIOS**0.5])),
            "diverged_fraction": (axes, np.zeros(loss.shape)),
        },
        coords={"preset": ["sde", "fixed_lr"], "batch_ratio": _RATIOS},
    )


def _rest(rng: np.random.Generator) -> xr.Dataset:
    variance = rng.lognormal(-8, 1, 12)
    place = np.arange(variance.size)
    square = ("coordinate", "other_coordinate")
    measured = variance * rng.uniform(0.93, 1.07, variance.size)
    return xr.Dataset(
        {
            "predicted_mean": ("coordinate", np.zeros(variance.size)),
            "predicted_covariance": (square, np.diag(variance)),
            "predicted_variance": ("coordinate", variance),
            "published_variance": ("coordinate", 1.05 * variance),
            "measured_mean": ("coordinate", np.sqrt(variance) * rng.normal(0, 0.03, variance.size)),
            "measured_mean_error": ("coordinate", 0.03 * np.sqrt(variance)),
            "measured_variance": ("coordinate", measured),
            "measured_variance_error": ("coordinate", 0.04 * measured),
            "measured_covariance": (square, np.diag(measured)),
        },
        coords={"coordinate": place, "other_coordinate": place},
        attrs={"source": "discrete", "variant": "", "n_replicates": 256, "n_instants": 20},
    )


def _phases() -> xr.Dataset:
    step = np.arange(0, 121, 4)
    far, inside = np.exp(-step / 20), 1 - np.exp(-step / 45)
    share = np.stack([far, 1 - far - inside, inside], -1).clip(0)
    share /= share.sum(-1, keepdims=True)
    quantile = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    ratio = 4 * np.exp(-step / 40)[:, None] * np.array([0.1, 0.5, 1.0, 1.4, 2.0])
    excess = 2 * np.exp(-step / 25) + 0.03
    bound = np.stack([(1.5 - 0.03 * step).clip(0) ** 2, 2.3 * np.exp(-step / 35), 2.3 * np.exp(-step / 45)])
    return xr.Dataset(
        {
            "phase_fraction": (("time", "phase"), share),
            "ratio_quantile": (("time", "quantile"), ratio),
            "excess_loss": ("time", excess),
            "excess_loss_error": ("time", 0.02 * excess),
            "loss_bound": (("phase", "time"), bound + 0.06),
        },
        coords={
            "time": 0.01 * step,
            "step": ("time", step),
            "phase": [1, 2, 3],
            "quantile": quantile,
        },
        attrs={"kind": "optimizer", "learning_rate": 0.01, "n_replicates": 32},
    )
