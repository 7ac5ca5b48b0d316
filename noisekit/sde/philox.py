"""Normals from the counter-based generator Philox: any of them by itself, in any order, on any device."""

from __future__ import annotations

import math
import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from noisekit.sde.streams import mix64

_MASK = 2**32 - 1
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def philox(counter: tuple[Tensor, ...], key: int) -> tuple[Tensor, ...]:
    """Return the four 32-bit words of Philox4x32-10 at a counter of four 32-bit words, as int64 tensors.

    Arguments: ``counter`` four int64 tensors that broadcast with each other; ``key`` 64 bits.
    Source: Salmon, Moraes, Dror, Shaw 2011, Parallel random numbers: as easy as 1, 2, 3.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key & _MASK, key >> 32
    for _ in range(ROUNDS):
        # The 64 bits of a product wrap around the sign, which the mask takes away.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> 32 & _MASK) ^ c1 ^ k0,
            second & _MASK,
            (first >> 32 & _MASK) ^ c3 ^ k1,
            first & _MASK,
        )
        k0, k1 = k0 + _WEYL[0] & _MASK, k1 + _WEYL[1] & _MASK
    return c0, c1, c2, c3


def normals_of(first: Tensor, second: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return two normals from two 32-bit words: √(−2 ln u) (cos θ, sin θ) (Box, Muller 1958)."""
    u = first.to(dtype) * 2.0**-32 + 2.0**-33
    signed = second - (second >> 31 << 32)
    theta = signed.to(dtype) * (2 * math.pi * 2.0**-32)
    radius = u.log_().mul_(-2).sqrt_()
    return radius * theta.cos(), radius.mul_(theta.sin_())


def philox_key(seed: int) -> int:
    """Return the key of a seed, 64 bits."""
    return mix64(seed & (2**64 - 1))


def signed_key(seed: int) -> int:
    """Return the key of a seed as a kernel takes it, in −2⁶³ to 2⁶³ − 1."""
    key = philox_key(seed)
    return key - 2**64 if key >= 2**63 else key


def has_kernels(x: Tensor) -> bool:
    """Whether Triton's kernels can work on ``x``."""
    known = x.device.type == "cuda" and x.dtype == torch.float32 and find_spec("triton") is not None
    return known and kernels_run(x.device)


@cache
def kernels_run(device: torch.device) -> bool:
    """Whether a small kernel compiles for ``device`` and does there what it should; warns if it does not.

    A compiler may be missing, or the GPU too old for this Triton. Waits for the device, once.
    """
    source = PhiloxNormals(3, 2, 5, 2, torch.empty(0, device=device))
    found = torch.empty(source.shape, device=device)
    try:
        source.draw_by_kernel(found, 1, 4)
        gap = float((found - source.draw_by_torch(1, 4)).abs().max())
        why = "" if gap < 1e-4 else f"its normals are off by {gap:g}"
    except Exception as error:
        why = f"{type(error).__name__}: {str(error)[:300]}"
    if why:
        warnings.warn(f"Triton's kernels are not used on {device}: {why}.", stacklevel=2)
    return not why


class PhiloxNormals:
    """Standard normals of a range of replicates, each named by (seed, replicate, coordinate, step, number).

    The counter is (coordinate, replicate, step, number // 4): a normal depends on nothing else, neither on
    blocks nor on what was drawn before. The numbers of a step are in the order of the Brownian bridge.
    """

    def __init__(self, origin: int, rows: int, n_normals: int, substeps: int, like: Tensor) -> None:
        self.substeps, self.shape, self.like = substeps, (substeps, rows, n_normals), like
        self.coordinate = torch.arange(n_normals, device=like.device)
        self.replicate = torch.arange(origin, origin + rows, device=like.device)[:, None]
        self.origin = origin

    def draw(self, seed: int, step: int) -> Tensor:
        """Return the normals (substep, replicate, normal) of optimizer step ``step``."""
        if not has_kernels(self.like):
            return self.draw_by_torch(seed, step)
        out = self.like.new_empty(self.shape)
        self.draw_by_kernel(out, seed, step)
        return out

    def draw_by_torch(self, seed: int, step: int) -> Tensor:
        """Return the normals of ``step``, by the operations of any device."""
        out = self.like.new_empty(self.shape)
        dtype = torch.float64 if out.dtype == torch.float64 else torch.float32
        like = torch.zeros_like(self.replicate + self.coordinate)
        for group in range(0, self.substeps, 4):
            counter = (self.coordinate + like, self.replicate + like, like + step, like + group // 4)
            a, b, c, d = philox(counter, philox_key(seed))
            pairs = (*normals_of(a, b, dtype), *normals_of(c, d, dtype))
            for number, values in enumerate(pairs[: self.substeps - group]):
                out[group + number] = values
        return out

    def draw_by_kernel(self, out: Tensor, seed: int, step: int) -> None:
        """Fill ``out`` with the normals of ``step`` in one kernel."""
        from noisekit.sde import triton_normals as kernels

        substeps, rows, n_normals = self.shape
        programs = (-(-rows * n_normals // kernels.BLOCK),)
        with torch.cuda.device_of(out):  # Triton launches on the current device
            kernels.normals[programs](
                out,
                rows * n_normals,
                n_normals,
                self.origin,
                signed_key(seed),
                step,
                SUBSTEPS=substeps,
                SIZE=kernels.BLOCK,
            )
