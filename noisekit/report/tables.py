"""The tables of the report: noise, optimizers, regimes, provenance; escaping is the template's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from noisekit.plots.fits import has_fits, read_fits
from noisekit.plots.floor_against_noise import predicted_floor
from noisekit.plots.groups import at_step, dataset, has_group, optimizers_in
from noisekit.plots.numbers import (
    format_count,
    format_interval,
    format_number,
    format_percent,
    format_with_error,
)
from noisekit.plots.signal_to_noise import total_signal_to_noise
from noisekit.report.floors import FinalLoss, final_losses
from noisekit.report.verdict import headline_gap
from noisekit.results.summary import share_interval
from noisekit.results.trace_interval import trace_interval


@dataclass(frozen=True)
class Cell:
    """Text of a cell; ``mood`` ("good", "warn", "bad" or "") colours it as a badge."""

    text: str
    mood: str = ""


@dataclass(frozen=True)
class Table:
    """Column heads and rows; the first cell of a row is its head."""

    head: list[str]
    rows: list[list[Cell]]


GAUGES = {
    "signal_over_noise": "signal over noise, (∇f)²/diag Σ",
    "noise_phase": "share of coordinates inside the noise",
    "eta_lambda_max": "learning rate × sharpness, ηλ_max",
    "momentum_friction": "learning rate × sharpness over 1 − μ",
    "momentum_lag": "decay during the momentum's memory, θη/(1 − β₁)",
    "momentum_step": "share of one step in the momentum, 1 − β₁",
    "second_moment_step": "share of one step in the second moment, 1 − β₂",
    "tail": "tail of the noise, ν̂ or α̂",
    "noise_drift": "change of the noise over the record",
    "noise_scale_identified": "samples seen over the noise scale",
    "substeps": "integration steps for one step, η/dt",
}
"""What a gauge measures, by its name in the file."""

MOODS = {
    "held": "good",
    "ok": "good",
    "unclear": "warn",
    "warning": "warn",
    "missed": "bad",
    "refused": "bad",
}


def optimizer_table(tree: xr.DataTree) -> Table | None:
    """Return one row an optimizer: what it reaches, what was predicted, whether the prediction held."""
    roots = ("optimizer", "sde", "theory", "comparison")
    names = list(dict.fromkeys(name for root in roots for name in optimizers_in(tree, root)))
    if not names:
        return None
    real, sde = final_losses(tree), final_losses(tree, "sde")
    rows = []
    for name in names:
        gap = headline_gap(tree, name) if name in optimizers_in(tree, "comparison") else None
        floor = predicted_floor(tree, name)
        row = [
            Cell(name),
            Cell(_learning_rate(tree, name)),
            *(Cell(_final(finals, name)) for finals in (real, sde)),
            Cell(format_number(floor, 2)),
            Cell(gap[1] if gap else "–"),
            Cell(gap[0], MOODS.get(gap[0], "")) if gap else Cell("–"),
        ]
        rows.append(row)
    head = ["optimizer", "learning rate", "final loss, real runs", "final loss, SDE", "predicted noise floor"]
    return Table([*head, "mean gap of the loss", "prediction"], rows)


def _final(finals: dict[str, FinalLoss], name: str) -> str:
    if name not in finals:
        return "–"
    final = finals[name]
    text = format_with_error(final.level, final.error)
    if final.n_diverged:
        text += f" ({final.n_diverged} of {final.n + final.n_diverged} diverged)"
    return text


def _learning_rate(tree: xr.DataTree, name: str) -> str:
    for root in ("optimizer", "sde"):
        if name in optimizers_in(tree, root) and "learning_rate" in tree[f"{root}/{name}"].attrs:
            return f"{float(tree[f'{root}/{name}'].attrs['learning_rate']):.3g}"
    return "–"


def noise_table(tree: xr.DataTree) -> Table | None:
    """Return the headline numbers of the noise with their 95 % intervals."""
    rows = [*_scale_rows(tree), *_fit_rows(tree), *_tail_rows(tree)]
    if not rows:
        return None
    return Table(["noise of the gradient", "value", "95 % interval"], [[*map(Cell, row)] for row in rows])


def _scale_rows(tree: xr.DataTree) -> list[tuple[str, str, str]]:
    if not has_group(tree, "gradient_noise"):
        return []
    whole = dataset(tree, "gradient_noise")
    data, rows = at_step(whole, None), []
    if "total_noise_scale" in data:
        interval = "–"
        if "total_noise_scale_interval" in data:
            interval = format_interval(*data["total_noise_scale_interval"].values.astype(float))
        value = format_number(float(data["total_noise_scale"]))
        rows.append(
            ("noise scale, last step (samples)", value if value != "–" else "no signal seen", interval)
        )
    if "trace" in data:
        low, high = trace_interval(tree)
        interval = format_interval(low, high) if low < high else "–"
        rows.append(("trace of the covariance, tr Σ₁", format_number(float(data["trace"].sum())), interval))
    ratio, batch = total_signal_to_noise(whole), data.attrs.get("batch_size")
    if ratio is not None:
        of = f" of {format_count(int(batch))}" if batch else ""
        interval = "–"
        if batch and "total_noise_scale_interval" in data:
            low, high = data["total_noise_scale_interval"].values.astype(float)
            interval = format_interval(batch / high, batch / low) if low > 0 and high > 0 else "–"
        rows.append((f"signal to noise of a batch{of}", format_number(ratio[-1]), interval))
    return rows


def _fit_rows(tree: xr.DataTree) -> list[tuple[str, str, str]]:
    rows = []
    for of in ("sample", "minibatch"):
        if not has_fits(tree, of):
            continue
        fits = read_fits(tree, of)
        whose = "one sample" if of == "sample" else f"a minibatch of {format_count(fits.batch_size)}"
        if fits.heavy is not None:
            aside = f", {format_count(fits.n_set_aside)} more set aside" if fits.n_set_aside else ""
            name = f"heavy-tailed share of {format_count(fits.df.size)} coordinates, {whose}{aside}"
            rows.append(
                (name, format_percent(fits.heavy_share), _share_interval(fits.heavy_share, fits.df.size))
            )
        # Between a finite and an infinite value there is nothing to interpolate.
        low, high = np.quantile(fits.df, [0.25, 0.75], method="nearest")
        middle = np.median(fits.df)
        name = f"degrees of freedom ν, median of Student-t fits, {whose}"
        rows.append((name, format_number(middle, 2), f"quartiles {format_interval(low, high, 2)}"))
    return rows


def _share_interval(share: float, n: int) -> str:
    low, high = share_interval(share, n)
    return f"{format_percent(low)} to {format_percent(high)}"


def _tail_rows(tree: xr.DataTree) -> list[tuple[str, str, str]]:
    if not has_group(tree, "tail_index") or "alpha" not in tree["tail_index"]:
        return []
    data = at_step(dataset(tree, "tail_index"), None).isel(estimator=0)
    alpha = data["alpha"].values.astype(float)
    if not np.isfinite(alpha).any():
        return []
    lowest = int(np.nanargmin(alpha))
    interval = "–"
    if "alpha_interval" in data:
        interval = format_interval(*data["alpha_interval"].transpose("block", "bound").values[lowest])
    name = f"lowest tail index α: {data['block'].values[lowest]} ({data['estimator'].item()})"
    return [(name, format_number(alpha[lowest], 2), interval)]


def regime_table(tree: xr.DataTree) -> Table | None:
    """Return one row a gauge and one column an optimizer, each with its value, interval and verdict."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    meanings: dict[str, dict[str, list[str]]] = {}
    names = []
    for name in optimizers_in(tree, "theory"):
        data = dataset(tree, f"theory/{name}") if has_group(tree, f"theory/{name}") else xr.Dataset()
        if not {"gauge", "gauge_value"} <= set(data.variables):
            continue
        names.append(name)
        size = data.sizes["gauge"]
        words = data["gauge_verdict"].values if "gauge_verdict" in data else [""] * size
        texts = data["gauge_meaning"].values if "gauge_meaning" in data else [""] * size
        ends = (
            data["gauge_interval"].transpose("gauge", "bound").values
            if "gauge_interval" in data
            else np.full((size, 2), np.nan)
        )
        for gauge, value, (low, high), word, text in zip(
            data["gauge"].values, data["gauge_value"].values, ends, words, texts, strict=True
        ):
            number = _gauge_number(float(value))
            number += f" ({format_interval(low, high, 2)})" if np.isfinite([low, high]).all() else ""
            found.setdefault(str(gauge), {})[name] = (number, str(word))
            meanings.setdefault(str(gauge), {}).setdefault(str(text), []).append(name)
    if not found:
        return None
    rows = [
        [
            Cell(GAUGES.get(gauge, gauge.replace("_", " "))),
            *(_gauge_cell(values.get(name)) for name in names),
            Cell(_meaning(meanings[gauge])),
        ]
        for gauge, values in found.items()
    ]
    return Table(["gauge", *names, "what it says"], rows)


