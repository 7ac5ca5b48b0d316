"""Moments of every coordinate, accumulated over recorded steps without keeping them; two merge exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit.errors import InputError


@dataclass(frozen=True)
class RunningMoments:
    """Counts and sums of squares of per-sample gradients over batches, by parameter name.

    ``mean`` is over all samples of all batches. ``squares`` is Σ (g − mean)² over all of them; ``within`` is
    Σ (g − ḡ_batch)², which the drift of the mean along a training run does not enter.
    """

    n_samples: int
    n_batches: int
    mean: dict[str, Tensor]
    squares: dict[str, Tensor]
    within: dict[str, Tensor]

    @classmethod
    def of_batch(cls, n: int, mean: dict[str, Tensor], variance: dict[str, Tensor]) -> RunningMoments:
        """Return the moments of one batch of n samples with its mean and unbiased variance."""
        squares = {name: v * (n - 1) for name, v in variance.items()}
        return cls(n, 1, mean, squares, dict(squares))

    def merge(self, other: RunningMoments) -> RunningMoments:
        """Return the moments of both together, exactly (Chan, Golub, LeVeque 1979)."""
        if self.mean.keys() != other.mean.keys():
            raise InputError("The records cover different parameters, so their moments cannot be merged.")
        n = self.n_samples + other.n_samples
        names = list(self.mean)

        def both(kind: str) -> tuple[list[Tensor], list[Tensor]]:
            own, theirs = getattr(self, kind), getattr(other, kind)
            return [own[name] for name in names], [theirs[name] for name in names]

        # Over all parameters at once: a GPU is given each of these steps in a few calls, not in hundreds.
        own, theirs = both("mean")
        gaps = list(torch._foreach_sub(theirs, own))
        mean = torch._foreach_add(own, torch._foreach_mul(gaps, other.n_samples / n))
        torch._foreach_mul_(gaps, gaps)
        torch._foreach_mul_(gaps, self.n_samples * other.n_samples / n)
        squares = list(torch._foreach_add(*both("squares")))
        torch._foreach_add_(squares, gaps)
        sums = (mean, squares, torch._foreach_add(*both("within")))
        merged = (dict(zip(names, each, strict=True)) for each in sums)
        return RunningMoments(n, self.n_batches + other.n_batches, *merged)

    def variance(self, *, pooled: bool = True) -> dict[str, Tensor]:
        """Return the unbiased variance of one sample's gradient, within batches or about the overall mean."""
        if pooled:
            return {name: w / (self.n_samples - self.n_batches) for name, w in self.within.items()}
        return {name: s / (self.n_samples - 1) for name, s in self.squares.items()}

    def total(self) -> Tensor:
        """Return the trace of the pooled within-batch covariance."""
        return torch.stack([v.sum() for v in self.variance().values()]).sum()
