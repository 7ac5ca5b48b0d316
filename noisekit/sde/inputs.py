"""Checks of what callers hand to the integrators."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from noisekit._typing import State
from noisekit.errors import InputError


def check_count(name: str, value: int, *, least: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}; it must be a whole number, {least} or more.")
    return value


def check_substeps(value: int) -> int:
    """Return ``value`` if it is a power of two, as the Brownian bridge needs."""
    check_count("substeps", value)
    if value & (value - 1) or value > 1024:
        raise InputError(f"substeps is {value}; it must be a power of two up to 1024, such as 1, 2, 4 or 8.")
    return value


def check_quantiles(values: Sequence[float]) -> tuple[float, ...]:
    """Return ``values`` if all are in [0, 1]."""
    if not all(0 <= value <= 1 for value in values):
        raise InputError(f"quantiles are {list(values)}; each must be in [0, 1].")
    return tuple(float(value) for value in values)


def replicate_x0(x0: Tensor | None, replicates: int) -> Tensor:
    """Return a fresh, contiguous copy of ``x0`` as (replicate, coordinate)."""
    if not isinstance(x0, Tensor) or not x0.is_floating_point():
        kind = x0.dtype if isinstance(x0, Tensor) else type(x0).__name__
        raise InputError(f"x0 is {kind}; give a float tensor (coordinate,) or (replicate, coordinate).")
    return _replicate("x0", x0, replicates)


def replicate_state(given: State, x: Tensor, names: Sequence[str]) -> State:
    """Return the tensors of ``given`` that an equation has besides x, as (replicate, coordinate)."""
    state = {}
    for name, value in given.items():
        if name not in ("x", "m", "v"):
            raise InputError(f"init_state has a tensor {name!r}; known are x, m and v.")
        if name == "x" or name not in names:
            continue
        value = _replicate(f"init_state[{name!r}]", value.to(x), x.shape[0])
        if value.shape != x.shape:
            raise InputError(f"init_state[{name!r}] has {value.shape[1]} coordinates; x0 has {x.shape[1]}.")
        if name == "v" and bool((value < 0).any()):
            raise InputError("init_state['v'] holds negative values; a running mean of squares has none.")
        state[name] = value
    return state


def _replicate(name: str, value: Tensor, replicates: int) -> Tensor:
    value = value.detach()
    if value.ndim == 2 and value.shape[0] not in (1, replicates):
        raise InputError(
            f"{name} has {value.shape[0]} replicates but replicates={replicates}; they must agree."
        )
    if value.ndim not in (1, 2) or value.numel() == 0:
        raise InputError(
            f"{name} has shape {tuple(value.shape)}; it must be (coordinate,) or (replicate, coordinate)."
        )
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"{name} holds NaN or infinite values; start from finite numbers.")
    rows = value if value.ndim == 2 else value[None]
    return rows.expand(replicates, -1).clone(memory_format=torch.contiguous_format)
