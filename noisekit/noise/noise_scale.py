"""The gradient noise scale B_simple = Tr Σ₁/|∇f|², with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from noisekit._readable import Readable
from noisekit.errors import InputError, NonFiniteError
from noisekit.gradients.record import GradientStatistics
from noisekit.noise.fieller import fieller_interval
from noisekit.noise.gram import GramMoments, gram_matrix, gram_moments


@dataclass(frozen=True, repr=False)
class NoiseScale(Readable):
    """B_simple = Tr Σ₁/|∇f|²: at this batch size noise and signal of a gradient are equal.

    Above it more samples buy few steps, below it they buy them one for one: it is the critical batch size of
    McCandlish et al. 2018. Every number speaks of one sample (B = 1) and of the sum over coordinates.
    """

    value: float
    """B_simple in samples, at least 0; inf where the estimate of |∇f|² is not positive."""
    interval: tuple[float, float]
    """95 % by Fieller's theorem; its upper end is inf where the data exclude no large value."""
    trace: float
    """Tr Σ₁, unbiased, in squared gradient units."""
    trace_error: float
    """Standard error of ``trace``."""
    signal: float
    """|∇f|², unbiased (it can be negative), in squared gradient units."""
    signal_error: float
    """Standard error of ``signal``."""
    identifiable: bool
    """Whether |∇f|² is told from 0; where it is not, only the lower end of the interval means something."""
    n_samples: int
    """Samples (or, over time, steps) behind the estimate."""

    @property
    def signal_to_noise(self) -> float:
        """|∇f|²/Tr Σ₁ of one sample; B times it for a batch."""
        return self.signal / self.trace if self.trace > 0 else math.inf

    @property
    def critical_batch_size(self) -> float:
        """The same number as ``value``, under the name of its use."""
        return self.value

    def progress_per_step(self, batch_size: float) -> float:
        """Return the progress of a step at ``batch_size`` as a share of a noiseless one, 1/(1 + B_simple/B).

        To second order, at the best learning rate of each batch size (McCandlish et al. 2018, eq. 2.7).
        """
        if not batch_size > 0:
            raise InputError(f"batch_size is {batch_size}; it must be positive.")
        return 1 / (1 + self.value / batch_size)

    def __str__(self) -> str:
        low, high = self.interval
        if math.isnan(self.value):
            return "no noise scale: every gradient is 0"
        if math.isnan(low):
            return f"noise scale {self.value:.3g} samples, without an interval"
        if not self.identifiable:
            return (
                f"noise scale not identifiable: above {low:.3g} (95 %), {self.n_samples} samples are too few"
            )
        return f"noise scale {self.value:.3g} samples (95 % {low:.3g} to {high:.3g})"


def gradient_noise_scale(
    per_sample_or_gram: Tensor | dict[str, Tensor] | GradientStatistics, *, gram: bool | None = None
) -> NoiseScale:
    """Return the noise scale of one batch as a ratio of U-statistics with Fieller's interval.

    Tr Σ₁ = Σ_{i<j} |g_i − g_j|²/(N(N−1)),  |∇f|² = Σ_{i≠j} g_i·g_j/(N(N−1)). The naive Tr Σ̂/|ḡ|² is biased
    towards N, because |ḡ|² holds Tr Σ₁/N of noise.

    Arguments: per-sample gradients (sample, coordinate), a dict of (sample, *parameter), their Gram matrix
    (sample, sample) not centred, or GradientStatistics; ``gram`` settles what a square tensor is.
    Raises InputError for fewer than 8 samples or a wrong shape, NonFiniteError for NaN or infinite values.
    Source: McCandlish, Kaplan, Amodei et al. 2018, arXiv 1812.06162; Fieller 1954.
    """
    return _from_moments(gram_moments(gram_matrix(per_sample_or_gram, gram=gram)))


def noise_scale_by_block(per_sample: Mapping[str, Tensor]) -> dict[str, NoiseScale]:
    """Return the noise scale and the signal-to-noise ratio of every layer, each (sample, *parameter)."""
    return {name: gradient_noise_scale(g.reshape(len(g), -1), gram=False) for name, g in per_sample.items()}


