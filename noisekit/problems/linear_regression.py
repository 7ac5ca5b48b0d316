"""Least squares: the smallest problem with real minibatches, whose per-sample gradients have a formula."""

from __future__ import annotations

import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.problems.shown import Shown


class LinearRegression(Shown):
    """Least squares, f(x) = (1/2N) Σ (a_i·x − y_i)².

    The gradient of sample i is a_i r_i with the residual r_i = a_i·x − y_i, so all per-sample statistics are
    matrix products.

    Args:
        design: the rows a_i, (sample, coordinate).
        response: y, (sample,).
        x0: the starting point, (coordinate,); zeros if not given.

    Raises:
        InputError: if the shapes do not fit.

    >>> import torch
    >>> problem = LinearRegression(torch.eye(2), torch.tensor([1.0, 2.0]))
    >>> problem.gradient(torch.zeros(1, 2))
    tensor([[-0.5000, -1.0000]])
    """

    def __init__(
        self, design: Tensor, response: Tensor, *, name: str = "linear-regression", x0: Tensor | None = None
    ) -> None:
        if design.ndim != 2 or response.shape != design.shape[:1] or design.numel() == 0:
            raise InputError(
                f"design has shape {tuple(design.shape)} and response {tuple(response.shape)}; "
                "they need (sample, coordinate) and (sample,)."
            )
        self.name = name
        self.design = design
        self.response = response
        self._x0 = design.new_zeros(design.shape[1]) if x0 is None else x0.to(design)

    @property
    def n_samples(self) -> int:
        """N, the number of training samples."""
        return len(self.design)

    @property
    def hessian(self) -> Tensor:
        """AᵀA/N, the same everywhere, (coordinate, coordinate)."""
        return self.design.T @ self.design / self.n_samples

    def residual(self, x: Tensor) -> Tensor:
        """Return a_i·x − y_i, (replicate, sample)."""
        return x @ self.design.T - self.response

    def loss(self, x: Tensor) -> Tensor:
        """Return f(x), (replicate,)."""
        return 0.5 * self.residual(x).square().mean(-1)

    def gradient(self, x: Tensor) -> Tensor:
        """Return Aᵀr/N, (replicate, coordinate)."""
        return self.residual(x) @ self.design / self.n_samples

    def minibatch_gradient(self, x: Tensor, index: Tensor) -> Tensor:
        """Return the mean gradient over the samples ``index`` (replicate, batch): (replicate, coordinate)."""
        rows = self.design[index]
        residual = torch.einsum("rbc,rc->rb", rows, x) - self.response[index]
        return torch.einsum("rbc,rb->rc", rows, residual) / index.shape[1]

    def weighted_gradient(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return Σ_i w_i ∇ℓ_i(x) for ``weights`` (replicate, sample), as (replicate, coordinate)."""
        return (weights * self.residual(x)) @ self.design

    def gradient_moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1/N) Σ ∇ℓ_i and (1/N) Σ (∇ℓ_i)², both (replicate, coordinate)."""
        residual = self.residual(x)
        second = residual.square() @ self.design.square()
        return residual @ self.design / self.n_samples, second / self.n_samples

    def per_sample_gradients(self, x: Tensor) -> Tensor:
        """Return every ∇ℓ_i(x), (replicate, sample, coordinate): for small problems only."""
        return self.residual(x).unsqueeze(-1) * self.design


def gaussian_linear_regression(
    dimension: int,
    n_samples: int,
    *,
    noise: float = 0.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> LinearRegression:
    """Return least squares with a Gaussian design: y = A x* + noise·ε with A, x*, ε standard normal.

    Raises:
        InputError: if ``dimension`` or ``n_samples`` is below 1 or ``noise`` is negative.
    """
    if dimension < 1 or n_samples < 1:
        raise InputError(f"dimension is {dimension} and n_samples {n_samples}; both need to be at least 1.")
    if noise < 0:
        raise InputError(f"noise is {noise}; it needs to be 0 or more.")
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(n_samples + 1, dimension, generator=generator, dtype=torch.float64)
    design, truth = normal[:-1], normal[-1]
    response = design @ truth + noise * torch.randn(n_samples, generator=generator, dtype=torch.float64)
    return LinearRegression(design.to(device, dtype), response.to(device, dtype))
