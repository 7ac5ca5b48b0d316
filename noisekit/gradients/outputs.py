"""The gradients that reach the outputs of a model from its loss, where a replay starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from noisekit.errors import UnsupportedModelError


class Outputs:
    """The floating-point outputs of one forward pass, and copies of them for the loss to use.

    One output may be computed from another, as logits from a hidden state that is returned too. The gradient
    of such an output then has two parts, and a replay that starts from both outputs would count one of them
    twice. The copies, which nothing in the model uses, receive what comes from outside alone.
    """

    def __init__(self, outputs: Any):
        flat, structure = tree_flatten(outputs)
        where = [k for k, leaf in enumerate(flat) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        self.inner: list[Tensor] = [flat[k] for k in where]
        """The outputs as the model computes them."""
        self.given = outputs
        """What stands in for the outputs of the model."""
        self.outer: list[Tensor] = self.inner
        if len(where) > 1:
            self.outer = [leaf.clone() for leaf in self.inner]
            for k, leaf in zip(where, self.outer, strict=True):
                flat[k] = leaf
            self.given = tree_unflatten(flat, structure)


def cotangents(
    outer: Sequence[Tensor | None], inner: Sequence[Tensor | None], frontier: Sequence[int]
) -> list[Tensor | None]:
    """Return the gradients of the outputs from which single samples can be differentiated.

    They are those from ``outer``; but where a model computes its own loss, that loss is of all samples
    together, so the gradients ``inner`` of the outputs that it is computed from (``frontier``) take its
    place.
    """
    own_loss = any(c is not None and c.ndim == 0 for c in outer)
    if not own_loss or not frontier:
        return list(outer)
    return [inner[k] if k in frontier else None for k in range(len(outer))]


def loss_frontier(outputs: Sequence[Tensor], batched: Sequence[bool]) -> tuple[int, ...]:
    """Return which ``outputs`` with samples a scalar output is computed from, the last on each way to it."""
    scalars = [out for out in outputs if out.ndim == 0 and out.requires_grad]
    rows = [k for k, has in enumerate(batched) if has and outputs[k].requires_grad]
    rows = [k for k in rows if not any(outputs[j] is outputs[k] for j in rows if j < k)]
    under = [k for k in rows if any(_depends(scalar, outputs[k]) for scalar in scalars)]
    return tuple(k for k in under if not any(j != k and _depends(outputs[j], outputs[k]) for j in under))


def _depends(top: Tensor, below: Tensor) -> bool:
    (found,) = torch.autograd.grad(top.sum(), below, retain_graph=True, allow_unused=True)
    return found is not None


def check_sums(rows: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
    """Raise where per-sample contributions do not add up to the gradient of the step."""
    wrong = []
    for name, values in rows.items():
        total = values.sum(0)
        size = values.flatten(1).norm(dim=1).sum()
        gap = (total - gradients[name].to_dense().to(total.dtype)).norm()
        if bool(gap > torch.finfo(gradients[name].dtype).eps ** 0.5 * size):
            wrong.append(name)
    if wrong:
        raise UnsupportedModelError(
            f"The loss that the model computes does not reach {', '.join(wrong)} through its outputs alone, "
            "so the samples cannot be told apart: return the logits and compute the loss outside the model."
        )
