"""Samples of gradient noise as every estimator of this room takes them: (sample, coordinate), finite."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from noisekit.errors import InputError, NonFiniteError
from noisekit.gradients.device import where_wide

MINIMUM_SAMPLES = 8
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LARGEST = 1e150


def as_samples(samples: object, *, minimum: int = MINIMUM_SAMPLES) -> Tensor:
    """Return ``samples`` as a detached floating tensor (sample, coordinate).

    A vector becomes one coordinate. Half precisions are widened to float32; float64 is kept. Every sample
    counts once: no estimator of this room takes weights. Estimates are made in float64, so samples on a
    device without it come back on the CPU.

    Args:
        samples: a tensor, or anything NumPy can read, shape (sample, coordinate); the axes ``sample`` and
            ``coordinate`` of an xarray DataArray may come in any order.
        minimum: the fewest samples the estimator can use.

    Raises:
        InputError: wrong dtype, wrong number of axes, too few samples, no coordinate, or a magnitude whose
            square leaves float64.
        NonFiniteError: NaN or infinite values, with the first of them.
    """
    tensor = samples if isinstance(samples, Tensor) else _from_numpy(samples)
    if tensor.dtype not in _DTYPES:
        raise InputError(
            f"samples has dtype {_name(tensor.dtype)}; gradient noise is real-valued, so pass floating-point "
            "samples of 16 to 64 bits (for instance samples.float())."
        )
    if tensor.layout != torch.strided:
        raise InputError(f"samples is a {_name(tensor.layout)} tensor; pass samples.to_dense().")
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
    largest = float(torch.stack(tensor.aminmax()).abs().amax())
    if not math.isfinite(largest):
        bad = (~torch.isfinite(tensor)).nonzero()
        row, column = bad[0].tolist()
        raise NonFiniteError(
            f"samples has {len(bad)} values that are NaN or infinite, the first at sample {row}, "
            f"coordinate {column}; drop those samples or find the step that made them."
        )
    if largest > _LARGEST or 0 < largest < 1 / _LARGEST:
        raise InputError(
            f"The largest sample is {largest:.3g} in size and its square leaves float64; rescale the samples."
        )
    return where_wide(tensor)


def _from_numpy(samples: object) -> Tensor:
    if "sample" in getattr(samples, "dims", ()):
        samples = samples.transpose("sample", ...)  # type: ignore[attr-defined]
    try:
        if isinstance(samples, list | tuple) and any(isinstance(row, Tensor) for row in samples):
            return torch.stack([torch.as_tensor(row) for row in samples])
        array = np.asarray(samples)
    except (ValueError, RuntimeError):
        raise InputError("samples has rows of unequal length; pass an array (sample, coordinate).") from None
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"samples has dtype {array.dtype}; pass a floating-point array (sample, coordinate)."
        )
    dtype = np.dtype(np.float64) if array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, dtype=dtype, order="C"))


def _name(kind: torch.dtype | torch.layout) -> str:
    return str(kind).removeprefix("torch.")


def check_level(level: float) -> float:
    """Return ``level`` if it is a probability strictly between 0 and 1."""
    if not 0 < level < 1:
        raise InputError(f"level is {level}; give a probability between 0 and 1, such as 0.05.")
    return level


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
    # Equal rows share a sum of their bits, each column's times an odd number; others all but never do.
    bits = (samples[:, varying] + 0.0).view({4: torch.int32, 8: torch.int64}[samples.element_size()])
    odd = torch.tensor([1, 0x9E3779B97F4A7C15 - 2**64, 0x1B873593, 0x27D4EB2F165667C5], device=bits.device)
    keys = (bits.to(torch.int64) * odd[: len(varying)]).sum(dim=1)
    return 1 - len(torch.unique(keys)) / len(samples)


def scale_drift(samples: Tensor) -> tuple[float, float]:
    """Return the factor by which the scale changes between quarters of the window, and what chance gives.

    The scale of a quarter is its median absolute deviation, compared through the median over the coordinates,
    so that neither heavy tails nor a few odd coordinates matter. The second number is four standard errors.
    Judged on at most 8,191 samples spread evenly over the window.
    """
    live = evenly_spread(samples, 4096)
    live = live[:, ~constant_coordinates(live)]
    n, d = live.shape
    if n < 32 or d == 0:
        return 1.0, math.inf
    deviation = (live - live.median(dim=0).values).abs()
    quarters = torch.stack([q.median(dim=0).values for q in deviation.tensor_split(4)]).double()
    logs = quarters.clamp_min(torch.finfo(samples.dtype).tiny).log()
    relative = (logs - logs.mean(dim=0)).median(dim=1).values
    chance = 4 * 1.5 * math.sqrt(4 / n) * (1.25 / math.sqrt(d) if d > 1 else 1.0)
    return math.exp((relative.max() - relative.min()).item()), math.exp(min(chance, 50.0))
