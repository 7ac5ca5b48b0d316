"""What theory functions take at the door: names, numbers, tensors or arrays, turned into float64 numpy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from noisekit.errors import InputError, kind_of, unknown_name

Array = NDArray[np.float64]

OPTIMIZERS = ("sgd", "signsgd", "rmsprop", "rmspropw", "adam", "adamw")
ADAPTIVE = ("rmsprop", "rmspropw", "adam", "adamw")
DECOUPLED = ("signsgd", "rmspropw", "adamw")
"""Optimizers whose weight decay acts on x beside the gradient; the others add it to the gradient."""

_LARGEST = 5000
_TRUTH = (bool, np.dtype(bool), torch.bool)

GAUSSIAN_SLOPE = float(np.sqrt(2 / np.pi))
"""ℓ = √(2/π), the slope of E[sign(u + z)] at u = 0 for a standard normal z."""


def check_optimizer(name: str) -> str:
    """Return the lower-case name of a known optimizer."""
    known = str(name).lower()
    if known not in OPTIMIZERS:
        raise unknown_name("optimizer", name, OPTIMIZERS)
    return known


def as_number(name: str, value: Any) -> float:
    """Return ``value`` as a float, or say that it is none."""
    try:
        if isinstance(value, str | bytes) or getattr(value, "dtype", type(value)) in _TRUTH:
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} = {value!r}: a number is needed.") from None


def check_positive(name: str, value: float, *, zero: bool = False) -> float:
    """Return ``value`` as a float if it is finite and positive (or zero where that is allowed)."""
    number = as_number(name, value)
    if not np.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise InputError(
            f"{name} = {value}: a finite {'non-negative' if zero else 'positive'} number is needed."
        )
    return number


def check_count(name: str, value: Any, *, least: int = 1) -> int:
    """Return ``value`` as an int if it is a whole number of at least ``least``."""
    number = as_number(name, value)
    if not number.is_integer() or number < least:
        raise InputError(f"{name} = {value}: a whole number of at least {least} is needed.")
    return int(number)


def check_betas(values: Any) -> tuple[float, float]:
    """Return (β₁, β₂) if there are two of them, each in [0, 1)."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        raise InputError(f"betas = {values!r}: the two factors (β₁, β₂) are needed.")
    return check_beta("β₁", values[0]), check_beta("β₂", values[1])


def check_schedule(schedule: Callable[[int], float] | None) -> None:
    """Refuse a schedule that is no function of the step."""
    if schedule is not None and not callable(schedule):
        raise InputError(f"schedule = {schedule!r}: a function from the step to a factor is needed.")


def check_beta(name: str, value: float) -> float:
    """Return ``value`` as a float if it lies in [0, 1)."""
    number = as_number(name, value)
    if not 0 <= number < 1:
        raise InputError(f"{name} = {value}: an averaging factor in [0, 1) is needed.")
    return number


def as_array(name: str, values: Any) -> Array:
    """Return ``values`` (tensor, array, sequence, or mapping of them, flattened and joined) as float64."""
    if isinstance(values, Mapping):
        if not values:
            raise InputError(f"{name} is an empty mapping; one tensor a parameter is needed.")
        return np.concatenate([as_array(name, v).reshape(-1) for v in values.values()])
    array = as_real(name, values)
    if np.isnan(array).any():
        raise InputError(f"{name} has {int(np.isnan(array).sum())} NaN value(s); remove or recompute them.")
    return array


def as_real(name: str, values: Any) -> Array:
    """Return a tensor, an array or a sequence of real numbers, NaN among them or not, as float64."""
    given, values = values, _on_host(values)
    try:
        # Python objects of numbers, such as fractions, are numbers; text that reads as numbers is not.
        if values is None or not _kinds(np.asarray(values)) <= set("fiuO"):
            raise TypeError
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{name} is {_kind(given, values)}; a tensor or an array of real numbers is needed."
        ) from None
    if array.size == 0:
        raise InputError(f"{name} is empty; at least one value is needed.")
    return array


def _on_host(values: Any) -> Any:
    """Return ``values`` with arrays in place of tensors: numpy reads no graphs and no GPUs."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.double() if values.is_floating_point() else values).numpy()
    return [_on_host(value) for value in values] if isinstance(values, list | tuple) else values


def as_finite(name: str, values: Any) -> Array:
    """Return :func:`as_array` of ``values`` if none of them is infinite."""
    array = as_array(name, values)
    if np.isinf(array).any():
        raise InputError(
            f"{name} has {int(np.isinf(array).sum())} infinite value(s); finite ones are needed."
        )
    return array


def _kind(given: Any, values: Any) -> str:
    """Return the type of ``given``, and what it holds where that is the trouble: "list of text"."""
    name = kind_of(given)
    try:
        kinds = _kinds(np.asarray(values))
    except (ValueError, RuntimeError, TypeError):
        return f"{name} of parts that do not fit together"
    known = {"U": "text", "S": "text", "b": "truth values", "c": "complex numbers"}
    holds = " and ".join(sorted({known[kind] for kind in kinds if kind in known}))
    return f"{name} of {holds}" if holds and not isinstance(given, str | bytes) else name


def _kinds(array: NDArray[Any]) -> set[str]:
    """Return the kinds of values in ``array`` as numpy's letters; of Python objects, those of each."""
    if array.dtype.kind != "O":
        return {array.dtype.kind}
    return {np.asarray(value).dtype.kind for value in array.flat}


def as_symmetric(name: str, values: Any, dimension: int | None = None) -> Array:
    """Return a symmetric (d, d) matrix from a matrix, the vector of its diagonal, or one number for all."""
    array = as_array(name, values)
    if array.ndim == 0:
        array = np.full(dimension or 1, float(array))
    if array.shape[0] > _LARGEST:
        raise InputError(
            f"{name} has {array.shape[0]} coordinates; laws are computed with (d, d) matrices up to "
            f"d = {_LARGEST}. Take a block of coordinates, or noise_floor, which needs no matrix."
        )
    matrix = np.diag(array) if array.ndim == 1 else array
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{name} has shape {array.shape}; a vector (d,) or a matrix (d, d) is needed.")
    if dimension is not None and matrix.shape[0] != dimension:
        raise InputError(
            f"{name} is for {matrix.shape[0]} coordinates, the Hessian for {dimension}; make them equal."
        )
    finite = np.where(np.isfinite(matrix), matrix, 0)  # an infinite variance is no matter of symmetry
    if not np.allclose(finite - finite.T, 0, atol=1e-6 * np.abs(finite).max()):
        raise InputError(f"{name} is not symmetric; pass (A + Aᵀ)/2 if that is what you mean.")
    return (matrix + matrix.T) / 2
