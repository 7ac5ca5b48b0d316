"""Upper bounds of the mean excess loss on strongly convex losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from scipy.special import erf

from noisekit.errors import InputError
from noisekit.theory.inputs import (
    DECOUPLED,
    Array,
    as_finite,
    check_count,
    check_optimizer,
    check_positive,
    check_schedule,
)

# Secant of erf on [1, 3/2]: it lies below erf there, so (m|Y| + q) bounds |E sign| from below.
SECANT_SLOPE = float((erf(1.5) - erf(1.0)) / 0.5)
SECANT_INTERCEPT = float(erf(1.0) - SECANT_SLOPE)


def loss_bound(
    optimizer: str,
    steps: Any,
    *,
    learning_rate: float,
    initial_excess: float,
    strong_convexity: float,
    hessian_trace: float,
    noise_std: float,
    smoothness: float | None = None,
    weight_decay: float = 0.0,
    phase: Literal[1, 2, 3] = 3,
    slope: Literal["secant", "tangent"] = "secant",
    dimension: int | None = None,
    schedule: Callable[[int], float] | None = None,
) -> Array:
    """Upper bound of E S, S = f − f*, after ``steps`` steps, if μ ≤ ∇²f ≤ L and Tr ∇²f ≤ L_τ.

    E S_t ≤ S₀ e^{−rt} + F(1 − e^{−rt}), t = ηk, F = (η/2)W/r, with rate r and noise W

    - SGD: r = 2μ, W = L_τσ²;
    - SignSGD phase 3 (|Y| < 1): r = 2μ(m√½/σ + ημm²/(4σ²)), W = L_τ, where erf(|Y|) ≥ m|Y|: the secant
      m = erf(1), a bound as long as every coordinate is in the phase, or the tangent m = 2/√π of the paper,
      which is the limit of small |Y| but not an upper bound (erf is concave);
    - SignSGD phase 2 (1 < |Y| < 3/2): the same with the secant m = .2468, W = L_τ − μd q², q = .5959;
    - SignSGD phase 1 (|Y| > 3/2): (√S₀ − q t√(μ/2))² + (η/2)L_τ(1 − q²) t, with |E sign g| ≥ q = erf(3/2)
      for "secant"; q = 1, the limit of large |Y|, for "tangent", which is exceeded by 1.4 % near |Y| = 3/2;
    - RMSpropW, AdamW: r = 2μ/σ + θ(1 + μ/L), W = L_τ; RMSprop, Adam (θ an L2 term): r = 2μ/σ + θ(1 + μ/L)/σ.
      With decoupled decay F stays below ηL_τ/(2θ) for every σ; with L2 it grows with σ.

    With ``schedule`` the learning rate of step k is η·schedule(k); r and F then follow it step by step,
    and for a slow schedule the bound follows F·schedule(k): ηη_t L_τσ²/(4μ) for SGD.

    Args:
        steps: optimizer steps k ≥ 0, a number or an array.
        initial_excess: S₀ = f(x₀) − f*.
        strong_convexity: μ, smallest Hessian eigenvalue. hessian_trace: L_τ.
        smoothness: L, largest Hessian eigenvalue, needed with decay.
        noise_std: σ = σ_max, largest standard deviation of the minibatch gradient over coordinates.
        weight_decay: θ; the minimum must then lie at x = 0. dimension: d, needed in phase 2.

    Returns:
        The bound at each step, float64 of the shape of ``steps``, in units of the loss.

    Raises:
        InputError: numbers that no loss has; weight decay of SGD or SignSGD, for which there is no bound.

    Source: Compagnoni et al. 2025, arXiv 2411.15958, Lemmas 3.4–3.6; phase 1 sharper, secants derived.

    >>> loss_bound("sgd", 10**6, learning_rate=0.1, initial_excess=1.0, strong_convexity=1.0,
    ...            hessian_trace=1.0, noise_std=1.0).item()  # ηL_τσ²/(4μ)
    0.025
    """
    name = check_optimizer(optimizer)
    eta, mu = (
        check_positive("learning_rate", learning_rate),
        check_positive("strong_convexity", strong_convexity),
    )
    sigma, trace = check_positive("noise_std", noise_std), check_positive("hessian_trace", hessian_trace)
    start = check_positive("initial_excess", initial_excess, zero=True)
    decay = check_positive("weight_decay", weight_decay, zero=True)
    if mu > trace * (1 + 1e-9):
        raise InputError(
            f"hessian_trace = {trace:g} is below the smallest eigenvalue {mu:g}, which no Hessian has."
        )
    if decay and name in ("sgd", "signsgd"):
        raise InputError(f"There is no bound of {name} with weight decay; leave weight_decay out.")
    if decay and smoothness is None:
        raise InputError("smoothness = None: weight decay needs the largest Hessian eigenvalue L; give it.")
    check_schedule(schedule)
    if check_count("phase", phase) > 3:
        raise InputError(f"phase = {phase}: SignSGD has the phases 1, 2 and 3.")
    tangent = _is_tangent(slope)
    if smoothness is not None and check_positive("smoothness", smoothness) < mu * (1 - 1e-9):
        raise InputError(f"smoothness = {smoothness:g} is below the smallest eigenvalue μ = {mu:g}; L ≥ μ.")
    dimension = None if dimension is None else check_count("dimension", dimension)
    k = as_finite("steps", steps)
    if (k < 0).any():
        raise InputError(f"steps has the value {k.min():g}; numbers of steps from 0 up are needed.")
    if name == "signsgd" and phase == 1:
        if schedule is not None:
            raise InputError(
                "The bound of phase 1 has no schedule; leave schedule out or choose another phase."
            )
        speed = 1.0 if tangent else float(erf(1.5))
        falling = np.maximum(np.sqrt(start) - speed * eta * k * np.sqrt(mu / 2), 0) ** 2
        return falling + eta / 2 * trace * (1 - speed**2) * eta * k

    def rate_and_noise(factor: float) -> tuple[float, float]:
        step = eta * factor
        if name == "sgd":
            return 2 * mu, trace * sigma**2
        if name == "signsgd":
            return _signsgd(step, mu, sigma, trace, phase, tangent, dimension)
        per_sigma = 1.0 if name in DECOUPLED else sigma
        share = 1 + mu / smoothness if decay and smoothness else 0.0
        return 2 * mu / sigma + decay * share / per_sigma, trace

    if schedule is None:
        rate, noise = rate_and_noise(1.0)
        gone = -np.expm1(-rate * eta * k)
        return start * (1 - gone) + eta / 2 * noise / rate * gone
    return _scheduled(k, start, eta, schedule, rate_and_noise)


def _scheduled(
    k: Array,
    start: float,
    eta: float,
    schedule: Callable[[int], float],
    rate_and_noise: Callable[[float], tuple[float, float]],
) -> Array:
    last = int(k.max(initial=0))
    bound = np.empty(last + 1)
    bound[0] = start
    for i in range(last):
        factor = check_positive(f"schedule({i})", schedule(i), zero=True)
        rate, noise = rate_and_noise(factor)
        gone = -np.expm1(-rate * eta * factor)
        bound[i + 1] = bound[i] * (1 - gone) + eta * factor / 2 * noise / rate * gone
    return np.interp(k, np.arange(last + 1), bound)


def _signsgd(
    eta: float, mu: float, sigma: float, trace: float, phase: int, tangent: bool, dimension: int | None
) -> tuple[float, float]:
    if phase == 2:
        if dimension is None:
            raise InputError("The bound of phase 2 needs dimension=d, the number of coordinates; give it.")
        m, noise = SECANT_SLOPE, trace - mu * dimension * SECANT_INTERCEPT**2
        if noise <= 0:
            raise InputError(
                f"hessian_trace = {trace:g} is below μd = {mu * dimension:g}, which no Hessian has."
            )
    else:
        m, noise = 2 / np.sqrt(np.pi) if tangent else float(erf(1.0)), trace
    return 2 * mu * (m / (np.sqrt(2) * sigma) + eta * mu * m**2 / (4 * sigma**2)), noise


def _is_tangent(slope: str) -> bool:
    if slope not in ("secant", "tangent"):
        raise InputError(f"slope = {slope!r}: 'secant' (a bound) or 'tangent' (as published) is needed.")
    return slope == "tangent"
