"""How an optimizer moves: one SDE a file, keyed Brownian increments, solvers, and ``integrate``."""

from noisekit.sde.adam import AdamSDE
from noisekit.sde.base import OptimizerSDE, Substep
from noisekit.sde.integrate import integrate
from noisekit.sde.rmsprop import RMSpropSDE
from noisekit.sde.sgd import SGDSDE
from noisekit.sde.signsgd import SignSGDSDE
from noisekit.sde.solution import Solution
from noisekit.sde.solvers import EulerMaruyama, Solver, StochasticHeun

__all__ = [
    "SGDSDE",
    "AdamSDE",
    "EulerMaruyama",
    "OptimizerSDE",
    "RMSpropSDE",
    "SignSGDSDE",
    "Solution",
    "Solver",
    "StochasticHeun",
    "Substep",
    "integrate",
]
