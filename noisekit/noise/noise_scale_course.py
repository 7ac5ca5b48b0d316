"""The noise scale at every record of a training run, while Tr Σ and |∇f|² move."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit.noise.level_smoother import SmoothedLevel, smooth_level
from noisekit.noise.noise_scale import NoiseScale

FEWEST_RECORDS = 8
_TRACE_SPREAD = torch.logspace(math.log10(0.02), math.log10(0.5), 5).square()
"""Relative variances of Tr Σ̂ of one record."""
_SIGNAL_SPREAD = torch.logspace(math.log10(0.006), 0, 6)
"""2/D, D the number of directions that share the noise."""
_ALIGNMENT = 2.0
"""Noise along the gradient over that of the average direction among these D."""
_ERRORS = 1.959964


@dataclass(frozen=True)
class NoiseScaleCourse:
    """B_simple, with what it is a ratio of, at every record, (record, series)."""

    value: Tensor
    """In samples; inf where no signal is seen."""
    interval: Tensor
    """95 %, (record, series, 2); the upper end is inf where the data exclude no large value."""
    trace: Tensor
    """Tr Σ₁, smoothed."""
    trace_error: Tensor
    identifiable: Tensor

    def at(self, record: int, series: int) -> NoiseScale:
        """Return the noise scale at one record."""
        value, trace = float(self.value[record, series]), float(self.trace[record, series])
        low, high = self.interval[record, series].tolist()
        signal = trace / value if value > 0 else math.nan
        width = math.log(high / low) if 0 < low < high < math.inf else math.nan
        return NoiseScale(
            value=value,
            interval=(low, high),
            trace=trace,
            trace_error=float(self.trace_error[record, series]),
            signal=signal,
            signal_error=signal * width / (2 * _ERRORS),
            identifiable=bool(self.identifiable[record, series]),
            n_samples=len(self.value),
        )


def noise_scale_course(trace: Tensor, signal: Tensor, batch_size: int) -> NoiseScaleCourse:
    """Return B_simple = Tr Σ₁/|∇f|² at every record from unbiased ``trace`` and ``signal``, (record, series).

    Both move during training, and one record alone says too little of |∇f|². So log Tr Σ₁, and then the log
    of x = B|∇f|²/Tr Σ₁, are random walks whose pace the data choose (``smooth_level``). A record's own
    variance is that of batches whose noise is shared by D directions and twice as strong along the gradient,
    (2/D)(1 + 4x) of x̂, for whichever D fits; that of Tr Σ̂ is in proportion to (Tr Σ)². Both are in the
    interval.

    Arguments: ``batch_size`` B of a record.
    """
    trace, signal = trace.double().cpu(), signal.double().cpu()
    usual = trace.nanmean(dim=0)
    live = usual > 0
    nothing = torch.where(signal.nanmean(dim=0) > 0, 0.0, math.nan).to(trace).expand_as(trace)
    value, smooth, error = nothing.clone(), torch.zeros_like(trace), torch.zeros_like(trace)
    interval = torch.stack([nothing.nan_to_num(0.0), nothing.nan_to_num(math.inf)], dim=-1)
    identifiable = nothing == 0
    if bool(live.any()):
        relative = trace[:, live] / usual[live]
        size = _smooth_trace(relative)
        smooth[:, live] = size.median.exp() * usual[live]
        error[:, live] = smooth[:, live] * (size.upper - size.lower) / (2 * _ERRORS)
        x = signal[:, live] * batch_size / smooth[:, live]
        level = smooth_level(
            x,
            _signal_variance,
            least=0.03 * math.sqrt(float(_SIGNAL_SPREAD[1]) / len(x)),
            most=4 * max(float(x.nan_to_num(0.0).max()), 1.0),
        )
        middle = math.log(batch_size) - level.median
        up = torch.hypot(level.median - level.lower, size.upper - size.median)
        down = torch.hypot(level.upper - level.median, size.median - size.lower)
        value[:, live] = torch.where(level.is_positive, middle.exp(), math.inf)
        high = torch.where(level.is_seen, (middle + up).exp(), math.inf)
        interval[:, live] = torch.stack([(middle - down).exp(), high], dim=-1)
        identifiable[:, live] = level.is_seen
    return NoiseScaleCourse(value, interval, smooth, error, identifiable)


def _signal_variance(x: Tensor) -> Tensor:
    return _SIGNAL_SPREAD[:, None] * (1 + 2 * _ALIGNMENT * x)


def _smooth_trace(relative: Tensor) -> SmoothedLevel:
    seen = relative[relative > 0]
    return smooth_level(
        relative,
        lambda x: _TRACE_SPREAD[:, None] * x**2,
        least=max(float(seen.min()) / 3, 1e-4 * float(seen.max())),
        most=3 * float(seen.max()),
    )
