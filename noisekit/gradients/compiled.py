"""Recorded steps of compiled models run eagerly, where hooks see every layer; the others stay compiled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def eager() -> Iterator[None]:
    """Run compiled code eagerly inside the block."""
    stance = EagerStance()
    stance.enter()
    try:
        yield
    finally:
        stance.leave()


class EagerStance:
    """Makes compiled code run eagerly between ``enter`` and ``leave``, where anything is compiled."""

    def __init__(self) -> None:
        self._stance: Any = None

    def enter(self) -> None:
        if self._stance is None and "torch._dynamo" in sys.modules:
            self._stance = torch.compiler.set_stance("force_eager")

    def leave(self) -> None:
        if self._stance is not None:
            self._stance.__exit__(None, None, None)
            self._stance = None
