"""Mean and covariance of an optimizer on a quadratic at every step on its way to the stationary law."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from noisekit.errors import InputError
from noisekit.noise.readable import Readable
from noisekit.theory.hyperparameters import Hyperparameters, check_hyperparameters
from noisekit.theory.inputs import (
    Array,
    as_array,
    as_symmetric,
    check_count,
    check_positive,
    check_schedule,
)
from noisekit.theory.noise_moments import NoiseMoments, noise_moments

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True, repr=False)
class TransientLaw(Readable):
    """E x and Var x at ``step`` (time,): ``mean`` and ``variance`` (time, d), ``covariance`` at the end.

    ``loss`` (time,) is E f = ½ Tr(H(Cov + mean meanᵀ)); ``time`` = η·step.
    """

    optimizer: str
    step: NDArray[np.int64]
    time: Array
    mean: Array
    variance: Array
    covariance: Array
    loss: Array

    def __str__(self) -> str:
        return (
            f"{self.optimizer}, {self.mean.shape[1]} coordinates, {len(self.step)} instants up to step "
            f"{self.step[-1]}: mean loss {self.loss[0]:.4g} → {self.loss[-1]:.4g}"
        )


def transient_law(
    optimizer: str,
    hessian: Any,
    noise: Any,
    learning_rate: float,
    *,
    x0: Any,
    steps: int,
    save_every: int = 1,
    betas: tuple[float, float] = (0.9, 0.999),
    beta: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    schedule: Callable[[int], float] | None = None,
    at: Any = None,
) -> TransientLaw:
    """Moments of the discrete optimizer on f(x) = ½ xᵀHx, from x₀ with zero optimizer state.

    E y and Cov y are propagated through the update itself. SGD: exact. RMSprop, Adam: the step is divided by
    the root of E v, bias-corrected as torch does (RMSprop does not); E v follows E g² exactly, fluctuations
    of v are left out. SignSGD, in every phase: x is taken as Gaussian; then E[sign] =
    erf(∇f/√(2(σ² + Var ∇f))) and its gain for Gaussian noise, and for other noise a Gauss–Hermite sum of the
    noise's own E[sign].

    Args:
        x0: (d,); noise, hessian and the other arguments as in :func:`stationary_law`.
        steps: number of optimizer steps; save_every: steps between saved instants.
        schedule: factor on the learning rate at step k.

    Returns:
        A :class:`TransientLaw` with instants 0, save_every, 2·save_every, …

    Source: moment equations derived; for SGD Compagnoni et al. 2025, arXiv 2411.15958, Lemma 3.8.

    >>> law = transient_law("sgd", [1.0], [0.0], 0.1, x0=[1.0], steps=2)
    >>> law.mean[:, 0].round(4)  # (1 − η)^k
    array([1.  , 0.9 , 0.81])
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
    matrix = as_symmetric("hessian", hessian)
    d = len(matrix)
    start = as_array("x0", x0).reshape(-1)
    if start.size != d:
        raise InputError(f"x0 has {start.size} coordinates, the Hessian {d}; make them equal.")
    if not (np.isfinite(start).all() and np.isfinite(matrix).all()):
        raise InputError("x0 and hessian must be finite.")
    steps, save_every = check_count("steps", steps), check_count("save_every", save_every)
    check_schedule(schedule)
    moments = noise_moments(noise, d, at)
    if hyper.optimizer != "signsgd":
        moments.finite_variance(hyper.optimizer)
    elif np.isinf(moments.known_sign_slope()).any():
        raise InputError("noise is zero in a coordinate, where E[sign] has no slope; leave it out.")
    if hyper.optimizer == "sgd":
        _warn_unstable(hyper, matrix)
    propagate = _sign_step if hyper.optimizer == "signsgd" else _linear_step
    size = 2 * d if hyper.has_momentum else d
    state = _State(np.concatenate([start, np.zeros(size - d)]), np.zeros((size, size)), np.zeros(d))
    means, variances, losses = [], [], []
    with np.errstate(over="ignore", invalid="ignore"):  # a diverging mean ends in inf
        for k in range(steps + 1):
            if k % save_every == 0:
                mean, covariance = state.mean[:d], state.covariance[:d, :d]
                means.append(mean)
                variances.append(np.diag(covariance).copy())
                losses.append(float(np.sum(matrix * covariance) + mean @ matrix @ mean) / 2)
            if k < steps:
                factor = 1.0 if schedule is None else check_positive(f"schedule({k})", schedule(k), zero=True)
                state = propagate(hyper, matrix, moments, state, k, factor)
    step = np.arange(0, steps + 1, save_every, dtype=np.int64)
    return TransientLaw(
        hyper.optimizer,
        step,
        np.asarray(hyper.learning_rate * step, dtype=np.float64),
        np.array(means),
        np.array(variances),
        state.covariance[:d, :d],
        np.array(losses),
    )