def _meaning(names_by_text: dict[str, list[str]]) -> str:
    """Return what a gauge says; where it says different things of the optimizers, whom it says it of."""
    if len(names_by_text) == 1:
        return next(iter(names_by_text))
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in names_by_text.items())


def _gauge_number(value: float) -> str:
    return (
        format_number(value, 2) if value % 1 else format_number(value).removesuffix(".00").removesuffix(".0")
    )


def _gauge_cell(value: tuple[str, str] | None) -> Cell:
    if value is None:
        return Cell("–")
    return Cell(" · ".join(part for part in value if part), MOODS.get(value[1], ""))


def provenance_rows(tree: xr.DataTree) -> list[tuple[str, str]]:
    """Return what the root attributes say, except what stands elsewhere on the page."""
    elsewhere = {"title", "command", "config_json", "problem"}
    rows = []
    for name, value in tree.attrs.items():
        if name in elsewhere or value in ("", None):
            continue
        if name == "versions":
            value = ", ".join(f"{k} {v}" for k, v in _json(value).items()) or value
        if name in ("n_samples", "n_training_samples", "n_parameters") and value:
            value = format_count(int(value))
        if name == "deterministic":
            value = "yes" if value else "no"
        rows.append((str(name).replace("_", " "), str(value)))
    return rows


def configuration(tree: xr.DataTree) -> str:
    """Return the configuration of the study as indented JSON, or as it stands if it is none."""
    text = str(tree.attrs.get("config_json", ""))
    settings = _json(text)
    return json.dumps(settings, indent=2, ensure_ascii=False) if settings else text


def coverage(tree: xr.DataTree) -> tuple[str, list[str]]:
    """Return a sentence on how much of the model was recorded, and the names of what was not."""
    attrs = tree["gradient_noise"].attrs if has_group(tree, "gradient_noise") else {}
    if "coverage" not in attrs:
        return "This file does not say which share of the parameters was recorded.", []
    share = float(attrs["coverage"])
    uncovered = attrs.get("uncovered", [])
    if isinstance(uncovered, str):
        uncovered = _json(uncovered) or ([uncovered] if uncovered not in ("", "[]", "{}") else [])
    names = [str(name) for name in np.atleast_1d(list(uncovered))]
    if share >= 1:
        return "The statistics cover every trainable parameter.", names
    return f"The statistics cover {format_percent(share)} of the trainable parameters; left out:", names


def _json(text: object) -> Any:
    try:
        value = json.loads(str(text))
    except ValueError:
        return {}
    return value if isinstance(value, dict | list) else {}
