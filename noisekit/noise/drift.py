"""Does the size of the noise move over the recorded window?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit._readable import Readable
from noisekit.errors import InputError
from noisekit.noise.trend import FEWEST_POINTS, fit_line


@dataclass(frozen=True, repr=False)
class NoiseDrift(Readable):
    """The factor by which Tr Σ changes from the first to the last step of a window."""

    ratio: float
    """Last over first, of the straight line through log Tr Σ; NaN with fewer than 8 steps."""
    interval: tuple[float, float]
    """95 %."""
    p_value: float
    n_steps: int

    @property
    def verdict(self) -> str:
        """One sentence."""
        if math.isnan(self.ratio):
            return f"drift unknown: {self.n_steps} steps"
        low, high = self.interval
        if low <= 1 <= high:
            return f"steady ({self.ratio:.2g}×, 95 % {low:.2g} to {high:.2g})"
        verb = "grows" if self.ratio > 1 else "shrinks"
        size = self.ratio if self.ratio > 1 else 1 / self.ratio
        # A standard deviation that falls by √2 over the window already shifts a fitted ν.
        advice = "; fit at single steps, pooling looks heavy-tailed" if size > 2 else ""
        return f"{verb} {size:.2g}× over the window{advice}"

    def __str__(self) -> str:
        return self.verdict


def noise_drift(step: Tensor, trace: Tensor) -> NoiseDrift:
    """Return how Tr Σ moves over ``step``, both (step,), from a line through its logarithm.

    A scale that falls 4× over a window makes Gaussian noise fit a Student-t of ν = 5. Steps of zero trace are
    left out. Errors by Newey–West. Raises InputError where lengths differ.
    """
    if step.shape != trace.shape or step.ndim != 1:
        raise InputError(
            f"step has shape {tuple(step.shape)} and trace {tuple(trace.shape)}; both are (step,)."
        )
    keep = trace > 0
    x, y = step[keep].double().cpu(), torch.log(trace[keep].double()).cpu()
    if len(x) < FEWEST_POINTS or float(x.max()) == float(x.min()):
        return NoiseDrift(math.nan, (math.nan, math.nan), math.nan, len(x))
    x = (x - x.min()) / (x.max() - x.min())
    line = fit_line(x.numpy(), y.numpy())
    low, high = line.interval
    return NoiseDrift(math.exp(line.slope), (math.exp(low), math.exp(high)), line.p_value, len(x))
