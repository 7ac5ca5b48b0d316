"""Products of tensors in half precision, with their sums in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)
"""The floating-point numbers of 16 bits."""


def is_half(values: Tensor) -> bool:
    """Whether ``values`` are in half precision."""
    return values.dtype in HALVES


def widened(values: Tensor) -> Tensor:
    """Return ``values``, in float32 where they are in half precision."""
    return values.float() if is_half(values) else values


def multiplies_halves(values: Tensor) -> bool:
    """Whether the device of ``values`` multiplies halves as they are, many times faster than float32."""
    return values.device.type == "cuda" and is_half(values)


def batched_product(left: Tensor, right: Tensor) -> Tensor:
    """Return the products of the matrices ``left`` (batch, i, k) and ``right`` (batch, k, j).

    Of halves in float32: their products are exact there.
    """
    if multiplies_halves(left) and sums_in_float32(left.device):
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(widened(left), widened(right))


@cache
def sums_in_float32(device: torch.device) -> bool:
    """Whether ``device`` sums products of halves in float32, which torch offers on some since 2.8."""
    if not hasattr(torch.ops.aten.bmm, "dtype"):
        return False
    one = torch.ones(1, 8, 8, dtype=torch.bfloat16, device=device)
    try:
        torch.bmm(one, one, out_dtype=torch.float32)
    except (RuntimeError, NotImplementedError):
        return False
    return True


@contextmanager
def no_graph() -> Iterator[None]:
    """Turn autograd off, and keep what autocast casts inside the block from passes behind it.

    Autocast holds the weights that it has cast, in some versions of torch those without a graph too, and
    gives them to the next pass, which then has no gradient.
    """
    caches = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_autocast_cache_enabled(caches)
