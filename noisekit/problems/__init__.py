"""What is trained: losses with their gradients, for many replicates at once."""

from noisekit.problems.base import Problem, SampledProblem
from noisekit.problems.network import ModelProblem
from noisekit.problems.quadratic import Quadratic

__all__ = ["ModelProblem", "Problem", "Quadratic", "SampledProblem"]
