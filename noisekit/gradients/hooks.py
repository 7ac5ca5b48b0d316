"""The hook engine: sees each use of a parameter and hands on its per-sample gradients.

A forward hook keeps a layer's input, a tensor hook on the layer's output receives its gradient (a full
backward hook would break in-place activations), and a tensor hook on the parameter, which autograd calls once
all uses have been differentiated, hands the uses and the summed gradient on. Nothing is stored on modules or
parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from noisekit.errors import UnsupportedModelError
from noisekit.gradients.batch import tensors_of
from noisekit.gradients.contributions import Contribution
from noisekit.gradients.graph import uses_of_leaves
from noisekit.gradients.half_precision import is_half, multiplies_halves, widened
from noisekit.gradients.layer_replay import LayerCall, ReplayRule, begin_call
from noisekit.gradients.layer_rules import RULES_FOR_HALVES, LayerRule, find_rule
from noisekit.gradients.local_hook import LocalHook
from noisekit.gradients.replayed_layers import find_replay_rule

OnParameter = Callable[[str, Sequence[Contribution], Tensor], None]
"""Called with a parameter's name, its uses in this backward pass, and its gradient in it."""
OnUses = Callable[[str, Sequence[Contribution]], None]
"""Called with a parameter's name and its uses in a backward pass that leaves out its gradient."""


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


@dataclass(frozen=True)
class Target:
    """A layer to hook: its rule, and the name of the parameter behind each of its attributes."""

    module: ReferenceType[nn.Module]
    rule: LayerRule | None
    replay: ReplayRule | None
    names: dict[str, str]
    module_name: str


def find_targets(model: nn.Module, names: Iterable[str], layouts: Mapping[str, Layout]) -> tuple[Target, ...]:
    """Return the layers of ``model`` that use the parameters ``names`` and have a rule and a layout."""
    wanted, canonical = set(names), parameter_names(model)
    targets = []
    for module_name, module in model.named_modules():
        own = {attr: canonical[id(p)] for attr, p in module._parameters.items() if p is not None}
        own = {attr: name for attr, name in own.items() if name in wanted}
        if rule := find_rule(module) if own and module_name in layouts else None:
            targets.append(Target(ref(module), rule, None, own, module_name))
        elif rule is None and (replay := find_replay_rule(module)):
            own = {attr: canonical[id(p)] for attr, p in module.named_parameters() if id(p) in canonical}
            own = {attr: name for attr, name in own.items() if name in wanted}
            if own:
                targets.append(Target(ref(module), None, replay, own, module_name))
    return tuple(targets)


@dataclass
class _Call:
    """One call of a layer: what its rule needs once the gradient of the output is there."""

    layer: nn.Module
    target: Target
    x: Tensor
    version: int
    n: int


def _ignore(*_: object) -> None:
    """Do nothing."""


@contextmanager
def _off(device: str) -> Iterator[None]:
    with torch.no_grad(), torch.autocast(device, enabled=False):
        yield


def _plain_arithmetic(grad: Tensor) -> AbstractContextManager[None]:
    """Turn autograd and autocast off; nothing where they are off, as in most backward passes."""
    if torch.is_grad_enabled() or torch.is_autocast_enabled(grad.device.type):
        return _off(grad.device.type)
    return nullcontext()


