"""The numbers of a prediction, and the gauges that say whether its theory applies."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from noisekit.study.curvature import Curvature
from noisekit.study.setting import Setting, Tail
from noisekit.theory import Gauge, regimes


@dataclass(frozen=True)
class Figure:
    """One number with its 95 % interval, unit and the batch it refers to; NaN where an end is not known."""

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
    nan = math.nan
    last = int(noise.step[-1])
    rows = [
        Figure("training loss", noise.loss, nan, nan, "loss", noise.batch_size, f"recorded at step {last}")
    ]
    scale = noise.scale
    low, high = scale.interval
    if scale.n_samples and not setting.infinite:
        rows.append(
            Figure(
                "gradient noise scale", scale.value, low, high, "samples", noise.batch_size, _seen(setting)
            )
        )
        ends = (scale.value, high, low)
        share, least, most = (1 / (1 + value / batch) if value >= 0 else nan for value in ends)
        note = "of what a step without noise gains, at the best learning rate"
        rows.append(Figure("progress of a step", share, least, most, "1", batch, note))
    floor, error = setting.floor()
    if math.isfinite(floor):
        low, high = interval(floor, error)
        note = "excess loss that the noise alone keeps up, to first order"
        if setting.hyper.optimizer == "signsgd":
            note += ", if the noise is symmetric"
        rows.append(Figure("noise floor", floor, low, high, "loss", batch, note))
        if noise.loss > 0:
            share, least, most = floor / noise.loss, low / noise.loss, high / noise.loss
            note = "below 1, the loss can still fall"
            rows.append(Figure("floor over training loss", share, least, most, "1", batch, note))
    fold = steps_to_fall(setting, curvature)
    if not math.isnan(fold):
        note = "until the excess loss of the sharpest direction has fallen to 1/e"
        rows.append(Figure("steps to 1/e", fold, nan, nan, "steps", batch, note))
    if fold < math.inf and floor > 0 and noise.loss > floor:
        note = "in the sharpest direction; one that is 100 times flatter takes 100 times as many"
        steps = fold * math.log(noise.loss / floor)
        rows.append(Figure("steps to the floor", steps, nan, nan, "steps", batch, note))
    return tuple(row for row in rows if math.isfinite(row.value) or row.value == math.inf)


def interval(value: float, error: float) -> tuple[float, float]:
    """Return the 95 % interval of a positive number with a standard error, symmetric in its logarithm."""
    if not (value > 0 and error >= 0):
        return math.nan, math.nan
    spread = math.exp(min(1.96 * error / value, 700.0))
    return value / spread, value * spread


def steps_to_fall(setting: Setting, curvature: Curvature | None) -> float:
    """Return the steps to 1/e along the sharpest direction, NaN where the curvature is not known."""
    return math.nan if curvature is None else setting.steps_to_fall(curvature.value)


def gauges_of(setting: Setting, curvature: Curvature | None, tail: Tail | None) -> tuple[Gauge, ...]:
    """Return the gauges of ``regimes`` that the file has the numbers for."""
    hyper, noise, scale = setting.hyper, setting.noise, setting.noise.scale
    variance: Any = None
    if noise.noise is not None and not setting.infinite:
        variance = noise.coordinate_variance(setting.batch_size)
    elif not setting.infinite:
        variance = [noise.typical_deviation(setting.batch_size) ** 2]
    known = curvature is not None and not (setting.infinite and hyper.optimizer != "signsgd")
    traces, finite = noise.trace.sum(axis=1), not setting.infinite
    known_scale = finite and 0 < scale.value < math.inf
    rows = regimes(
        hyper.optimizer,
        hyper.learning_rate,
        noise=variance,
        sharpness=curvature.value if curvature is not None and known else None,
        betas=(hyper.momentum if hyper.optimizer.startswith("adam") else 0.9, hyper.beta),
        beta=hyper.beta,
        eps=hyper.eps,
        weight_decay=hyper.decoupled_decay or hyper.coupled_decay,
        momentum=hyper.momentum if hyper.optimizer == "sgd" else 0.0,
        df_interval=None if tail is None else [[tail.lower, tail.upper]],
        noise_trace=traces if finite and len(traces) > 1 and (traces > 0).all() else None,
        n_samples=noise.batch_size * scale.n_samples if known_scale else None,
        noise_scale=scale.value if known_scale else None,
    )
    if tail is not None:
        rows = [_named(g, tail) if g.name == "tail" else g for g in rows]
    rows = [g for g in rows if g.name != "momentum_lag" or g.value > 0]
    if finite and scale.n_samples and scale.value > 0:
        rows.insert(0, _signal(setting))
    return tuple(rows)


def _named(gauge: Gauge, tail: Tail) -> Gauge:
    """Return the gauge of the tail under the name of what was estimated."""
    meaning = gauge.meaning.replace("of ν", f"of {tail.symbol[0]}")
    return replace(gauge, symbol=f"{tail.symbol}, lower end", meaning=meaning)


def _signal(setting: Setting) -> Gauge:
    """Return |∇f|²/Tr Σ of a minibatch, over all parameters at once, from the noise scale."""
    ratio = setting.batch_size / setting.noise.scale.value
    seen = ratio > 0.1
    where = (
        "seen in the second moment: scaling rules, and floors of RMSprop and Adam, which leave (∇f)² out, "
        "are off by about this share"
        if setting.hyper.is_adaptive
        else "not small beside the noise of a batch, as batch-size rules assume"
    )
    meaning = (
        f"over all parameters; the gradient is {where}"
        if seen
        else "over all parameters; noise dominates, so batch-size rules and floors apply"
    )
    return Gauge("signal_over_noise", "|∇f|²/Tr Σ", ratio, 0.1, "warning" if seen else "ok", meaning)


def _seen(setting: Setting) -> str:
    scale = setting.noise.scale
    steps = f"over the last {scale.n_samples} recorded steps"
    if scale.identifiable:
        return f"{steps}; at this batch, noise and signal are equal"
    return f"{steps}, too few to tell the signal from 0; only the lower end means something"
