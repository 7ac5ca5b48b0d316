"""The state of torch's random generators, so that looking at a model changes no number of its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def _devices(tensors: Mapping[str, Tensor]) -> list[int]:
    return sorted({t.device.index or 0 for t in tensors.values() if t.device.type == "cuda"})


@contextmanager
def untouched_random_state(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Leave the random state of the CPU and of the devices of ``tensors`` as it was."""
    with torch.random.fork_rng(devices=_devices(tensors)):
        yield


def random_state(tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the state of the random generators that a forward pass may draw from."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in _devices(tensors))]


def set_random_state(tensors: Mapping[str, Tensor], state: Sequence[Tensor]) -> None:
    """Set what ``random_state`` returned for these ``tensors``."""
    torch.set_rng_state(state[0])
    for device, own in zip(_devices(tensors), state[1:], strict=True):
        torch.cuda.set_rng_state(own, device)
