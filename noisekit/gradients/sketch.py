"""Unbiased sketches of per-sample gradients: few numbers a sample whose dot products are right on average."""

from __future__ import annotations

import torch
from torch import Tensor


class ParameterSketch:
    """A count sketch of one parameter's gradient c ∈ R^d into m numbers.

    s_b = Σ_{j: h(j)=b} ε_j c_j with independent signs ε_j = ±1 and buckets h(j) = (j + offset) mod m, so
    E[s·s'] = c·c' exactly: two different coordinates carry independent signs of mean zero, whatever the
    buckets. Of an outer product b aᵀ the TensorSketch ifft(fft(Ub)·fft(Va)) is taken without forming it: sign
    u_o v_i, bucket (π(o mod m) + i) mod m with a random permutation π. The sum over parameters with their own
    signs stays unbiased.

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
        self._offset = int(torch.randint(projections, (1,), generator=self._generator))
        self._signs: Tensor | None = None
        self._flips: Tensor | None = None
        self._factors: tuple[Tensor, Tensor, Tensor] | None = None

    def _random_signs(self, n: int) -> Tensor:
        signs = torch.randint(0, 2, (n,), generator=self._generator, dtype=torch.int8)
        return signs.to(self.device, self.dtype).mul_(2).sub_(1)

    @property
    def signs(self) -> Tensor:
        """The signs ε, (d,); drawn when first asked for."""
        if self._flips is not None:
            return (self._flips >= 0).to(self.dtype).mul_(2).sub_(1)
        if self._signs is None:
            self._signs = self._random_signs(self.shape.numel())
        return self._signs

    @property
    def flips(self) -> Tensor:
        """What the signs ε do to the bits of a number of 16 bits, (d,); held in their place."""
        if self._flips is None:
            self._flips = (self.signs < 0).to(torch.int16).mul_(-(2**15))
            self._signs = None
        return self._flips

    def fold_columns(self, rows: Tensor, columns: slice, dtype: torch.dtype) -> Tensor:
        """Return what gradients ``rows`` (sample, d) at ``columns`` add to the sketch before ``shifted``.

        The rows are overwritten; numbers of 16 bits change sign as they are. ``dtype`` is that of the sketch.
        """
        if rows.element_size() == 2:
            rows.view(torch.int16).bitwise_xor_(self.flips[columns])
        else:
            rows.mul_(self.signs[columns])
        folded, shift = _folded(rows, self.projections, dtype), columns.start % self.projections
        return folded.roll(shift, dims=1) if shift else folded

    def shifted(self, folded: Tensor) -> Tensor:
        """Return the sketch of all columns, from the sum of ``fold_columns``."""
        return folded.roll(self._offset, dims=1)

    def apply_in_place(self, rows: Tensor) -> Tensor:
        """Return the sketch of gradients ``rows`` (sample, d), which are left multiplied by the signs."""
        return self.shifted(_folded(rows.mul_(self.signs), self.projections))

    def apply_outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the Fourier transform of the sketch of left_i right_iᵀ, (sample, m // 2 + 1)."""
        if self._factors is None:
            order = torch.randperm(self.projections, generator=self._generator).to(self.device)
            self._factors = (self._random_signs(left.shape[1]), self._random_signs(right.shape[1]), order)
        u, v, order = self._factors
        a = _folded(left * u, self.projections).index_select(1, order)
        b = _folded(right * v, self.projections)
        return torch.fft.rfft(a).mul_(torch.fft.rfft(b))

    def apply_rows(self, tokens: Tensor, gradients: Tensor) -> Tensor:
        """Return the sketch of Σ_t e_{k_t} b_tᵀ: ``tokens`` k (sample, t), ``gradients`` b (sample, t, E)."""
        width = gradients.shape[-1]
        signed = gradients * self.signs.reshape(-1, width)[tokens]
        position = tokens.unsqueeze(-1) * width + torch.arange(width, device=tokens.device)
        bucket = (position + self._offset) % self.projections
        sketch = gradients.new_zeros(len(tokens), self.projections)
        return sketch.scatter_add_(1, bucket.flatten(1), signed.flatten(1))


def _folded(rows: Tensor, m: int, dtype: torch.dtype | None = None) -> Tensor:
    """Return Σ_{j ≡ b mod m} rows_j, (sample, m)."""
    n, size = rows.shape
    whole = size // m * m
    if whole == 0:
        return torch.nn.functional.pad(rows if dtype is None else rows.to(dtype), (0, m - size))
    folded = rows[:, :whole].reshape(n, size // m, m).sum(1, dtype=dtype)
    if whole < size:
        folded[:, : size - whole] += rows[:, whole:]
    return folded
