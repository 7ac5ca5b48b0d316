"""A gradient record and what was estimated from it as labelled data sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from noisekit.errors import InputError
from noisekit.results.attributes import storable
from noisekit.results.labelled import array, dataset

if TYPE_CHECKING:
    from noisekit.gradients.record import GradientRecord
    from noisekit.noise.fit import NoiseFit
    from noisekit.noise.record_noise_scale import RecordNoiseScale

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BOUNDS = np.array(["lower", "upper"])


def training_dataset(record: GradientRecord) -> xr.Dataset:
    """Return loss, learning rate, gradient norm and time over the recorded steps, and what was applied."""
    names = ("step", "loss", "learning_rate", "gradient_norm", "elapsed_time")
    values: dict[str, Any] = {name: array(getattr(record, name)) for name in names}
    for name in ("applied_scale", "applied_cosine"):
        values[name] = None if getattr(record, name) is None else array(getattr(record, name))
    attributes = {"batch_size": record.batch_size, **storable(record.settings)}
    return dataset("/training", values, attributes)


def gradient_noise_dataset(
    record: GradientRecord,
    *,
    noise_scale: RecordNoiseScale | None = None,
    mean_gradient_error: Any = None,
) -> xr.Dataset:
    """Return traces, noise scales and spectra over the recorded steps and blocks.

    The signal of a batch of B samples is |ḡ|² − tr Σ₁/B, which is unbiased; where it is not positive the
    noise scale tr Σ₁/signal cannot be known and is NaN. ``noise_scale`` gives values that
    all recorded steps together say about each, with intervals; without it each step stands alone.
    """
    trace, squared = array(record.trace), array(record.mean_squared_norm)
    values: dict[str, Any] = {
        "step": array(record.step),
        "block": np.array(record.block),
        "block_size": np.array(record.block_size),
        "trace": trace,
        "deviation_sum": None if record.deviation_sum is None else array(record.deviation_sum),
        "mean_squared_norm": squared,
        "mean_gradient_error": mean_gradient_error,
    }
    if noise_scale is None:
        noise = trace / record.batch_size
        signal = squared - noise
        values["signal_to_noise"] = _ratio(signal, noise)
        values["noise_scale"] = _ratio(trace, np.where(signal > 0, signal, 0))
    else:
        values |= smoothed_scales(noise_scale, record.batch_size)
    if record.eigenvalue is not None:
        eigenvalue = array(record.eigenvalue)
        values |= {"eigenvalue": eigenvalue, "component": np.arange(1, eigenvalue.shape[1] + 1)}
    if record.coordinate_values is not None:
        variance = array(record.coordinate_values).var(axis=1, ddof=1)
        quantiles = np.quantile(variance, QUANTILES, axis=1).T
        values |= {"variance_quantile": quantiles, "quantile": np.array(QUANTILES)}
    attributes = {
        "batch_size": record.batch_size,
        "coverage": record.coverage,
        "uncovered": list(record.uncovered),
        "n_parameters": int(sum(record.block_size)),
        "noise_scale_records": 1 if noise_scale is None else len(record.step),
    }
    return dataset("/gradient_noise", values, attributes)


def smoothed_scales(scale: RecordNoiseScale, batch_size: int) -> dict[str, Any]:
    """Return the noise scales of blocks and of the total, which is the last block of ``scale``."""
    value = array(scale.noise_scale).astype(float)
    value[~np.isfinite(value)] = np.nan
    interval = array(scale.interval)
    pooled = scale.pooled[scale.block[-1]]
    return {
        "signal_to_noise": batch_size * array(scale.signal_to_noise)[:, :-1],
        "noise_scale": value[:, :-1],
        "noise_scale_interval": interval[:, :-1],
        "total_noise_scale": value[:, -1],
        "total_noise_scale_interval": interval[:, -1],
        "pooled_noise_scale": pooled.value,
        "pooled_noise_scale_interval": np.array(pooled.interval, dtype=float),
        "bound": BOUNDS,
    }


def samples_dataset(record: GradientRecord) -> xr.Dataset:
    """Return the per-sample values that the record kept: noise at coordinates, sketches, squared norms."""
    values: dict[str, Any] = {
        "step": array(record.step),
        "squared_norm": array(record.squared_norm),
        "sketch": None if record.sketch is None else array(record.sketch),
    }
    if record.coordinate_values is not None:
        gradients = array(record.coordinate_values)
        values["noise"] = gradients - gradients.mean(axis=1, keepdims=True)
        values |= _coordinates(record)
    return dataset("/gradient_noise/samples", values, {"batch_size": record.batch_size})


_FITTED = (
    "location",
    "scale",
    "df",
    "df_interval",
    "log_likelihood",
    "p_value",
    "q_value",
    "is_heavy_tailed",
)


def noise_model_dataset(fits: Mapping[int, NoiseFit], record: GradientRecord) -> xr.Dataset:
    """Return the fits of the recorded coordinates; ``fits`` maps an optimizer step to the fit made there."""
    if not fits:
        raise InputError("There is no fit to store; give at least one step with its NoiseFit.")
    columns = [_fit_values(fit) for fit in fits.values()]
    values: dict[str, Any] = {name: np.stack([c[name] for c in columns]) for name in columns[0]}
    values |= {"step": np.array(list(fits)), "bound": BOUNDS, **_coordinates(record)}
    return dataset("/noise_model", values, {"batch_size": 1, "n_samples": record.batch_size})


def minibatch_noise_dataset(noise: Any, fit: NoiseFit, record: GradientRecord) -> xr.Dataset:
    """Return ``noise`` (minibatch, coordinate) at the record's coordinates with its fit."""
    values = {"noise": array(noise), "bound": BOUNDS, **_fit_values(fit), **_coordinates(record)}
    return dataset("/minibatch_noise", values, {"batch_size": fit.batch_size, "n_samples": fit.n_samples})


def _fit_values(fit: NoiseFit) -> dict[str, Any]:
    values = {name: array(getattr(fit, name)) for name in _FITTED}
    return values | {"is_set_aside": array(fit.is_constant) | array(fit.has_atom)}


def tail_index_dataset(tail: Mapping[str, Any], record: GradientRecord) -> xr.Dataset:
    """Return tail indices given by the names of ``/tail_index`` in the schema."""
    values = {"bound": BOUNDS, **{name: array(value) for name, value in tail.items()}}
    return dataset("/tail_index", values, {"batch_size": 1, "n_samples": record.batch_size})


def _coordinates(record: GradientRecord) -> dict[str, Any]:
    if record.coordinate_index is None or record.coordinate_block is None:
        raise InputError("The record holds no coordinates; record with coordinates=512, for example.")
    return {
        "coordinate": array(record.coordinate_index),
        "coordinate_block": np.array(record.coordinate_block),
    }


def _ratio(numerator: Any, denominator: Any) -> Any:
    result = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)
