"""Hessian-vector products of a problem's loss, and its leading curvature by Lanczos."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from noisekit.errors import InputError
from noisekit.problems.base import Problem
from noisekit.problems.sample_losses import sample_losses

_NETWORK = ("outputs", "inputs", "targets", "loss_fn")


def differentiable_sample_losses(problem: Problem) -> Callable[[Tensor], Tensor] | None:
    """Return x (coordinate,) ↦ ℓ_i(x) (sample,) for torch.func, or None for a problem without one."""
    if not all(hasattr(problem, name) for name in _NETWORK):
        return None

    def losses(x: Tensor) -> Tensor:
        outputs = problem.outputs(x, problem.inputs)  # type: ignore[attr-defined]
        return sample_losses(problem.loss_fn, outputs, problem.targets)  # type: ignore[attr-defined]

    return losses


def directional_derivatives(losses: Callable[[Tensor], Tensor], x: Tensor, directions: Tensor) -> Tensor:
    """Return v_kᵀ∇ℓ_i(x) for ``directions`` (coordinate, component), as (sample, component).

    The map u ↦ Σ u_i ∇ℓ_i is linear in u, so its own transpose applied to v is what is wanted: reverse mode
    twice, which every layer supports.
    """
    values, weighted_sum = torch.func.vjp(losses, x)[:2]
    transpose = torch.func.vjp(lambda u: weighted_sum(u)[0], torch.zeros_like(values))[1]
    return torch.stack([transpose(v)[0] for v in directions.T], dim=1)


def hessian_vector_product(problem: Problem, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Return v ↦ ∇²f(x) v for ``x`` and v (coordinate,).

    Networks: ∇(v·∇f) by torch.func.grad twice. Any other problem: the central
    difference (∇f(x + hv) − ∇f(x − hv))/2h with h = ε^{1/3}(1 + |x|)/|v|, exact for a quadratic.
    """
    losses = differentiable_sample_losses(problem)
    if losses is not None:
        gradient = torch.func.grad(lambda at: losses(at).mean())
        return lambda v: torch.func.grad(lambda at: gradient(at) @ v)(x)

    def difference(v: Tensor) -> Tensor:
        length = v.norm().clamp(min=torch.finfo(v.dtype).tiny)
        h = torch.finfo(v.dtype).eps ** (1 / 3) * (1 + x.norm()) / length
        ends = problem.gradient(torch.stack([x + h * v, x - h * v]))
        return (ends[0] - ends[1]) / (2 * h)

    return difference


def power_iteration(
    product: Callable[[Tensor], Tensor], start: Tensor, iterations: int
) -> tuple[float, Tensor, float]:
    """Return λ = vᵀHv of the eigenvalue largest in magnitude, from below, its direction v, and |Hv − λv|.

    Arguments: ``product`` u ↦ Hu; ``start`` (coordinate,), not zero; ``iterations`` products, at least one.
    """
    u = start
    for _ in range(iterations):
        direction = u / u.norm()
        u = product(direction)
        size = torch.dot(direction, u)
        if not u.norm() > 0:
            break
    return float(size), direction, float((u - size * direction).norm())


def top_curvature(problem: Problem, x: Tensor, k: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the ``k`` largest eigenvalues of ∇²f(x), descending, and their eigenvectors (coordinate, k).

    Lanczos with implicit restarts (ARPACK through scipy) on Hessian-vector products; no matrix is formed.
    Raises InputError where k is not between 1 and d − 1.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    d = len(x)
    if not isinstance(k, int) or not 1 <= k < d:
        raise InputError(f"k is {k!r}; {d} coordinates have 1 to {d - 1} leading directions.")
    product = hessian_vector_product(problem, x)

    def matvec(v: np.ndarray) -> np.ndarray:
        return product(torch.as_tensor(v.reshape(-1)).to(x)).double().cpu().numpy()

    start = np.random.default_rng(seed).standard_normal(d)
    operator = LinearOperator((d, d), matvec=matvec, dtype=np.float64)
    accuracy = 1e-8 if x.dtype == torch.float64 else 1e-4
    values, vectors = eigsh(operator, k=k, which="LA", v0=start, tol=accuracy)
    order = np.argsort(values)[::-1]
    return torch.as_tensor(values[order].copy()).to(x), torch.as_tensor(vectors[:, order].copy()).to(x)
