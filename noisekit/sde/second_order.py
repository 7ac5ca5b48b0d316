"""The corrections of weak order 2 to drift and noise, without derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from noisekit._typing import State


def modified_drift(
    drift_ahead: Callable[[State], State],
    drift: State,
    state: State,
    optimizer_drift: State,
    learning_rate: float,
) -> State:
    """Return b₀ + η(B₁ − ½(∂_t + b₀·∇)b₀), the drift of the modified equation of weak order 2.

    The mean step of the optimizer is η b₀ + η² B₁ + O(η³). The derivative of b₀ along itself is taken as the
    difference b₀(Y + ηb₀, t + η) − b₀(Y, t), whose error O(η²) is below the order of the equation, so that no
    Hessian is needed: one more gradient.
    Measured on f = x²/2 + x⁴/8 with unit Gaussian noise and fixed ρ, η = .2 to .025, from a warm state: the
    gap of E x falls with slope 2.0 for SGD, RMSprop and Adam (order 1: 1.1).
    Source: Callisti, Romito, Triggiano 2025, arXiv 2509.21614; Li, Tai, E 2017, arXiv 1511.06251.
    """
    ahead = drift_ahead({name: state[name] + learning_rate * drift[name] for name in drift})
    result = {name: 1.5 * drift[name] - 0.5 * ahead[name] for name in drift}
    for name, extra in optimizer_drift.items():
        result[name] = result[name] + learning_rate * extra
    return result


def modified_noise(
    drift_at: Callable[[State], State],
    drift: State,
    noise: State,
    state: State,
    learning_rate: float,
    dt: float,
    still: tuple[str, ...] = (),
) -> State:
    """Return ``noise`` with that of −(η/2) db(Y) added, per √dt; tensors named in ``still`` do not move.

    A step of an optimizer adds its noise at the end, while that of an SDE moves through the drift for half a
    step on average: c dW becomes (I − (η/2)∇b) c dW. It is taken as the difference b(Y + c ΔW) − b(Y), which
    also holds the Itô term ½ c cᵀ:∇²b dt of the drift, so that its mean is not 0.

    Weak order 2 does not need it, but the variance at rest is itself of order η: without it the relative
    error of that variance is of order η, and twice that of the SDE of order 1. With it, it is of order η² for
    a linear update (derived). On a quadratic with curvatures over noise 1 and 6, β₂ = .999 and 40,000 runs
    of torch's optimizer, η = .1/.05/.025, E x² of the second coordinate is off by −28/−13/−7 % (RMSprop) and
    −26/−17/−11 % (AdamW) at order 1, −47/−26/−14 and −32/−17/−10 without this, −12/−2/−1 and 8/4/0 with it.
    """
    root = math.sqrt(dt)
    moved = {name: state[name] if name in still else state[name] + root * noise[name] for name in drift}
    ahead = drift_at(moved)
    share = learning_rate / (2 * root)
    return {
        name: noise[name] if name in still else noise[name] - share * (ahead[name] - drift[name])
        for name in drift
    }


def own_share(v: Tensor, variance: Tensor, weight: float) -> Tensor:
    """Return the factor on the noise of a step whose own gradient is in the V that divides it.

    With u = cσ²/v and c the ``weight`` of g² in V, Var(g/√(v + c(g² − v))) = (σ²/v)(1 − 2u + 10u² − …) for
    Gaussian g around 0; the factor is the root of 1/(1 + u + u/(1 + 6u)), which has these terms and the limit
    1/u of a sign step (derived).

    The error of the variance at rest without it does not vanish with η, but with 1 − β. Measured against
    torch's optimizers on f = x²/2 with unit noise at η = .02, four substeps, ± .6 %: RMSprop with β = .9, .95
    and .99 is off by 18.4, 8.7 and 1.7 % without, 1.1, .0 and −.1 % with it; Adam with β₁ = .9 and β₂ = .9,
    .95 and .99 by 3.9, 2.6 and .7 % without, −1.3, −.7 and −.2 % with it.
    """
    u = (weight * variance / v.clamp(min=torch.finfo(v.dtype).tiny)).clamp(max=1e9)
    return (1 + u + u / (1 + 6 * u)).rsqrt()
