"""A centre that heavy tails do not move: the M-estimate of location with a bounded score."""

from __future__ import annotations

import torch
from torch import Tensor

_ITERATIONS = 12


def robust_centre(z: Tensor, c: float) -> tuple[Tensor, Tensor]:
    """Return the M-estimate of location with ψ(z) = tanh(z/c), (coordinate,), and its influence function.

    Arguments: ``z`` (sample, coordinate), near 0, in units of its deviation; ``c`` where the score bends.
    Source: Huber 1964, Ann. Math. Statist. 35:73.
    """
    location = torch.zeros_like(z[0])
    for _ in range(_ITERATIONS):
        score = torch.tanh((z - location) / c)
        location = location + c * score.mean(dim=0) / (1 - score.square()).mean(dim=0).clamp(min=0.05)
    score = torch.tanh((z - location) / c)
    return location, c * score / (1 - score.square()).mean(dim=0)


def centre_and_deviation(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and median absolute deviation of each coordinate of ``x`` (sample, coordinate).

    A deviation of 0 (half the samples repeat one value) is given as 1, so that it can be divided by.
    """
    centre = x.median(dim=0).values
    deviation = (x - centre).abs().median(dim=0).values
    return centre, torch.where(deviation > 0, deviation, 1)
