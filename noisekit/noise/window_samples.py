"""Noise samples pooled over a window of steps, with the drift of location and scale taken out."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.gradients.record import GradientRecord
from noisekit.noise.centre import centre_and_deviation, robust_centre

_GROUP = 512
_MOST = 20_000
_BEND = 4.0


def window_samples(record: GradientRecord) -> Tensor:
    """Return standardised per-sample noise of every recorded step, (step·sample, coordinate).

    A scale that moves over the window looks heavy-tailed when steps are pooled as they are; dividing each
    step by its own standard deviation would cut the tails, and its mean has no variance where ν < 2. So
    each coordinate of a step is centred by its M-estimate; each step of a block is divided by one factor for
    all its coordinates, read from at least 512 numbers; each coordinate by its median absolute deviation over
    successive steps with at least 512 samples. At most 20,000 samples, from evenly spread steps.
    Raises InputError where the record holds no coordinate values.
    """
    if record.coordinate_values is None or record.coordinate_block is None:
        raise InputError("The record holds no coordinate values; record with coordinates=512.")
    values = record.coordinate_values
    steps, n = values.shape[:2]
    values = values[:: max(1, math.ceil(steps * n / _MOST))]
    values = values if values.is_floating_point() and values.dtype.itemsize >= 4 else values.float()
    noise = _centred(values)
    for block in dict.fromkeys(record.coordinate_block):
        own = torch.tensor([name == block for name in record.coordinate_block], device=noise.device)
        noise[:, :, own] /= _step_factors(noise[:, :, own])[:, None, None]
    groups = min(max(1, len(noise) * n // _GROUP), len(noise))
    parts = [part.flatten(0, 1) for part in noise.tensor_split(groups)]
    return torch.cat([part / centre_and_deviation(part)[1] for part in parts])


def _centred(values: Tensor) -> Tensor:
    """Return ``values`` (step, sample, coordinate) less a robust centre of each step."""
    steps, n, d = values.shape
    rows = values.transpose(0, 1).reshape(n, steps * d)
    centre, deviation = centre_and_deviation(rows)
    z = (rows - centre) / deviation
    z = (z - robust_centre(z, _BEND)[0]) * deviation * math.sqrt(n / max(n - 1, 1))
    return z.reshape(n, steps, d).transpose(0, 1).contiguous()


def _step_factors(noise: Tensor) -> Tensor:
    """Return the scale of each step relative to the window, (step,), common to all coordinates of a block."""
    steps, n, d = noise.shape
    relative = (noise / centre_and_deviation(noise.flatten(0, 1))[1]).abs().flatten(1)
    factor = relative.median(dim=1).values
    factor = torch.where(factor > 0, factor, 1).log()
    # Few numbers a step give a noisy factor, and dividing by noise would bend the law: average neighbours.
    width = min(steps, math.ceil(_GROUP / (n * d)))
    padded = torch.nn.functional.pad(
        factor[None, None], (width // 2, width - 1 - width // 2), mode="replicate"
    )
    return torch.nn.functional.avg_pool1d(padded, width, stride=1)[0, 0].exp()
