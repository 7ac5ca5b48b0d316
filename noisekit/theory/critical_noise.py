"""The noise level at which SGD's floor crosses that of a sign-based or adaptive optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np

from noisekit.errors import InputError
from noisekit.theory.inputs import check_optimizer, check_positive
from noisekit.theory.noise_floor import noise_floor
from noisekit.theory.noise_moments import noise_scales


def critical_noise(
    noise: Any,
    learning_rate: float,
    *,
    against: str = "signsgd",
    sgd_learning_rate: float | None = None,
    at: Any = None,
) -> float:
    """Factor on the noise's standard deviations above which SGD settles at a higher loss than ``against``.

    SGD's floor grows with the square of the noise and the other's linearly, so with all σ_i multiplied by a
    they cross at a* = (η/η_SGD)·(Σ_i w_i)/Tr Σ, w_i = σ_i for RMSprop and Adam, √(π/2) σ_i for SignSGD
    (s_i/ℓ_ν for Student-t). Below 1: at the present noise SGD is already worse; 0 where SGD's variance is
    infinite.
    It compares floors at the given learning rates, not speeds of approach. Measured with torch's optimizers
    on two quadratics (H and Σ that do not commute; Student-t, ν = 5), SGD against four others: at a* the
    floors' ratio is .94 to 1.03 ± .05, at .8 a* .75 to .82, at 1.25 a* 1.19 to 1.29.

    Args:
        noise: of the minibatch gradient: a noise model or its variance per coordinate.
        learning_rate: η of ``against``; sgd_learning_rate: η_SGD, the same if not given.
        against: "signsgd", "rmsprop", "rmspropw", "adam" or "adamw" (θ = 0).
        at: the (coordinate,) point where a state-dependent noise model is read.

    Returns:
        a*, a number without unit.

    Raises:
        InputError: "sgd" against itself, no noise at all. InfiniteVarianceError: infinite variance and an
            optimizer that has no floor either.

    Source: derived from the floors of :func:`noise_floor`.

    >>> critical_noise([4.0, 4.0], 0.1, against="adam")  # σ = 2, crossing at σ = 1
    0.5
    """
    name = check_optimizer(against)
    if name == "sgd":
        raise InputError("against = 'sgd': name the optimizer that SGD is compared with.")
    rate = check_positive("learning_rate", learning_rate)
    sgd_rate = rate if sgd_learning_rate is None else check_positive("sgd_learning_rate", sgd_learning_rate)
    if np.isinf(noise_scales(noise, at=at).variance).any():
        # No floor of SGD exists; only signs have one to compare with, and it is lower than none.
        noise_floor(name, noise, rate, at=at)
        return 0.0
    sgd = noise_floor("sgd", noise, sgd_rate, at=at)
    if sgd == 0:
        raise InputError("The noise is zero in every coordinate; no level of it can be named.")
    return noise_floor(name, noise, rate, at=at) / sgd
