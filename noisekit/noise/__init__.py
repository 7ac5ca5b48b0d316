"""What the gradient noise is: models of its law, and estimates from samples with their uncertainty."""

from noisekit.noise.base import NoiseModel
from noisekit.noise.empirical import EmpiricalNoise
from noisekit.noise.gaussian import GaussianNoise
from noisekit.noise.minibatch import MinibatchNoise
from noisekit.noise.student_t import StudentTNoise
from noisekit.noise.student_t_cdf import student_t_cdf

__all__ = [
    "EmpiricalNoise",
    "GaussianNoise",
    "MinibatchNoise",
    "NoiseModel",
    "StudentTNoise",
    "student_t_cdf",
]
