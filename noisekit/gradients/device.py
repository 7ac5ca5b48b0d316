"""What the host may look at without waiting."""

from __future__ import annotations

from torch import Tensor


def on_host(values: Tensor) -> bool:
    """Whether the numbers in ``values`` are there already; a device has its queued work to do first."""
    return values.device.type == "cpu"
