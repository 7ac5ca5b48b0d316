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

_MILNE = 1.4603545088095868  # −ζ(½)


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
    function: ≈ (1/k) log(a√k/s) + const for small noise. k and s are those of the discrete step, z = e^{kη}:

    - SGD z = 1 + η|λ|, s² = ησ²·2kη/(z² − 1) ≈ ησ²;  SignSGD with |λ|ℓ/σ and 1 for |λ| and σ (σ < ∞ is not
      needed);  RMSprop with |λ|/P and σ/P, P = σ + ε;
    - Adam and SGD with momentum: z is the growing root of z² − (1 + β₁ + (1 − β₁)η|λ|/P)z + β₁ = 0, the noise
      is what the growing direction of (x, m) receives, with P ← 1 − μ for SGD; the m that is there at the
      start saves time. For small η, k(1 + k/ρ₁) = |λ|/P, s² = ησ²/P²/(1 + 2k/ρ₁)², saved ln(1 + k/ρ₁)/(2k),
      ρ₁ = (1 − β₁)/η.

    Signs and adaptive steps escape faster than SGD where σ < 1 (of their own units) and slower where σ > 1.
    Weight decay is not considered, and the second moment is taken at its noise level.

    When x leaves, steps overshoot and the momentum lags, so that a is taken larger by −ζ(½) = 1.46 mean free
    paths, less where x drifts out rather than diffuses. Simulated over formula, SGD with momentum 0 to .98 in
    regimes from diffusion to drift: .998 to 1.020 (without that up to 1.79). From m = v = 0 Adam takes .8 to
    1.05 and RMSprop .1 to .7 of this time, its first steps being sign steps. On an embedded saddle it takes
    7 % longer where the quartic has weakened the force at ``distance`` by a quarter.

    Args:
        curvature: the negative eigenvalue λ < 0 at the saddle.
        noise: of the minibatch gradient along it: its variance, or a noise model of one coordinate.
        distance: a > 0, where the quadratic approximation ends, in units of x.

    Returns:
        Mean escape time in optimizer steps.

    Raises:
        InputError: the curvature is not negative. InfiniteVarianceError: infinite variance and not SignSGD.

    Source: classical first-exit problem of an unstable Ornstein–Uhlenbeck process; SDEs of Compagnoni et al.
        2025, arXiv 2411.15958; overshoot of a random walk, Chernoff 1965; of a Kramers process, Marshall and
        Watson 1985; the two joined here.

    >>> round(escape_time("sgd", -1.0, [0.25], 0.01, distance=0.3))
    279
    """
    hyper = check_hyperparameters(
        optimizer, learning_rate, betas=betas, beta=beta, eps=eps, momentum=momentum
    )
    bend = as_number("curvature", curvature)
    if not -np.inf < bend < 0:
        raise InputError(f"curvature = {curvature}: the negative eigenvalue of a saddle is needed.")
    reach = check_positive("distance", distance)
    scales = noise_scales(noise, 1)
    step, pull, deviation = _step(hyper, -bend, scales)
    if deviation == 0:  # no noise: it stays where it is
        return float("inf")
    growth, spread, saved = _growth_and_noise(hyper, step, pull, deviation)
    end = reach + _beyond(hyper, step, deviation, growth * reach)
    time = max(0.0, 2 / growth * _dawson_integral(end * np.sqrt(growth) / spread) - saved)
    return float(time / hyper.learning_rate)


def _dawson_integral(end: float) -> float:
    """Return ∫₀^end D(u)du; beyond 50 from D(u) = 1/(2u) + 1/(4u³) + O(u⁻⁵)."""
    near = min(end, 50.0)
    integral = float(quad(dawsn, 0, near, limit=400)[0])
    return integral + float(np.log(end / near) / 2 + (near**-2 - end**-2) / 8 if end > near else 0.0)


def _step(hyper: Hyperparameters, pull: float, scales: NoiseScales) -> tuple[float, float, float]:
    """Return c, p and σ of the step x⁺ = x − c m⁺, m⁺ = βm + (1 − β)(ζ − p x), Cov ζ = σ²."""
    if hyper.optimizer == "signsgd":
        slope = float(scales.known_sign_slope()[0])
        return (0.0, 0.0, 0.0) if np.isinf(slope) else (hyper.learning_rate, pull * slope, 1.0)
    deviation = float(np.sqrt(scales.finite_variance(hyper.optimizer)[0]))
    if deviation == 0:
        return 0.0, 0.0, 0.0
    preconditioner = deviation + hyper.eps if hyper.is_adaptive else 1 - hyper.momentum
    return hyper.learning_rate / preconditioner, pull, deviation


def _growth_and_noise(
    hyper: Hyperparameters, step: float, pull: float, deviation: float
) -> tuple[float, float, float]:
    """Return k, s and the time that the momentum at the start saves.

    The growing direction of (x, m) has the right eigenvector (1, −(1 − β)p/(z − β)) and the left one
    l₁(1, −β(z − 1)/(z(1 − β)p)).
    """
    beta, forget = hyper.momentum, 1 - hyper.momentum
    gain = step * forget * pull
    excess = 2 * gain / (forget - gain + np.sqrt((forget - gain) ** 2 + 4 * gain))  # z − 1
    growth = np.log1p(excess) / hyper.learning_rate
    of_m = -beta * excess / ((1 + excess) * forget * pull)
    of_x = 1 / (1 - of_m * forget * pull / (excess + forget))
    power = (of_x * forget * (step - of_m) * deviation) ** 2  # into the growing direction, each step
    spread = power * 2 * growth / (excess * (2 + excess))
    begin = (of_x * of_m * deviation) ** 2 * forget / (1 + beta)
    return float(growth), float(np.sqrt(spread)), float(np.log1p(2 * growth * begin / spread) / (2 * growth))


def _beyond(hyper: Hyperparameters, step: float, deviation: float, drift: float) -> float:
    """Return by how much the growing direction is past a when x first is: steps overshoot and momentum lags.

    −ζ(½)/√(2π) steps of a random walk; −ζ(½) mean free paths cσ/√(2(1 − β)) where momentum moves x. Where the
    drift ka carries x out faster than the noise moves it, nothing; between these, by simulation, e^{−ka/v}.
    """
    beta = hyper.momentum
    free_path = step * deviation * np.sqrt(1 / (2 * np.pi) + beta / (2 * (1 - beta)))
    speed = step * deviation * np.sqrt((1 - beta) / (1 + beta)) / hyper.learning_rate
    return float(_MILNE * free_path * np.exp(-drift / speed))
