"""Gauges that say whether the theory holds where it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from noisekit.errors import InputError
from noisekit.sde.stability import stability_limit
from noisekit.theory.hyperparameters import Hyperparameters, check_hyperparameters, check_variant
from noisekit.theory.inputs import Array, as_array, as_finite, as_number, check_count, check_positive
from noisekit.theory.noise_moments import noise_scales
from noisekit.theory.phases import signsgd_phase

Verdict = Literal["ok", "warning", "refused"]


@dataclass(frozen=True)
class Gauge:
    """One gauge: its ``name``, ``symbol``, ``value``, where it warns, the verdict, what it means.

    ``lower`` and ``upper`` are the 95 % interval of a value that was estimated with one, else NaN.
    """

    name: str
    symbol: str
    value: float
    limit: float
    verdict: Verdict
    meaning: str
    lower: float = float("nan")
    upper: float = float("nan")


def regimes(
    optimizer: str,
    learning_rate: float,
    *,
    gradient: Any = None,
    noise: Any = None,
    sharpness: float | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    beta: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    df: Any = None,
    df_interval: Any = None,
    noise_trace: Any = None,
    n_samples: int | None = None,
    noise_scale: float | None = None,
    substeps: int | None = None,
    at: Any = None,
    variant: str | None = None,
) -> list[Gauge]:
    """Gauges to print beside a prediction; each needs what it is computed from and is left out without it.

    signal_over_noise (∇f)²/diag Σ, noise_phase (SignSGD), eta_lambda_max, momentum_friction ηλ_max/(1−μ) (SGD
    with momentum), momentum_lag θη/(1−β₁) and 1−β₁ (Adam), memory 1−β₂, tail ν̂, noise_drift over the recorded
    window, noise_scale_identified N/B_simple, substeps.

    Args:
        optimizer, learning_rate, betas, beta, eps, weight_decay, momentum: as in :func:`stationary_law`.
        gradient: full gradient, (coordinate,).
        noise: of the minibatch gradient, a model or its variance (coordinate,).
        sharpness: λ_max, largest eigenvalue of the Hessian.
        df: fitted degrees of freedom per coordinate; df_interval (coordinate, 2) their 95 % interval.
        noise_trace: Tr Σ at the recorded steps, (step,), at least two.
        n_samples: N, samples that the noise scale was estimated from; noise_scale: B_simple.
        substeps: integration steps for one optimizer step.
        at: the point at which a state-dependent noise model is read.
        variant: of the SDE that is to predict, as in :func:`stationary_law`.

    Returns:
        One :class:`Gauge` a row; ``[dataclasses.asdict(g) for g in rows]`` is a table.

    Raises:
        InputError: what :func:`stationary_law` refuses, sizes that differ, an interval upside down.

    Source: conditions of Compagnoni et al. 2025, arXiv 2411.15958, and Malladi et al. 2022, arXiv 2205.10287;
        B_simple of McCandlish et al. 2018, arXiv 1812.06162; limits chosen here.

    >>> [(g.name, g.value, g.verdict) for g in regimes("sgd", 0.1, sharpness=30.0)]
    [('eta_lambda_max', 3.0, 'refused')]
    """
    hyper = check_hyperparameters(
        optimizer,
        learning_rate,
        betas=betas,
        beta=beta,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
    )
    chosen = check_variant(hyper, variant)
    rows: list[Gauge] = []
    variance = None
    if noise is not None:
        size = None if gradient is None or at is not None else as_finite("gradient", gradient).size
        variance = noise_scales(noise, size, at).variance
    if gradient is not None and noise is not None and variance is not None:
        rows += _signal(hyper, as_finite("gradient", gradient).reshape(-1), variance)
        if hyper.optimizer == "signsgd":
            rows.append(_phase(gradient, noise, at))
    if sharpness is not None:
        rows.append(_stability(hyper, as_number("sharpness", sharpness), variance))
        if hyper.optimizer == "sgd" and hyper.has_momentum:
            rows.append(_friction(hyper, sharpness, chosen))
    rows += _memory(hyper)
    if df is not None or df_interval is not None or (variance is not None and np.isinf(variance).any()):
        rows.append(_tail(hyper, df, df_interval, variance))
    if noise_trace is not None:
        rows.append(_drift(as_finite("noise_trace", noise_trace).reshape(-1)))
    if n_samples is not None and noise_scale is not None:
        rows.append(_identified(check_count("n_samples", n_samples), noise_scale))
    if substeps is not None:
        rows.append(_substeps(check_count("substeps", substeps)))
    return rows


def _gauge(name: str, symbol: str, value: float, limit: float, bad: bool, good: str, warning: str) -> Gauge:
    return Gauge(name, symbol, float(value), limit, "warning" if bad else "ok", warning if bad else good)


def _signal(hyper: Hyperparameters, gradient: Array, variance: Array) -> list[Gauge]:
    if gradient.size != variance.size:
        raise InputError(
            f"gradient has {gradient.size} coordinates, the noise {variance.size}; make them equal."
        )
    live = variance > 0
    ratio = float(np.median(gradient[live] ** 2 / variance[live])) if live.any() else float("inf")
    good, warning = signal_meanings(hyper.optimizer)
    bad = hyper.optimizer != "sgd" and ratio > 0.1
    where = "median over coordinates; "
    return [_gauge("signal_over_noise", "(∇f)²/diag Σ", ratio, 0.1, bad, where + good, where + warning)]


def signal_meanings(optimizer: str) -> tuple[str, str]:
    """Return what it means that noise dominates the gradient, and that it does not."""
    if optimizer == "sgd":
        text = (
            "SGD's SDE and batch-size rule hold at any: what they need is a small ηλ_max, after scaling too"
        )
        return text, text
    if optimizer == "signsgd":
        return (
            "noise dominates, where SignSGD is linear, so batch-size rules and floors apply",
            "signs saturate where the gradient is as large as the noise: batch-size rules are off by about "
            "this share",
        )
    return (
        "noise dominates, so batch-size rules, floors and the malladi variant apply",
        "the gradient is seen in the second moment: scaling rules, floors and the malladi variant, which "
        "leave (∇f)² out, are off by about this share",
    )


def _phase(gradient: Any, noise: Any, at: Any) -> Gauge:
    inside = signsgd_phase(gradient, noise, at=at).fraction[3]
    return _gauge(
        "noise_phase",
        "share |Y| < 1",
        inside,
        0.9,
        inside < 0.9,
        "nearly all coordinates are inside the noise, where SignSGD is linear and its stationary law holds",
        "part of the coordinates is outside the noise, where SignSGD is not linear: integrate its SDE, and "
        "read stationary laws and floors as the end of the run only",
    )


def _stability(hyper: Hyperparameters, sharpness: float, variance: Array | None) -> Gauge:
    if not np.isfinite(sharpness):
        raise InputError(f"sharpness = {sharpness}: the largest Hessian eigenvalue must be finite.")
    speed, symbol = 1.0, "ηλ_max"
    if variance is not None:
        variance = variance[variance > 0]  # dead coordinates do not move
        variance = variance if variance.size and np.isfinite(variance).all() else None
    if hyper.is_adaptive and variance is not None:
        speed, symbol = 1 / (float(np.sqrt(np.median(variance))) + hyper.eps), "ηλ_max/median P"
    if hyper.optimizer == "signsgd" and variance is not None:
        speed, symbol = float(np.sqrt(2 / np.pi / np.median(variance))), "ηλ_max ℓ/median σ"
    value = hyper.learning_rate * sharpness * speed
    limit = stability_limit(1.0, hyper.momentum)
    refused = hyper.optimizer == "sgd" and value >= limit
    verdict: Verdict = "refused" if refused else "warning" if value > 0.5 else "ok"
    meaning = {
        "ok": "learning rate times sharpness; the SDE follows the optimizer closely",
        "warning": "learning rate times sharpness; an SDE does not see steps that jump across the minimum",
        "refused": f"at {limit:.3g} SGD is unstable along the sharpest direction, which no SDE shows",
    }[verdict]
    return Gauge("eta_lambda_max", symbol, value, 0.5, verdict, meaning)


def _friction(hyper: Hyperparameters, sharpness: float, variant: str) -> Gauge:
    """Return by which share the friction of the ``consistent`` equation of momentum is too large."""
    value = hyper.learning_rate * sharpness / (1 - hyper.momentum)
    extra = "share of friction that the 'consistent' equation of momentum has too much"
    return _gauge(
        "momentum_friction",
        "ηλ_max/(1−μ)",
        value,
        0.05,
        variant == "consistent" and value > 0.05,
        extra if variant == "consistent" else f"{extra}; {variant!r} has the optimizer's",
        f"{extra}: motion dies out, and the loss at rest is too low, by a factor of 1 + this; use "
        "variant='midpoint', the default",
    )


def _memory(hyper: Hyperparameters) -> list[Gauge]:
    rows = []
    if hyper.optimizer.startswith("adam"):
        decay = hyper.decoupled_decay * hyper.learning_rate / (1 - hyper.momentum)
        rows.append(
            _gauge(
                "momentum_lag",
                "θη/(1−β₁)",
                decay,
                0.05,
                decay > 0.05,
                "weight decay is slow beside the momentum, so the published AdamW law applies",
                "the momentum lags behind the decay: the published AdamW law is off by about this share; "
                "use source='discrete' or variant='lag'",
            )
        )
        rows.append(
            _gauge(
                "momentum_step",
                "1−β₁",
                1 - hyper.momentum,
                0.2,
                1 - hyper.momentum > 0.2,
                "the momentum averages many steps",
                "the momentum averages few steps: its published SDE loses part of the noise (the variance of "
                "x shrinks by β₁²); use the consistent variant",
            )
        )
    if hyper.is_adaptive:
        rows.append(
            _gauge(
                "second_moment_step",
                "1−β₂",
                1 - hyper.beta,
                0.05,
                1 - hyper.beta > 0.05,
                "the second moment averages many steps and is nearly constant",
                "the second moment fluctuates: laws that freeze V are off by some tenths of this share",
            )
        )
    return rows


def _tail(hyper: Hyperparameters, df: Any, interval: Any, variance: Array | None) -> Gauge:
    if interval is not None:
        bounds = as_array("df_interval", interval)
        if bounds.shape[-1:] != (2,):
            raise InputError(
                f"df_interval has shape {bounds.shape}; lower and upper ends (coordinate, 2) are needed."
            )
        bounds = bounds.reshape(-1, 2)
        if (bounds[:, 0] < 0).any() or (bounds[:, 0] > bounds[:, 1]).any():
            raise InputError(
                "df_interval has a lower end below 0 or above its upper end; put the lower end first."
            )
        value, surely = float(np.min(bounds[:, 0])), bool((bounds[:, 1] <= 2).any())
    elif df is not None:
        value = float(np.min(as_array("df", df)))
        if value <= 0:
            raise InputError(f"df has the value {value:g}; degrees of freedom are positive.")
        surely = value <= 2
    else:
        value, surely = 2.0, True
    infinite = surely or (variance is not None and bool(np.isinf(variance).any()))
    if infinite and hyper.optimizer != "signsgd":
        return Gauge(
            "tail",
            "ν̂",
            value,
            2.0,
            "refused",
            f"infinite noise variance: {hyper.optimizer} has no SDE; use signsgd",
        )
    if value <= 2 and hyper.optimizer != "signsgd":
        text = "the interval of ν reaches 2, where the variance is infinite: collect more samples"
        return Gauge("tail", "ν̂", value, 2.0, "warning", text)
    text = "heavy tails are no trouble for signs" if value <= 2 else "the noise variance is finite"
    return Gauge("tail", "ν̂", value, 2.0, "ok", text)


def _drift(trace: Array) -> Gauge:
    if trace.size < 2 or (trace <= 0).any():
        raise InputError("noise_trace needs at least two positive values, one a recorded step.")
    value = float(trace.max() / trace.min())
    return _gauge(
        "noise_drift",
        "max Tr Σ / min Tr Σ",
        value,
        2.0,
        value > 2,
        "the noise is nearly constant over the window",
        "the noise changes over the window: use MinibatchNoise, or a shorter window; pooled fits look "
        "heavy-tailed when the scale moves",
    )


def _identified(n_samples: int, noise_scale: float) -> Gauge:
    value = n_samples / check_positive("noise_scale", noise_scale)
    return _gauge(
        "noise_scale_identified",
        "N/B_simple",
        value,
        1.0,
        value < 1,
        "the samples see the gradient through the noise",
        "fewer samples than the noise scale: the noise scale is not identified; collect more samples",
    )


def _substeps(substeps: int) -> Gauge:
    return _gauge(
        "substeps",
        "η/dt",
        substeps,
        2.0,
        substeps < 2,
        "the SDE is integrated below the optimizer's step",
        "one integration step per optimizer step: this is a surrogate of the optimizer, not its SDE",
    )
