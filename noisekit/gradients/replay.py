"""Per-sample gradients without layer rules: vmap over samples, or one backward pass a sample.

Both start from the gradient of the loss in the model's outputs, so that g_i = J_iᵀ ∂L/∂out_i: exact for every
model whose samples do not mix, whatever its parameters are used for.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad as grad_of
from torch.func import vmap
from torch.utils._pytree import tree_map

from noisekit.errors import InputError
from noisekit.gradients.batch import Batch, call_model, select, tensors_of
from noisekit.gradients.contributions import chunks

Chunk = tuple[slice, dict[str, Tensor]]
"""A slice of the samples and their gradients by parameter name."""


def frozen_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the buffers of ``model``, for passes that must leave it as it was."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def _all_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    everything = {name: p.detach() for name, p in model.named_parameters()}
    return {**everything, **frozen_buffers(model), **tensors}


def _float_leaves(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in tensors_of(outputs) if leaf.is_floating_point()]


def _inner_product(outputs: Any, cotangents: Sequence[Tensor | None], n: int) -> Tensor:
    """Return Σ out·cotangent; a cotangent without samples belongs to an output reduced over them."""
    total: Tensor | None = None
    for leaf, cotangent in zip(_float_leaves(outputs), cotangents, strict=True):
        if cotangent is None:
            continue
        term = (leaf * cotangent).sum() if cotangent.ndim else leaf * cotangent / n
        total = term if total is None else total + term
    if total is None:
        raise InputError("The loss does not depend on the outputs of the model.")
    return total


def _by_sample(cotangents: Sequence[Tensor | None], n: int) -> list[Tensor | None]:
    """Return the cotangents as (sample, rows of one sample, …)."""
    return [c if c is None or not c.ndim else c.unflatten(0, (n, -1)) for c in cotangents]


def vmap_gradients(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    inputs: Batch,
    cotangents: Sequence[Tensor | None],
    n: int,
) -> Iterator[Chunk]:
    """Yield per-sample gradients of ``names`` by vmap; refuses models that draw random numbers."""
    fixed = _all_tensors(model, tensors)
    wanted = {name: fixed.pop(name).detach() for name in names}
    size = sum(t.numel() for t in wanted.values())
    by_sample = _by_sample(cotangents, n)

    def one_sample(parameters: dict[str, Tensor], x: Batch, cotangent: list[Tensor | None]) -> Tensor:
        outputs = call_model(model, x, {**fixed, **parameters})
        return _inner_product(outputs, cotangent, n)

    for part in chunks(n, size):
        count = part.stop - part.start
        one_each = [None if c is None else c[part] if c.ndim else c for c in by_sample]
        xs = _with_batch_of_one(select(inputs, part, n), count)
        in_dims = (None, _dims(xs, count), [None if c is None or not c.ndim else 0 for c in one_each])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # slow, but exact
            try:
                rows = vmap(grad_of(one_sample), in_dims=in_dims, randomness="error")(wanted, xs, one_each)
            except (RuntimeError, ValueError) as error:
                raise InputError(
                    f"torch.vmap cannot run this model ({str(error).splitlines()[0]}): "
                    "use engine='hooks' or engine='loop'."
                ) from error
        yield part, rows


def _with_sample_axis(values: Tensor, count: int) -> Tensor:
    return values.unsqueeze(1) if values.ndim and values.shape[0] == count else values


def _with_batch_of_one(batch: Batch, count: int) -> Batch:
    return tree_map(lambda v: _with_sample_axis(v, count) if isinstance(v, Tensor) else v, batch)


def _dims(batch: Batch, count: int) -> Any:
    return tree_map(lambda v: 0 if isinstance(v, Tensor) and v.ndim and v.shape[0] == count else None, batch)


def loop_gradients(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    inputs: Batch,
    cotangents: Sequence[Tensor | None],
    n: int,
) -> Iterator[Chunk]:
    """Yield per-sample gradients of ``names`` by a forward and a backward pass for each sample."""
    everything = _all_tensors(model, tensors)
    wanted = [everything[name].detach().requires_grad_(True) for name in names]
    everything.update(zip(names, wanted, strict=True))
    by_sample = _by_sample(cotangents, n)
    for i in range(n):
        part = slice(i, i + 1)
        own = [c[i] if c is not None and c.ndim else c for c in by_sample]
        with torch.enable_grad():
            total = _inner_product(call_model(model, select(inputs, part, n), everything), own, n)
        yield part, _stacked_one(names, wanted, torch.autograd.grad(total, wanted, allow_unused=True))


def masked_gradients(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    names: Sequence[str],
    inputs: Batch,
    cotangents: Sequence[Tensor | None],
    n: int,
) -> Iterator[Chunk]:
    """Yield per-sample gradients of ``names`` from one forward pass and a backward pass a sample.

    The random numbers of the forward pass (dropout masks) are those of the whole batch: call it with the
    state of the generator that the training step had.
    """
    everything = _all_tensors(model, tensors)
    wanted = [everything[name].detach().requires_grad_(True) for name in names]
    everything.update(zip(names, wanted, strict=True))
    with torch.enable_grad():
        outputs = call_model(model, inputs, everything)
    leaves = [
        (leaf.unflatten(0, (n, -1)), c)
        for leaf, c in zip(_float_leaves(outputs), _by_sample(cotangents, n), strict=True)
        if c is not None and c.ndim
    ]
    for i in range(n):
        part = slice(i, i + 1)
        with torch.enable_grad():
            total = torch.stack([(leaf[i] * c[i]).sum() for leaf, c in leaves]).sum()
        grads = torch.autograd.grad(total, wanted, allow_unused=True, retain_graph=i + 1 < n)
        yield part, _stacked_one(names, wanted, grads)


def _stacked_one(
    names: Sequence[str], wanted: Sequence[Tensor], grads: Sequence[Tensor | None]
) -> dict[str, Tensor]:
    return {
        name: (torch.zeros_like(t) if g is None else g.to_dense()).unsqueeze(0)
        for name, t, g in zip(names, wanted, grads, strict=True)
    }


ENGINES = {"vmap": vmap_gradients, "loop": loop_gradients, "masked": masked_gradients}
"""The three ways, by name."""
