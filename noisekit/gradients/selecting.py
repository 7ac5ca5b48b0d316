"""Notices operations that pick rows by their values, after which rows cannot be told apart by sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_PICKING = ("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive")


class SelectionWatch(TorchDispatchMode):
    """Sets ``seen`` at the first operation whose result has a length that depends on values.

    Where a mixture of experts sends rows to a layer, their number may by chance be a multiple of the number
    of samples.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        self.seen = self.seen or name in _PICKING or (name == "index" and _by_mask(args[1]))
        call: Callable[..., Any] = func
        return call(*args, **(kwargs or {}))


def _by_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)
