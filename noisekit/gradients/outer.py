"""Per-sample gradients that are (sums of) outer products: linear layers."""

from __future__ import annotations

import torch
from torch import Tensor

from noisekit.gradients.column_blocks import measure_by_columns
from noisekit.gradients.contributions import Contribution
from noisekit.gradients.half_precision import batched_product, is_half
from noisekit.gradients.measure import Measured, Request
from noisekit.gradients.squares import Squares


class OuterProduct(Contribution):
    """c_i = b_i a_iᵀ of a linear layer on vectors, never formed: every statistic has a factored formula.

    ``left`` b (sample, O) is the gradient of the layer's output, ``right`` a (sample, I) its input.
    """

    factored = True

    def __init__(self, left: Tensor, right: Tensor, left_squares: Squares | None = None):
        self.n_samples = left.shape[0]
        self.shape = torch.Size((left.shape[1], right.shape[1]))
        self.device = left.device
        self.left = left
        self.right = right
        self._left_squares = left_squares or Squares(left)

    def rows(self, samples: slice) -> Tensor:
        return self.left[samples, :, None] * self.right[samples, None, :]

    def measure(self, request: Request) -> Measured:
        result = Measured()
        if request.total:
            result.total = self.left.T @ self.right
        if request.weights is not None:
            weighted = request.weights.to(self.left.dtype).unsqueeze(1) * self.left.T
            result.weighted = weighted @ self.right
        if request.second_moment or (request.squared_norms and not request.gram):
            left, right = self._left_squares, self.right.square()
            if request.second_moment:
                result.second_moment = left.rows.T @ right
            if request.squared_norms and not request.gram:
                result.squared_norms = right.sum(1).mul_(left.norms)
        if request.gram:
            result.gram = (self.left @ self.left.T).mul_(self.right @ self.right.T)
            result.squared_norms = result.gram.diagonal()
        if request.index is not None:
            row = request.index // self.shape[1]
            column = request.index - row * self.shape[1]
            result.values = self.left.index_select(1, row).mul_(self.right.index_select(1, column))
        if request.sketch is not None:
            result.spectrum = request.sketch.apply_outer(self.left, self.right)
        return result


class OuterSum(Contribution):
    """c_i = Σ_t b_it a_itᵀ of a linear layer on sequences.

    ``left`` (sample, t, O), ``right`` (sample, t, I), on a GPU also in half precision. Norms go by the t × t
    products where those are cheaper than forming c_i.
    """

    def __init__(self, left: Tensor, right: Tensor):
        self.n_samples = left.shape[0]
        self.shape = torch.Size((left.shape[2], right.shape[2]))
        self.device = left.device
        self.left = left
        self.right = right

    def rows(self, samples: slice) -> Tensor:
        found = batched_product(self.left[samples].transpose(1, 2), self.right[samples])
        return found.reshape(-1, *self.shape)

    def write(self, samples: slice, out: Tensor) -> None:
        if is_half(self.left):
            out.copy_(self.rows(samples))
            return
        out = out.view(len(out), self.left.shape[2], self.right.shape[2])
        torch.bmm(self.left[samples].transpose(1, 2), self.right[samples], out=out)

    def measure(self, request: Request) -> Measured:
        length = self.left.shape[1]
        if request.only_norms and length * sum(self.shape) < self.shape.numel():
            left, right = self.left, self.right
            products = batched_product(left, left.transpose(1, 2))
            products.mul_(batched_product(right, right.transpose(1, 2)))
            return Measured(squared_norms=products.sum((1, 2)))
        if by_columns(self.device):
            found = measure_by_columns(self.left, self.right, request)
            return found.shaped(self.shape)
        return super().measure(request)


def by_columns(device: torch.device) -> bool:
    """Whether sums of outer products are measured a block of outputs at a time there."""
    return device.type != "cpu"
