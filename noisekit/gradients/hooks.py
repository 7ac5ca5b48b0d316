"""The hook engine: sees each use of a parameter and hands on its per-sample gradients.

A forward hook keeps a layer's input, a tensor hook on the layer's output receives its gradient (a full
backward hook would break in-place activations), and a tensor hook on the parameter, which autograd calls once
all uses have been differentiated, hands the uses and the summed gradient on. Nothing is stored on modules or
parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from noisekit.errors import UnsupportedModelError
from noisekit.gradients.contributions import Contribution
from noisekit.gradients.layer_rules import LayerRule, find_rule

OnParameter = Callable[[str, Sequence[Contribution], Tensor], None]
"""Called with a parameter's name, its uses in this backward pass, and its gradient in it."""


@dataclass(frozen=True)
class Layout:
    """Where the samples are in the output of a layer (and in its input)."""

    axis: int = 0
    sample_major: bool = True
    """Whether an axis that holds samples × copies runs through the copies of one sample first."""
    batched: bool = True
    """False for a layer that sees no batch, such as a position embedding; its output is expanded over it."""

    def samples_first(self, values: Tensor, n: int) -> Tensor:
        """Return ``values`` with samples × copies, sample-major, as the first axis."""
        if self.axis:
            values = values.movedim(self.axis, 0)
        if not self.sample_major:
            values = values.unflatten(0, (-1, n)).transpose(0, 1).flatten(0, 1)
        return values


def parameter_names(model: nn.Module) -> dict[int, str]:
    """Return the first name of each parameter, by identity, so that tied parameters share one."""
    return {id(parameter): name for name, parameter in model.named_parameters()}


@dataclass
class _Call:
    """One call of a layer: what its rule needs once the gradient of the output is there."""

    layer: nn.Module
    rule: LayerRule
    names: dict[str, str]
    module_name: str
    x: Tensor
    version: int
    n: int


class HookCapture:
    """Hooks on a model for one or many forward and backward passes; ``remove`` takes them all off.

    ``tensors`` are the tensors that stand for the parameters: the parameters themselves, or what
    ``functional_call`` puts in their place. ``n_samples`` must be set before each forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        tensors: Mapping[str, Tensor],
        layouts: Mapping[str, Layout],
        names: Iterable[str],
        on_parameter: OnParameter,
    ):
        self.n_samples = 0
        self.on_parameter = on_parameter
        self.layouts = layouts
        self.paused = False
        self._pending: dict[str, list[Contribution]] = {}
        self._handles: list[RemovableHandle] = []
        wanted, canonical = set(names), parameter_names(model)
        for module_name, module in model.named_modules():
            rule = find_rule(module)
            own = {attr: canonical[id(p)] for attr, p in module._parameters.items() if p is not None}
            own = {attr: name for attr, name in own.items() if name in wanted}
            if rule is not None and own and module_name in layouts:
                hook = partial(self._see_call, rule, own, module_name)
                self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        for name in wanted:
            self._handles.append(tensors[name].register_hook(partial(self._see_gradient, name)))

    def remove(self) -> None:
        """Take every hook off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._pending.clear()

    def __enter__(self) -> HookCapture:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _see_call(
        self,
        rule: LayerRule,
        names: dict[str, str],
        module_name: str,
        layer: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
    ) -> Tensor | None:
        if self.paused or not isinstance(output, Tensor) or not output.requires_grad:
            return None
        if not torch.is_grad_enabled():
            return None
        layout, n = self.layouts[module_name], self.n_samples
        x = (args[0] if args else next(iter(kwargs.values()))).detach()
        expanded = None
        if not layout.batched:
            leading = output.shape[0] == 1
            output = expanded = output.expand(n, *(output.shape[1:] if leading else output.shape))
            x = x.expand(n, *(x.shape[1:] if leading else x.shape))
        elif output.shape[layout.axis] % n:
            raise UnsupportedModelError(
                f"Axis {layout.axis} of the output of {module_name!r} has length "
                f"{output.shape[layout.axis]}, which is not a multiple of the {n} "
                "samples: its rows cannot be told apart by sample."
            )
        call = _Call(layer, rule, names, module_name, x, x._version, n)
        output.register_hook(partial(self._see_output_gradient, call))
        return expanded

    def _see_output_gradient(self, call: _Call, grad: Tensor) -> None:
        if self.paused:
            return
        x = call.x
        if x._version != call.version:
            raise UnsupportedModelError(
                f"The input of a {type(call.layer).__name__} layer was changed in place after its "
                "use: replace the in-place operation by one that returns a result."
            )
        with torch.no_grad(), torch.autocast(grad.device.type, enabled=False):
            if x.is_floating_point():
                x = x.to(grad.dtype)
                if grad.dtype in (torch.float16, torch.bfloat16):
                    x = x.float()
            if grad.dtype in (torch.float16, torch.bfloat16):
                grad = grad.float()
            layout = self.layouts[call.module_name]
            x, grad = layout.samples_first(x, call.n), layout.samples_first(grad, call.n)
            for attr, contribution in call.rule(call.layer, x, grad, call.n).items():
                if attr in call.names:
                    self._pending.setdefault(call.names[attr], []).append(contribution)

    def _see_gradient(self, name: str, grad: Tensor) -> None:
        uses = self._pending.pop(name, None)
        if uses and not self.paused:
            with torch.no_grad(), torch.autocast(grad.device.type, enabled=False):
                self.on_parameter(name, uses, grad)
