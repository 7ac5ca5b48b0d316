"""Does the noise grow with the gradient? Additive against multiplicative noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit._readable import Readable
from noisekit.errors import InputError
from noisekit.noise.trend import FEWEST_POINTS, fit_line

_CLEAR = 4.0
"""A group of steps is used once its signal stands this many standard errors above 0."""


@dataclass(frozen=True, repr=False)
class GradientDependence(Readable):
    """Slope b of log Tr Σ on log |∇f|²: 0 is additive noise, 1 multiplicative."""

    slope: float
    """NaN where the gradient is too noisy, or moves too little, to tell."""
    interval: tuple[float, float]
    """95 %, Newey–West."""
    reliability: float
    """Share of the spread of log |∇f|² that is not estimation error; the slope is divided by it."""
    n_groups: int
    """Points of the regression: averages over equally many successive steps."""

    @property
    def verdict(self) -> str:
        """One sentence; an association over the window, not a cause."""
        if math.isnan(self.slope):
            return "gradient too noisy or too steady to tell additive from multiplicative noise"
        low, high = self.interval
        text = f"(slope {self.slope:.2f}, 95 % {low:.2f} to {high:.2f})"
        if low <= 0 <= high and low <= 1 <= high:
            return f"additive or multiplicative: cannot tell {text}"
        if low <= 0 <= high:
            return f"additive: does not follow the gradient {text}"
        if low <= 1 <= high:
            return f"multiplicative: variance follows |∇f|² {text}"
        if high < 0:
            return f"grows as the gradient falls {text}"
        return f"{'partly multiplicative' if high < 1 else 'grows faster than |∇f|²'} {text}"

    def __str__(self) -> str:
        return self.verdict


def gradient_dependence(trace: Tensor, signal: Tensor) -> GradientDependence:
    """Regress the logarithm of the noise's variance on that of the squared gradient over a run.

    log Tr Σ = a + b log |∇f|². The regressor is estimated with error, which pulls b to 0: steps are averaged
    in groups until the signal of most groups is clear, the rest is divided out (reliability). Measured on
    runs of 64 and 128 steps with b = 0, ½ and 1: bias below .01, and 82 to 95 % of the 95 % intervals hold b.

    Arguments: ``trace`` Tr Σ̂ and ``signal`` the unbiased |∇f|² of each step, both (step,), in squared
    gradient units. Raises InputError where the lengths differ.
    """
    if trace.shape != signal.shape or trace.ndim != 1:
        raise InputError(
            f"trace has shape {tuple(trace.shape)} and signal {tuple(signal.shape)}; both are (step,)."
        )
    trace, signal = trace.detach().double().cpu(), signal.detach().double().cpu()
    nothing = GradientDependence(math.nan, (math.nan, math.nan), math.nan, 0)
    size = 1
    while len(signal) // size >= FEWEST_POINTS:
        groups = len(signal) // size
        grouped = signal[: groups * size].reshape(groups, size).mean(dim=1)
        noise = trace[: groups * size].reshape(groups, size).mean(dim=1)
        error = _error_of_groups(signal, size)[:groups]
        clear = (grouped > _CLEAR * error) & (noise > 0)
        if int(clear.sum()) >= max(FEWEST_POINTS, 0.9 * groups):
            x, y = grouped[clear].log(), noise[clear].log()
            spread = float(x.var())
            blur = float((error[clear] / grouped[clear]).square().mean())
            if spread == 0 or spread < 2 * blur:
                return nothing
            reliability = 1 - blur / spread
            line = fit_line(x.numpy(), y.numpy())
            low, high = line.interval
            return GradientDependence(
                line.slope / reliability, (low / reliability, high / reliability), reliability, len(x)
            )
        size *= 2
    return nothing


def _error_of_groups(signal: Tensor, size: int) -> Tensor:
    """Return the standard error of the mean of ``size`` successive signals, from their differences nearby."""
    squares = torch.diff(signal).square() / 2
    width = min(max(16, size), len(squares))
    # A running mean over neighbouring steps, because the error itself moves with the gradient.
    padded = torch.nn.functional.pad(squares[None, None], (width // 2, width - width // 2), mode="replicate")
    local = torch.nn.functional.avg_pool1d(padded, width, stride=1)[0, 0][: len(signal)]
    groups = len(signal) // size
    return (local[: groups * size].reshape(groups, size).mean(dim=1) / size).sqrt()
