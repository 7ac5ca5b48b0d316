"""The noise of the optimizers that a study compares."""

from __future__ import annotations

from noisekit.noise import GaussianNoise, MinibatchNoise, NoiseModel
from noisekit.problems import Problem, SampledProblem
from noisekit.study.config import StudyConfig


def minibatch_noise_for(name: str, problem: SampledProblem, batch_size: int) -> MinibatchNoise:
    """Return the noise of the problem's minibatches at x, as the optimizer called ``name`` needs it.

    SignSGD takes the law of the minibatches themselves; for the others their covariance is enough.
    """
    return MinibatchNoise(problem, batch_size, law="empirical" if name == "signsgd" else "gaussian")


def study_noise(name: str, problem: Problem, config: StudyConfig) -> NoiseModel:
    """Return the noise of the problem's minibatches, or white Gaussian noise where it has no samples."""
    if isinstance(problem, SampledProblem):
        return minibatch_noise_for(name, problem, config.batch_size)
    return GaussianNoise(scale=config.artificial_noise)
