"""A batch as models take it: a tensor, or a tuple or dict of tensors, with the sample axis first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedParameter
from torch.utils._pytree import tree_flatten, tree_map

from noisekit.errors import InputError
from noisekit.gradients.compiled import eager

Batch = Any
"""A tensor, or a (nested) tuple, list or dict with tensors in it, each with the sample axis first."""

ONE_SAMPLE = (
    "The batch has one sample, and a variance needs at least two: use larger batches, or micro_batches where "
    "gradients are accumulated."
)


def as_batch(batch: Batch) -> Batch:
    """Return ``batch`` with a mapping of any kind (such as a tokenizer's output) turned into a dict."""
    return dict(batch) if isinstance(batch, Mapping) else batch


def tensors_of(batch: Batch) -> list[Tensor]:
    """Return the tensors in ``batch``, in a fixed order."""
    if isinstance(batch, Tensor):
        return [batch]
    return [leaf for leaf in tree_flatten(batch)[0] if isinstance(leaf, Tensor)]


def count_samples(inputs: Batch) -> int:
    """Return N, the length of the first axis of the first tensor with axes in ``inputs``."""
    for leaf in tensors_of(inputs):
        if leaf.ndim > 0:
            if leaf.shape[0] == 0:
                raise InputError(
                    "The batch is empty: at least one sample is needed on the first axis of inputs."
                )
            return leaf.shape[0]
    raise InputError(
        "The inputs hold no tensor with a sample axis: pass tensors whose first axis is the sample."
    )


def select(batch: Batch, index: Tensor | slice, n_samples: int) -> Batch:
    """Return the samples ``index``; whatever has no sample axis of length ``n_samples`` stays as it is."""

    def pick(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.ndim == 0 or leaf.shape[0] != n_samples:
            return leaf
        return leaf[index] if isinstance(index, slice) else leaf[index.to(leaf.device)]

    return tree_map(pick, batch)


def call_model(
    model: torch.nn.Module,
    inputs: Batch,
    tensors: dict[str, Tensor] | None = None,
) -> Any:
    """Return model(inputs) of a tensor, tuple or dict; ``tensors`` stand in for parameters and buffers."""
    args, kwargs = split_arguments(inputs)
    with eager():
        if tensors is None:
            return model(*args, **kwargs)
        with standing_in(model, tensors):
            return model(*args, **kwargs)


@contextmanager
def standing_in(model: torch.nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Put ``tensors`` in the place of the parameters and buffers of these names, wherever those are used.

    torch.func.functional_call leaves a module that is registered under two names without its parameters.
    """
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    new = {id(own): tensors[name] for name, own in reversed(named) if name in tensors}
    swapped: list[tuple[dict[str, Any], str, Tensor]] = []
    try:
        for module in model.modules():
            stores: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
            for store in stores:
                for key, own in store.items():
                    if own is not None and id(own) in new:
                        swapped.append((store, key, own))
                        store[key] = new[id(own)]
        yield
    finally:
        for store, key, own in swapped:
            store[key] = own


def split_arguments(inputs: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return ``inputs`` as positional and keyword arguments of a model."""
    if isinstance(inputs, CallArguments):
        return inputs.args, inputs.kwargs
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    return (inputs,), {}


class CallArguments(tuple[Any, Any]):
    """Positional and keyword arguments of one call, as one batch (args, kwargs)."""

    __slots__ = ()

    @property
    def args(self) -> tuple[Any, ...]:
        return tuple(self[0])

    @property
    def kwargs(self) -> dict[str, Any]:
        return dict(self[1])


def _rebuild(children: Any, _: Any) -> CallArguments:
    return CallArguments(children)


torch.utils._pytree.register_pytree_node(
    CallArguments,
    lambda call: ([call[0], call[1]], None),
    _rebuild,
    serialized_type_name="noisekit.CallArguments",
)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of ``model`` that require a gradient, each once, by its first name."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise InputError("The model has no parameter that requires a gradient: unfreeze at least one.")
    odd = [name for name, p in parameters.items() if p.is_complex() or isinstance(p, UninitializedParameter)]
    if odd:
        raise InputError(
            f"The parameters {', '.join(odd)} are complex or not initialised: hold real and imaginary parts "
            "in real parameters (torch.view_as_complex), and run lazy layers once before attaching."
        )
    return parameters
