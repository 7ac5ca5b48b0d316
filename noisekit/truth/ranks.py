"""Which part of a study this process has, where torchrun or a cluster started several."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from noisekit.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Rank:
    """One of ``size`` processes, ``local_size`` of which are on this machine; numbers begin at 0."""

    number: int = 0
    size: int = 1
    local_number: int = 0
    local_size: int = 1

    @classmethod
    def here(cls) -> Rank:
        """Return what RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE say; one process without them.

        Raises InputError where they contradict one another.
        """
        size, local_size = _number("WORLD_SIZE", 1), _number("LOCAL_WORLD_SIZE", 1)
        rank = cls(_number("RANK", 0), size, _number("LOCAL_RANK", 0), local_size)
        if not 0 <= rank.number < rank.size or rank.local_size < 1:
            raise InputError(
                f"RANK is {rank.number} and WORLD_SIZE {rank.size}; start the processes with torchrun, or "
                "unset both."
            )
        return rank

    @property
    def is_first(self) -> bool:
        """Whether this process puts everything together."""
        return self.number == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Return the items of this process: every ``size``-th."""
        return list(items[self.number :: self.size])


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise InputError(f"The environment variable {name} is {text!r}; a whole number is needed.") from None
