"""Unbiased sketches of per-sample gradients: few numbers a sample whose dot products are right on average."""

from __future__ import annotations

import torch
from torch import Tensor


class ParameterSketch:
    """A count sketch of one parameter's gradient c ∈ R^d into m numbers.

    s_b = Σ_{j: h(j)=b} ε_j c_j with independent signs ε_j = ±1 and the fixed buckets h(j) = (j + offset) mod
    m, so E[s·s'] = c·c' exactly: two different coordinates carry independent signs of mean zero, whatever the
    buckets. Of an outer product b aᵀ the TensorSketch ifft(fft(Ua)·fft(Vb)) is taken without forming it: sign
    u_o v_i, bucket (h(o) + h(i)) mod m with random h. The sum over parameters with their own signs stays
    unbiased.

    Source: Charikar, Chen, Farach-Colton 2002 (count sketch); Pham, Pagh 2013 (TensorSketch).
    """

    def __init__(
        self, shape: torch.Size, projections: int, seed: int, device: torch.device, dtype: torch.dtype
    ):
        self.shape = shape
        self.projections = projections
        self.device = device
        self.dtype = dtype
        self._generator = torch.Generator().manual_seed(seed)
        self._signs: Tensor | None = None
        self._factors: tuple[Tensor, Tensor] | None = None
        self._offset = int(torch.randint(projections, (1,), generator=self._generator))
        self._seed = seed

    def _random_signs(self, n: int, stream: int) -> Tensor:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + stream) % 2**63)
        signs = torch.randint(0, 2, (n,), generator=generator, dtype=torch.int8).to(self.device, self.dtype)
        return signs.mul_(2).sub_(1)

    def apply_in_place(self, flat: Tensor) -> tuple[Tensor, Tensor]:
        """Return (signed ``flat``, its sketch) of gradients ``flat`` (sample, d), which is overwritten."""
        if self._signs is None:
            self._signs = self._random_signs(self.shape.numel(), 0)
        flat = flat.mul_(self._signs)
        m, size = self.projections, flat.shape[1]
        whole = size // m * m
        sketch = flat[:, :whole].reshape(len(flat), size // m, m).sum(1)
        if whole < size:
            sketch[:, : size - whole] += flat[:, whole:]
        return flat, sketch.roll(self._offset, dims=1)

    def apply_outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the sketch of left_i right_iᵀ for ``left`` (sample, O) and ``right`` (sample, I)."""
        if self._factors is None:
            self._factors = (self._count_sketch(left.shape[1], 1), self._count_sketch(right.shape[1], 2))
        u, v = self._factors
        product = torch.fft.rfft(left @ u) * torch.fft.rfft(right @ v)
        return torch.fft.irfft(product, n=self.projections)

    def apply_rows(self, tokens: Tensor, gradients: Tensor) -> Tensor:
        """Return the sketch of Σ_t e_{k_t} b_tᵀ: ``tokens`` k (sample, t), ``gradients`` b (sample, t, E)."""
        width = gradients.shape[-1]
        if self._signs is None:
            self._signs = self._random_signs(self.shape.numel(), 0)
        signed = gradients * self._signs.reshape(-1, width)[tokens]
        position = tokens.unsqueeze(-1) * width + torch.arange(width, device=tokens.device)
        bucket = (position + self._offset) % self.projections
        sketch = gradients.new_zeros(len(tokens), self.projections)
        return sketch.scatter_add_(1, bucket.flatten(1), signed.flatten(1))

    def _count_sketch(self, n: int, stream: int) -> Tensor:
        """Return the (n, m) matrix with one random sign in a random column of each row."""
        signs = self._random_signs(n, stream)
        bucket = torch.randint(self.projections, (n,), generator=self._generator).to(self.device)
        matrix = torch.zeros(n, self.projections, device=self.device, dtype=self.dtype)
        return matrix.scatter_(1, bucket[:, None], signs[:, None])
