"""A small, realistic, synthetic result file: for trying plots and reports without training anything."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from noisekit.results.example_experiments import experiment_groups
from noisekit.results.schema import SCHEMA, find_group

_BLOCKS = {"conv1.weight": 72, "conv1.bias": 8, "conv2.weight": 1152, "fc.weight": 7840, "fc.bias": 10}
_OPTIMIZERS = {"sgd": (0.05, 2.1, 1.2), "adam": (0.002, 2.1, 0.7)}
_ESTIMATORS = ["gpd", "moment", "hill"]
_BATCH = 64


def make_example_tree(seed: int = 0) -> xr.DataTree:
    """Return a synthetic result tree in which every group of the schema is filled.

    Arguments: ``seed`` of the random numbers. Returns a DataTree like the one ``run_study`` gives for a small
    convolutional network, with two optimizers; the numbers are made up, their shapes and sizes are not.

    >>> sorted(make_example_tree()["sde"].children)
    ['adam', 'sgd']
    """
    rng = np.random.default_rng(seed)
    step = np.arange(0, 120, 10)
    groups = {
        "/training": _training(step, rng),
        "/gradient_noise": _gradient_noise(step, rng),
        "/gradient_noise/samples": _samples(step, rng),
        "/tail_index": _tail_index(step[-1:], rng),
        "/noise_model": _noise_model(step[[0, -1]], rng),
        "/minibatch_noise": _minibatch_noise(rng),
    }
    for optimizer, (rate, start, end) in _OPTIMIZERS.items():
        mean = end + (start - end) * np.exp(-np.arange(0, 61, 2) / 25)
        paths = {kind: _trajectory(optimizer, kind, rate, mean, rng) for kind in ("sde", "optimizer")}
        groups |= {f"/{kind}/{optimizer}": dataset for kind, dataset in paths.items()}
        groups[f"/theory/{optimizer}"] = _theory(rate, mean, rng)
        groups[f"/comparison/{optimizer}"] = _comparison(paths["sde"], paths["optimizer"])
    groups |= experiment_groups(dict.fromkeys(_OPTIMIZERS, 0.02), np.random.default_rng([seed, 1]))
    tree = xr.DataTree.from_dict({path: _described(path, data) for path, data in groups.items()})
    tree.attrs.update(_root_attributes(seed))
    return tree


def _described(path: str, data: xr.Dataset) -> xr.Dataset:
    group = find_group(path)
    assert group is not None
    data.attrs["title"] = group.title
    for name, variable in (group.coordinates | group.variables).items():
        if name in data.variables:
            data[name].attrs.update(variable.attributes())
    return data


def _training(step: Any, rng: np.random.Generator) -> xr.Dataset:
    loss = 0.6 + 1.7 * np.exp(-step / 40) + rng.normal(0, 0.03, step.size)
    return xr.Dataset(
        {
            "loss": ("step", loss),
            "learning_rate": ("step", np.full(step.size, 0.05)),
            "gradient_norm": ("step", 1.5 * np.exp(-step / 60) + rng.uniform(0, 0.1, step.size)),
            "elapsed_time": ("step", 0.11 * step + 0.2),
        },
        coords={"step": step},
    )


def _gradient_noise(step: Any, rng: np.random.Generator) -> xr.Dataset:
    size = np.array(list(_BLOCKS.values()))
    trace = np.sqrt(size) * np.exp(-step / 80)[:, None] * rng.uniform(0.8, 1.2, (step.size, size.size))
    signal = trace * np.exp(-step / 50)[:, None] / 60 * rng.uniform(0.8, 1.2, trace.shape)
    total = trace.sum(1) / signal.sum(1)
    eigenvalue = trace.sum(1)[:, None] * (np.arange(1, _BATCH) ** -1.1) / np.sum(np.arange(1, _BATCH) ** -1.1)
    quantile = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    level = trace.sum(1)[:, None] / size.sum() * np.exp([-3.0, -1.2, 0.0, 0.8, 2.0])
    return xr.Dataset(
        {
            "block_size": ("block", size),
            "trace": (("step", "block"), trace),
            "mean_squared_norm": (("step", "block"), signal + trace / _BATCH),
            "signal_to_noise": (("step", "block"), signal / (trace / _BATCH)),
            "noise_scale": (("step", "block"), trace / signal),
            "noise_scale_interval": (
                ("step", "block", "bound"),
                (trace / signal)[..., None] * np.array([0.6, 1.9]),
            ),
            "total_noise_scale": ("step", total),
            "total_noise_scale_interval": (("step", "bound"), total[:, None] * np.array([0.7, 1.6])),
            "pooled_noise_scale": ((), total.mean()),
            "pooled_noise_scale_interval": ("bound", total.mean() * np.array([0.8, 1.3])),
            "eigenvalue": (("step", "component"), eigenvalue),
            "variance_quantile": (("step", "quantile"), level),
            "mean_gradient_error": ("step", rng.uniform(1e-7, 6e-7, step.size)),
        },
        coords={
            "step": step,
            "block": list(_BLOCKS),
            "component": np.arange(1, _BATCH),
            "quantile": quantile,
            "bound": ["lower", "upper"],
        },
    )


def _coordinates(n: int = 96) -> dict[str, Any]:
    ends = np.cumsum(list(_BLOCKS.values()))
    index = np.linspace(0, ends[-1] - 1, n).astype(np.int64)
    block = np.array(list(_BLOCKS))[np.searchsorted(ends, index, side="right")]
    return {"coordinate": index, "coordinate_block": ("coordinate", block)}


def _samples(step: Any, rng: np.random.Generator) -> xr.Dataset:
    coordinates = _coordinates()
    n = len(coordinates["coordinate"])
    noise = rng.standard_t(3.5, (step.size, _BATCH, n)) * rng.lognormal(-4, 1, n)
    noise = (noise - noise.mean(1, keepdims=True)).astype(np.float32)
    return xr.Dataset(
        {
            "noise": (("step", "sample", "coordinate"), noise),
            "sketch": (("step", "sample", "projection"), rng.normal(0, 0.1, (step.size, _BATCH, 16))),
            "squared_norm": (("step", "sample"), rng.gamma(2, 5, (step.size, _BATCH))),
        },
        coords={"step": step, **coordinates},
    )


def _tail_index(step: Any, rng: np.random.Generator) -> xr.Dataset:
    alpha = rng.uniform(2.8, 5, (step.size, len(_BLOCKS), 1)) * rng.uniform(
        0.9, 1.1, (1, 1, len(_ESTIMATORS))
    )
    return xr.Dataset(
        {
            "alpha": (("step", "block", "estimator"), alpha),
            "alpha_interval": (
                ("step", "block", "estimator", "bound"),
                alpha[..., None] * np.array([0.8, 1.3]),
            ),
            "k": (("step", "block", "estimator"), np.full(alpha.shape, 120)),
        },
        coords={
            "step": step,
            "block": list(_BLOCKS),
            "estimator": _ESTIMATORS,
            "bound": ["lower", "upper"],
        },
    )


def _noise_model(step: Any, rng: np.random.Generator) -> xr.Dataset:
    coordinates = _coordinates()
    shape = (step.size, len(coordinates["coordinate"]))
    return xr.Dataset(
        _fit(("step", "coordinate"), shape, 0.8, rng),
        coords={"step": step, **coordinates, "bound": ["lower", "upper"]},
    )


def _minibatch_noise(rng: np.random.Generator) -> xr.Dataset:
    coordinates = _coordinates()
    n = len(coordinates["coordinate"])
    noise = rng.standard_t(12, (180, n)) * rng.lognormal(-6, 1, n)
    noise = (noise - noise.mean(0)).astype(np.float32)
    return xr.Dataset(
        {"noise": (("sample", "coordinate"), noise), **_fit(("coordinate",), (n,), 0.3, rng)},
        coords={**coordinates, "bound": ["lower", "upper"]},
        attrs={"batch_size": _BATCH, "n_samples": 180},
    )


def _fit(
    dims: tuple[str, ...], shape: tuple[int, ...], share: float, rng: np.random.Generator
) -> dict[str, Any]:
    heavy = rng.uniform(size=shape) < share
    df = np.where(heavy, rng.uniform(2, 8, shape), np.inf)
    p = np.where(heavy, rng.uniform(0, 1e-3, shape), rng.uniform(0.1, 1, shape))
    lower = np.where(heavy, 0.6 * df, 15.0)
    upper = np.where(heavy, 1.8 * df, np.inf)
    return {
        "location": (dims, rng.normal(0, 1e-3, shape)),
        "scale": (dims, rng.lognormal(-4, 1, shape)),
        "df": (dims, df),
        "df_interval": ((*dims, "bound"), np.stack([lower, upper], -1)),
        "log_likelihood": (dims, rng.normal(180, 20, shape)),
        "p_value": (dims, p),
        "q_value": (dims, np.minimum(1.2 * p, 1)),
        "is_set_aside": (dims, np.zeros(shape, np.int8)),
        "is_heavy_tailed": (dims, heavy.astype(np.int8)),
    }


def _trajectory(optimizer: str, kind: str, rate: float, mean: Any, rng: np.random.Generator) -> xr.Dataset:
    replicates, step = 32, np.arange(0, 2 * mean.size, 2)
    spread = 0.04 * np.sqrt(step / step[-1])
    loss = (
        mean
        + spread * rng.normal(size=(replicates, 1))
        + 0.3 * spread * rng.normal(size=(replicates, step.size))
    )
    attributes = {
        "optimizer": optimizer,
        "kind": kind,
        "learning_rate": rate,
        "substeps": 4 if kind == "sde" else 1,
        "seed": 0,
        "n_diverged": 0,
        "settings_json": json.dumps({"batch_size": _BATCH, "n_samples": 512}),
    }
    return xr.Dataset(
        {"loss": (("replicate", "time"), loss), "diverged": ("replicate", np.full(replicates, -1))},
        coords={"time": rate * step, "step": ("time", step), "replicate": np.arange(replicates)},
        attrs=attributes,
    )


def _theory(rate: float, mean: Any, rng: np.random.Generator) -> xr.Dataset:
    step = np.arange(0, 2 * mean.size, 2)
    gauges = {
        "eta_lambda_max": (
            0.31,
            "ok",
            "learning rate times sharpness; the SDE cannot see the instability at 2",
        ),
        "tail": (3.4, "ok", "smallest reliable degrees of freedom; at 2 and below the variance is infinite"),
        "signal_over_noise": (
            0.8,
            "warning",
            "squared gradient over noise variance, median over coordinates",
        ),
    }
    values, verdicts, meanings = zip(*gauges.values(), strict=True)
    return xr.Dataset(
        {
            "noise_floor": ((), 0.02),
            "loss_bound": ("time", 1.3 * mean),
            "stationary_variance": ("coordinate", rng.lognormal(-8, 1, 40)),
            "phase_fraction": ("phase", [0.02, 0.05, 0.93]),
            "gauge_value": ("gauge", list(values)),
            "gauge_interval": (("gauge", "bound"), [[0.3, 0.36], [2.6, 4.9], [np.nan, np.nan]]),
            "gauge_limit": ("gauge", [0.5, 2.0, 0.1]),
            "gauge_symbol": ("gauge", ["ηλ_max", "ν̂", "(∇f)²/diag Σ"]),
            "gauge_verdict": ("gauge", list(verdicts)),
            "gauge_meaning": ("gauge", list(meanings)),
        },
        coords={
            "time": rate * step,
            "step": ("time", step),
            "coordinate": np.arange(40),
            "phase": [1, 2, 3],
            "gauge": list(gauges),
            "bound": ["lower", "upper"],
        },
    )


def _comparison(sde: xr.Dataset, runs: xr.Dataset) -> xr.Dataset:
    prediction, reference = sde["loss"], runs["loss"]
    means = prediction.mean("replicate"), reference.mean("replicate")
    stds = prediction.std("replicate", ddof=1), reference.std("replicate", ddof=1)
    gap = means[0] - means[1]
    error = ((stds[0] ** 2 + stds[1] ** 2) / prediction.sizes["replicate"]) ** 0.5
    relative = gap / abs(means[1])
    series: dict[str, xr.DataArray] = {
        "prediction_mean": means[0],
        "prediction_std": stds[0],
        "reference_mean": means[1],
        "reference_std": stds[1],
        "gap": gap,
        "standard_error": error,
        "discretisation_error": 0.2 * gap,
        "relative_gap": relative,
        "relative_gap_error": error / abs(means[1]),
        "gap_in_std": gap / stds[1].where(stds[1] > 0),
    }
    ratio = stds[0] / stds[1].where(stds[1] > 0)
    series["std_ratio"] = ratio
    series["std_ratio_error"] = ratio / np.sqrt(2 * prediction.sizes["replicate"])
    series["prediction_kurtosis"] = series["reference_kurtosis"] = xr.full_like(gap, 3.0)
    dataset = xr.Dataset({name: values.expand_dims(observable=["loss"]) for name, values in series.items()})
    size = abs(means[1]).mean("time")
    dataset["mean_relative_gap"] = ("observable", [float(abs(gap).mean("time") / size)])
    dataset["max_relative_gap"] = ("observable", [float(abs(gap).max("time") / size)])
    dataset["mean_standard_error"] = ("observable", [float(error.mean("time") / size)])
    dataset["mean_discretisation_error"] = ("observable", [0.2 * float(abs(gap).mean("time") / size)])
    dataset["mean_gap_in_std"] = ("observable", [float(abs(series["gap_in_std"]).mean("time"))])
    moved = abs(means[1] - means[1].isel(time=0)).mean("time")
    dataset["mean_gap_in_change"] = ("observable", [float(abs(gap).mean("time") / moved)])
    dataset["mean_std_ratio"] = ("observable", [float(ratio.mean("time"))])
    dataset["verdict"] = ("observable", ["held"])
    percent = 100 * float(dataset["mean_relative_gap"][0])
    text = f"Held within 5 %: mean gap of loss {percent:.2g} %."
    dataset["verdict_text"] = ("observable", [text])
    return dataset


def _root_attributes(seed: int) -> dict[str, Any]:
    return {
        "Conventions": SCHEMA,
        "title": "Gradient noise of an example that was made up",
        "history": "2026-01-01T00:00:00Z made by make_example_tree",
        "created_at": "2026-01-01T00:00:00Z",
        "versions": json.dumps({"noisekit": "0.1.0", "torch": "2.13.0"}),
        "device": "cpu",
        "dtype": "float32",
        "seed": seed,
        "deterministic": 0,
        "git_commit": "",
        "command": "noisekit run fashion-cnn --seed 0",
        "config_json": json.dumps({"optimizers": list(_OPTIMIZERS)}),
        "problem": "fashion-cnn",
        "dataset": "fashion_mnist",
        "dataset_sha256": "",
        "sampling": "without-replacement",
        "batch_size": _BATCH,
        "n_samples": 512,
        "n_parameters": sum(_BLOCKS.values()),
        "loss_reduction": "mean",
        "noise_definition": "gradient of one sample minus the mean gradient of its batch",
    }
