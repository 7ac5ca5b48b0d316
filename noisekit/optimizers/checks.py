"""Checks that both torch optimizers here share."""

from __future__ import annotations

import math

from torch import Tensor

from noisekit.errors import InputError


def check_nonnegative(name: str, value: float | Tensor) -> None:
    """Refuse a value that is negative or not finite."""
    number = _as_number(name, value)
    if not math.isfinite(number) or number < 0:
        raise InputError(f"{name} is {number}; it must be a finite number, 0 or above.")


def check_average(name: str, value: float) -> None:
    """Refuse a value outside [0, 1)."""
    if not 0 <= _as_number(name, value) < 1:
        raise InputError(f"{name} is {value}; it must be in [0, 1).")


def _as_number(name: str, value: float | Tensor) -> float:
    """Return a number, or the one number of a tensor, as a float."""
    single = isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
    if not single and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise InputError(f"{name} is {value!r}; it must be a number.")
    return float(value)


def gradients_of(params: list[Tensor], optimizer: str) -> list[Tensor]:
    """Return the gradients of ``params``; refuse sparse and complex ones."""
    gradients = [p.grad for p in params if p.grad is not None]
    for gradient in gradients:
        if gradient.is_sparse or gradient.is_complex():
            kind = "sparse" if gradient.is_sparse else "complex"
            raise InputError(f"{optimizer} does not take {kind} gradients; use dense real ones.")
    return gradients
