"""Checks of what callers hand to the integrators."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from noisekit._typing import Observable, State
from noisekit.errors import InputError, kind_of, unknown_name


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


def check_seed(value: int) -> int:
    """Return ``value`` if it is a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"seed is {value!r}; it must be a whole number.")
    return value


def check_observables(given: Mapping[str, Observable] | None) -> dict[str, Observable]:
    """Return a copy of ``given`` if it maps names to functions."""
    if given is not None and not (isinstance(given, Mapping) and all(callable(f) for f in given.values())):
        raise InputError("observables must map names to functions of x (replicate, coordinate).")
    return dict(given or {})


def settings_of(make: Callable[..., Any], *, besides: Iterable[str]) -> set[str]:
    """Return the names of the arguments of ``make`` that are no other's business."""
    return set(inspect.signature(make).parameters) - set(besides)


def check_settings(name: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise InputError if the optimizer called ``name`` has no setting of a given name."""
    for setting in given:
        if setting not in known:
            raise unknown_name(f"setting of {name}", setting, known)


def check_state(given: State | None) -> State:
    """Return a copy of ``given`` if it maps names to tensors."""
    if given is not None and not (
        isinstance(given, Mapping) and all(isinstance(v, Tensor) for v in given.values())
    ):
        raise InputError("init_state must map the names x, m and v to tensors.")
    return dict(given or {})


def check_file(value: str | Path | None) -> Path | None:
    """Return ``value`` as a path, None if there is none."""
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise InputError(f"checkpoint is {kind_of(value)}; give the path of a file, or None.")
    return None if value is None else Path(value)


def check_quantiles(values: Sequence[float]) -> tuple[float, ...]:
    """Return ``values`` if all are in [0, 1]."""
    given = isinstance(values, Sequence) and all(isinstance(value, (int, float)) for value in values)
    if not given or not all(0 <= value <= 1 for value in values):
        raise InputError(f"quantiles are {values!r}; give a sequence of numbers, each in [0, 1].")
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
