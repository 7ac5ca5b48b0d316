"""What a finished experiment says: every prediction against the truth, with the errors of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from noisekit.results.labelled import dataset
from noisekit.truth.arms import find_arm
from noisekit.truth.cells import cells_of
from noisekit.truth.experiment import TRUTH, Experiment
from noisekit.truth.laws import loss_laws, parameter_laws
from noisekit.validation import ObservableComparison, compare_curves

_Array = NDArray[np.float64]

OBSERVABLES = ("loss", "gradient_norm_squared", "squared_distance")
SAME_EQUATION = ("consistent", "surrogate")
"""Arms whose discretisation error the arm "fine" tells."""
QUANTILES = (0.05, 0.5, 0.95)
_OF_COMPARISON = {
    "gap": "mean_relative_gap",
    "gap_error": "mean_standard_error",
    "gap_in_std": "mean_gap_in_std",
    "std_ratio": "mean_std_ratio",
}


def measure(experiment: Experiment, folder: Path, device: str = "cpu") -> xr.Dataset:
    """Return the comparison of every arm of a finished experiment with its truth, by the file schema.

    Axes arm, observable, time. A prediction that does not exist has NaN and its reason in ``refusal``. The
    start, which both sides share, is left out of every mean over time.
    """
    cells = {cell.arm: cell.open(folder) for cell in cells_of([experiment], device)}
    truth = cells.pop(TRUTH)
    finer = {arm: cells.get("fine") for arm in SAME_EQUATION}
    rows = {arm: _row(data, truth, finer.get(arm)) for arm, data in cells.items()}
    if {"consistent", "fine"} <= set(cells):
        rows["consistent"] |= _limit(cells["consistent"], truth, cells["fine"])
    values: dict[str, Any] = {name: _stack(rows, name) for name in next(iter(rows.values()))}
    alive = truth["diverged"].values < 0
    real = {o: truth[o].values[alive].astype(np.float64) for o in OBSERVABLES}
    with np.errstate(invalid="ignore", over="ignore"):  # runs that are lost to heavy tails
        values |= {
            "reference_mean": _over(OBSERVABLES, lambda o: real[o].mean(0)),
            "reference_std": _over(OBSERVABLES, lambda o: real[o].std(0, ddof=1)),
            "reference_quantile": np.quantile(real["loss"], QUANTILES, axis=0),
        }
    coordinates = {
        "arm": np.array(list(rows)),
        "observable": np.array(OBSERVABLES),
        "time": truth["time"].values,
        "step": truth["step"].values,
        "quantile": np.array(QUANTILES),
    }
    reasons = [str(data.attrs.get("refused", "")) for data in cells.values()]
    meanings = [find_arm(arm).meaning for arm in rows]
    kinds = [find_arm(arm).kind for arm in rows]
    text = {"refusal": np.array(reasons), "meaning": np.array(meanings), "arm_kind": np.array(kinds)}
    return dataset(
        f"/truth/{experiment.name}", coordinates | values | text, attributes(experiment, truth, device)
    )


def attributes(experiment: Experiment, truth: xr.Dataset, device: str) -> dict[str, Any]:
    """Return what repeats an experiment, for its group in the file."""
    return {
        "problem": experiment.problem,
        "optimizer": experiment.optimizer,
        "noise": f"Student-t, ν = {experiment.df:g}" if experiment.noise == "student_t" else experiment.noise,
        "noise_scale": 0.0 if experiment.noise == "minibatch" else experiment.scale,
        "learning_rate": experiment.learning_rate,
        "batch_size": experiment.batch_size if experiment.noise == "minibatch" else "",
        "n_samples": experiment.n_samples or "all",
        "n_coordinates": truth.sizes["coordinate"],
        "replicates": experiment.replicates,
        "steps": experiment.steps,
        "warmup": experiment.warmup,
        "pretraining": experiment.pretraining,
        "substeps": experiment.substeps,
        "settings_json": dict(experiment.settings),
        "options_json": dict(experiment.options),
        "seed": experiment.seed,
        "device": device,
        "n_diverged": int((truth["diverged"] >= 0).sum()),
        "cpu_seconds": truth.attrs["cpu_seconds"],
    }


def _row(data: xr.Dataset, truth: xr.Dataset, fine: xr.Dataset | None) -> dict[str, Any]:
    """Return every figure of one arm, as NaN of the right shape where it does not exist."""
    found: dict[str, Any] = _nothing(truth)
    if "refused" in data.attrs:
        return found
    alive = (data["diverged"].values < 0) & (truth["diverged"].values < 0)
    found["n_diverged"] = int((data["diverged"].values >= 0).sum())
    if alive.sum() < 2:
        return found
    predicted, real = ({o: d[o].values[alive].astype(np.float64) for o in OBSERVABLES} for d in (data, truth))
    refined = None
    if fine is not None:
        refined = {o: fine[o].values[fine["diverged"].values < 0] for o in OBSERVABLES}
    comparisons = [_compared(o, predicted[o], real[o], refined) for o in OBSERVABLES]
    found |= {name: _each(comparisons, attribute) for name, attribute in _OF_COMPARISON.items()}
    found["discretisation_error"] = _each(comparisons, "mean_discretisation_error")
    worst = np.array([_worst(c) for c in comparisons])
    found["worst_gap"], found["worst_gap_error"] = worst.T
    found["std_ratio_error"] = np.array([_spread_error(c) for c in comparisons])
    found["prediction_mean"] = _over(OBSERVABLES, lambda o: predicted[o].mean(0))
    found["prediction_std"] = _over(OBSERVABLES, lambda o: predicted[o].std(0, ddof=1))
    found["prediction_quantile"] = np.quantile(predicted["loss"], QUANTILES, axis=0)
    found["cpu_seconds"] = data.attrs["cpu_seconds"]
    return found | loss_laws(predicted["loss"], real["loss"]) | parameter_laws(data, truth)


def _compared(
    name: str, predicted: _Array, real: _Array, refined: Mapping[str, _Array] | None
) -> ObservableComparison:
    finer = None if refined is None else refined[name][:, 1:].astype(np.float64)
    prediction, reference = (values[:, 1:].astype(np.float64) for values in (predicted, real))
    return compare_curves(name, prediction, reference, finer, paired=True)


def _nothing(truth: xr.Dataset) -> dict[str, Any]:
    n, instants = len(OBSERVABLES), truth.sizes["time"]
    of_observables = (
        *_OF_COMPARISON, "limit_gap", "limit_gap_error", "worst_gap", "worst_gap_error",
        "discretisation_error", "std_ratio_error",
    )  # fmt: skip
    scalars = ("wasserstein", "wasserstein_null", "hitting_distance", "hitting_p_value", "hitting_level")
    of_x = (
        "parameter_mean_distance", "parameter_mean_null", "parameter_variance_ratio",
        "covariance_distance", "covariance_null",
    )  # fmt: skip
    return {
        **{name: np.full(n, np.nan) for name in of_observables},
        **dict.fromkeys((*scalars, *of_x, "cpu_seconds"), np.nan),
        "prediction_mean": np.full((n, instants), np.nan),
        "prediction_std": np.full((n, instants), np.nan),
        "prediction_quantile": np.full((len(QUANTILES), instants), np.nan),
        "n_diverged": 0,
    }


def _limit(data: xr.Dataset, truth: xr.Dataset, fine: xr.Dataset) -> dict[str, _Array]:
    """Return the gap extrapolated to dt → 0, 2 mean(dt/2) − mean(dt) − mean of the runs, and its error.

    A weak error that is linear in dt drops out (Talay, Tubaro 1990). An optimizer is an Euler scheme with
    dt = η of its own SDE, so that a coarse dt flatters the SDE, and this does not.
    """
    if "refused" in data.attrs or "refused" in fine.attrs:
        return {}
    alive = np.logical_and.reduce([d["diverged"].values < 0 for d in (data, truth, fine)])
    if alive.sum() < 2:
        return {}
    found = []
    for o in OBSERVABLES:
        coarse, real, refined = (d[o].values[alive][:, 1:].astype(np.float64) for d in (data, truth, fine))
        c = compare_curves(o, 2 * refined - coarse, real, paired=True)
        found.append((c.mean_relative_gap, c.mean_standard_error))
    gap, error = np.array(found).T
    return {"limit_gap": gap, "limit_gap_error": error}


def _worst(comparison: ObservableComparison) -> tuple[float, float]:
    """Return the largest |gap| over the reference at that instant, which a mean over time hides (and error).

    Of an observable that changes sign the mean size stands for the reference.
    """
    mean = comparison.reference_mean
    size = np.abs(mean)
    if not ((mean > 0).all() or (mean < 0).all()):
        size = np.full_like(size, size.mean())
    share = np.abs(comparison.gap) / size
    if not np.isfinite(share).all():
        return float("nan"), float("nan")
    at = int(share.argmax())
    return float(share[at]), float(comparison.standard_error[at] / size[at])


def _spread_error(comparison: ObservableComparison) -> float:
    error = comparison.std_ratio_error
    return float(np.nanmean(error)) if np.isfinite(error).any() else float("nan")


def _each(comparisons: list[ObservableComparison], attribute: str) -> _Array:
    return np.array([getattr(c, attribute) for c in comparisons])


def _over(names: tuple[str, ...], value: Callable[[str], Any]) -> _Array:
    return np.stack([value(name) for name in names]).astype(np.float64)


def _stack(rows: Mapping[str, Mapping[str, Any]], name: str) -> NDArray[Any]:
    return np.stack([np.asarray(row[name]) for row in rows.values()])
