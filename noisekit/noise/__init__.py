"""What the gradient noise is: models of its law, and estimates from samples with their uncertainty."""

from noisekit.noise.base import NoiseModel
from noisekit.noise.empirical import EmpiricalNoise
from noisekit.noise.gaussian import GaussianNoise
from noisekit.noise.minibatch import MinibatchNoise
from noisekit.noise.noise_scale import (
    NoiseScale,
    gradient_noise_scale,
    noise_scale_by_block,
    noise_scale_from_batches,
)
from noisekit.noise.record_noise_scale import RecordNoiseScale, record_noise_scale
from noisekit.noise.student_t import StudentTNoise
from noisekit.noise.student_t_cdf import student_t_cdf

__all__ = [
    "EmpiricalNoise",
    "GaussianNoise",
    "MinibatchNoise",
    "NoiseModel",
    "NoiseScale",
    "RecordNoiseScale",
    "StudentTNoise",
    "gradient_noise_scale",
    "noise_scale_by_block",
    "noise_scale_from_batches",
    "record_noise_scale",
    "student_t_cdf",
]
