"""What the gradient noise is: models of its law, and estimates from samples with their uncertainty."""

from noisekit.noise.alignment import HessianAlignment, hessian_alignment
from noisekit.noise.analysis import BlockNoise, NoiseAnalysis, analyze
from noisekit.noise.base import NoiseModel
from noisekit.noise.correlation import CorrelationSpectrum, correlation_spectrum
from noisekit.noise.covariance import NoiseCovariance, block_covariances, noise_covariance
from noisekit.noise.dependence import GradientDependence, gradient_dependence
from noisekit.noise.drift import NoiseDrift, noise_drift
from noisekit.noise.empirical import EmpiricalNoise
from noisekit.noise.fit import NoiseFit, fit_noise
from noisekit.noise.gaussian import GaussianNoise
from noisekit.noise.goodness_of_fit import GoodnessOfFit, goodness_of_fit
from noisekit.noise.minibatch import MinibatchNoise
from noisekit.noise.multivariate_student_t_fit import MultivariateStudentTFit, fit_multivariate_student_t
from noisekit.noise.noise_scale import (
    NoiseScale,
    gradient_noise_scale,
    noise_scale_by_block,
    noise_scale_from_batches,
)
from noisekit.noise.participation import ParticipationRatio, participation_ratio
from noisekit.noise.record_noise_scale import RecordNoiseScale, record_noise_scale
from noisekit.noise.selection import (
    HeldOutLikelihood,
    held_out_log_likelihood,
    weakest_visible_df,
)
from noisekit.noise.student_t import StudentTNoise
from noisekit.noise.student_t_cdf import student_t_cdf
from noisekit.noise.student_t_fit import StudentTFit, fit_student_t
from noisekit.noise.symmetry import Skewness, skewness
from noisekit.noise.tails import HillPlot, TailIndex, hill_plot, tail_index
from noisekit.noise.window_samples import window_samples

__all__ = [
    "BlockNoise",
    "CorrelationSpectrum",
    "EmpiricalNoise",
    "GaussianNoise",
    "GoodnessOfFit",
    "GradientDependence",
    "HeldOutLikelihood",
    "HessianAlignment",
    "HillPlot",
    "MinibatchNoise",
    "MultivariateStudentTFit",
    "NoiseAnalysis",
    "NoiseCovariance",
    "NoiseDrift",
    "NoiseFit",
    "NoiseModel",
    "NoiseScale",
    "ParticipationRatio",
    "RecordNoiseScale",
    "Skewness",
    "StudentTFit",
    "StudentTNoise",
    "TailIndex",
    "analyze",
    "block_covariances",
    "correlation_spectrum",
    "fit_multivariate_student_t",
    "fit_noise",
    "fit_student_t",
    "goodness_of_fit",
    "gradient_dependence",
    "gradient_noise_scale",
    "held_out_log_likelihood",
    "hessian_alignment",
    "hill_plot",
    "noise_covariance",
    "noise_drift",
    "noise_scale_by_block",
    "noise_scale_from_batches",
    "participation_ratio",
    "record_noise_scale",
    "skewness",
    "student_t_cdf",
    "tail_index",
    "weakest_visible_df",
    "window_samples",
]
