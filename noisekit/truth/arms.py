"""The predictions that are set beside a truth: variants of the SDE, noise fitted elsewhere, and controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from noisekit.errors import unknown_name
from noisekit.noise import NoiseModel
from noisekit.sde.base import OptimizerSDE
from noisekit.truth.controls import (
    DriftOfNoise,
    IndependentSigns,
    IsotropicNoise,
    ScaledNoise,
    WithoutSquareNoise,
    no_noise,
    with_gaussian_law,
)

Kind = Literal["prediction", "check", "fitted", "control"]


@dataclass(frozen=True)
class Arm:
    """How one prediction differs from the SDE of the ``consistent`` variant with the noise of the truth."""

    name: str
    meaning: str
    kind: Kind = "prediction"
    variant: str = "consistent"
    change: Callable[[NoiseModel], NoiseModel] | None = None
    """What is done to the noise."""
    equation: Callable[[OptimizerSDE], OptimizerSDE] | None = None
    """What is done to the equation."""
    fit: str = ""
    """Which model, fitted to gradients recorded under another seed, takes the place of the noise."""
    order: int = 1
    """Weak order of the SDE."""
    whole_steps: int = 0
    """Steps at the beginning that are those of the optimizer itself."""
    refinement: float = 1.0
    """Factor on the substeps; 0 stands for one substep."""

    def substeps(self, usual: int) -> int:
        """Return the substeps of this arm where others have ``usual``."""
        return max(1, round(usual * self.refinement))


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("consistent", "SDE with the noise of the data at x"),
        Arm("fine", "the same at half the step", "check", refinement=2),
        Arm("surrogate", "one Euler step for each optimizer step: no SDE any more", "check", refinement=0),
        Arm("order_two", "SDE of weak order 2", order=2),
        Arm("whole_start", "the SDE after four steps of the optimizer itself", whole_steps=4),
        Arm("published", "SDE as published (Compagnoni et al. 2025)", variant="published"),
        Arm("malladi", "SDE of Malladi et al. 2022", variant="malladi"),
        Arm("gaussian_law", "Gaussian noise with the covariance of the data", change=with_gaussian_law),
        Arm("fitted_gaussian", "independent Gaussian, fitted under another seed", "fitted", fit="gaussian"),
        Arm("fitted_student_t", "independent Student-t, fitted likewise", "fitted", fit="student_t"),
        Arm("fitted_covariance", "Gaussian with recorded covariance", "fitted", fit="covariance"),
        Arm("double_covariance", "2 Σ", "control", change=lambda noise: ScaledNoise(noise, 2.0)),
        Arm("isotropic", "isotropic Σ of the same trace", "control", change=IsotropicNoise),
        Arm("ode", "no noise: the ordinary differential equation", "control", change=no_noise),
        Arm("no_v_noise", "no noise in V", "control", variant="published"),
        Arm(
            "order_two_no_v_noise", "order 2, no noise in V", "control", order=2, equation=WithoutSquareNoise
        ),
        Arm(
            "no_diffusion",
            "the right drift without dW",
            "control",
            change=DriftOfNoise,
            equation=WithoutSquareNoise,
        ),
        Arm("independent_signs", "independent coordinates", "control", change=IndependentSigns),
    )
}


def find_arm(name: str) -> Arm:
    """Return the arm called ``name``; InputError if there is none."""
    if name not in ARMS:
        raise unknown_name("prediction", name, ARMS)
    return ARMS[name]
