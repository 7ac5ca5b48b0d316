"""How long noise takes to push an optimizer off a saddle."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.integrate import quad
from scipy.special import dawsn

from noisekit.errors import InputError
from noisekit.theory.hyperparameters import Hyperparameters, check_hyperparameters
from noisekit.theory.inputs import as_number, check_positive
from noisekit.theory.noise_moments import NoiseScales, noise_scales


def escape_time(
    optimizer: str,
    curvature: float,
    noise: Any,
    learning_rate: float,
    *,
    distance: float,
    betas: tuple[float, float] = (0.9, 0.999),
    beta: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
) -> float:
    """Mean number of steps until |x| first reaches ``distance`` along a direction of negative curvature.

    Started on the saddle, with m and v as the noise there leaves them, x follows dX = kX dt + s dW with
    growth rate k and noise s; the mean first exit time from (−a, a) is (2/k) ∫₀^{a√k/s} D(u) du, D Dawson's
    function: ≈ (1/k) log(a√k/s) + const for small noise.

    - SGD k = |λ|, s² = ησ²;  SignSGD k = |λ|ℓ/σ, s² = η (σ < ∞ is not needed);
    - RMSprop k = |λ|/P, s² = ησ²/P², P = σ + ε;
    - Adam and SGD with momentum: the growing root of k(1 + k/ρ₁) = |λ|/P, ρ₁ = (1 − β₁)/η, and the noise that
      the growing direction of (x, m) receives, s² = ησ²/P²/(1 + 2k/ρ₁)², with P ← (1 − μ)P for SGD; the m
      that is there at the start saves the time ln(1 + k/ρ₁)/(2k).

    Signs and adaptive steps escape faster than SGD where σ < 1 (of their own units) and slower where σ > 1.
    Weight decay is not considered, and the second moment is taken at its noise level.

    Where it ends: x must pass many times the width of a step and of the momentum's memory. SGD with momentum
    .9 takes 2 % longer where the escape lasts 100 memories, of 1/(1 − β₁) steps each, and 20 % at 11. From
    m = v = 0, Adam takes .8 to 1.07 and RMSprop .1 to .7 of this time: its first steps are sign steps.
    On an embedded saddle the quartic makes it 7 % longer once the force at ``distance`` is a quarter weaker
    than λa (measured with torch's optimizers).

    Args:
        curvature: the negative eigenvalue λ < 0 at the saddle.
        noise: of the minibatch gradient along it: its variance, or a noise model of one coordinate.
        distance: a > 0, where the quadratic approximation ends, in units of x.

    Returns:
        Mean escape time in optimizer steps.

    Raises:
        InputError: the curvature is not negative. InfiniteVarianceError: infinite variance and not SignSGD.

    Source: classical first-exit problem of an unstable Ornstein–Uhlenbeck process; SDEs of Compagnoni et al.
        2025, arXiv 2411.15958.
    """
    hyper = check_hyperparameters(
        optimizer, learning_rate, betas=betas, beta=beta, eps=eps, momentum=momentum
    )
    bend = as_number("curvature", curvature)
    if not -np.inf < bend < 0:
        raise InputError(f"curvature = {curvature}: the negative eigenvalue of a saddle is needed.")
    reach = check_positive("distance", distance)
    scales = noise_scales(noise, 1)
    growth, spread, saved = _growth_and_noise(hyper, -bend, scales)
    if spread == 0 or np.isinf(growth):  # no noise: it stays where it is
        return float("inf")
    integral = _dawson_integral(reach * np.sqrt(growth) / spread)
    return max(0.0, 2 / growth * integral - saved) / hyper.learning_rate


def _dawson_integral(end: float) -> float:
    """Return ∫₀^end D(u)du; beyond 50 from D(u) = 1/(2u) + 1/(4u³) + O(u⁻⁵)."""
    near = min(end, 50.0)
    integral = float(quad(dawsn, 0, near, limit=400)[0])
    return integral + float(np.log(end / near) / 2 + (near**-2 - end**-2) / 8 if end > near else 0.0)


def _growth_and_noise(hyper: Hyperparameters, pull: float, scales: NoiseScales) -> tuple[float, float, float]:
    """Return k, s and the time that the momentum at the start saves."""
    rate = hyper.learning_rate
    if hyper.optimizer == "signsgd":
        return pull * float(scales.known_sign_slope()[0]), float(np.sqrt(rate)), 0.0
    deviation = float(np.sqrt(scales.finite_variance(hyper.optimizer)[0]))
    preconditioner = deviation + hyper.eps if hyper.is_adaptive else 1 - hyper.momentum
    slope, spread = pull / preconditioner, np.sqrt(rate) * deviation / preconditioner
    if not hyper.has_momentum:
        return slope, float(spread), 0.0
    memory = (1 - hyper.momentum) / rate
    growth = memory * (np.sqrt(1 + 4 * slope / memory) - 1) / 2
    # Left eigenvector of the growing direction of dx = −m/P, dm = ρ(g − m): m's noise enters by 1/(1 + 2k/ρ).
    saved = float(np.log1p(growth / memory) / (2 * growth))
    return growth, float(spread / (1 + 2 * growth / memory)), saved
