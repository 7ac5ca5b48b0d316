"""The state of torch's random generators, so that looking at a model changes no number of its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def _devices(tensors: Mapping[str, Tensor]) -> list[torch.device]:
    """Return the devices of ``tensors`` that have a generator of their own: GPUs of every maker."""
    found = {t.device for t in tensors.values() if t.device.type not in ("cpu", "meta")}
    return sorted((d for d in found if hasattr(torch.get_device_module(d), "get_rng_state")), key=str)


def _which(device: torch.device) -> dict[str, Any]:
    return {} if device.type == "mps" else {"device": device}  # Apple's machines have one GPU


@contextmanager
def untouched_random_state(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Leave the random state of the CPU and of the devices of ``tensors`` as it was."""
    before = random_state(tensors)
    try:
        yield
    finally:
        set_random_state(tensors, before)


def random_state(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the state of the random generators that a forward pass may draw from."""
    on_devices = [torch.get_device_module(d).get_rng_state(**_which(d)) for d in _devices(tensors)]
    return [torch.get_rng_state(), *on_devices]


def set_random_state(tensors: Mapping[str, Tensor], state: Sequence[Tensor]) -> None:
    """Set what ``random_state`` returned for these ``tensors``."""
    torch.set_rng_state(state[0])
    for device, own in zip(_devices(tensors), state[1:], strict=True):
        torch.get_device_module(device).set_rng_state(own, **_which(device))
