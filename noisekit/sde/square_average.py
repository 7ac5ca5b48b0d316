"""The running average V of squared gradients, and why it stays positive."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisekit.sde.base import Substep


def advance_square_average(
    v: Tensor, second_moment: Tensor, noisy_gradient: Tensor, one_minus_beta: float, at: Substep
) -> float:
    """Advance V in place over dt = η/substeps, with the noise of g² in it; return the unit in which ``v`` is.


    dV = ρ(S − V) dt + ρ√(η dt)(Q − S), S = (∇f)² + diag Σ, Q = (∇f + ζ)² with ∇f + ζ the noisy gradient,
    E Q = S, 1 − β = ηρ.
    With D = V + ρ dt(S − V) and a = ρ√(η dt) the step is V ← D (D + aQ)/(D + aS): its mean is exactly D,
    it is positive whatever Q is, and where aS ≪ D it is D + a(Q − S). One substep a step is V ← βV + (1 −
    β)Q, the optimizer's own.
    Inside a step ``v`` holds V over the unit (1 − ρ dt)^{substeps done}, because v + bS costs a third less
    than an average of both; after the last substep the unit is 1. S and ∇f + ζ are overwritten.
    """
    if at.substeps == 1:
        v.sub_(v, alpha=one_minus_beta).addcmul_(noisy_gradient, noisy_gradient, value=one_minus_beta)
        return 1.0
    share = one_minus_beta / at.substeps
    unit = (1 - share) ** (at.index + 1)
    a = one_minus_beta / at.root / unit
    v.add_(second_moment, alpha=share / unit)
    damped = torch.add(v, second_moment, alpha=a, out=second_moment)
    grown = torch.addcmul(v, noisy_gradient, noisy_gradient, value=a, out=noisy_gradient)
    v.mul_(grown.div_(damped))
    if at.index + 1 < at.substeps:
        return unit
    v.mul_(unit)
    return 1.0


def square_noise(
    v: Tensor, second_moment: Tensor, noisy_square: Tensor, rho: float, learning_rate: float, dt: float
) -> Tensor:
    """Return the noise of V per √dt, damped so that an Euler step stays positive."""
    mean = v + (rho * dt) * (second_moment - v)
    a = rho * math.sqrt(learning_rate * dt)
    floor = torch.finfo(v.dtype).tiny
    damping = mean / (mean + a * second_moment + floor)
    return (rho * math.sqrt(learning_rate)) * (noisy_square - second_moment) * damping