def _warn_unstable(hyper: Hyperparameters, hessian: Array) -> None:
    limit = 2 * (1 + hyper.momentum) / (np.linalg.eigvalsh(hessian)[-1] + hyper.coupled_decay)
    if 0 < limit < hyper.learning_rate:
        warnings.warn(
            f"learning_rate {hyper.learning_rate:g} is beyond the stability limit {limit:g} of the largest "
            "eigenvalue: SGD diverges.",
            stacklevel=3,
        )


@dataclass(frozen=True)
class _State:
    mean: Array
    covariance: Array
    v: Array


def _linear_step(
    hyper: Hyperparameters, hessian: Array, noise: NoiseMoments, state: _State, k: int, factor: float
) -> _State:
    """Propagate E y and Cov y through one step of SGD, RMSprop or Adam."""
    d = len(hessian)
    identity, rate, first = np.eye(d), hyper.learning_rate * factor, hyper.momentum
    pull = hessian + hyper.coupled_decay * identity
    gradient_mean = pull @ state.mean[:d]
    gradient_spread = np.einsum("ij,jk,ik->i", pull, state.covariance[:d, :d], pull)
    v = hyper.beta * state.v + (1 - hyper.beta) * (noise.variance + gradient_mean**2 + gradient_spread)
    scale = np.ones(d)
    if hyper.optimizer.startswith("adam"):
        scale = 1 / (np.sqrt(v / (1 - hyper.beta ** (k + 1))) + hyper.eps) / (1 - first ** (k + 1))
    elif hyper.is_adaptive:
        scale = 1 / (np.sqrt(v) + hyper.eps)
    keep = (1 - rate * hyper.decoupled_decay) * identity
    step = rate * np.diag(scale)
    if hyper.has_momentum:
        take = 1.0 if hyper.optimizer == "sgd" else 1 - first
        free = np.block([[keep, -first * step], [0 * identity, first * identity]])
        gain = np.vstack([-take * step, take * identity])
    else:
        free, gain = keep, -step
    matrix = free.copy()
    matrix[:, :d] += gain @ pull
    spread = noise.finite_covariance(hyper.optimizer)
    return _State(matrix @ state.mean, matrix @ state.covariance @ matrix.T + gain @ spread @ gain.T, v)


def _sign_step(
    hyper: Hyperparameters, hessian: Array, noise: NoiseMoments, state: _State, k: int, factor: float
) -> _State:
    """Propagate E x and Cov x through one step of SignSGD, x being Gaussian."""
    rate = hyper.learning_rate * factor
    spread = hessian @ state.covariance @ hessian
    sign, gain = _sign_and_gain(noise, hessian @ state.mean, np.diag(spread))
    # Signs of different coordinates: the arcsine law of the Gaussian with the same slopes at 0.
    deviation = np.sqrt(2 / np.pi) / noise.sign_slope
    total = np.sqrt(deviation**2 + np.diag(spread))
    latent = np.sin(np.pi / 2 * noise.sign_covariance) * np.outer(deviation, deviation) + spread
    correlation = (2 / np.pi) * np.arcsin(np.clip(latent / np.outer(total, total), -1, 1))
    width = np.sqrt(np.clip(1 - sign**2, 0, 1))
    sign_covariance = np.outer(width, width) * correlation
    np.fill_diagonal(sign_covariance, width**2)
    keep = 1 - rate * hyper.decoupled_decay
    cross = state.covariance @ (gain[:, None] * hessian).T
    covariance = keep**2 * state.covariance - keep * rate * (cross + cross.T) + rate**2 * sign_covariance
    return _State(keep * state.mean - rate * sign, covariance, state.v)


def _sign_and_gain(noise: NoiseMoments, gradient: Array, variance: Array) -> tuple[Array, Array]:
    """Return E S and E S' of S(g) = E[sign(g + Z)] over g ~ N(gradient, variance), both (d,)."""
    if noise.expected_sign is None:
        total = np.sqrt(2 / np.pi / noise.sign_slope**2 + variance)
        ratio = gradient / total
        return erf(ratio / np.sqrt(2)), np.sqrt(2 / np.pi) * np.exp(-(ratio**2) / 2) / total
    # E S' = E[S(g) z]/√variance (Stein); a floor keeps the quotient a derivative where x has no spread yet.
    width = np.sqrt(np.maximum(variance, (1e-3 / noise.sign_slope) ** 2))
    values = noise.expected_sign(gradient + _NODES[:, None] * width)
    return _WEIGHTS @ values, _WEIGHTS @ (_NODES[:, None] * values) / width


def steps_to_target(law: TransientLaw, target: float) -> float:
    """Return the first step with mean loss at most ``target``, interpolated linearly; inf if never."""
    goal = check_positive("target", target)
    below = np.flatnonzero(law.loss <= goal)
    if below.size == 0:
        return float("inf")
    i = int(below[0])
    if i == 0:
        return 0.0
    high, low = law.loss[i - 1], law.loss[i]
    share = (high - goal) / (high - low)
    return float(law.step[i - 1] + share * (law.step[i] - law.step[i - 1]))
