"""The quadratic loss, on which every optimizer has a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.problems.shown import Shown


class Quadratic(Shown):
    """A convex or indefinite quadratic, f(x) = ½ xᵀH x, with its stationary point at 0.

    Args:
        hessian: H, a vector (coordinate,) if diagonal, or a symmetric matrix (coordinate, coordinate).
        name: how results call the problem.
        x0: the starting point, (coordinate,); all ones if not given.

    Raises:
        InputError: if H is neither a vector nor a symmetric matrix, holds NaN, or ``x0`` does not fit it.

    >>> import torch
    >>> problem = Quadratic(torch.tensor([1.0, 4.0]))
    >>> problem.gradient(torch.ones(1, 2))
    tensor([[1., 4.]])
    """

    def __init__(self, hessian: Tensor, *, name: str = "quadratic", x0: Tensor | None = None) -> None:
        hessian = torch.as_tensor(hessian)
        if not hessian.is_floating_point():
            hessian = hessian.to(torch.get_default_dtype())
        is_matrix = hessian.ndim == 2 and hessian.shape[0] == hessian.shape[1]
        if hessian.numel() == 0 or not (hessian.ndim == 1 or is_matrix):
            raise InputError(
                f"The Hessian has shape {tuple(hessian.shape)}; give its diagonal or a square matrix."
            )
        if not hessian.isfinite().all():
            raise InputError("The Hessian holds NaN or infinite values; give finite numbers.")
        if is_matrix and not torch.allclose(hessian, hessian.T, rtol=1e-4, atol=1e-6):
            raise InputError("The Hessian is not symmetric; give (H + Hᵀ)/2.")
        start = torch.ones_like(hessian[0]) if is_matrix else torch.ones_like(hessian)
        if x0 is not None:
            x0 = torch.as_tensor(x0).to(hessian)
            if x0.shape != start.shape:
                raise InputError(f"x0 has shape {tuple(x0.shape)}; this Hessian needs {tuple(start.shape)}.")
            start = x0
        self.name = name
        self.hessian = hessian
        self._x0 = start

    @property
    def hessian_matrix(self) -> Tensor:
        """H as a matrix, (coordinate, coordinate)."""
        return self.hessian if self.hessian.ndim == 2 else torch.diag(self.hessian)

    def loss(self, x: Tensor) -> Tensor:
        """Return ½ xᵀH x, (replicate,)."""
        return 0.5 * (x * self.gradient(x)).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        """Return H x, (replicate, coordinate)."""
        return x * self.hessian if self.hessian.ndim == 1 else x @ self.hessian
