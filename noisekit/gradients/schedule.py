"""Schedules: which optimizer steps are recorded. Any function from a step to true or false is one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from noisekit.errors import InputError

Schedule = Callable[[int], bool]


@dataclass(frozen=True, repr=False)
class _Called:
    """A schedule that prints as the call that made it."""

    call: str
    recorded: Schedule

    def __call__(self, step: int) -> bool:
        return self.recorded(step)

    def __repr__(self) -> str:
        return self.call


def every(n: int, *, start: int = 0) -> Schedule:
    """Record each n-th step from ``start``.

    >>> [k for k in range(10) if every(4)(k)]
    [0, 4, 8]
    """
    if n < 1:
        raise InputError(f"every({n}) records nothing: n is at least 1.")
    call = f"every({n}, start={start})" if start else f"every({n})"
    return _Called(call, lambda step: step >= start and (step - start) % n == 0)


def first(n: int) -> Schedule:
    """Record the first n steps.

    >>> [k for k in range(10) if first(3)(k)]
    [0, 1, 2]
    """
    if n < 1:
        raise InputError(f"first({n}) records nothing: n is at least 1.")
    return _Called(f"first({n})", lambda step: step < n)


def logarithmic(per_decade: int = 10) -> Schedule:
    """Record steps that are evenly spread in log(step + 1), ``per_decade`` to each factor of ten.

    >>> [k for k in range(100) if logarithmic(3)(k)]
    [0, 1, 4, 9, 21, 45, 99]
    """
    if per_decade < 1:
        raise InputError(f"logarithmic({per_decade}) records nothing: at least one step a decade.")

    def recorded(step: int) -> bool:
        nearest = round(per_decade * math.log10(step + 1))
        return any(round(10 ** (k / per_decade)) == step + 1 for k in (nearest - 1, nearest, nearest + 1))

    return _Called(f"logarithmic({per_decade})", recorded)
