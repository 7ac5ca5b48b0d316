"""Comparisons of predictions with real runs, out of result files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from noisekit.errors import FileFormatError, InputError
from noisekit.results.seeds import require_one_run

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class ComparisonRow:
    """One observable of one optimizer; gaps and errors are shares of the observable's own size."""

    optimizer: str
    observable: str
    gap: float
    error: float
    """Monte-Carlo standard error of the gap."""
    discretisation: float
    """|mean(dt) − mean(dt/2)| of the SDE; NaN if it is not known."""
    spread_ratio: float
    """Standard deviation of the prediction over that of the real runs."""
    spread_error: float
    n_prediction: int
    n_reference: int
    learning_rate: float
    batch_size: int | None
    last_step: int
    verdict: str
    text: str


def comparisons_in(tree: xr.DataTree, *, tolerance: float | None = None) -> list[ComparisonRow]:
    """Return every comparison that ``tree`` holds, judged anew if ``tolerance`` is given.

    Raises:
        InputError: if the tolerance is not between 0 and 1, or the tree joins several runs.
        FileFormatError: if the replicates that judging anew needs are not kept.
    """
    if tolerance is not None and not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance}; a share between 0 and 1 is needed, such as 0.05.")
    require_one_run(tree)
    rows = []
    for name, node in tree["comparison"].children.items() if "comparison" in tree.children else ():
        data = node.to_dataset()
        if not {"observable", "mean_relative_gap", "verdict"} <= set(data.variables):
            continue
        for observable in data["observable"].values:
            at = data.sel(observable=observable).load()
            if tolerance is None:
                rows.append(_stored(tree, str(name), str(observable), at))
            else:
                rows.append(_judged(tree, str(name), str(observable), at, tolerance))
    return rows


def cross_comparisons(
    prediction: xr.DataTree, reference: xr.DataTree, *, tolerance: float = 0.05
) -> tuple[list[ComparisonRow], list[str]]:
    """Set the SDE paths of one tree beside the real runs of another, for the optimizers that both have.

    Returns rows, and a sentence for each optimizer that cannot be compared.
    """
    for tree in (prediction, reference):
        require_one_run(tree)
    rows, reasons = [], []
    predicted, observed = (
        _names(tree, kind) for tree, kind in ((prediction, "sde"), (reference, "optimizer"))
    )
    for name in predicted:
        if name not in observed:
            continue
        a, b = prediction[f"sde/{name}"].to_dataset(), reference[f"optimizer/{name}"].to_dataset()
        rates = [float(d.attrs.get("learning_rate", math.nan)) for d in (a, b)]
        if not math.isclose(*rates, rel_tol=1e-6):
            reasons.append(
                f"{name} is predicted at learning rate {rates[0]:g} and was run at {rates[1]:g}; the same is "
                "needed."
            )
            continue
        steps = np.intersect1d(a["step"].values, b["step"].values)
        shared = [o for o in _observables(a) if o in _observables(b)]
        if len(steps) < 2 or not shared:
            reasons.append(f"{name} has no saved steps or no observable in common; run both alike.")
            continue
        for observable in shared:
            values = [_replicates(d, observable, steps) for d in (a, b)]
            rows.append(_compared(name, observable, values, None, b, reference, steps, tolerance))
    return rows, reasons


def _stored(tree: xr.DataTree, name: str, observable: str, at: Any) -> ComparisonRow:
    return ComparisonRow(
        optimizer=name,
        observable=observable,
        gap=_number(at, "mean_relative_gap"),
        error=_number(at, "mean_standard_error"),
        discretisation=_number(at, "mean_discretisation_error"),
        spread_ratio=_number(at, "mean_std_ratio"),
        spread_error=_mean(at["std_ratio_error"].values) if "std_ratio_error" in at else math.nan,
        n_prediction=int(at.attrs.get("n_prediction", 0)),
        n_reference=int(at.attrs.get("n_reference", 0)),
        learning_rate=_rate(tree, name),
        batch_size=_batch(tree),
        last_step=_last_step(at),
        verdict=str(at["verdict"].item()),
        text=str(at["verdict_text"].item()) if "verdict_text" in at else "",
    )


