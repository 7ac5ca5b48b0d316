"""What the fluctuation of v does to the mean and the noise of an adaptive step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import gamma

from noisekit.theory.hyperparameters import Hyperparameters
from noisekit.theory.inputs import Array


@dataclass(frozen=True)
class Fluctuation:
    """Factors on a step with constant v: ``slope`` of its mean and ``excess`` of its variance, both (d,).

    The mean response to a small gradient is ``slope``/(√V + ε); the variance of a step is that of a
    constant v times slope² + ``excess``.
    """

    slope: Array
    excess: Array


def fluctuation(hyper: Hyperparameters, deviation: Array) -> Fluctuation:
    """Return the factors for Gaussian gradients of standard deviation ``deviation`` (d,).

    With g = σξ the step is R = g/(√v⁺ + ε), v⁺ = σ²(cξ² + (1 − c)w): the gradient stands in its own divisor
    with the weight c = 1 − β₂ (RMSprop), c = (1 − β₁)(1 − β₂)/(1 − β₁β₂) on average over the momentum (Adam).
    w is the average before it, of mean 1 and variance 2(1 − β₂)/(1 + β₂), taken as Gamma. Then slope =
    E[ξR]·(√V + ε)/σ by Stein's lemma and slope² + excess = E[R²]·((√V + ε)/σ)². At β₂ = 0 the step is a sign,
    √(2/π) and 1; at β₂ → 1 both factors are 1 to first order 1 − (5/8)(1 − β₂), 1 − (1 − β₂).
    """
    first, second = hyper.momentum, hyper.beta
    weight = (1 - first) * (1 - second) / (1 - first * second)
    shape = (1 + second) / (2 * (1 - second))
    w = gamma.ppf((np.arange(128) + 0.5) / 128, shape, scale=1 / shape)
    xi = (np.arange(600) + 0.5) * 9 / 600  # midpoints: at β₂ = 0 the step jumps at 0
    density = 2 * np.exp(-(xi**2) / 2) / np.sqrt(2 * np.pi) * 9 / 600
    root = np.sqrt(weight * xi[:, None] ** 2 + (1 - weight) * w)
    slope, power = [], []
    for ratio in hyper.eps / deviation:
        step = xi[:, None] * (1 + ratio) / np.maximum(root + ratio, 1e-12)
        slope.append(density @ (xi[:, None] * step).mean(axis=1))
        power.append(density @ (step**2).mean(axis=1))
    gain = np.array(slope)
    return Fluctuation(gain, np.maximum(np.array(power) - gain**2, 0))
