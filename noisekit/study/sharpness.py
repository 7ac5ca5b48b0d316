"""The largest eigenvalue of the Hessian, by power iteration on differences of gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from noisekit.problems import Problem


def sharpness(problem: Problem, x: Tensor, *, iterations: int = 20, seed: int = 0) -> float:
    """Return an estimate of λ_max(∇²f(x)), largest in magnitude, from below.

    Hv ≈ (∇f(x + hv) − ∇f(x − hv))/2h with |v| = 1 and h = ε^{1/3}(1 + |x|), ε the precision of the dtype.

    Arguments: ``problem``; ``x`` (coordinate,); ``iterations`` products with H; ``seed`` of the first
    direction.
    """
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(len(x), generator=generator).to(x)
    h = torch.finfo(x.dtype).eps ** (1 / 3) * (1 + x.norm())
    size = x.new_zeros(())
    for _ in range(iterations):
        v = v / v.norm()
        ahead, behind = problem.gradient(torch.stack([x + h * v, x - h * v])).unbind()
        product = (ahead - behind) / (2 * h)
        size = torch.dot(v, product)
        if not product.norm() > 0:
            break
        v = product
    return float(size)
