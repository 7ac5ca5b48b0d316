"""The numbers of a result file that a person asks for first, as one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import stdtrit

from noisekit.results.level import level_at_end
from noisekit.results.seeds import by_seed
from noisekit.results.summary_experiments import experiment_rows
from noisekit.results.trace_interval import trace_interval
from noisekit.results.validate import reading

COLUMNS = ["topic", "quantity", "of", "value", "lower", "upper", "units", "batch_size", "note"]


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Return one row for each headline number of ``tree``, with its 95 % interval, unit and batch size.

    Groups that are missing are left out. ``batch_size`` is 1 where a number speaks of one sample's gradient.
    Of seeds joined by ``concat`` each number is the mean over the runs, and the interval that of this mean.

    >>> from noisekit.results.example import make_example_tree
    >>> summary(make_example_tree()).columns.tolist()[:4]
    ['topic', 'quantity', 'of', 'value']
    """
    runs = by_seed(tree)
    if len(runs) > 1:
        return _over_seeds({seed: summary(run) for seed, run in runs.items()})
    tree = next(iter(runs.values()))
    rows: list[dict[str, Any]] = []
    for group, describe in _DESCRIBE.items():
        with reading(group):
            rows += describe(tree)
    with reading("of an experiment"):
        rows += [_row(topic, what, value, **rest) for topic, what, value, rest in experiment_rows(tree)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _over_seeds(tables: dict[int, pd.DataFrame]) -> pd.DataFrame:
    """Return the mean of each number over runs, with the 95 % interval that their scatter gives it."""
    keys = ["topic", "quantity", "of"]
    order = pd.concat(tables.values())[keys].drop_duplicates()
    joined = pd.concat(tables.values()).groupby(keys, sort=False)
    rows = []
    for key in order.itertuples(index=False):
        own = joined.get_group(tuple(key))
        value = own["value"].to_numpy(float)
        n = len(value)
        half = np.nan
        if n > 1 and np.isfinite(value).all():
            half = float(stdtrit(n - 1, 0.975) * value.std(ddof=1) / np.sqrt(n))
        seeds = ", ".join(str(s) for s in tables)
        note = f"mean over {n} runs of the seeds {seeds}" if n == len(tables) else f"mean over {n} runs"
        mean = float(value.mean())
        ends = {"value": mean, "lower": mean - half, "upper": mean + half}
        rows.append({**dict(own.iloc[0]), **ends, "note": note})
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(topic: str, quantity: str, value: Any, **rest: Any) -> dict[str, Any]:
    defaults = {"of": "", "lower": np.nan, "upper": np.nan, "units": "1", "batch_size": pd.NA, "note": ""}
    return {"topic": topic, "quantity": quantity, "value": float(value), **defaults, **rest}


def _training(tree: xr.DataTree) -> Iterator[dict[str, Any]]:
    if "/training" not in tree.groups:
        return
    node = tree["training"].to_dataset()
    batch = node.attrs.get("batch_size", pd.NA)
    for name in ("loss", "gradient_norm"):
        if name in node and node.sizes.get("step", 0):
            step = node["step"].values
            value, low, high = level_at_end(step, node[name].values)
            known = np.isfinite(low)
            note = f"step {step[-1]}, " + ("trend of the last batches" if known else "of one batch")
            ends = {"lower": low, "upper": high, "batch_size": batch, "note": note}
            yield _row("training", name.replace("_", " "), value, **ends)


def _noise(tree: xr.DataTree) -> Iterator[dict[str, Any]]:
    if "/gradient_noise" not in tree.groups:
        return
    node = tree["gradient_noise"].to_dataset()
    batch = node.attrs.get("batch_size", pd.NA)
    if "trace" in node:
        low, high = trace_interval(tree)
        yield _row(
            "noise",
            "trace of the covariance",
            node["trace"][-1].sum(),
            lower=low,
            upper=high,
            batch_size=1,
            note="last step",
        )
    if "total_noise_scale" in node:
        known = "total_noise_scale_interval" in node
        low, high = node["total_noise_scale_interval"][-1].values if known else (np.nan, np.nan)
        yield _row(
            "noise",
            "gradient noise scale",
            node["total_noise_scale"][-1],
            lower=float(low),
            upper=float(high),
            units="samples",
            batch_size=batch,
            note=_noise_scale_note(node),
        )
    if "mean_gradient_error" in node:
        error = node["mean_gradient_error"].max()
        note = "largest relative difference of mean per-sample and training gradient"
        yield _row("noise", "check of the mean gradient", error, batch_size=batch, note=note)
    if "coverage" in node.attrs:
        yield _row("noise", "fraction of parameters covered", node.attrs["coverage"], batch_size=batch)


def _noise_scale_note(node: xr.Dataset) -> str:
    """Say of which step the noise scale is, and from how many."""
    step = f"step {node['step'].values[-1]}" if "step" in node.variables else "last step"
    window = int(node.attrs.get("noise_scale_window", 1))
    if window > 1:  # of a file in which averages over the last steps stand
        return f"over {window} recorded steps at the end"
    records = int(node.attrs.get("noise_scale_records", 1))
    return f"{step}, from {records} recorded steps" if records > 1 else step


def _tail(tree: xr.DataTree) -> Iterator[dict[str, Any]]:
    if "/tail_index" not in tree.groups:
        return
    node = tree["tail_index"]
    if not {"alpha", "alpha_interval", "estimator"} <= set(node.variables):
        return
    last = node.to_dataset().isel(step=-1).load()
    n = node.attrs.get("n_samples")
    note = f"step {int(last['step'])}" + (f", its {int(n)} samples" if n else "")
    for estimator in last["estimator"].values:
        one = last.sel(estimator=estimator)
        for block in one["block"].values:
            at = one.sel(block=block)
            low, high = at["alpha_interval"].values
            yield _row(
                "tail",
                f"tail index ({estimator})",
                at["alpha"],
                of=str(block),
                lower=float(low),
                upper=float(high),
                batch_size=1,
                note=note,
            )


def _fits(tree: xr.DataTree) -> Iterator[dict[str, Any]]:
    for group, where in (("noise_model", "of one sample"), ("minibatch_noise", "of a minibatch")):
        if group not in tree.children or not {"df", "is_heavy_tailed"} <= set(tree[group].variables):
            continue
        node = tree[group]
        last = {"step": -1} if "step" in node.dims else {}
        fit = node.to_dataset()[["df", "is_heavy_tailed", "p_value"]].isel(last).load()
        df, heavy = fit["df"].values, fit["is_heavy_tailed"].values.astype(bool)
        tested = np.isfinite(fit["p_value"].values)
        batch = int(node.attrs.get("batch_size", 1))
        note = f"of {tested.sum()} coordinates that have a smooth law, out of {tested.size}"
        if tested.any():
            share = heavy[tested].mean()
            low, high = share_interval(share, int(tested.sum()))
            yield _row(
                "fit",
                f"fraction with heavy tails, {where}",
                share,
                lower=low,
                upper=high,
                batch_size=batch,
                note=note,
            )
        if heavy.any():
            low, middle, high = np.quantile(df[heavy], [0.25, 0.5, 0.75])
            yield _row(
                "fit",
                f"degrees of freedom (Student-t fit), {where}",
                middle,
                lower=low,
                upper=high,
                batch_size=batch,
                note="median and quartiles over heavy-tailed coordinates",
            )


def share_interval(share: float, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of n; coordinates of one model are not independent, so it is
    the narrowest possible.

    >>> [round(end, 3) for end in share_interval(1.0, 100)]
    [0.963, 1.0]
    """
    centre, half = (share + 1.92 / n) / (1 + 3.84 / n), 1.96 / (1 + 3.84 / n)
    half *= np.sqrt(share * (1 - share) / n + 0.96 / n**2)
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def _theory(tree: xr.DataTree) -> Iterator[dict[str, Any]]:
    for optimizer, node in _children(tree, "theory"):
        if "noise_floor" in node:
            batch = tree.attrs.get("batch_size", pd.NA)
            note = "stationary excess loss set by the noise, first order in the learning rate"
            yield _row(
                "theory", "noise floor", node["noise_floor"], of=optimizer, batch_size=batch, note=note
            )


def _comparison(tree: xr.DataTree) -> Iterator[dict[str, Any]]:
    for optimizer, node in _children(tree, "comparison"):
        if not {"mean_relative_gap", "observable"} <= set(node.variables):
            continue
        batch = tree.attrs.get("batch_size", pd.NA)
        data = node.to_dataset()
        for observable in data["observable"].values:
            at = data.sel(observable=observable).load()
            gap = float(at["mean_relative_gap"])
            error = float(at["mean_standard_error"]) if "mean_standard_error" in at else np.nan
            yield _row(
                "comparison",
                f"mean relative gap of {observable}",
                gap,
                of=optimizer,
                lower=max(gap - 1.96 * error, 0.0) if np.isfinite(error) else np.nan,
                upper=gap + 1.96 * error,
                batch_size=batch,
                note=str(at["verdict"].item()) if "verdict" in at else "",
            )


def _children(tree: xr.DataTree, group: str) -> list[tuple[str, xr.DataTree]]:
    return list(tree[group].children.items()) if group in tree.children else []


_DESCRIBE = {
    "/training": _training,
    "/gradient_noise": _noise,
    "/tail_index": _tail,
    "/noise_model or /minibatch_noise": _fits,
    "/theory": _theory,
    "/comparison": _comparison,
}
"""What describes a group, by the group."""
