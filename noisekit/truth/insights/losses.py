"""Quadratic losses of the experiments: random axes, copies side by side, a minimum that is not at 0."""

from __future__ import annotations

import torch
from torch import Tensor


def random_spd(dimension: int, low: float, high: float, *, seed: int) -> Tensor:
    """Return a matrix with log-spaced eigenvalues from ``low`` to ``high`` and random axes, float64.

    Two of them with different seeds do not commute.
    """
    generator = torch.Generator().manual_seed(seed)
    axes, _ = torch.linalg.qr(torch.randn(dimension, dimension, generator=generator, dtype=torch.float64))
    eigenvalues = torch.logspace(0, 1, dimension, base=high / low, dtype=torch.float64) * low
    matrix = axes * eigenvalues @ axes.T
    return (matrix + matrix.T) / 2


def side_by_side(matrix: Tensor, factors: Tensor) -> Tensor:
    """Return the block-diagonal matrix of ``factors``[k] · ``matrix``.

    Coordinate-wise optimizers treat the blocks as so many independent problems, so one run is a whole sweep.
    """
    return torch.block_diag(*[factor * matrix for factor in factors])


def block_losses(x: Tensor, hessian: Tensor) -> Tensor:
    """Return ½ xᵀHx of each block of ``x`` (…, blocks · d), (…, blocks)."""
    d = len(hessian)
    blocks = x.reshape(*x.shape[:-1], -1, d).double()
    return 0.5 * ((blocks @ hessian) * blocks).sum(-1)


class ShiftedQuadratic:
    """f(x) = ½ (x − x*)ᵀ H (x − x*), for ``hessian`` H (d, d) and ``minimum`` x* (d,)."""

    def __init__(self, hessian: Tensor, minimum: Tensor) -> None:
        self.name = "shifted-quadratic"
        self.hessian = hessian
        self.minimum = minimum

    @property
    def x0(self) -> Tensor:
        """The starting point: the minimum."""
        return self.minimum

    def loss(self, x: Tensor) -> Tensor:
        """Return f(x), (replicate,)."""
        return 0.5 * ((x - self.minimum) * self.gradient(x)).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        """Return H(x − x*), (replicate, coordinate)."""
        return (x - self.minimum) @ self.hessian
