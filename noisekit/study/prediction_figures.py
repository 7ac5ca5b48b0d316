"""The numbers of a prediction."""

from __future__ import annotations

import math
from dataclasses import dataclass

from noisekit.study.curvature import Curvature
from noisekit.study.intervals import Estimate, interval, inverse, product
from noisekit.study.pace import is_set_by_momentum, steps_to_fall
from noisekit.study.setting import Setting


@dataclass(frozen=True)
class Figure:
    """One number with its 95 % interval, unit and the batch it refers to; NaN where an end is not known.

    Where the record does not tell the value, it is infinite (a noise scale, a number of steps) or NaN, and
    the ends say what it does tell.
    """

    quantity: str
    value: float
    lower: float
    upper: float
    units: str
    batch_size: int | None
    note: str


def figures_of(setting: Setting, curvature: Curvature | None) -> tuple[Figure, ...]:
    """Return the figures of one setting; what the file does not tell is left out."""
    noise, batch = setting.noise, setting.batch_size
    loss: Estimate = noise.loss, *noise.loss_interval
    rows = [Figure("training loss", *loss, "loss", noise.batch_size, _loss_note(setting))]
    scale = noise.scale
    if scale.n_samples and not setting.infinite:
        ends = scale.value, *scale.interval
        rows.append(Figure("gradient noise scale", *ends, "samples", noise.batch_size, _seen(setting)))
        note = "of what a step without noise gains, at the best learning rate"
        rows.append(Figure("progress of a step", *progress_of_a_step(setting), "1", batch, note))
    floor, error = setting.floor()
    ends = floor, *interval(floor, error)
    if math.isfinite(floor):
        note = "excess loss that the noise alone keeps up, to first order"
        if setting.hyper.optimizer == "signsgd":
            note += ", if the noise is symmetric"
        if setting.hyper.coupled_decay + setting.hyper.decoupled_decay > 0:
            note += "; without the bias of weight decay, which raises it"
        rows.append(Figure("noise floor", *ends, "loss", batch, note))
        if noise.loss > 0 and floor > 0:
            note = "below 1, the loss can still fall"
            share = product(ends, inverse(loss))
            rows.append(Figure("floor over training loss", *share, "1", batch, note))
    rows += _steps(setting, curvature, loss, ends)
    return tuple(row for row in rows if math.isfinite(row.value) or row.value == math.inf or row.upper > 0)


def progress_of_a_step(setting: Setting) -> Estimate:
    """Return 1/(1 + B_simple/B): what a step gains, as a share of one without noise.

    The value is NaN where the noise scale is not told from infinity.
    """
    scale, batch = setting.noise.scale, setting.batch_size
    low, high = scale.interval
    share, least, most = (1 / (1 + b / batch) if b >= 0 else math.nan for b in (scale.value, high, low))
    return share if scale.value < math.inf else math.nan, least, most


def _steps(setting: Setting, curvature: Curvature | None, loss: Estimate, floor: Estimate) -> list[Figure]:
    """Return the steps to 1/e and to the floor, along the sharpest direction."""
    fold = steps_to_fall(setting, curvature)
    if curvature is None or math.isnan(fold[0]):
        return []
    batch = setting.batch_size
    note = "until the excess loss of the sharpest direction has fallen to 1/e"
    if fold[0] < math.inf and is_set_by_momentum(setting, curvature):
        note += ", which the momentum sets at this learning rate"
    if curvature.source == "given":
        note += "; the curvature is taken as given"
    if math.isnan(fold[1]):
        note += "; the file does not say how well it knows the curvature: record anew, or give --sharpness"
    rows = [Figure("steps to 1/e", *fold, "steps", batch, note)]
    if fold[0] < math.inf and floor[0] > 0 and loss[0] > floor[0]:
        ratio, low, high = product(loss, inverse(floor))
        folds = _folds(ratio), _folds(low), _folds(high)
        note = "in the sharpest direction; one that is 100 times flatter takes 100 times as many"
        rows.append(Figure("steps to the floor", *_times(fold, folds), "steps", batch, note))
    return rows


def _folds(ratio: float) -> float:
    """Return ln of a ratio of at least 1."""
    return math.log(max(ratio, 1.0)) if ratio > 0 else math.nan


def _times(fold: Estimate, folds: Estimate) -> Estimate:
    """Return the product where its second factor may be 0, which has no logarithm."""
    if folds[1] > 0:
        return product(fold, folds)
    value, high = fold[0] * folds[0], fold[2] * folds[2]
    return value, math.nan if math.isnan(high) else 0.0, high


def _loss_note(setting: Setting) -> str:
    noise = setting.noise
    where = f"at step {int(noise.step[-1])}"
    if math.isnan(noise.loss_interval[0]):
        return f"{where}, of one batch; five recorded steps would give an interval"
    return f"{where}, by the trend of the last recorded batches"


def _seen(setting: Setting) -> str:
    scale = setting.noise.scale
    steps = f"at the last step, from {scale.n_samples} recorded ones"
    if scale.identifiable:
        return f"{steps}; at this batch, noise and signal are equal"
    return f"{steps}, too few to tell the signal from 0; only the lower end means something"
