"""The stationary excess loss that gradient noise alone sets, without a Hessian."""

from __future__ import annotations

from typing import Any

import numpy as np

from noisekit.errors import InputError
from noisekit.theory.inputs import as_finite, check_optimizer, check_positive
from noisekit.theory.noise_moments import NoiseScales, noise_scales


def noise_floor(
    optimizer: str,
    noise: Any,
    learning_rate: float,
    *,
    at: Any = None,
    eps: float = 0.0,
    curvature: Any = None,
    time: float | None = None,
) -> float:
    """Stationary excess loss ½ Tr(H Cov∞) of a constant learning rate, to first order in η.

    SGD (η/4) Tr Σ;   RMSprop, Adam and their W forms with θ = 0 (η/4) Σ_i σ_i²/(σ_i + ε);
    SignSGD (η/4) Σ_i 1/slope_i = (η/4) √(π/2) Σ_i σ_i for Gaussian noise, (η/4) Σ_i s_i/ℓ_ν for Student-t.

    It holds for every H ≻ 0, commuting with Σ or not, because Tr(HC) follows from the Lyapunov equation by
    multiplying with P; H only decides how long it takes. A direction of curvature λ is still on its way when
    2λt ≪ 1, so for a run that has not equilibrated the floor is an *upper* estimate. Give ``curvature`` and
    ``time`` to count each coordinate by its equilibrated share 1 − e^{−2kt}, k its relaxation rate.
    For SignSGD the noise must be symmetric: signs settle where E sign g = 0, not at the minimum; on a real
    network with B = 16 that bias cost 7 to 22 times the floor.

    Args:
        optimizer: "sgd", "signsgd", "rmsprop", "rmspropw", "adam" or "adamw".
        noise: of the *minibatch* gradient: a noise model, or its variance per coordinate (vector, matrix Σ,
            or a mapping of tensors such as ``GradientStatistics.variance`` divided by the batch size).
        learning_rate: η.
        at: the (coordinate,) point where a state-dependent noise model is read.
        eps: ε of the adaptive optimizers.
        curvature: diagonal of H, (coordinate,), non-negative; needs ``time``.
        time: t = ηk, the optimizer time already spent; needs ``curvature``.

    Returns:
        The floor, in units of the loss.

    Raises:
        InfiniteVarianceError: infinite variance and not SignSGD.

    Source: derived from the stationary laws of Compagnoni et al. 2025, arXiv 2411.15958.

    >>> noise_floor("sgd", [4.0, 1.0], 0.4), noise_floor("adam", [4.0, 1.0], 0.4)
    (0.5, 0.30000000000000004)
    """
    name = check_optimizer(optimizer)
    rate = check_positive("learning_rate", learning_rate)
    scales = noise_scales(noise, at=at)
    weight, speed = _weights(name, scales, check_positive("eps", eps, zero=True))
    if (curvature is None) != (time is None):
        raise InputError(
            "curvature and time belong together: give both, or neither for the equilibrated floor."
        )
    if curvature is None or time is None:
        return float(rate / 4 * weight.sum())
    bend = as_finite("curvature", curvature).reshape(-1)
    if bend.size not in (1, weight.size) or (bend < 0).any():
        raise InputError(
            f"curvature has {bend.size} value(s), smallest {bend.min():.3g}; "
            f"{weight.size} non-negative ones are needed."
        )
    share = -np.expm1(-2 * bend * speed * check_positive("time", time, zero=True))
    return float(rate / 4 * (weight * share).sum())


def _weights(name: str, scales: NoiseScales, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the diagonal of P⁻¹Σ, and P⁻¹: a coordinate of curvature λ relaxes at the rate λ/P."""
    if name == "signsgd":
        slope = scales.known_sign_slope()
        return 1 / slope, np.where(np.isinf(slope), 0, slope)  # ∞: no noise, and so no floor at any time
    variance = scales.finite_variance(name)
    if name == "sgd":
        return variance, np.ones_like(variance)
    deviation = np.sqrt(variance)
    preconditioner = deviation + eps
    live = preconditioner > 0  # a coordinate without noise, such as a dead unit, adds nothing
    inverse = np.divide(1.0, preconditioner, out=np.zeros_like(variance), where=live)
    return variance * inverse, inverse
