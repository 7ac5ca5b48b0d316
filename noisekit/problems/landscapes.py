"""Losses with a formula for their gradient, on which the theory is tried outside the quadratic case."""

from __future__ import annotations

import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.problems.shown import Shown


class EmbeddedSaddle(Shown):
    """A saddle at 0 between minima, f(x) = ½ Σ λ_i x_i² + (c/4) Σ x_i⁴ − (s/3) Σ x_i³.

    A negative λ_i makes 0 unstable in that direction; c > 0 bounds the loss below, and s ≠ 0 makes one of the
    two minima the deeper one.

    Args:
        curvature: λ, (coordinate,).
        quartic: c.
        skew: s.
        x0: the starting point, (coordinate,); .01 everywhere, close to the saddle, if not given.

    Raises:
        InputError: if ``curvature`` is not a vector or ``quartic`` is not positive.

    >>> import torch
    >>> EmbeddedSaddle(torch.tensor([-1.0, 2.0])).gradient(torch.ones(1, 2))
    tensor([[-0.1000,  2.9000]])
    """

    name = "embedded-saddle"

    def __init__(
        self, curvature: Tensor, *, quartic: float = 1.0, skew: float = 0.1, x0: Tensor | None = None
    ) -> None:
        if curvature.ndim != 1 or curvature.numel() == 0:
            raise InputError(f"curvature has shape {tuple(curvature.shape)}; it needs (coordinate,).")
        if not quartic > 0:
            raise InputError(f"quartic is {quartic}; it needs to be positive, or the loss has no minimum.")
        self.curvature = curvature
        self.quartic = quartic
        self.skew = skew
        self._x0 = torch.full_like(curvature, 0.01) if x0 is None else x0.to(curvature)

    def loss(self, x: Tensor) -> Tensor:
        """Return f(x), (replicate,)."""
        return (0.5 * self.curvature * x**2 + self.quartic / 4 * x**4 - self.skew / 3 * x**3).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        """Return λ x + c x³ − s x², (replicate, coordinate)."""
        return x * (self.curvature + x * (self.quartic * x - self.skew))


class Rosenbrock(Shown):
    """A curved valley, f(x) = Σ_i b (x_{i+1} − x_i²)² + (a − x_i)²; for a = 1 its minimum is 0 at (1, …, 1).

    Args:
        dimension: the number of coordinates, at least 2.
        a: where the minimum is.
        b: how steep the walls of the valley are.
        x0: the starting point, (coordinate,); (−1.2, 1, −1.2, …) if not given.

    Source: Rosenbrock 1960, The Computer Journal 3(3).

    >>> import torch
    >>> Rosenbrock(2).loss(torch.ones(1, 2))
    tensor([0.])
    """

    name = "rosenbrock"

    def __init__(
        self,
        dimension: int = 2,
        *,
        a: float = 1.0,
        b: float = 100.0,
        x0: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        if dimension < 2:
            raise InputError(f"dimension is {dimension}; the Rosenbrock function needs at least 2.")
        self.a = a
        self.b = b
        if x0 is None:
            x0 = torch.ones(dimension, dtype=dtype, device=device)
            x0[::2] = -1.2
        self._x0 = x0

    def loss(self, x: Tensor) -> Tensor:
        """Return f(x), (replicate,)."""
        left, right = x[..., :-1], x[..., 1:]
        return (self.b * (right - left**2) ** 2 + (self.a - left) ** 2).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        """Return ∇f(x), (replicate, coordinate)."""
        left, right = x[..., :-1], x[..., 1:]
        climb = right - left**2
        result = torch.zeros_like(x)
        result[..., :-1] += -4 * self.b * left * climb - 2 * (self.a - left)
        result[..., 1:] += 2 * self.b * climb
        return result


class Quartic(Shown):
    """A loss that is flat at its minimum, f(x) = ¼ Σ c_i x_i⁴: its Hessian vanishes at 0.

    Args:
        coefficient: c, (coordinate,), positive.
        x0: the starting point, (coordinate,); all ones if not given.

    Raises:
        InputError: if ``coefficient`` is not a vector of positive numbers.

    >>> import torch
    >>> Quartic(torch.tensor([4.0])).loss(torch.ones(1, 1))
    tensor([1.])
    """

    name = "quartic"

    def __init__(self, coefficient: Tensor, *, x0: Tensor | None = None) -> None:
        if coefficient.ndim != 1 or coefficient.numel() == 0 or not (coefficient > 0).all():
            raise InputError("coefficient needs to be a vector (coordinate,) of positive numbers.")
        self.coefficient = coefficient
        self._x0 = torch.ones_like(coefficient) if x0 is None else x0.to(coefficient)

    def loss(self, x: Tensor) -> Tensor:
        """Return ¼ Σ c_i x_i⁴, (replicate,)."""
        return 0.25 * (self.coefficient * x**4).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        """Return c x³, (replicate, coordinate)."""
        return self.coefficient * x**3
