"""What a plan for a model rests on, looked at before each use: modules, parameters, modes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import is_
from typing import Any
from weakref import ref

from torch import nn


def _nothing() -> None:
    """Stand for a parameter that is None."""


def _refs(values: Iterable[Any]) -> tuple[Callable[[], Any], ...]:
    return tuple(_nothing if value is None else ref(value) for value in values)


class ModelState:
    """The modules of a model with their modes, and its parameters with shape, dtype, device, requires_grad.

    References are weak: neither the model nor what was replaced in it is kept alive, and a tensor at the
    address of one that is gone is not taken for it.
    """

    def __init__(self, model: nn.Module):
        self._modules = [
            (
                ref(m),
                m.training,
                (*m._modules, *m._parameters),
                (*_refs(m._modules.values()), *_refs(m._parameters.values())),
            )
            for m in model.modules()
        ]
        self._parameters = [
            (name, ref(p), p.requires_grad, p.dtype, p.device, p.shape)
            for name, p in model.named_parameters()
        ]

    def holds(self) -> bool:
        """Whether the model is still as it was."""
        for module, training, names, refs in self._modules:
            m = module()
            if m is None or m.training != training or (*m._modules, *m._parameters) != names:
                return False
            own = (*m._modules.values(), *m._parameters.values())
            if not all(map(is_, own, [reference() for reference in refs])):
                return False
        for _, reference, requires_grad, dtype, device, shape in self._parameters:
            p = reference()
            if p is None or p.requires_grad is not requires_grad:
                return False
            if p.dtype is not dtype or p.shape != shape or p.device != device:
                return False
        return True

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that require a gradient, each once, by its first name."""
        found = {name: reference() for name, reference, grad, *_ in self._parameters if grad}
        return {name: p for name, p in found.items() if p is not None}
