"""The gauges of a prediction: whether its theory applies, with the intervals that the file gives."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from noisekit.noise import NoiseScale
from noisekit.noise.drift import noise_drift
from noisekit.study.curvature import Curvature
from noisekit.study.pace import strength
from noisekit.study.setting import Setting, Tail
from noisekit.theory import Gauge, regimes
from noisekit.theory.regimes import Verdict, signal_meanings

_DRIFT_STEPS = 16


def gauges_of(setting: Setting, curvature: Curvature | None, tail: Tail | None) -> tuple[Gauge, ...]:
    """Return the gauges of ``regimes`` that the file has the numbers for."""
    hyper, noise, scale = setting.effective, setting.noise, setting.noise.scale
    variance: Any = None
    if noise.noise is not None and not setting.infinite:
        variance = noise.coordinate_variance(setting.batch_size)
    elif not setting.infinite:
        variance = [noise.typical_deviation(setting.batch_size) ** 2]
    known = curvature is not None and not (setting.infinite and hyper.optimizer != "signsgd")
    finite = not setting.infinite
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
        n_samples=noise.batch_size * scale.n_samples if known_scale else None,
        noise_scale=scale.value if known_scale else None,
    )
    rows = [_with_interval(g, setting, curvature, tail) for g in rows]
    rows = [g for g in rows if g.name != "momentum_lag" or g.value > 0]
    if finite and scale.n_samples and scale.value > 0:
        rows.insert(0, _signal(setting))
    drift = _drift(setting) if finite else None
    return tuple(rows if drift is None else [*rows, drift])


def _with_interval(gauge: Gauge, setting: Setting, curvature: Curvature | None, tail: Tail | None) -> Gauge:
    """Return the gauge with what the file knows of its error; settings themselves have none."""
    if gauge.name == "tail" and tail is not None:
        meaning = gauge.meaning.replace("of ν", f"of {tail.symbol[0]}")
        low, high = tail.lower, tail.upper
        return replace(gauge, symbol=tail.symbol, meaning=meaning, value=tail.value, lower=low, upper=high)
    if gauge.name in ("eta_lambda_max", "momentum_friction") and curvature is not None:
        kappa, low, high = strength(setting, curvature)
        return between(gauge, low / kappa, high / kappa) if kappa > 0 else gauge
    if gauge.name == "noise_scale_identified":
        return identified_between(gauge, setting.noise.scale)
    return gauge


def identified_between(gauge: Gauge, scale: NoiseScale) -> Gauge:
    """Return the gauge N/B_simple with the interval of B_simple."""
    low, high = scale.interval
    return between(gauge, scale.value / high, scale.value / low if low > 0 else math.inf)


def between(gauge: Gauge, least: float, most: float) -> Gauge:
    """Return the gauge with an interval from ``least`` to ``most`` times its value."""
    return replace(gauge, lower=gauge.value * least, upper=gauge.value * most)


def _signal(setting: Setting) -> Gauge:
    """Return |∇f|²/Tr Σ of a minibatch, over all parameters at once, from the noise scale."""
    scale, batch, limit = setting.noise.scale, setting.batch_size, 0.1
    low, high = scale.interval
    ratio, least, most = batch / scale.value, batch / high, batch / low if low > 0 else math.inf
    verdict: Verdict = "warning"
    good, warning = signal_meanings(setting.hyper.optimizer)
    if setting.hyper.optimizer == "sgd":
        verdict, meaning = "ok", good
    elif ratio > limit:
        meaning = warning
    elif most > limit:
        meaning = (
            "noise seems to dominate, as batch-size rules and floors assume, but the record is too short to "
            "rule out the upper end"
        )
    else:
        verdict, meaning = "ok", good
    meaning = f"over all parameters; {meaning}"
    return Gauge("signal_over_noise", "|∇f|²/Tr Σ", ratio, limit, verdict, meaning, least, most)


def _drift(setting: Setting) -> Gauge | None:
    """Return the factor by which Tr Σ changed over the last recorded steps; None with fewer than 8."""
    noise = setting.noise
    step, trace = noise.step_over_time[-_DRIFT_STEPS:], noise.trace_over_time[-_DRIFT_STEPS:]
    found = noise_drift(torch.tensor(step), torch.tensor(trace))
    low, high = found.interval
    if math.isnan(found.ratio):
        return None
    symbol = "Tr Σ, last over first"
    moved = max(found.ratio, 1 / found.ratio) > 2 and not low <= 1 <= high
    meaning = (
        "the noise changes over the last recorded steps: what is said here holds near the end only"
        if moved
        else f"the noise is nearly constant over the last {found.n_steps} recorded steps"
    )
    verdict: Verdict = "warning" if moved else "ok"
    return Gauge("noise_drift", symbol, found.ratio, 2.0, verdict, meaning, low, high)
