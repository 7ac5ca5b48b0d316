"""Per-sample weight gradients of convolutions: one weight gradient with a group for each sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from noisekit.gradients.contributions import Computed, Contribution
from noisekit.gradients.outer import OuterSum

CACHED_ROWS, CACHED_INPUTS = 2**18, 2**19
"""Numbers of weight gradients, and of inputs and output gradients, that are handled at once on a CPU."""

Geometry = tuple[Any, Any, Any, int]
"""(stride, padding, dilation, groups)."""


def padded_input(layer: nn.Conv2d, x: Tensor) -> tuple[Tensor, Any]:
    """Return the input with the padding that only ``layer`` knows how to make, and the zeros padding left."""
    if layer.padding_mode != "zeros":
        return nn.functional.pad(x, layer._reversed_padding_repeated_twice, layer.padding_mode), 0
    if isinstance(layer.padding, str):
        sides = layer._reversed_padding_repeated_twice
        return nn.functional.pad(x, sides), 0
    return x, layer.padding


def convolution_weight(
    x: Tensor, grad: Tensor, shape: torch.Size, geometry: Geometry, n: int
) -> Contribution:
    """Return the contribution of a convolution's weight of ``shape`` from its input and output gradient."""
    stride, padding, dilation, groups = geometry
    dims = x.ndim - 2
    stride, padding, dilation = (_tuple(value, dims) for value in (stride, padding, dilation))
    copies = x.shape[0] // n
    if groups == 1 and shape[2:].numel() == 1 and not any(padding) and set(stride) == {1} and copies == 1:
        return _Pointwise(grad.flatten(2).transpose(1, 2), x.flatten(2).transpose(1, 2), shape)

    def compute(samples: slice) -> Tensor:
        part = slice(samples.start * copies, samples.stop * copies)
        xs, gs = x[part], grad[part]
        size = torch.Size((xs.shape[0] * shape[0], *shape[1:]))
        weight = torch.ops.aten.convolution_backward(
            gs.reshape(1, -1, *gs.shape[2:]),
            xs.reshape(1, -1, *xs.shape[2:]),
            xs.new_empty(1).expand(size),
            None,
            stride,
            padding,
            dilation,
            False,
            [0] * dims,
            groups * xs.shape[0],
            [False, True, False],
        )[1]
        weight = weight.reshape(-1, copies, *shape)
        return weight[:, 0] if copies == 1 else weight.sum(1)

    # One weight gradient of many groups is fastest while its inputs and its output stay in the cache.
    touched = copies * (x[0].numel() + grad[0].numel())
    at_once = max(1, min(CACHED_ROWS // shape.numel(), CACHED_INPUTS // touched))
    return Computed(n, shape, x.device, compute, at_once)


class _Pointwise(OuterSum):
    """A convolution with a kernel of one position: a linear layer on the sequence of positions."""

    def __init__(self, left: Tensor, right: Tensor, shape: torch.Size):
        super().__init__(left, right)
        self.shape = shape


def _tuple(value: Any, dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else list(value)
