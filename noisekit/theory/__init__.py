"""Closed forms: where an optimizer settles, how fast, and whether the theory holds."""

from noisekit.theory.critical_noise import critical_noise
from noisekit.theory.loss_bounds import loss_bound
from noisekit.theory.noise_floor import noise_floor
from noisekit.theory.phases import SignSGDPhase, signsgd_phase
from noisekit.theory.regimes import Gauge, regimes
from noisekit.theory.robustness import RobustnessRow, robustness
from noisekit.theory.saddle import escape_time
from noisekit.theory.scaling import scale_hyperparameters
from noisekit.theory.stationary import StationaryLaw, stationary_law
from noisekit.theory.transient import TransientLaw, steps_to_target, transient_law

__all__ = [
    "Gauge",
    "RobustnessRow",
    "SignSGDPhase",
    "StationaryLaw",
    "TransientLaw",
    "critical_noise",
    "escape_time",
    "loss_bound",
    "noise_floor",
    "regimes",
    "robustness",
    "scale_hyperparameters",
    "signsgd_phase",
    "stationary_law",
    "steps_to_target",
    "transient_law",
]
