"""Every optimizer near a minimum as a linear system, as the discrete update and as its SDE.

With g = H(x − x*) + θ_c x + ζ, Cov ζ = Σ, the update of the state y = (x) or (x, m) is

    y⁺ = D y + B g          and its SDE is          dy = ((D − I)/η) y dt + (B/η) g dt,   Cov(ζ) → η Σ dW.

That SDE is the ``consistent`` variant; ``published`` lets no noise into x, ``malladi`` moves x by m alone.
SGD with momentum has equations of its own, which read the gradient at x + c m. At order 2 the SDE is
(1 + (η/2)A) dy = (A y + b) dt + dξ to first order in η, A the drift of order 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from noisekit.errors import InputError
from noisekit.sde.momentum import momentum_equation
from noisekit.theory.fluctuations import Fluctuation
from noisekit.theory.hyperparameters import Hyperparameters
from noisekit.theory.inputs import GAUSSIAN_SLOPE, Array
from noisekit.theory.noise_moments import NoiseMoments


@dataclass(frozen=True)
class LinearSystem:
    """y⁺ = A y + b + ξ (``discrete``) or dy = (A y + b) dt + dξ, Cov ξ = Q a step or a unit of time.

    ``matrix`` A (n, n), ``offset`` b (n,), ``noise`` Q (n, n); the first d entries of y are x.
    """

    matrix: Array
    offset: Array
    noise: Array
    discrete: bool

    @property
    def decay_rate(self) -> float:
        """Slowest rate at which y forgets its start, a step or a unit of time; ≤ 0 if it never does."""
        eigenvalues = np.linalg.eigvals(self.matrix)
        if self.discrete:
            return float(-np.log(max(np.abs(eigenvalues).max(), 1e-300)))
        return float(-eigenvalues.real.max())

    def stationary_mean(self) -> Array:
        """Return E y∞."""
        identity = np.eye(len(self.offset)) if self.discrete else 0.0
        return np.linalg.solve(identity - self.matrix, self.offset).astype(np.float64)

    def stationary_covariance(self) -> Array:
        """Return Cov y∞ from C = A C Aᵀ + Q, or A C + C Aᵀ = −Q."""
        if self.discrete:
            covariance = scipy.linalg.solve_discrete_lyapunov(self.matrix, self.noise)
        else:
            covariance = scipy.linalg.solve_continuous_lyapunov(self.matrix, -self.noise)
        return (covariance + covariance.T) / 2


def second_moment(
    hyper: Hyperparameters, hessian: Array, noise: NoiseMoments, mean: Array, covariance: Array, variant: str
) -> Array:
    """Return V = diag Σ + E(∇f)², (d,); ``malladi`` leaves the gradient out."""
    variance = noise.finite_variance(hyper.optimizer)
    if variant == "malladi":
        return variance
    pull = hessian + hyper.coupled_decay * np.eye(len(hessian))
    return variance + np.einsum("ij,jk,ik->i", pull, covariance, pull) + mean**2


def linear_system(
    hyper: Hyperparameters,
    hessian: Array,
    noise: NoiseMoments,
    minimum: Array,
    v: Array,
    covariance: Array,
    *,
    discrete: bool,
    variant: str,
    order: int = 1,
    fluctuation: Fluctuation | None = None,
) -> LinearSystem:
    """Linearise ``hyper.optimizer`` at the second moment ``v`` (d,) and the covariance of x (d, d).

    The covariance enters SignSGD only: under Gaussian noise the slope of E[sign] is averaged over x.
    ``fluctuation`` of v changes the mean and the noise of an adaptive step; without it v is constant.
    """
    d = len(hessian)
    pull = hessian + hyper.coupled_decay * np.eye(d)
    inject = np.eye(d, 2 * d if hyper.has_momentum else d)
    slope = np.ones(d) if fluctuation is None else fluctuation.slope
    free, gain = _update(hyper, v, slope, noise, hessian, covariance)
    spread = _gradient_noise(hyper, noise, hessian, covariance, discrete=discrete)
    if fluctuation is not None:
        spread = spread * _relative_noise(fluctuation, spread)
    noise_gain = np.vstack([-hyper.learning_rate * np.eye(d)]) if hyper.optimizer == "signsgd" else gain
    if not discrete:
        free, gain, noise_gain = _as_sde(hyper, free, gain, noise_gain, v, variant)
        spread = hyper.learning_rate * spread
        if hyper.optimizer == "sgd" and hyper.has_momentum:
            inject[:, d:] = momentum_equation(variant, hyper.momentum).back * hyper.learning_rate * np.eye(d)
    matrix, offset = free + gain @ pull @ inject, -gain @ hessian @ minimum
    if order == 2:
        next_order = np.eye(len(matrix)) - hyper.learning_rate / 2 * matrix
        matrix, offset, noise_gain = next_order @ matrix, next_order @ offset, next_order @ noise_gain
    return LinearSystem(matrix, offset, noise_gain @ spread @ noise_gain.T, discrete)


def require_stable(system: LinearSystem, hyper: Hyperparameters, hessian: Array) -> None:
    """Refuse a system that has no stationary law, saying why."""
    smallest, largest = np.linalg.eigvalsh(hessian)[[0, -1]]
    if system.decay_rate > 1e-14:
        return
    if smallest + hyper.coupled_decay + hyper.decoupled_decay <= 0:
        raise InputError(
            f"The Hessian has the eigenvalue {smallest:.3g}: {hyper.optimizer} leaves this point and has no "
            "stationary law; a positive definite Hessian is needed (or escape_time for a saddle)."
        )
    outcome = "has no stationary law"
    if hyper.optimizer != "sgd":  # signs stay bounded and v may grow: it does settle, but far out
        outcome = "settles outside the range of its linearisation"
    raise InputError(
        f"{hyper.optimizer} with learning rate {hyper.learning_rate:g} is unstable on the largest eigenvalue "
        f"{largest:.3g} and {outcome}; lower the learning rate."
    )


def _relative_noise(fluctuation: Fluctuation, covariance: Array) -> Array:
    """Return E[R_i R_j] of the steps over that of constant v, and over slope_i slope_j, (d, d).

    The part of R beyond its linear response is odd in g of third order and up, so it correlates as ρ³.
    """
    deviation = np.sqrt(np.diag(covariance))
    share = np.sqrt(fluctuation.excess) / fluctuation.slope
    return 1 + np.outer(share, share) * (covariance / np.outer(deviation, deviation)) ** 2


def _update(
    hyper: Hyperparameters, v: Array, slope: Array, noise: NoiseMoments, hessian: Array, covariance: Array
) -> tuple[Array, Array]:
    """Return D and B of y⁺ = D y + B g."""
    identity, rate, first = np.eye(len(hessian)), hyper.learning_rate, hyper.momentum
    keep = (1 - rate * hyper.decoupled_decay) * identity
    if hyper.optimizer == "signsgd":
        return keep, -rate * np.diag(_sign_slope(noise, hessian, covariance))
    scale = np.diag(slope / (np.sqrt(v) + hyper.eps)) if hyper.is_adaptive else identity
    if not hyper.has_momentum:
        return keep, -rate * scale
    take = 1.0 if hyper.optimizer == "sgd" else 1 - first  # torch's SGD adds the gradient undamped
    free = np.block([[keep, -rate * first * scale], [0 * identity, first * identity]])
    return free, np.vstack([-rate * take * scale, take * identity])


def _as_sde(
    hyper: Hyperparameters, free: Array, gain: Array, noise_gain: Array, v: Array, variant: str
) -> tuple[Array, Array, Array]:
    """Return drift, gradient gain and noise gain per unit of time."""
    rate = hyper.learning_rate
    if hyper.optimizer == "sgd" and hyper.has_momentum:
        moves, identity = momentum_equation(variant, hyper.momentum), np.eye(gain.shape[1])
        zero = np.zeros_like(identity)
        friction = moves.kick * (1 - hyper.momentum) / rate
        drift = np.block([[zero, -moves.carried * identity], [zero, -friction * identity]])
        gain = np.vstack([-moves.direct * identity, moves.kick / rate * identity])
        return drift, gain, gain
    drift, gain, noise_gain = (free - np.eye(len(free))) / rate, gain / rate, noise_gain / rate
    if not hyper.optimizer.startswith("adam") or variant == "consistent":
        return drift, gain, noise_gain
    d = gain.shape[1]
    noise_gain = noise_gain.copy()
    noise_gain[:d] = 0
    if variant == "malladi":
        gain = gain.copy()
        gain[:d] = 0
        drift[:d, d:] = -np.diag(1 / (np.sqrt(v) + hyper.eps))
    return drift, gain, noise_gain


def _sign_slope(noise: NoiseMoments, hessian: Array, covariance: Array) -> Array:
    if not noise.gaussian:
        return noise.sign_slope
    spread = np.einsum("ij,jk,ik->i", hessian, covariance, hessian)
    return GAUSSIAN_SLOPE / np.sqrt(noise.variance + spread)


def _gradient_noise(
    hyper: Hyperparameters, noise: NoiseMoments, hessian: Array, covariance: Array, *, discrete: bool
) -> Array:
    """Return Cov of what enters a step beside the linear part: Σ, or for SignSGD that of the sign.

    A step of SignSGD has E[sign signᵀ] in it, of which the linear update already counts K C Kᵀ, K = slope·H;
    the SDE has E Cov(sign | x), which lacks the whole second moment of E[sign | x].
    """
    if hyper.optimizer != "signsgd":
        return noise.finite_covariance(hyper.optimizer)
    pull = _sign_slope(noise, hessian, covariance)[:, None] * hessian
    linear = pull @ covariance @ pull.T
    if not noise.gaussian:
        return noise.sign_covariance - linear
    assert noise.covariance is not None
    gradient = hessian @ covariance @ hessian
    total = np.sqrt(noise.variance + np.diag(gradient))
    size = np.outer(total, total)
    signs = (2 / np.pi) * np.arcsin(np.clip((noise.covariance + gradient) / size, -1, 1))
    return signs - (linear if discrete else (2 / np.pi) * np.arcsin(np.clip(gradient / size, -1, 1)))
