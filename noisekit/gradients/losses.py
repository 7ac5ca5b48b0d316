"""How a loss is reduced over the samples: found out on the outputs alone, not asked."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from noisekit.errors import InputError
from noisekit.gradients.batch import Batch, select, tensors_of

Reduction = Literal["mean", "sum"]


def evaluate(loss_fn: Any, outputs: Any, targets: Batch) -> Tensor:
    """Return loss_fn(outputs, targets), or raise if it is not one number."""
    if not callable(loss_fn):
        raise InputError(f"loss_fn is {loss_fn!r}: give a function or module, loss_fn(outputs, targets).")
    loss = loss_fn(outputs, targets)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        came = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(
            f"The loss must be one number, the mean or the sum over the samples, but it is {came}: use "
            "reduction='mean' or reduction='sum'."
        )
    return loss


def find_reduction(loss_fn: Any, outputs: Any, targets: Batch, n: int) -> Reduction | None:
    """Return whether ``loss_fn`` is a mean or a sum over samples, or raise if it is neither.

    Doubling the batch leaves a mean and doubles a sum; the order of the samples changes neither; and the
    gradient in one sample's output must not depend on the outputs of the others (a contrastive loss mixes
    them). None where the loss is not finite, so that nothing can be found out.
    A mean may have weights (class weights, ignored tokens): the gradient of sample i is then N times its
    term.
    """
    rows = {leaf.shape[0] if leaf.ndim else 0 for leaf in tensors_of(outputs) if leaf.is_floating_point()}
    if len(rows) != 1 or (n_rows := rows.pop()) == 0 or n_rows % n:
        return "mean"  # the model computes its own loss: as in Hugging Face, a mean
    n = n_rows  # outputs with several rows a sample are reduced over rows
    precision = 1e-9
    try:
        evaluate(loss_fn, tree_map(_as_double, outputs), tree_map(_as_double, targets))
    except RuntimeError:  # the loss holds single-precision tensors of its own, such as class weights
        precision = 1e-5
    else:
        outputs, targets = tree_map(_as_double, outputs), tree_map(_as_double, targets)
    noisy = _perturbed(outputs, torch.ones(n))
    with torch.enable_grad():
        loss = evaluate(loss_fn, noisy, targets)
        if loss.requires_grad:
            raise InputError(
                "The loss depends on parameters beside the outputs, as a penalty on the weights does, and "
                "that part belongs to no sample: leave it out of loss_fn."
            )
        twice = torch.arange(2 * n) % n
        doubled = float(evaluate(loss_fn, select(noisy, twice, n), select(targets, twice, n)).detach())
        order = torch.arange(n).roll(1)
        rolled = float(evaluate(loss_fn, select(noisy, order, n), select(targets, order, n)).detach())
    value = float(loss)
    if not math.isfinite(value):
        return None
    tolerance = 100 * precision * abs(value) + precision
    if abs(rolled - value) > tolerance:
        raise InputError(
            "The loss changes when the samples change places, so it is neither their mean nor their sum: it "
            "may leave some samples out or weigh them by position."
        )
    if n > 1 and _mixes(loss_fn, noisy, targets, n):
        raise InputError(
            "The loss mixes samples: the term of one sample depends on the outputs of others, so it has no "
            "gradient of its own. noisekit needs a mean or a sum of per-sample losses."
        )
    if abs(doubled - value) <= tolerance:
        return "mean"
    if abs(doubled - 2 * value) <= 2 * tolerance:
        return "sum"
    raise InputError(
        f"The loss is neither a mean nor a sum over the samples: on a doubled batch it goes from {value:.6g} "
        f"to {doubled:.6g}. Use reduction='mean' or reduction='sum'."
    )


def _as_double(leaf: Any) -> Any:
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return leaf.detach().double()
    return leaf


def _perturbed(outputs: Any, mask: Tensor) -> Any:
    """Return ``outputs`` made smaller by random factors in the samples where ``mask`` is one."""
    generator = torch.Generator().manual_seed(0)

    def change(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or leaf.ndim == 0:
            return leaf
        noise = torch.rand(leaf.shape, generator=generator, dtype=torch.float64).to(leaf)
        rows = mask.to(leaf).reshape(-1, *[1] * (leaf.ndim - 1))
        return leaf * (1 - 0.5 * rows * noise)  # probabilities stay probabilities

    return tree_map(change, outputs)


def _mixes(loss_fn: Any, outputs: Any, targets: Batch, n: int) -> bool:
    """Whether the gradient in even samples' outputs changes when the odd samples' outputs do."""
    even = torch.arange(n) % 2 == 0
    first = _gradient(loss_fn, outputs, targets)
    second = _gradient(loss_fn, _perturbed(outputs, (~even).double()), targets)
    for a, b in zip(first, second, strict=True):
        rows = even.to(a.device)
        if not torch.allclose(a[rows], b[rows], rtol=1e-5, atol=1e-7 * float(a.abs().max())):
            return True
    return False


def _gradient(loss_fn: Any, outputs: Any, targets: Batch) -> list[Tensor]:
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            leaves.append(value.detach().requires_grad_(True))
            return leaves[-1]
        return value

    with torch.enable_grad():
        loss = evaluate(loss_fn, tree_map(leaf, outputs), targets)
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)]
