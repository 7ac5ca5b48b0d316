"""Squares of vectors, one a sample, that several statistics share."""

from __future__ import annotations

from functools import cached_property

from torch import Tensor


class Squares:
    """The squares of ``vectors`` (sample, d), each computed once and when it is first asked for.

    The gradient of a linear layer's output is the gradient of its bias and a factor of that of its weight.
    """

    def __init__(self, vectors: Tensor):
        self._vectors = vectors

    @cached_property
    def rows(self) -> Tensor:
        """v_i², (sample, d)."""
        return self._vectors.square()

    @cached_property
    def norms(self) -> Tensor:
        """|v_i|², (sample,)."""
        return self.rows.sum(1)
