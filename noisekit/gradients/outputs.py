"""The gradients that reach the outputs of a model from its loss, where a replay starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from noisekit.errors import UnsupportedModelError
from noisekit.gradients.contributions import Contribution, chunks


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


def own_sum(uses: Sequence[Contribution], gradient: Tensor) -> tuple[Tensor, bool]:
    """Return Σ_i c_i over the samples, and whether it is ``gradient``.

    It is not where the loop adds something to the loss that belongs to no sample, such as a penalty on the
    weights. Waits for the device.
    """
    shape, n = uses[0].shape, uses[0].n_samples
    total, size = gradient.new_zeros(shape), gradient.new_zeros(())
    for part in chunks(n, shape.numel()):
        rows = torch.stack([use.rows(part) for use in uses]).sum(0) if len(uses) > 1 else uses[0].rows(part)
        total, size = total + rows.sum(0), size + rows.reshape(len(rows), -1).norm(dim=1).sum()
    gap = (total - gradient.to_dense()).norm()
    return total, not bool(gap > torch.finfo(gradient.dtype).eps ** 0.5 * size)


def refuse_hidden_terms(names: Sequence[str]) -> None:
    """Raise where a model's own loss has a part that belongs to no sample."""
    if names:
        raise UnsupportedModelError(
            f"The loss that the model computes does not reach {', '.join(names)} through its outputs alone, "
            "so the samples cannot be told apart: return the logits and compute the loss outside the model."
        )
