"""Layers whose insides hooks do not see: their call alone is replayed from its output gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._pytree import tree_map

from noisekit.gradients.batch import tensors_of
from noisekit.gradients.contributions import Contribution, Explicit
from noisekit.gradients.random_state import random_state, set_random_state, untouched_random_state


@dataclass
class LayerCall:
    """One call of a layer: everything that is needed to repeat it."""

    layer: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    n: int
    """How many samples its batch has."""
    parameters: dict[str, Tensor]
    device: str
    autocast: torch.dtype | None
    random_state: list[Tensor] | None
    """The state of the generators before the call, where it may draw random numbers."""
    shapes: list[torch.Size] = field(default_factory=list)
    """Shapes of its output tensors."""
    gradients: dict[int, Tensor] = field(default_factory=dict)
    """Gradients of its output tensors by position."""
    done: bool = False

    @contextmanager
    def again(self) -> Iterator[None]:
        """Set autograd, autocast and the generators as they were when the layer was called."""
        with (
            untouched_random_state(self.parameters),
            torch.enable_grad(),
            torch.autocast(self.device, enabled=self.autocast is not None, dtype=self.autocast),
        ):
            if self.random_state is not None:
                set_random_state(self.parameters, self.random_state)
            yield


ReplayRule: TypeAlias = Callable[[LayerCall], dict[str, Contribution]]
"""Maps a call with its output gradients to a contribution for each parameter, by dotted name."""


def begin_call(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], n: int) -> LayerCall:
    """Return the call of ``layer`` that starts now."""
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    device = next(iter(parameters.values())).device.type
    draws = layer.training and bool(getattr(layer, "dropout", 0))
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    args, kwargs = tree_map(lambda v: v.detach() if isinstance(v, Tensor) else v, (args, kwargs))
    return LayerCall(
        layer, args, kwargs, n, parameters, device, autocast, random_state(parameters) if draws else None
    )


class _WithoutHooks(nn.Module):
    """A layer called without its hooks, which are the recorder's own."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.forward(*args, **kwargs)


def simple_layer(call: LayerCall) -> dict[str, Contribution]:
    """Any layer that maps batch-first tensors to one, by vmap over the samples of this layer alone."""
    if set(call.gradients) != {0} or len(call.shapes) != 1 or call.shapes[0][:1] != (call.n,):
        return {}
    inputs = (call.args, call.kwargs)
    batched = [t for t in tensors_of(inputs) if t.ndim and t.shape[0] == call.n]
    if not batched:
        return {}

    def in_dim(value: Any) -> int | None:
        return 0 if isinstance(value, Tensor) and value.ndim and value.shape[0] == call.n else None

    def one_sample(parameters: dict[str, Tensor], inputs: Any, gradient: Tensor) -> dict[str, Tensor]:
        args, kwargs = inputs
        pull = vjp(lambda p: functional_call(bare, p, args, kwargs), parameters)[1]
        return pull(gradient)[0]

    bare = _WithoutHooks(call.layer)
    parameters = {f"layer.{name}": p for name, p in call.parameters.items()}
    ready = tree_map(lambda v: v.unsqueeze(1) if in_dim(v) == 0 else v, inputs)
    dims = (None, tree_map(in_dim, inputs), 0)
    with call.again():
        rows = vmap(one_sample, in_dims=dims)(parameters, ready, call.gradients[0].unsqueeze(1))
    return {name.removeprefix("layer."): Explicit(row.detach()) for name, row in rows.items()}
