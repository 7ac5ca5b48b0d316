"""What a device has, and what the host may look at without waiting."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


def on_host(values: Tensor) -> bool:
    """Whether the numbers in ``values`` are there already; a device has its queued work to do first."""
    return values.device.type == "cpu"


def has_float64(device: torch.device) -> bool:
    """Whether ``device`` computes in float64, which Apple's and some of Intel's GPUs do not."""
    return device.type in ("cpu", "cuda", "meta") or _computes_in_float64(device)


@cache
def _computes_in_float64(device: torch.device) -> bool:
    try:
        torch.ones(1, dtype=torch.float64, device=device).mul(2)
    except (TypeError, RuntimeError):
        return False
    return True


def where_wide(values: Tensor) -> Tensor:
    """Return ``values``, on the CPU where their own device has no float64."""
    return values if has_float64(values.device) else values.cpu()


def in_float64(values: Tensor) -> Tensor:
    """Return ``values`` in float64, on the CPU where their own device has none."""
    return where_wide(values).double()
