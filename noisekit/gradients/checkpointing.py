"""What a recorder must know of activation checkpointing: forward passes run again, tensors saved by hooks."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


def in_backward() -> bool:
    """Whether autograd runs, so that a forward pass now is the recomputation of a checkpoint."""
    return bool(torch._C._current_graph_task_id() != -1)


def aside() -> AbstractContextManager[None]:
    """Let passes in between save their tensors unseen by a checkpoint, which counts those of its own."""
    return saved_tensors_hooks(_as_it_is, _as_it_is)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
