"""The running average V of squared gradients, and why it stays positive."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisekit.sde.base import Substep


def advance_square_average(
    v: Tensor, second_moment: Tensor, noisy_gradient: Tensor, one_minus_beta: float, at: Substep
) -> None:
    """Advance V in place over dt = η/substeps, with the noise of g² in it; S is overwritten.

    dV = ρ(S − V) dt + ρ√(η dt)(Q − S), S = (∇f)² + diag Σ, Q = (∇f + ζ)² with ∇f + ζ the noisy gradient,
    E Q = S, 1 − β = ηρ.
    With D = V + ρ dt(S − V) and a = ρ√(η dt) the step is V ← D (D + aQ)/(D + aS): its mean is exactly D,
    it is positive whatever Q is, and where aS ≪ D it is D + a(Q − S). One substep a step is V ← βV + (1 −
    β)Q, the optimizer's own.
    """
    if at.substeps == 1:
        v.mul_(1 - one_minus_beta).addcmul_(noisy_gradient, noisy_gradient, value=one_minus_beta)
        return
    a = one_minus_beta / math.sqrt(at.substeps)
    v.lerp_(second_moment, one_minus_beta / at.substeps)
    damped = torch.add(v, second_moment, alpha=a, out=second_moment)
    grown = torch.addcmul(v, noisy_gradient, noisy_gradient, value=a, out=at.buffer("work", v))
    v.mul_(grown.div_(damped))


def square_noise(
    v: Tensor, second_moment: Tensor, noisy_square: Tensor, rho: float, learning_rate: float, dt: float
) -> Tensor:
    """Return the noise of V per √dt, damped so that an Euler step stays positive."""
    mean = v + (rho * dt) * (second_moment - v)
    a = rho * math.sqrt(learning_rate * dt)
    floor = torch.finfo(v.dtype).tiny
    damping = mean / (mean + a * second_moment + floor)
    return (rho * math.sqrt(learning_rate)) * (noisy_square - second_moment) * damping
