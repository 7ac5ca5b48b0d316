"""What is checked once when a model is attached, and the plan that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from noisekit.errors import InputError, UnsupportedModelError, kind_of
from noisekit.gradients.batch import Batch, tensors_of, trainable
from noisekit.gradients.hooks import find_targets
from noisekit.gradients.model_state import ModelState
from noisekit.gradients.plan import Plan
from noisekit.gradients.probe import Probe
from noisekit.gradients.sharded import as_parameters, gathered, sharded_names, shards_of

_PLANS: WeakKeyDictionary[nn.Module, list[tuple[Any, Plan]]] = WeakKeyDictionary()
_MOST_PLANS = 8
"""How many plans of one model are kept: one for each mode, kind of inputs and set of trained parameters."""


def plan_for(model: nn.Module, inputs: Batch, tensors: Mapping[str, Tensor] | None = None) -> Plan:
    """Return the plan for ``model`` on inputs like these, examining the model where none holds any more."""
    refuse_capture(model)
    key: list[tuple[Any, ...]] = [(t.dtype, t.ndim, t.device) for t in tensors_of(inputs)]
    if tensors is not None:
        key.append(tuple(t.dtype for t in tensors.values()))
    plans = _PLANS.setdefault(model, [])
    for known, plan in plans:
        if known == key and plan.state is not None and plan.state.holds():
            return plan
    plan = examine(model, inputs, tensors)
    plans.insert(0, (key, plan))
    del plans[_MOST_PLANS:]
    return plan


def refuse_mixing_layers(model: nn.Module) -> None:
    """Raise for layers that are known to mix the samples of a batch in their present mode."""
    mixing = [
        name or type(module).__name__
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and (module.training or module.running_mean is None)
    ]
    if mixing:
        raise UnsupportedModelError(
            f"Train-mode BatchNorm mixes the samples of a batch, so per-sample gradients do not exist: "
            f"{', '.join(mixing)}. Put these layers in eval mode, or use GroupNorm or LayerNorm instead."
        )
    scaled = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.scale_grad_by_freq
    ]
    if scaled:
        raise UnsupportedModelError(
            f"scale_grad_by_freq divides by counts over the batch, so samples mix: {', '.join(scaled)}. "
            "Set scale_grad_by_freq=False."
        )


def refuse_sharded_parameters(model: nn.Module) -> None:
    """Raise for parameters of which each process has a part, unless fully_shard has split them."""
    if sharded_names(model):
        shards_of(model)


def check_training(
    model: nn.Module, loss_fn: Any, optimizer: torch.optim.Optimizer, micro_batches: int
) -> None:
    """Raise where the parts of a training loop do not fit together."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model is {kind_of(model)}: give the torch.nn.Module that is trained.")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"optimizer is {kind_of(optimizer)}: give the loop's torch.optim.Optimizer.")
    if loss_fn is not None and not callable(loss_fn):
        raise InputError(f"loss_fn is {loss_fn!r}: give what the loop calls as loss_fn(outputs, targets).")
    if micro_batches < 1:
        raise InputError(f"micro_batches is {micro_batches}: a step has at least one backward pass.")
    refuse_sharded_parameters(model)
    own = {id(p) for p in model.parameters()}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise InputError(
            "The optimizer has no parameter of this model: give the one that was built on model.parameters()."
        )


def refuse_closure(step: tuple[Any, ...]) -> None:
    """Raise where ``step``, the (optimizer, args, kwargs) that its hook gets, was given a closure."""
    given = [*step[1], *step[2].values()] if step else []
    if any(callable(argument) for argument in given):
        raise InputError(
            "optimizer.step(closure) computes the loss inside the step, where the recorder is blind: "
            "call recorder.record(inputs, targets) before it."
        )


def refuse_capture(model: nn.Module) -> None:
    """Raise inside the capture of a CUDA graph, of whose replays no hook is told."""
    first = next(model.parameters(), None)
    if first is not None and first.is_cuda and torch.cuda.is_current_stream_capturing():
        raise UnsupportedModelError(
            "The forward pass is captured in a CUDA graph, whose replays call no hook: capture it before "
            "the recorder is attached, and call recorder.record(inputs, targets) between replays."
        )


def check_device(model: nn.Module, inputs: Batch) -> None:
    """Raise where no input is on a device of the model."""
    of_model = {p.device for p in model.parameters()}
    of_inputs = {t.device for t in tensors_of(inputs)}
    if not of_model & of_inputs:
        raise InputError(
            f"The inputs are on {', '.join(map(str, of_inputs))} and the model on "
            f"{', '.join(map(str, of_model))}: move one of them with .to(device)."
        )


def examine(model: nn.Module, inputs: Batch, tensors: Mapping[str, Tensor] | None = None) -> Plan:
    """Return the plan for ``model``, or raise UnsupportedModelError if its samples mix."""
    refuse_sharded_parameters(model)
    refuse_mixing_layers(model)
    check_device(model, inputs)
    names, whole = tuple(trainable(model)), gathered(model)
    if whole is not model:
        inputs = as_parameters(inputs, whole)
    standing = {**dict(whole.named_parameters()), **(tensors or {})}
    leaves = {name: _without_zeros(t.detach()).requires_grad_(name in names) for name, t in standing.items()}
    plan = replace(Probe(whole, leaves, inputs, names).plan(), state=ModelState(model))
    return plan if whole is model else replace(plan, targets=find_targets(model, plan.hooked, plan.layouts))


def _without_zeros(values: Tensor) -> Tensor:
    """Return ``values`` with small numbers for zeros: behind weights that start at zero, all is hidden."""
    zero = values == 0
    if not values.is_floating_point() or not bool(zero.any()):
        return values
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 + 0.02 * torch.rand(values.shape, generator=generator)
    return torch.where(zero, noise.to(values), values)
