"""Optimizers that torch lacks, and ensembles of real optimizer runs."""

from noisekit.optimizers.rmspropw import RMSpropW
from noisekit.optimizers.signsgd import SignSGD
from noisekit.optimizers.simulate import simulate_optimizer
from noisekit.optimizers.state import optimizer_state

__all__ = ["RMSpropW", "SignSGD", "optimizer_state", "simulate_optimizer"]
