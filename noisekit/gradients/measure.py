"""What is asked of the per-sample gradients of one parameter, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit.gradients.sketch import ParameterSketch


@dataclass(frozen=True)
class Request:
    """The statistics wanted of one parameter; whatever is off costs nothing."""

    second_moment: bool = True
    squared_norms: bool = True
    gram: bool = False
    index: Tensor | None = None
    """Flat positions within the parameter, (coordinate,)."""
    sketch: ParameterSketch | None = None

    @property
    def only_norms(self) -> bool:
        return not (self.second_moment or self.gram or self.index is not None or self.sketch is not None)


@dataclass
class Measured:
    """Statistics of the contributions c_i (sample, *parameter) of one parameter."""

    second_moment: Tensor | None = None
    """Σ_i c_i², shaped like the parameter."""
    squared_norms: Tensor | None = None
    """|c_i|², (sample,)."""
    gram: Tensor | None = None
    """c_i·c_j, (sample, sample)."""
    values: Tensor | None = None
    """c_i at the asked positions, (sample, coordinate)."""
    sketch: Tensor | None = None
    """(sample, projection)."""


def measure_rows(rows: Tensor, request: Request) -> Measured:
    """Return the statistics of explicit gradients ``rows`` (sample, *parameter), which are overwritten.

    Signs of the sketch are multiplied in place: squares and the Gram matrix do not see them.
    """
    shape = rows.shape[1:]
    flat = rows.reshape(rows.shape[0], -1)
    result = Measured()
    if request.index is not None:
        result.values = flat[:, request.index]
    if request.sketch is not None:
        flat, result.sketch = request.sketch.apply_in_place(flat)
    if request.gram:
        result.gram = flat @ flat.T
        result.squared_norms = result.gram.diagonal()
    if request.second_moment:
        squares = flat.square_()
        result.second_moment = squares.sum(0).reshape(shape)
        if result.squared_norms is None and request.squared_norms:
            result.squared_norms = squares.sum(1)
    elif result.squared_norms is None and request.squared_norms:
        result.squared_norms = torch.linalg.vector_norm(flat, dim=1).square()
    return result
