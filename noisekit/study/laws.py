"""What closed forms say about an optimizer where the comparison starts, and whether they apply there."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from noisekit.gradients import GradientRecord
from noisekit.noise import NoiseScale, RecordNoiseScale
from noisekit.problems import Problem
from noisekit.results.records import BOUNDS
from noisekit.study.config import StudyConfig
from noisekit.study.curvature import Curvature
from noisekit.study.equations import study_noise
from noisekit.study.prediction_gauges import between, identified_between
from noisekit.theory import Gauge, noise_floor, regimes, signsgd_phase


def laws(
    name: str,
    problem: Problem,
    x: Tensor,
    config: StudyConfig,
    *,
    curvature: Curvature,
    record: GradientRecord | None = None,
    scale: RecordNoiseScale | None = None,
) -> dict[str, Any]:
    """Return noise floor, gauges and, for SignSGD, phases at ``x``, by the names of the file schema.

    Arguments: ``x`` (coordinate,); ``curvature`` the largest eigenvalue of the Hessian there; ``record`` and
    ``scale`` of the training run, for the gauge of the noise scale.
    """
    rate = config.learning_rate(name)
    noise = study_noise(name, problem, config)
    variance = noise.variance(x[None])[0]
    gradient = problem.gradient(x[None])[0]
    known: dict[str, Any] = {}
    whole = None if scale is None else scale.at_end[scale.block[-1]]
    if record is not None and whole is not None and np.isfinite(whole.value):
        known = {"n_samples": record.batch_size * whole.n_samples, "noise_scale": whole.value}
    gauges = regimes(
        name,
        rate,
        gradient=gradient,
        noise=variance,
        sharpness=curvature.value if np.isfinite(curvature.value) else None,
        weight_decay=config.weight_decay,
        substeps=config.substeps,
        **known,
    )
    gauges = [_with_interval(g, curvature, whole) for g in gauges]
    law: dict[str, Any] = {
        "noise_floor": noise_floor(name, variance, rate),
        "gauge": np.array([g.name for g in gauges]),
        "gauge_value": np.array([g.value for g in gauges]),
        "gauge_interval": np.array([[g.lower, g.upper] for g in gauges]),
        "bound": BOUNDS,
        "gauge_limit": np.array([g.limit for g in gauges]),
        "gauge_symbol": np.array([g.symbol for g in gauges]),
        "gauge_verdict": np.array([g.verdict for g in gauges]),
        "gauge_meaning": np.array([g.meaning for g in gauges]),
        **curvature.as_attributes(),
        "where": "where training ended and the comparison starts",
        "batch_size": config.batch_size,
    }
    if name == "signsgd":
        fraction = signsgd_phase(gradient, variance).fraction
        law |= {"phase": np.array(list(fraction)), "phase_fraction": np.array(list(fraction.values()))}
    return law


def _with_interval(gauge: Gauge, curvature: Curvature, scale: NoiseScale | None) -> Gauge:
    """Return the gauge with the interval of what it is estimated from.

    Settings have no error, and noise and gradient are those of all the samples that are compared.
    """
    if gauge.name == "eta_lambda_max" and curvature.value > 0:
        return between(gauge, max(curvature.lower / curvature.value, 0.0), curvature.upper / curvature.value)
    if gauge.name == "noise_scale_identified" and scale is not None:
        return identified_between(gauge, scale)
    return gauge
