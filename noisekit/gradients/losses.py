"""How a loss is reduced over the samples: found out on the outputs alone, not asked."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from noisekit.errors import InputError
from noisekit.gradients.batch import Batch
from noisekit.gradients.device import has_float64

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
    precision = 1e-5
    outputs, targets = tree_map(_detached, outputs), tree_map(_detached, targets)
    if all(has_float64(leaf.device) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)):
        doubled = tree_map(_as_double, outputs), tree_map(_as_double, targets)
        # Without success where the loss holds single-precision tensors of its own, such as class weights.
        with suppress(RuntimeError):
            evaluate(loss_fn, *doubled)
            precision, (outputs, targets) = 1e-9, doubled
    used = [leaf for leaf, g in zip(*_gradients(loss_fn, outputs, targets), strict=True) if g is not None]
    if not used or any(leaf.ndim == 0 for leaf in used):
        return "mean"  # the model computes its own loss: as in Hugging Face, a mean
    strange = [tuple(leaf.shape) for leaf in used if leaf.shape[0] % n or not len(leaf)]
    if strange:
        raise InputError(
            f"The loss uses an output of shape {strange[0]}, whose first axis does not hold the {n} "
            "samples, so whether it is a mean or a sum cannot be told: return it batch first."
        )
    rows = _Rows(n, {n, *(leaf.shape[0] for leaf in used)})
    noisy = rows.perturbed(outputs, torch.ones(n))
    with torch.enable_grad():
        loss = evaluate(loss_fn, noisy, targets)
        if loss.requires_grad:
            raise InputError(
                "The loss depends on parameters beside the outputs, as a penalty on the weights does, and "
                "that part belongs to no sample: leave it out of loss_fn."
            )
        twice, rolled = (
            float(_evaluate_again(loss_fn, rows.select(noisy, index), rows.select(targets, index)).detach())
            for index in (torch.arange(2 * n) % n, torch.arange(n).roll(1))
        )
    value = float(loss)
    if not math.isfinite(value):
        return None
    tolerance = 100 * precision * abs(value) + precision
    if abs(rolled - value) > tolerance:
        raise InputError(
            "The loss changes when the samples change places, so it is neither their mean nor their sum: it "
            "may leave some samples out or weigh them by position."
        )
    if n > 1 and _mixes(loss_fn, noisy, targets, rows):
        raise InputError(
            "The loss mixes samples: the term of one sample depends on the outputs of others, so it has no "
            "gradient of its own. noisekit needs a mean or a sum of per-sample losses."
        )
    if abs(twice - value) <= tolerance:
        return "mean"
    if abs(twice - 2 * value) <= 2 * tolerance:
        return "sum"
    raise InputError(
        f"The loss is neither a mean nor a sum over the samples: on a doubled batch it goes from {value:.6g} "
        f"to {twice:.6g}. Use reduction='mean' or reduction='sum'."
    )


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf


def _as_double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _evaluate_again(loss_fn: Any, outputs: Any, targets: Batch) -> Tensor:
    """Return the loss of other samples than those it was called with."""
    try:
        return evaluate(loss_fn, outputs, targets)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"The loss cannot be computed for other samples than those of its batch "
            f"({str(error).splitlines()[0]}): "
            "let loss_fn(outputs, targets) take all that belongs to the samples through these two."
        ) from error


@dataclass(frozen=True)
class _Rows:
    """Which tensors hold the n samples: those with as many rows as an output that the loss uses."""

    n: int
    lengths: set[int]

    def of(self, leaf: Any) -> bool:
        """Whether ``leaf`` holds samples, each with as many rows in a row."""
        return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] in self.lengths

    def select(self, batch: Batch, index: Tensor) -> Batch:
        """Return the samples ``index`` with all their rows."""

        def pick(leaf: Any) -> Any:
            if not self.of(leaf):
                return leaf
            return leaf.unflatten(0, (self.n, -1))[index.to(leaf.device)].flatten(0, 1)

        return tree_map(pick, batch)

    def perturbed(self, outputs: Any, mask: Tensor) -> Any:
        """Return ``outputs`` made smaller by random factors in the samples where ``mask`` is one."""
        generator = torch.Generator().manual_seed(0)

        def change(leaf: Any) -> Any:
            if not self.of(leaf) or not leaf.is_floating_point():
                return leaf
            noise = torch.rand(leaf.shape, generator=generator, dtype=torch.float64).to(leaf)
            by_row = mask.to(leaf).repeat_interleave(leaf.shape[0] // self.n)
            rows = by_row.reshape(-1, *[1] * (leaf.ndim - 1))
            return leaf * (1 - 0.5 * rows * noise)  # probabilities stay probabilities

        return tree_map(change, outputs)


def _mixes(loss_fn: Any, outputs: Any, targets: Batch, rows: _Rows) -> bool:
    """Whether the gradient in even samples' outputs changes when the odd samples' outputs do."""
    even = torch.arange(rows.n) % 2 == 0
    leaves, first = _gradients(loss_fn, outputs, targets)
    _, second = _gradients(loss_fn, rows.perturbed(outputs, (~even).double()), targets)
    for leaf, a, b in zip(leaves, first, second, strict=True):
        if a is None or b is None or not rows.of(leaf):
            continue
        kept = even.repeat_interleave(leaf.shape[0] // rows.n).to(a.device)
        if not torch.allclose(a[kept], b[kept], rtol=1e-5, atol=1e-7 * float(a.abs().max())):
            return True
    return False


def _gradients(loss_fn: Any, outputs: Any, targets: Batch) -> tuple[list[Tensor], list[Tensor | None]]:
    """Return the floating-point outputs and the gradient of the loss in each, None where it is not used."""
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            leaves.append(value.detach().requires_grad_(True))
            return leaves[-1]
        return value

    with torch.enable_grad():
        loss = evaluate(loss_fn, tree_map(leaf, outputs), targets)
    if not loss.requires_grad:
        return leaves, [None] * len(leaves)
    return leaves, list(torch.autograd.grad(loss, leaves, allow_unused=True))
