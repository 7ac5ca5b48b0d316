"""One optimizer step as a map of the mean and the covariance of its state, on a quadratic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import erf

from noisekit.theory.hyperparameters import Hyperparameters
from noisekit.theory.inputs import Array
from noisekit.theory.noise_moments import NoiseMoments

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(21)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Moments:
    """E y (n,) and Cov y (n, n) of the state y: x, (x, m) with momentum, (x, m, v) if adaptive."""

    mean: Array
    covariance: Array


def start(hyper: Hyperparameters, x0: Array) -> Moments:
    """Return the moments of x₀ with zero optimizer state."""
    parts = 3 if hyper.is_adaptive else 2 if hyper.has_momentum else 1
    size = parts * x0.size
    return Moments(np.concatenate([x0, np.zeros(size - x0.size)]), np.zeros((size, size)))


def propagate(
    hyper: Hyperparameters, hessian: Array, noise: NoiseMoments, state: Moments, k: int, factor: float
) -> Moments:
    """Return the moments after step ``k`` at the learning rate η·``factor``."""
    rate = hyper.learning_rate * factor
    if hyper.optimizer == "signsgd":
        return _sign_step(hyper, hessian, noise, state, rate)
    pull = hessian + hyper.coupled_decay * np.eye(len(hessian))
    if hyper.optimizer == "sgd":
        return _sgd_step(hyper, pull, noise, state, rate)
    return _adaptive_step(hyper, pull, noise, state, k, rate)


def _sgd_step(
    hyper: Hyperparameters, pull: Array, noise: NoiseMoments, state: Moments, rate: float
) -> Moments:
    """Propagate (x, m) exactly: torch's SGD adds the gradient to m undamped."""
    identity, first = np.eye(len(pull)), hyper.momentum
    matrix, gain = identity - rate * pull, -rate * identity
    if hyper.has_momentum:
        matrix = np.block([[matrix, -rate * first * identity], [pull, first * identity]])
        gain = np.vstack([gain, identity])
    spread = noise.finite_covariance(hyper.optimizer)
    covariance = matrix @ state.covariance @ matrix.T + gain @ spread @ gain.T
    return Moments(matrix @ state.mean, covariance)


def _adaptive_step(
    hyper: Hyperparameters, pull: Array, noise: NoiseMoments, state: Moments, k: int, rate: float
) -> Moments:
    """Propagate (x, m, v) by the delta method: the covariance to first order, the mean to second.

    v moves with the gradient that it divides, and far out that takes away nearly all noise of a step: with
    v⁺ = βv + (1 − β)g², g = ḡ + δg, δv⁺ has (1 − β)(2ḡ δg + δg² − E δg²), of variance 2(E δg²)² for the last.
    """
    d, first, second = len(pull), hyper.momentum, hyper.beta
    identity, zero = np.eye(d), np.zeros((d, d))
    x, m, v = state.mean[:d], state.mean[d : 2 * d], state.mean[2 * d :]
    gradient = pull @ x
    noise_covariance = noise.finite_covariance(hyper.optimizer)
    spread = pull @ state.covariance[:d, :d] @ pull.T + noise_covariance
    into_m, into_v = (1 - first) * identity, (1 - second) * 2 * np.diag(gradient)
    averages = np.block(
        [
            [identity, zero, zero],
            [into_m @ pull, first * identity, zero],
            [into_v @ pull, zero, second * identity],
        ]
    )
    gain = np.vstack([zero, into_m, into_v])
    covariance = averages @ state.covariance @ averages.T + gain @ noise_covariance @ gain.T
    covariance[2 * d :, 2 * d :] += 2 * ((1 - second) * spread) ** 2
    m = first * m + (1 - first) * gradient
    v = second * v + (1 - second) * (np.diag(spread) + gradient**2)

    adam = hyper.optimizer.startswith("adam")  # torch's RMSprop has no bias correction
    of_m, of_v = (1 - first ** (k + 1), 1 - second ** (k + 1)) if adam else (1.0, 1.0)
    root = np.maximum(np.sqrt(v / of_v), np.finfo(np.float64).tiny)
    # u(m, v) = (m/c₁)/(√(v/c₂) + ε) and its derivatives; √(v/c₂) = r has r' = 1/(2 r c₂).
    inverse, slope = 1 / (root + hyper.eps), np.where(v > 0, 1 / (2 * root * of_v), 0)  # v = 0: nothing moves
    by_m = inverse / of_m
    by_v = -m * by_m * inverse * slope
    by_m_v = -by_m * inverse * slope
    by_v_v = m * by_m * inverse * slope**2 * (2 * inverse + 1 / root)
    m_v, v_v = np.diag(covariance[d : 2 * d, 2 * d :]), np.diag(covariance[2 * d :, 2 * d :])
    step = m * by_m + by_m_v * m_v + by_v_v * v_v / 2
    keep = 1 - rate * hyper.decoupled_decay
    move = np.eye(3 * d)
    move[:d] = np.hstack([keep * identity, -rate * np.diag(by_m), -rate * np.diag(by_v)])
    return Moments(np.concatenate([keep * x - rate * step, m, v]), move @ covariance @ move.T)


def _sign_step(
    hyper: Hyperparameters, hessian: Array, noise: NoiseMoments, state: Moments, rate: float
) -> Moments:
    """Propagate E x and Cov x through one step of SignSGD, x being Gaussian."""
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
    return Moments(keep * state.mean - rate * sign, covariance)


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