def noise_scale_from_batches(
    small_squared_norm: Tensor | float,
    big_squared_norm: Tensor | float,
    small_batch: int,
    big_batch: int,
) -> NoiseScale:
    """Return the noise scale from gradient norms at two batch sizes b < B, one pair or one pair a step.

    |∇f|² = (B|G_B|² − b|G_b|²)/(B − b),  Tr Σ₁ = (|G_b|² − |G_B|²)/(1/b − 1/B), each averaged over steps
    before the ratio is taken. Errors come from differences of successive steps, so that a slow drift does
    not widen them; fewer than 8 steps give no interval (NaN).

    Arguments: ``small_squared_norm``, ``big_squared_norm`` |G|², a number or (step,), in squared gradient
    units; ``small_batch``, ``big_batch`` b and B in samples.
    Raises InputError for batch sizes out of order or lengths that differ, NonFiniteError for NaN or inf.
    Source: McCandlish et al. 2018, arXiv 1812.06162, appendix A.1.

    >>> noise_scale_from_batches(11.0, 2.0, 1, 10).value
    10.0
    """
    if not 1 <= small_batch < big_batch:
        raise InputError(f"The batch sizes are {small_batch} and {big_batch}; the first must be the smaller.")
    small = torch.as_tensor(small_squared_norm, dtype=torch.float64).reshape(-1)
    big = torch.as_tensor(big_squared_norm, dtype=torch.float64).reshape(-1)
    if small.shape != big.shape:
        raise InputError(
            f"There are {len(small)} small-batch and {len(big)} big-batch norms; they come in pairs."
        )
    if len(small) == 0:
        raise InputError("There are no squared norms; pass one pair, or one pair a step.")
    if not bool(torch.isfinite(small).all() and torch.isfinite(big).all()):
        raise NonFiniteError("The squared norms hold NaN or infinite values; drop those steps.")
    signal = (big_batch * big - small_batch * small) / (big_batch - small_batch)
    trace = (small - big) / (1 / small_batch - 1 / big_batch)
    return noise_scale_over_steps(trace, signal)


def noise_scale_over_steps(trace: Tensor, signal: Tensor) -> NoiseScale:
    """Return the ratio of averages over steps of unbiased ``trace`` and ``signal``, both (step,).

    The average of ratios has no mean where the signal can be near 0. The error of an average is taken from
    successive differences (von Neumann 1941), Var = Σ(Δ²)/(2(n−1)n): a slow drift of the quantity stays out.
    """
    pair = torch.stack([trace, signal]).double()
    n = pair.shape[1]
    mean = pair.mean(dim=1)
    if n < 8:
        nan = math.nan
        value = max(float(mean[0] / mean[1]), 0.0) if mean[1] > 0 else math.inf
        return NoiseScale(value, (nan, nan), float(mean[0]), nan, float(mean[1]), nan, False, n)
    difference = pair[:, 1:] - pair[:, :-1]
    error = difference @ difference.T / (2 * (n - 1) * n)
    moments = GramMoments(
        float(mean[0]), float(mean[1]), (float(error[0, 0]), float(error[0, 1]), float(error[1, 1])), n
    )
    return _from_moments(moments)


def _from_moments(moments: GramMoments) -> NoiseScale:
    v_aa, v_ab, v_bb = moments.covariance
    quantile = float(stdtrit(moments.n_samples - 1, 0.975))
    trace, signal = moments.trace, moments.signal
    if trace == 0 and signal == 0:
        return NoiseScale(math.nan, (0.0, math.inf), 0.0, 0.0, 0.0, 0.0, False, moments.n_samples)
    unit = max(abs(trace), abs(signal))
    scaled = (v_aa / unit**2, v_ab / unit**2, v_bb / unit**2)
    return NoiseScale(
        value=max(trace, 0.0) / signal if signal > 0 else math.inf,
        interval=fieller_interval(trace / unit, signal / unit, scaled, quantile),
        trace=trace,
        trace_error=math.sqrt(max(v_aa, 0.0)),
        signal=signal,
        signal_error=math.sqrt(max(v_bb, 0.0)),
        identifiable=signal > quantile * math.sqrt(max(v_bb, 0.0)),
        n_samples=moments.n_samples,
    )
