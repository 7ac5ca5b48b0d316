"""What the recorded noise is: its law in each coordinate, its tails, its scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.noise import NoiseFit, RecordNoiseScale, fit_noise, record_noise_scale, tail_index
from noisekit.study.progress import bar
from noisekit.study.training import TrainingRun

TailEstimator = Literal["gpd", "moment", "hill"]
FIT_STEPS = 3
"""Recorded steps at which laws are fitted: the first, the last, and those between."""
SAMPLES_NEEDED = 20


@dataclass(frozen=True)
class NoiseFindings:
    """Fits by step, tail indices by the names of the file schema, and noise scales over the record."""

    fits: dict[int, NoiseFit] | None
    tail: dict[str, Any] | None
    scale: RecordNoiseScale
    minibatch: tuple[Tensor, NoiseFit] | None = None
    """Noise of minibatch gradients where training ended, (minibatch, coordinate), and its fit."""


def analyze_noise(trained: TrainingRun, *, batch_size: int, progress: bool = False) -> NoiseFindings:
    """Fit the recorded noise at a few steps, estimate its tails there, and its scale over all steps.

    Each step is fitted by itself, because a noise whose scale moves looks heavy-tailed when steps are
    pooled. The noise of minibatches of ``batch_size`` is fitted where training ended, on disjoint
    minibatches.
    """
    record = trained.record
    scale = record_noise_scale(record)
    if record.coordinate_values is None or record.batch_size < SAMPLES_NEEDED:
        return NoiseFindings(None, None, scale)
    rows = sorted({int(r) for r in np.linspace(0, len(record.step) - 1, FIT_STEPS).round()})
    fits: dict[int, NoiseFit] = {}
    tails: list[dict[str, Any]] = []
    with bar("Fitting the noise", len(rows), show=progress) as shown:
        for row in rows:
            values = record.coordinate_values[row]
            noise = values - values.mean(0)
            fits[int(record.step[row])] = fit_noise(noise, batch_size=1)
            tails.append(tail_of_blocks(noise, record.coordinate_block or [], record.block))
            shown.update()
    tail = {name: np.stack([t[name] for t in tails]) for name in ("alpha", "alpha_interval", "k")}
    tail |= {"step": np.array(list(fits)), "block": np.array(record.block)}
    tail |= {"estimator": np.array(get_args(TailEstimator))}
    return NoiseFindings(fits, tail, scale, minibatch_noise(trained.final_gradients, batch_size))


def minibatch_noise(gradients: Tensor | None, batch_size: int) -> tuple[Tensor, NoiseFit] | None:
    """Return the noise of disjoint minibatches of per-sample gradients (sample, coordinate), and its fit.

    None if there are fewer than 20 minibatches. Disjoint, because resampling a finite data set makes its
    noise look better known than it is.
    """
    n = 0 if gradients is None else len(gradients) // batch_size
    if gradients is None or n < SAMPLES_NEEDED:
        return None
    means = gradients[: n * batch_size].unflatten(0, (n, batch_size)).mean(1)
    noise = means - means.mean(0)
    return noise, fit_noise(noise, batch_size=batch_size)


def tail_of_blocks(noise: Tensor, coordinate_block: list[str], blocks: Iterable[str]) -> dict[str, Any]:
    """Return tail indices of noise (sample, coordinate), pooled over the coordinates of each block.

    Coordinates are standardised before they are pooled. NaN where a block has no recorded coordinate, or
    only such as are constant or repeat one value.
    """
    result: dict[str, list[Any]] = {"alpha": [], "alpha_interval": [], "k": []}
    for block in blocks:
        mine = torch.tensor([name == block for name in coordinate_block], device=noise.device)
        rows = [_tail(noise[:, mine], estimator) for estimator in get_args(TailEstimator)]
        for name, column in zip(result, zip(*rows, strict=True), strict=True):
            result[name].append(column)
    return {name: np.array(values) for name, values in result.items()}


def _tail(noise: Tensor, estimator: TailEstimator) -> tuple[float, tuple[float, float], int]:
    if noise.shape[1] == 0:
        return np.nan, (np.nan, np.nan), 0
    try:
        found = tail_index(noise, estimator=estimator, pooled=True)
    except InputError:
        # Every coordinate of this block is constant or repeats one value: there is no tail to speak of.
        return np.nan, (np.nan, np.nan), 0
    low, high = found.interval.reshape(2).tolist()
    return found.alpha.item(), (low, high), found.k
