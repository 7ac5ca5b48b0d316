"""Networks of linear layers on vectors, read off the graph of their loss without a hook.

In a small network hooks cost more than the arithmetic. What they see of a linear layer, its input and its
output's gradient, the graph has too: the product that the layer is keeps its input, and autograd is asked for
the gradient of its result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge

from noisekit.gradients.contributions import Contribution, Explicit
from noisekit.gradients.outer import OuterProduct
from noisekit.gradients.squares import Squares

_PRODUCTS = ("AddmmBackward0", "MmBackward0")
MOST_OUTPUTS = 2**20
"""Up to how many numbers the outputs of all layers have whose gradients are held at once."""


@dataclass(frozen=True)
class LinearUse:
    """One product y = x Wᵀ + b in the graph of a loss."""

    output: GradientEdge
    x: Tensor
    weight: str
    bias: str | None

    def contributions(self, grad: Tensor) -> list[tuple[str, Contribution]]:
        """Return the contributions to the parameters, given the gradient of y, by name."""
        squares = Squares(grad)
        uses: list[tuple[str, Contribution]] = [(self.weight, OuterProduct(grad, self.x, squares))]
        if self.bias is not None:
            uses.append((self.bias, Explicit(grad, squares)))
        return uses


def linear_uses(loss: Tensor, names: Mapping[int, str], n: int) -> list[LinearUse] | None:
    """Return the uses of the parameters ``names`` (by id) in the graph of ``loss``, one row a sample.

    None where the loss depends on them, or on another tensor that requires a gradient, in any other way.
    """
    uses: list[LinearUse] = []
    first: Any = loss.grad_fn
    seen, waiting = {first}, [first]
    while waiting:
        node = waiting.pop()
        kind, below = type(node).__name__, node.next_functions
        if kind in _PRODUCTS:
            use, below = _use(node, kind, names, n)
            if use is None:
                return None
            uses.append(use)
        for child, _ in below:
            if type(child).__name__ == "AccumulateGrad":
                return None
            if child is not None and child not in seen:
                seen.add(child)
                waiting.append(child)
    return uses


def _use(node: Any, kind: str, names: Mapping[int, str], n: int) -> tuple[LinearUse | None, Any]:
    """Return the use that a product ``node`` is, None where it is not a layer's, and where x comes from."""
    below, bias = node.next_functions, None
    if kind == "MmBackward0":
        x, own, matrix = node._saved_self, below[:1], below[1][0]
    else:
        x, own, matrix = node._saved_mat1, below[1:2], below[2][0]
        bias = _leaf(below[0][0], names, 1)
        if bias is None or node._saved_alpha != 1 or node._saved_beta != 1:
            return None, own
    if x is None or x.ndim != 2 or len(x) != n or type(matrix).__name__ != "TBackward0":
        return None, own
    weight = _leaf(matrix.next_functions[0][0], names, 2)
    return None if weight is None else LinearUse(GradientEdge(node, 0), x, weight, bias), own


def _leaf(node: Any, names: Mapping[int, str], axes: int) -> str | None:
    """Return the name of the parameter with so many axes that ``node`` collects the gradient of."""
    if type(node).__name__ != "AccumulateGrad" or node.variable.ndim != axes:
        return None
    return names.get(id(node.variable))
