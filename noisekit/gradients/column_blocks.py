"""Statistics of sums of outer products a block of outputs at a time, as suits a GPU.

Every block holds all samples, so that the products of the Gram matrix add up over blocks and no gradient is
computed twice; and it is small enough to stay in the cache between the statistics that read it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from noisekit.gradients.half_precision import batched_product, is_half, widened
from noisekit.gradients.measure import Measured, Request

BLOCK_BYTES = 2**25
"""What a block may take: the cache of a large GPU holds it."""
_FEWEST_OUTPUTS = 64
_SHORTEST_PRODUCT = 256
_MOST_PARTS = 8


def measure_by_columns(left: Tensor, right: Tensor, request: Request) -> Measured:
    """Return the statistics of c_i = Σ_t b_it a_itᵀ of ``left`` b (sample, t, O), ``right`` a (sample, t, I).

    Of factors in bfloat16 c_i is rounded to bfloat16, as autograd rounds the gradient of the batch; sums over
    samples and coordinates are in float32, and so are the kept coordinates.
    """
    n, outputs, inputs = left.shape[0], left.shape[2], right.shape[2]
    block = max(1, BLOCK_BYTES // (n * inputs * (2 if left.dtype == torch.bfloat16 else left.element_size())))
    if block > _FEWEST_OUTPUTS:
        block -= block % _FEWEST_OUTPUTS
    block = max(block, _FEWEST_OUTPUTS)
    found = _Columns(request, n, outputs * inputs, inputs, left)
    for start in range(0, outputs, block):
        own = left[:, :, start : start + block].transpose(1, 2)
        rows = torch.bmm(own, right) if left.dtype == torch.bfloat16 else batched_product(own, right)
        found.take(rows.flatten(1), start * inputs)
    result = found.result(torch.Size((outputs, inputs)))
    if request.index is not None:
        result.values = _coordinates(left, right, request.index)
    return result


def _coordinates(left: Tensor, right: Tensor, index: Tensor) -> Tensor:
    """Return c_i at the flat positions ``index``, (sample, coordinate)."""
    (n, length, outputs), inputs = left.shape, right.shape[2]
    if len(index) * length > 2 * outputs * inputs:
        most = max(1, BLOCK_BYTES // (4 * outputs * inputs))
        parts = [
            batched_product(b.transpose(1, 2), a).flatten(1).index_select(1, index)
            for b, a in zip(left.split(most), right.split(most), strict=True)
        ]
        return torch.cat(parts)
    parts = []
    for own in index.split(max(1, BLOCK_BYTES // (4 * n * length))):
        row = own // inputs
        chosen = widened(left.index_select(2, row))
        parts.append(chosen.mul_(right.index_select(2, own - row * inputs)).sum(1))
    return torch.cat(parts, 1)


class _Columns:
    """Takes the gradients of all samples at some coordinates after the others."""

    def __init__(self, request: Request, n: int, size: int, inputs: int, like: Tensor):
        dtype = torch.float32 if is_half(like) else like.dtype
        self.request, self.n, self.size, self.dtype = request, n, size, dtype
        divisors = range(1, _MOST_PARTS + 1)
        parts = max(p for p in divisors if inputs % p == 0 and (p == 1 or inputs // p >= _SHORTEST_PRODUCT))
        self._depth = inputs // parts
        weightings = 0 if request.weights is None else len(request.weights)

        def zeros(wanted: bool, *shape: int) -> Tensor | None:
            return like.new_zeros(shape, dtype=dtype) if wanted else None

        self._total = zeros(request.total, size)
        self._weighted = zeros(bool(weightings), weightings, size)
        self._second = zeros(request.second_moment, size)
        self._norms = zeros(request.squared_norms and not request.gram, n)
        self._gram = zeros(request.gram, n, n)
        self._sketch = zeros(
            request.sketch is not None, n, request.sketch.projections if request.sketch else 0
        )

    def take(self, rows: Tensor, start: int) -> None:
        """Measure ``rows`` (sample, d) at the coordinates from ``start`` on, and overwrite them."""
        request, own = self.request, slice(start, start + rows.shape[1])
        if self._total is not None:
            torch.sum(rows, 0, dtype=self.dtype, out=self._total[own])
        if self._weighted is not None and request.weights is not None:
            self._weighted[:, own] = request.weights.to(self.dtype) @ rows.to(self.dtype)
        if self._gram is not None:
            # Many short products fill a device that one long one of so few rows leaves idle.
            parts = rows.unflatten(1, (-1, self._depth)).transpose(0, 1)
            self._gram += batched_product(parts, parts.transpose(1, 2)).sum(0)
        if self._norms is not None:
            self._norms += torch.linalg.vector_norm(rows, dim=1, dtype=self.dtype).square_()
        if self._second is not None:
            # A norm reads the rows once; their squares would have to be written and read again.
            torch.linalg.vector_norm(rows, dim=0, dtype=self.dtype, out=self._second[own])
        if self._sketch is not None and request.sketch is not None:
            self._sketch += request.sketch.fold_columns(rows, own, self.dtype)

    def result(self, shape: torch.Size) -> Measured:
        """Return what was asked for."""
        norms, sketch = self._norms if self._gram is None else self._gram.diagonal(), self.request.sketch
        return Measured(
            total=None if self._total is None else self._total.view(shape),
            weighted=None if self._weighted is None else self._weighted.view(-1, *shape),
            second_moment=None if self._second is None else self._second.square_().view(shape),
            squared_norms=norms if self.request.squared_norms or self.request.gram else None,
            gram=self._gram,
            sketch=None if sketch is None or self._sketch is None else sketch.shifted(self._sketch),
        )
