"""Samples of gradient noise as every estimator of this room takes them: (sample, coordinate), finite."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from noisekit.errors import InputError, NonFiniteError

MINIMUM_SAMPLES = 8


def as_samples(samples: object, *, minimum: int = MINIMUM_SAMPLES) -> Tensor:
    """Return ``samples`` as a detached floating tensor (sample, coordinate).

    A vector becomes one coordinate. Half precisions are widened to float32; float64 is kept.

    Args:
        samples: a tensor, or anything NumPy can read (array, xarray DataArray), shape (sample, coordinate).
        minimum: the fewest samples the estimator can use.

    Raises:
        InputError: wrong dtype, wrong number of axes, too few samples or no coordinate.
        NonFiniteError: NaN or infinite values, with the first of them.
    """
    tensor = samples if isinstance(samples, Tensor) else _from_numpy(samples)
    if not tensor.is_floating_point():
        raise InputError(
            f"samples has dtype {_name(tensor.dtype)}; gradient noise is real-valued, so pass floating-point "
            "samples (for instance samples.float())."
        )
    tensor = tensor.detach()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    if tensor.ndim == 1:
        tensor = tensor[:, None]
    if tensor.ndim != 2:
        raise InputError(
            f"samples has shape {tuple(tensor.shape)}; the axes must be (sample, coordinate), so flatten the "
            "others first."
        )
    n, d = tensor.shape
    if n < minimum:
        raise InputError(
            f"samples has {n} samples (shape {(n, d)}, axes (sample, coordinate)); "
            f"at least {minimum} are needed."
        )
    if d == 0:
        raise InputError("samples has no coordinate; pass an array of shape (sample, coordinate).")
    # min and max carry NaN and inf along, so one cheap reduction finds both.
    if not torch.isfinite(torch.stack(tensor.aminmax())).all():
        bad = (~torch.isfinite(tensor)).nonzero()
        row, column = bad[0].tolist()
        raise NonFiniteError(
            f"samples has {len(bad)} values that are NaN or infinite, the first at sample {row}, "
            f"coordinate {column}; drop those samples or find the step that made them."
        )
    return tensor


def _from_numpy(samples: object) -> Tensor:
    array = np.asarray(samples)
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"samples has dtype {array.dtype}; pass a floating-point array (sample, coordinate)."
        )
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def constant_coordinates(samples: Tensor) -> Tensor:
    """Return which coordinates (coordinate,) never change over the samples (dead or constant parameters)."""
    return samples.amin(dim=0) == samples.amax(dim=0)


def coordinates_with_atoms(samples: Tensor, share: float = 0.05) -> Tensor:
    """Return which coordinates (coordinate,) repeat one exact value in more than ``share`` of the samples.

    Such a coordinate (exact zeros behind a ReLU, say) has no density: a Student-t likelihood on it grows
    without bound as its scale shrinks around the repeated value, and tail estimators of |x| read garbage.
    Judged on 512 to 1,023 samples spread evenly over the window.
    """
    return has_run(sorted_rows(evenly_spread(samples, 512)), share)


def sorted_rows(samples: Tensor) -> Tensor:
    """Return the samples of each coordinate in rising order, (coordinate, sample)."""
    rows = samples.T.contiguous()
    if rows.device.type == "cpu":  # NumPy sorts short rows many times faster than torch
        return torch.from_numpy(np.sort(rows.numpy(), axis=1))
    return torch.sort(rows, dim=1).values


def has_run(ordered: Tensor, share: float = 0.05) -> Tensor:
    """Return which sorted rows hold one value more than ``share`` of the time (and more than three times)."""
    run = max(3, int(share * ordered.shape[1]))
    return (ordered[:, run:] - ordered[:, :-run]).amin(dim=1) == 0


def evenly_spread(samples: Tensor, at_most: int) -> Tensor:
    """Return at most about ``at_most`` samples, evenly spread over the sample axis."""
    return samples[:: max(1, len(samples) // at_most)]


def repeated_share(samples: Tensor) -> float:
    """Return the share of samples that repeat an earlier one exactly, judged on four varying coordinates.

    Draws from a finite data set beyond its size repeat; intervals, which assume independent samples, are then
    far too short. One coordinate alone cannot tell repeats from rounding, so it gives 0.
    """
    varying = (~constant_coordinates(samples)).nonzero().squeeze(1)[:4]
    if len(varying) < 2:
        return 0.0
    return 1 - len(torch.unique(samples[:, varying], dim=0)) / len(samples)


def scale_drift(samples: Tensor) -> tuple[float, float]:
    """Return the factor by which the scale changes between quarters of the window, and what chance gives.

    The scale of a quarter is its median absolute deviation, compared through the median over the coordinates,
    so that neither heavy tails nor a few odd coordinates matter. The second number is four standard errors.
    """
    live = samples[:, ~constant_coordinates(samples)]
    n, d = live.shape
    if n < 32 or d == 0:
        return 1.0, math.inf
    deviation = (live - live.median(dim=0).values).abs()
    quarters = torch.stack([q.median(dim=0).values for q in deviation.tensor_split(4)]).double()
    logs = quarters.clamp_min(torch.finfo(samples.dtype).tiny).log()
    relative = (logs - logs.mean(dim=0)).median(dim=1).values
    chance = 4 * 1.5 * math.sqrt(4 / n) * (1.25 / math.sqrt(d) if d > 1 else 1.0)
    return math.exp((relative.max() - relative.min()).item()), math.exp(min(chance, 50.0))
