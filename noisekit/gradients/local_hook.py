"""Hooks that stay behind where a model is copied or pickled while it is watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class LocalHook:
    """Calls ``hook``; a copy of it does nothing.

    copy.deepcopy and torch.save take a module's hooks along, and so would take the recorder.
    """

    def __init__(self, hook: Callable[..., Any]):
        self._hook = hook

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._hook(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return LocalHook, (_nothing,)


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""
