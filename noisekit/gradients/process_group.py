"""What a process group can carry: NCCL tensors on a GPU alone, Gloo tensors of the host, a pair both."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import distributed as dist

_HOST = "cpu"


def backends_of(group: Any) -> dict[str, str]:
    """Return the name of the backend that serves each type of device in ``group`` (None: all processes)."""
    found: Any = dist.group.WORLD if group is None else group
    return {kind.type: _name(found._get_backend(kind)) for kind in found._device_types}


def _name(backend: Any) -> str:
    try:
        return str(backend.name()).lower()
    except RuntimeError:  # a backend need not have one
        return ""


def carrier(backends: Mapping[str, str], device: torch.device, own: torch.device) -> torch.device:
    """Return where a tensor on ``device`` must lie for the group to send it.

    ``own`` is the GPU of this process. Gloo's path for GPUs covers a part of the operations and goes through
    the host itself, so what it is to send is taken there before.
    """
    if device.type != _HOST and backends.get(device.type, "gloo") != "gloo":
        return device
    return torch.device(_HOST) if _HOST in backends else own


def own_gpu(group: Any, seen: torch.device | None) -> torch.device:
    """Return the GPU of this process: the one that the group is bound to, or on which tensors were ``seen``.

    Where neither is known, the current one; where torchrun started several processes on this machine and
    none was chosen, the one of this process's number, because two must not share one.
    """
    found = dist.group.WORLD if group is None else group
    known = getattr(found, "bound_device_id", None) or seen
    if known is not None:
        return torch.device(known)
    index = torch.cuda.current_device()
    return torch.device("cuda", index or int(os.environ.get("LOCAL_RANK") or 0) % torch.cuda.device_count())


def on_gpu(backends: Mapping[str, str], group: Any, seen: torch.device | None) -> AbstractContextManager[Any]:
    """Make the GPU of this process the current one, where objects have to travel by one."""
    return nullcontext() if _HOST in backends else torch.cuda.device(own_gpu(group, seen))