def _judged(tree: xr.DataTree, name: str, observable: str, at: Any, tolerance: float) -> ComparisonRow:
    ensembles = []
    for kind in ("sde", "optimizer"):
        data = tree[f"{kind}/{name}"].to_dataset() if name in _names(tree, kind) else None
        if data is None or observable not in _observables(data) or "step" not in at.variables:
            raise FileFormatError(
                f"The file keeps no replicates of {observable} of {name}, so its verdict cannot be judged "
                "anew; leave --tolerance out, or run it again."
            )
        ensembles.append(data)
    steps = at["step"].values
    both = _finite_on_both_sides(*ensembles)
    values = [_replicates(data, observable, steps, both) for data in ensembles]
    paired = _paired(at, values)
    if not paired:
        values = [_replicates(data, observable, steps) for data in ensembles]
    refined = None
    if "discretisation_error" in at and "prediction_mean" in at:
        refined = (at["prediction_mean"].values - at["discretisation_error"].values)[None]
    return _compared(name, observable, values, refined, ensembles[1], tree, steps, tolerance, paired)


def _compared(
    name: str,
    observable: str,
    values: list[Any],
    refined: Any,
    runs: xr.Dataset,
    tree: xr.DataTree,
    steps: Any,
    tolerance: float,
    paired: bool = False,
) -> ComparisonRow:
    from noisekit.validation import compare_curves

    found = compare_curves(observable, values[0], values[1], refined, tolerance=tolerance, paired=paired)
    return ComparisonRow(
        optimizer=name,
        observable=observable,
        gap=found.mean_relative_gap,
        error=found.mean_standard_error,
        discretisation=found.mean_discretisation_error,
        spread_ratio=found.mean_std_ratio,
        spread_error=_mean(found.std_ratio_error),
        n_prediction=len(values[0]),
        n_reference=len(values[1]),
        learning_rate=float(runs.attrs.get("learning_rate", math.nan)),
        batch_size=_batch(tree),
        last_step=int(steps[-1]),
        verdict=found.verdict,
        text=found.verdict_text,
    )


def _paired(at: Any, values: list[Any]) -> bool:
    """Return whether the file compared path i with run i, which started from one state.

    Where the file does not say so, its errors tell.
    """
    if "paired" in at.attrs:
        return bool(at.attrs["paired"]) and len(values[0]) == len(values[1])
    if "standard_error" not in at or len(values[0]) != len(values[1]) or len(values[0]) < 2:
        return False
    error = (values[0] - values[1]).std(axis=0, ddof=1) / math.sqrt(len(values[0]))
    return bool(np.allclose(error, at["standard_error"].values, rtol=1e-3, atol=0, equal_nan=True))


def _finite_on_both_sides(a: xr.Dataset, b: xr.Dataset) -> Any:
    """Return which replicates diverged on neither side; None if the sides have not the same."""
    if "diverged" not in a or "diverged" not in b or a.sizes["replicate"] != b.sizes["replicate"]:
        return None
    return (a["diverged"].values < 0) & (b["diverged"].values < 0)


def _replicates(data: xr.Dataset, observable: str, steps: Any, keep: Any = None) -> Any:
    """Return (replicate, time) values at ``steps`` of ``keep``, or of those that did not diverge."""
    values = data[observable].transpose("replicate", "time").values.astype(float)
    if keep is None and "diverged" in data:
        keep = data["diverged"].values < 0
    values = values if keep is None else values[keep]
    return values[:, np.searchsorted(data["step"].values, steps)]


def _observables(data: xr.Dataset) -> list[str]:
    if "step" not in data.variables:
        return []
    return [
        str(n) for n, v in data.data_vars.items() if v.dims in (("replicate", "time"), ("time", "replicate"))
    ]


def _names(tree: xr.DataTree, group: str) -> list[str]:
    return list(tree[group].children) if group in tree.children else []


def _number(at: Any, name: str) -> float:
    return float(at[name]) if name in at else math.nan


def _mean(values: Any) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def _rate(tree: xr.DataTree, name: str) -> float:
    for kind in ("optimizer", "sde"):
        if name in _names(tree, kind):
            return float(tree[f"{kind}/{name}"].attrs.get("learning_rate", math.nan))
    return math.nan


def _batch(tree: xr.DataTree) -> int | None:
    return int(tree.attrs["batch_size"]) if tree.attrs.get("batch_size") else None


def _last_step(at: Any) -> int:
    return int(at["step"].values[-1]) if "step" in at.variables and at["step"].size else 0
