"""Sees the loss that a training loop computes: the call of the loss function, its arguments and its value."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from torch import Tensor, nn

from noisekit.gradients.local_hook import LocalHook

OnLoss = Callable[[Any, Any, Tensor, dict[str, Any]], None]
"""Called with (outputs, targets, loss, further arguments)."""
_Call = tuple[Any, Any, dict[str, Any]]


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
            self._defaults = _defaults_of(loss_fn)
        self._handle: Any = None
        self._previous: Any = None
        self._arguments: list[_Call] = []
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
            self._handle = self._module.register_forward_hook(
                LocalHook(self._module_returned), with_kwargs=True
            )
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

    def _module_returned(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        self._seen(_split(list(given.items()), {}), output)

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if self._previous is not None:
            self._previous(frame, event, arg)
        if frame.f_code is not self._code or event not in ("call", "return"):
            return
        if event == "return":
            if self._arguments:
                self._seen(self._arguments.pop(), arg)
            return
        given = _given(frame)
        if self._receiver is not None:
            if given[0][1] is not self._receiver:
                return
            given = given[1:]
        self._arguments.append(_split(given, self._defaults))

    def _seen(self, call: _Call, loss: Any) -> None:
        if isinstance(loss, Tensor) and loss.requires_grad:
            self._on_loss(call[0], call[1], loss, call[2])


def _given(frame: FrameType) -> list[tuple[str, Any]]:
    """Return the arguments of the call that ``frame`` begins, by name; those of *args are named by number."""
    code, values = frame.f_code, frame.f_locals
    names, count = code.co_varnames, code.co_argcount
    given = [(name, values.get(name)) for name in names[:count]]
    rest = count + code.co_kwonlyargcount
    if code.co_flags & inspect.CO_VARARGS:
        given += [(str(k), value) for k, value in enumerate(values.get(names[rest], ()))]
        rest += 1
    given += [(name, values.get(name)) for name in names[count : count + code.co_kwonlyargcount]]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        given += list(values.get(names[rest], {}).items())
    return given


def _split(given: list[tuple[str, Any]], defaults: dict[str, Any]) -> _Call:
    """Return outputs, targets and the further arguments that are not what they are by default."""
    values = [value for _, value in given[:2]] + [None, None]
    further = {n: v for n, v in given[2:] if not n.isdigit() and (n not in defaults or defaults[n] is not v)}
    return values[0], values[1], further


def _code_of(loss_fn: Any) -> tuple[CodeType | None, Any]:
    """Return the code that runs when ``loss_fn`` is called, and the object it is a method of."""
    while isinstance(loss_fn, functools.partial):
        loss_fn = loss_fn.func
    receiver = getattr(loss_fn, "__self__", None)
    function = getattr(loss_fn, "__func__", loss_fn)
    if not hasattr(function, "__code__"):
        receiver, function = loss_fn, type(loss_fn).__call__
    return getattr(function, "__code__", None), receiver


def _defaults_of(loss_fn: Any) -> dict[str, Any]:
    """Return what the arguments of ``loss_fn`` are where they are not given."""
    try:
        parameters = inspect.signature(loss_fn).parameters
    except (TypeError, ValueError):
        return {}
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}
