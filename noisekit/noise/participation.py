"""The participation ratio: how many directions share the noise, of one batch or over recorded steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from noisekit._intervals import log_interval
from noisekit._readable import Readable, interval_95
from noisekit.gradients.record import GradientStatistics
from noisekit.noise.gram import gram_matrix, gram_moments, trace_of_square
from noisekit.noise.samples import MINIMUM_SAMPLES

_MOST_STEPS = 16
_GROUPS = 32


@dataclass(frozen=True, repr=False)
class ParticipationRatio(Readable):
    """(Tr Σ)²/Tr Σ²: the number of directions that share the noise, 1 to d."""

    value: float
    interval: tuple[float, float]
    """95 %, by a jackknife over groups of samples on the logarithm, or from the scatter of steps."""

    def __str__(self) -> str:
        return f"{self.value:.3g} directions share the noise ({interval_95(*self.interval)})"


def participation_ratio(
    per_sample_or_gram: Tensor | dict[str, Tensor] | GradientStatistics, *, gram: bool | None = None
) -> ParticipationRatio:
    """Return the participation ratio of Σ, numerator and denominator each unbiased.

    The ratio of sample eigenvalues alone cannot exceed the number of samples; this one can.

    Arguments: per-sample gradients (sample, coordinate), a dict of them, or their Gram matrix.
    Raises InputError for fewer than 8 samples or wrong shapes. Source of Tr Σ²: Chen, Zhang, Zhong 2010.
    """
    k = gram_matrix(per_sample_or_gram, gram=gram)
    share = _share(k)
    if not share > 0:
        return ParticipationRatio(math.nan, (math.nan, math.nan))
    value = 1 / share
    n = len(k)
    if n == MINIMUM_SAMPLES:  # none can be left out
        return ParticipationRatio(value, (math.nan, math.nan))
    groups = torch.arange(n).tensor_split(min(_GROUPS, n))
    logs = []
    for group in groups:
        keep = torch.ones(n, dtype=torch.bool)
        keep[group] = False
        share = _share(k[keep][:, keep])
        if not share > 0:
            return ParticipationRatio(value, (math.nan, math.nan))
        logs.append(math.log(share))
    g = len(logs)
    error = math.sqrt((g - 1) / g * sum((v - sum(logs) / g) ** 2 for v in logs))
    return ParticipationRatio(value, log_interval(value, 1.96 * error))


def participation_over_steps(
    gram: Tensor | None, values: Tensor | None, own: Tensor, size: int
) -> ParticipationRatio:
    """Return (Tr Σ)²/Tr Σ² over a window: the inverse of the mean over steps of Tr Σ²/(Tr Σ)².

    Arguments: ``gram`` (step, sample, sample) of all coordinates; without it ``values`` (step, sample,
    coordinate) at the coordinates ``own``, a random subset of the ``size`` of a block, from which the sums
    over the whole block are estimated. Interval from the scatter of the steps; NaN where nothing is recorded.
    """
    source = gram if gram is not None else values
    nothing = ParticipationRatio(math.nan, (math.nan, math.nan))
    if source is None or source.shape[1] < MINIMUM_SAMPLES or (gram is None and not bool(own.any())):
        return nothing
    steps = range(0, len(source), max(1, math.ceil(len(source) / _MOST_STEPS)))
    if gram is not None:
        shares = [_share(gram[k]) for k in steps]
    else:
        assert values is not None
        shares = [_share_from_subset(values[k][:, own.to(values.device)], size) for k in steps]
    known = torch.tensor([s for s in shares if math.isfinite(s)], dtype=torch.float64)
    if len(known) == 0 or float(known.mean()) <= 0:
        return nothing
    value = 1 / float(known.mean())
    if len(known) < 4:
        return ParticipationRatio(value, (math.nan, math.nan))
    n = len(known)
    half = float(stdtrit(n - 1, 0.975)) * float(known.std()) / math.sqrt(n)
    low, high = float(known.mean()) - half, float(known.mean()) + half
    return ParticipationRatio(value, (1 / high, 1 / low if low > 0 else math.inf))


def _share(gram: Tensor) -> float:
    """Return Tr Σ²/(Tr Σ)², numerator and denominator unbiased."""
    unit = float(gram.diagonal().max())
    if unit <= 0:
        return math.nan
    moments = gram_moments(gram.double() / unit)
    square = moments.trace**2 - moments.covariance[0]
    return trace_of_square(gram.double() / unit) / square if square > 0 else math.nan


def _share_from_subset(values: Tensor, size: int) -> float:
    """Return Tr Σ²/(Tr Σ)² of ``size`` coordinates from a random few of them, (sample, coordinate).

    Tr Σ² = Σ_i Σ_ii² + Σ_{i≠j} Σ_ij²: the first sum grows with the number of coordinates, the second with
    that of pairs.
    """
    values = values.double()
    unit = float(values.abs().max())
    if unit == 0:
        return math.nan
    values = values / unit
    c = values.shape[1]
    gram = gram_matrix(values, gram=False)
    moments = gram_moments(gram)
    own = _squared_variances(values)
    pairs = trace_of_square(gram) - own
    whole = own * size / c + (pairs * size * (size - 1) / (c * (c - 1)) if c > 1 else 0.0)
    trace = moments.trace * size / c
    square = trace**2 - moments.covariance[0] * (size / c) ** 2
    return whole / square if square > 0 else math.nan


def _squared_variances(values: Tensor) -> float:
    """Return Σ_j σ_j⁴, unbiased for any law: ``trace_of_square`` for each coordinate by itself."""
    n = len(values)
    a = values - values.mean(dim=0)
    second, fourth = a.square().sum(dim=0), a.pow(4).sum(dim=0)
    pairs = second.square() - fourth
    chains = fourth - pairs
    disjoint = second.square() - 4 * chains - 2 * pairs
    two = n * (n - 1)
    three = two * (n - 2)
    return float((pairs / two - 2 * chains / three + disjoint / (three * (n - 3))).sum())
