"""The three phases of SignSGD: far from, near and inside the noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisekit._readable import Readable
from noisekit.errors import InputError
from noisekit.theory.inputs import GAUSSIAN_SLOPE, Array, as_finite
from noisekit.theory.noise_moments import noise_scales

FAR, INSIDE = 1.5, 1.0


@dataclass(frozen=True, repr=False)
class SignSGDPhase(Readable):
    """The phase of each coordinate: ``ratio`` Y and ``phase`` (1, 2 or 3), both (coordinate,).

    ``fraction`` is the share of coordinates in each phase, keys 1, 2, 3.
    """

    ratio: Array
    phase: NDArray[np.int64]
    fraction: dict[int, float]

    def __str__(self) -> str:
        shares = ", ".join(f"phase {k} {share:.0%}" for k, share in self.fraction.items())
        return f"{self.phase.size} coordinates: {shares}"


def signsgd_phase(gradient: Any, noise: Any, *, at: Any = None) -> SignSGDPhase:
    """Phase of SignSGD in each coordinate, by Y = ∇f/(√2 σ): 1 if |Y| > 3/2, 2 if 1 < |Y| ≤ 3/2, else 3.

    In phase 1 sign(g) is nearly sign(∇f), and x moves at the speed η a step whatever the noise; in phase 3 it
    is nearly √(2/π)∇f/σ, a gradient step scaled by the noise; phase 2 lies between. The linearisation of
    phase 3 is 34 % off at |Y| = 1, so phases are labels; to predict, integrate the SDE. For noise that is not
    Gaussian, σ is √(2/π) over the slope of E[sign] at 0, the σ of the Gaussian with the same slope.

    Args:
        gradient: full gradient, (coordinate,) or a mapping of tensors.
        noise: of the minibatch gradient: a noise model or its variance (coordinate,).
        at: the point at which a state-dependent noise model is read.

    Returns:
        A :class:`SignSGDPhase`.

    Raises:
        InputError: sizes that differ, values that are not finite.

    Source: Compagnoni et al. 2025, arXiv 2411.15958, Lemma 3.4.

    >>> signsgd_phase([3.0, 1.8, 0.1], [1.0, 1.0, 1.0]).phase
    array([1, 2, 3])
    """
    slope = as_finite("gradient", gradient).reshape(-1)
    scales = noise_scales(noise, slope.size if at is None else None, at)
    if scales.sign_slope.size != slope.size:
        raise InputError(
            f"gradient has {slope.size} coordinates, the noise {scales.sign_slope.size}; make them equal."
        )
    with np.errstate(invalid="ignore"):  # 0·∞: no gradient and no noise is inside the noise
        ratio = np.nan_to_num(
            slope * scales.sign_slope / GAUSSIAN_SLOPE / np.sqrt(2), posinf=np.inf, neginf=-np.inf
        )
    size = np.abs(ratio)
    phase = np.where(size > FAR, 1, np.where(size > INSIDE, 2, 3)).astype(np.int64)
    return SignSGDPhase(ratio, phase, {k: float((phase == k).mean()) for k in (1, 2, 3)})
