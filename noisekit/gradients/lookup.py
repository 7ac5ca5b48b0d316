"""Per-sample gradients of embeddings: few rows a sample, never the whole table where it is large."""

from __future__ import annotations

import torch
from torch import Tensor

from noisekit.gradients.contributions import MOST_ELEMENTS, Contribution, measure_chunks
from noisekit.gradients.measure import Measured, Request


class Lookup(Contribution):
    """c_i = Σ_t e_{k_it} b_itᵀ of an embedding: tokens k (sample, t), output gradients b (sample, t, E)."""

    def __init__(self, tokens: Tensor, gradients: Tensor, shape: torch.Size, padding_idx: int | None):
        if padding_idx is not None:
            gradients = gradients.masked_fill((tokens == padding_idx).unsqueeze(-1), 0)
        self.n_samples = tokens.shape[0]
        self.shape = shape
        self.device = gradients.device
        self._tokens = tokens
        self._gradients = gradients

    def rows(self, samples: slice) -> Tensor:
        tokens, gradients = self._tokens[samples], self._gradients[samples]
        n, vocabulary = tokens.shape[0], self.shape[0]
        first = torch.arange(n, device=tokens.device).unsqueeze(1) * vocabulary
        table = gradients.new_zeros(n * vocabulary, self.shape[1])
        table.index_add_(0, (tokens + first).flatten(), gradients.flatten(0, 1))
        return table.reshape(n, *self.shape)

    def measure(self, request: Request) -> Measured:
        if self.n_samples * self.shape.numel() <= MOST_ELEMENTS:
            return measure_chunks([self], request)
        return self._measure_sparse(request)

    def _measure_sparse(self, request: Request) -> Measured:
        """Return the statistics from the rows that occur: equal (sample, token) pairs are summed first.

        Sizes are static (one slot a position), so nothing waits for the device.
        """
        n, length = self._tokens.shape
        vocabulary, width = self.shape
        first = torch.arange(n, device=self._tokens.device).unsqueeze(1) * vocabulary
        keys, order = (self._tokens + first).flatten().sort()
        slot = torch.zeros_like(keys)
        slot[1:] = (keys[1:] != keys[:-1]).cumsum(0)
        gradients = self._gradients.flatten(0, 1)
        sums = gradients.new_zeros(n * length, width).index_add_(0, slot, gradients[order])
        token = torch.zeros_like(keys).scatter_(0, slot, keys % vocabulary)
        sample = torch.zeros_like(keys).scatter_(0, slot, keys // vocabulary)
        result = Measured()
        if request.index is not None:
            row, column = request.index // width, request.index % width
            chosen = self._gradients[:, :, column] * (self._tokens.unsqueeze(-1) == row)
            result.values = chosen.sum(1)
        if request.sketch is not None:
            result.sketch = request.sketch.apply_rows(self._tokens, self._gradients)
        if request.gram:
            result.gram = _matching_products(sums, token, sample, n)
        if request.total:
            result.total = gradients.new_zeros(self.shape).index_add_(0, self._tokens.flatten(), gradients)
        if request.weights is not None:
            weights = request.weights.to(gradients.dtype).repeat_interleave(length, 1).unsqueeze(-1)
            shape = (len(weights), *self.shape)
            result.weighted = gradients.new_zeros(shape).index_add_(
                1, self._tokens.flatten(), weights * gradients
            )
        squares = sums.square()
        if request.squared_norms:
            result.squared_norms = gradients.new_zeros(n).index_add_(0, sample, squares.sum(1))
        if request.second_moment:
            result.second_moment = gradients.new_zeros(self.shape).index_add_(0, token, squares)
        return result


def _matching_products(sums: Tensor, token: Tensor, sample: Tensor, n: int) -> Tensor:
    """Return Σ over pairs of slots with equal tokens of their dot products, by pair of samples."""
    gram = sums.new_zeros(n, n)
    step = max(1, MOST_ELEMENTS // max(len(sums), 1))
    for start in range(0, len(sums), step):
        part = slice(start, start + step)
        products = (sums[part] @ sums.T).mul_(token[part, None] == token[None, :])
        by_sample = products.new_zeros(products.shape[0], n).index_add_(1, sample, products)
        gram.index_add_(0, sample[part], by_sample)
    return gram
