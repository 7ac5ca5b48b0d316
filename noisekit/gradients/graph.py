"""What the graph of a loss says about the tensors that it is differentiated in: how often each is used."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def uses_of_leaves(loss: Tensor) -> dict[int, int]:
    """Return how many edges of the graph of ``loss`` lead to each tensor that it is differentiated in, by id.

    A layer that is called once uses its weight by one edge. A penalty on the weight, or a use beside the
    layer's own, is an edge more.
    """
    counts: dict[int, int] = {}
    first: Any = loss.grad_fn
    seen, waiting = {first}, [first]
    while waiting:
        for node, _ in waiting.pop().next_functions:
            if type(node).__name__ == "AccumulateGrad":
                leaf = id(node.variable)
                counts[leaf] = counts.get(leaf, 0) + 1
            elif node is not None and node not in seen:
                seen.add(node)
                waiting.append(node)
    return counts
