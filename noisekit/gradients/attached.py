"""Which recorder watches which model, so that measurements of the user's own are not taken for training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from typing import ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary, ref

from torch import nn

P = ParamSpec("P")
R = TypeVar("R")


class Watcher(Protocol):
    """What watches a model, and can be told to look away."""

    def looking_away(self) -> AbstractContextManager[None]:
        """Let the passes go by unseen."""


WATCHERS: WeakKeyDictionary[nn.Module, ref[Watcher]] = WeakKeyDictionary()
"""The recorder that is attached to each model."""


def unseen(measure: Callable[P, R]) -> Callable[P, R]:
    """Return ``measure``, whose first argument is a model, such that recorders look away from its passes."""

    @wraps(measure)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        model = args[0] if args else kwargs.get("model")
        with ExitStack() as away:
            if isinstance(model, nn.Module):
                for watcher in _watchers_of(model):
                    away.enter_context(watcher.looking_away())
            return measure(*args, **kwargs)

    return run


def _watchers_of(model: nn.Module) -> list[Watcher]:
    """Return what watches ``model``, a module of it, or one that it is a part of."""
    if not len(WATCHERS):
        return []
    parts = set(model.modules())
    near = [
        w for watched, w in WATCHERS.items() if watched in parts or any(m is model for m in watched.modules())
    ]
    return [watcher for one in near if (watcher := one()) is not None]
