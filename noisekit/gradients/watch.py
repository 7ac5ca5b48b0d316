"""Sees the loss that a training loop computes: the call of the loss function, its arguments and its value."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from torch import Tensor, nn

OnLoss = Callable[[Any, Any, Tensor], None]
"""Called with (outputs, targets, loss)."""


class LossWatch:
    """Calls ``on_loss`` when ``loss_fn`` returns, between ``start`` and ``stop``.

    A module is watched by a forward hook. A plain function is watched by the interpreter's profile function,
    which is set only from the end of the model's forward pass to the start of the backward pass of a recorded
    step; a profiler that is already there keeps being called.
    """

    def __init__(self, loss_fn: Any, on_loss: OnLoss):
        self._on_loss = on_loss
        self._module = loss_fn if isinstance(loss_fn, nn.Module) else None
        self._code: CodeType | None = None
        self._receiver: Any = None
        if self._module is None:
            self._code, self._receiver = _code_of(loss_fn)
        self._handle: Any = None
        self._previous: Any = None
        self._arguments: list[tuple[Any, Any]] = []
        self._running = False

    @property
    def possible(self) -> bool:
        """Whether calls of this loss function can be seen."""
        return self._module is not None or self._code is not None

    def start(self) -> None:
        if self._running:
            return
        self._running = True
        if self._module is not None:
            self._handle = self._module.register_forward_hook(self._module_returned)
        elif self._code is not None:
            self._previous = sys.getprofile()
            sys.setprofile(self._profile)

    def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        elif self._code is not None:
            sys.setprofile(self._previous)
            self._previous = None
        self._arguments.clear()

    def _module_returned(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._seen(args[0], args[1] if len(args) > 1 else None, output)

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if self._previous is not None:
            self._previous(frame, event, arg)
        if frame.f_code is not self._code or event not in ("call", "return"):
            return
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        if self._receiver is not None:
            if frame.f_locals.get(names[0]) is not self._receiver:
                return
            names = names[1:]
        if event == "call":
            values = [frame.f_locals.get(name) for name in names[:2]]
            self._arguments.append((values[0] if values else None, values[1] if len(values) > 1 else None))
        elif self._arguments:
            outputs, targets = self._arguments.pop()
            self._seen(outputs, targets, arg)

    def _seen(self, outputs: Any, targets: Any, loss: Any) -> None:
        if isinstance(loss, Tensor) and loss.requires_grad:
            self._on_loss(outputs, targets, loss)


def _code_of(loss_fn: Any) -> tuple[CodeType | None, Any]:
    """Return the code that runs when ``loss_fn`` is called, and the object it is a method of."""
    while isinstance(loss_fn, functools.partial):
        loss_fn = loss_fn.func
    receiver = getattr(loss_fn, "__self__", None)
    function = getattr(loss_fn, "__func__", loss_fn)
    if not hasattr(function, "__code__"):
        receiver, function = loss_fn, type(loss_fn).__call__
    return getattr(function, "__code__", None), receiver