class HookCapture:
    """Hooks on a model for one or many forward and backward passes; ``remove`` takes them all off.

    ``tensors`` are the tensors that stand for the parameters: the parameters themselves, or what
    ``functional_call`` puts in their place. ``n_samples`` must be set before each forward pass. A
    ``forgiving`` capture leaves out what a rule cannot do, for the comparison with autograd to notice. An
    ``undecided`` one is told after the forward pass, by ``listen`` or ``roots_of``, when uses are complete.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        tensors: Mapping[str, Tensor],
        layouts: Mapping[str, Layout],
        on_parameter: OnParameter,
        *,
        forgiving: bool = False,
        undecided: bool = False,
    ):
        self.n_samples = 0
        self.on_parameter = on_parameter
        self.layouts = layouts
        self.paused = False
        self.half_precision = False
        """Whether a gradient in half precision came by, so that sums agree to two digits only."""
        self._errors = (Exception,) if forgiving else ()
        self._pending: dict[str, list[Contribution]] = {}
        self._open: list[LayerCall] = []
        self._deferred: dict[str, list[tuple[Target, LayerCall]]] = {}
        self._handles: list[RemovableHandle] = []
        self._targets = targets
        self._tensors = tensors
        self._undecided = undecided
        self._on_uses: OnUses = _ignore
        self._counts: dict[str, int] | None = None
        """How many uses each parameter has in the pass to come, where the samples are all that is asked."""
        self._seen: dict[str, int] = {}
        self._roots: list[GradientEdge] = []
        """Outputs of the layers whose input needs no gradient: a backward pass to them passes all others."""
        for target in targets:
            module = target.module()
            assert module is not None
            if target.replay is not None:
                before = LocalHook(partial(self._begin_replayed_call, target))
                self._handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            hook = LocalHook(partial(self._see_call if target.rule else self._see_replayed_call, target))
            self._handles.append(module.register_forward_hook(hook, with_kwargs=True))
        if not undecided:
            self.listen()

    def listen(self) -> None:
        """Hand parameters on when their gradients arrive."""
        for name in dict.fromkeys(name for target in self._targets for name in target.names.values()):
            hook = partial(self._see_gradient, name)
            self._handles.append(self._tensors[name].register_hook(hook))

    def roots_of(self, loss: Tensor, on_uses: OnUses) -> list[GradientEdge]:
        """Return where a backward pass from ``loss`` need go for the samples alone, without the parameters.

        From then on parameters are handed to ``on_uses`` when all their uses have been seen. Empty where the
        graph of the loss uses parameters in another way than by the calls seen: then ``listen``.
        """
        names = {id(self._tensors[name]): name for target in self._targets for name in target.names.values()}
        found = uses_of_leaves(loss)
        if {names.get(leaf): count for leaf, count in found.items()} != self._seen:
            return []
        self._counts, self._seen = self._seen, {}
        self._on_uses = on_uses
        return self._roots

    @property
    def complete(self) -> bool:
        """Whether every use has been handed on."""
        return not self._counts

    def catch_up(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin the call of ``model`` itself, where the hooks were registered after it had begun."""
        for target in self._targets:
            if target.replay is not None and target.module() is model:
                self._begin_replayed_call(target, model, args, kwargs)

    def remove(self) -> None:
        """Take every hook off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._pending.clear()
        self._open.clear()
        self._deferred.clear()
        self._roots.clear()

    def __enter__(self) -> HookCapture:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _see_call(
        self,
        target: Target,
        layer: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Any,
    ) -> Tensor | None:
        if self.paused or not isinstance(output, Tensor) or not output.requires_grad:
            return None
        if not torch.is_grad_enabled():
            return None
        layout, n = self.layouts[target.module_name], self.n_samples
        given = args[0] if args else next(iter(kwargs.values()))
        x = given.detach()
        expanded = None
        if not layout.batched:
            leading = output.shape[0] == 1
            output = expanded = output.expand(n, *(output.shape[1:] if leading else output.shape))
            x = x.expand(n, *(x.shape[1:] if leading else x.shape))
        elif output.shape[layout.axis] % n:
            raise UnsupportedModelError(
                f"Axis {layout.axis} of the output of {target.module_name!r} has length "
                f"{output.shape[layout.axis]}, which is not a multiple of the {n} "
                "samples: its rows cannot be told apart by sample."
            )
        if is_half(output) and x.is_floating_point():
            # As the layer itself has read it under autocast; to hold the wider one takes more memory.
            x = x.to(output.dtype)
        call = _Call(layer, target, x, x._version, n)
        output.register_hook(partial(self._see_output_gradient, call))
        if self._undecided:
            for name in target.names.values():
                self._seen[name] = self._seen.get(name, 0) + 1
            if not given.requires_grad:
                self._roots.append(get_gradient_edge(output))
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
        target = call.target
        with _plain_arithmetic(grad):
            if x.is_floating_point():
                x = x.to(grad.dtype)
            if is_half(grad):
                self.half_precision = True
                if not (target.rule in RULES_FOR_HALVES and multiplies_halves(grad)):
                    x, grad = widened(x), grad.float()
            layout = self.layouts[target.module_name]
            x, grad = layout.samples_first(x, call.n), layout.samples_first(grad, call.n)
            assert target.rule is not None
            with suppress(*self._errors):
                self._keep(target, target.rule(call.layer, x, grad, call.n))

    def _begin_replayed_call(
        self, target: Target, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if not self.paused and torch.is_grad_enabled():
            self._open.append(begin_call(layer, args, kwargs, self.n_samples))

    def _see_replayed_call(
        self, target: Target, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        if self.paused or not torch.is_grad_enabled() or not self._open or self._open[-1].layer is not layer:
            return
        call = self._open.pop()
        for k, tensor in enumerate(tensors_of(output)):
            call.shapes.append(tensor.shape)
            if tensor.requires_grad:
                tensor.register_hook(partial(self._see_replayed_gradient, call, k))
        for name in set(target.names.values()):
            self._deferred.setdefault(name, []).append((target, call))

    def _see_replayed_gradient(self, call: LayerCall, k: int, grad: Tensor) -> None:
        if not self.paused:
            call.gradients[k] = grad.detach()
            self.half_precision |= is_half(grad)

    def _replay_calls(self, name: str) -> None:
        """Replay the calls that use the parameter ``name``: all gradients of their outputs have arrived."""
        for target, call in self._deferred.pop(name, []):
            if call.done or not call.gradients:
                continue
            call.done = True
            assert target.replay is not None
            self.paused = True  # the replay calls the layer again
            try:
                with suppress(*self._errors):
                    self._keep(target, target.replay(call))
            finally:
                self.paused = False

    def _keep(self, target: Target, uses: Mapping[str, Contribution]) -> None:
        for attr, contribution in uses.items():
            if attr in target.names:
                name = target.names[attr]
                pending = self._pending.setdefault(name, [])
                pending.append(contribution)
                if self._counts is not None and len(pending) == self._counts[name]:
                    del self._pending[name], self._counts[name]
                    self._on_uses(name, pending)

    def _see_gradient(self, name: str, grad: Tensor) -> None:
        if self.paused:
            return
        if name in self._deferred:
            with _plain_arithmetic(grad):
                self._replay_calls(name)
        uses = self._pending.pop(name, None)
        if uses:
            with _plain_arithmetic(grad):
                self.on_parameter(name, uses, grad)
