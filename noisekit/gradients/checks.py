"""What is checked once when a model is attached, and the plan that comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from noisekit.errors import InputError, UnsupportedModelError
from noisekit.gradients.batch import Batch, tensors_of, trainable
from noisekit.gradients.probe import Plan, Probe

_PLANS: WeakKeyDictionary[nn.Module, dict[Any, Plan]] = WeakKeyDictionary()


def plan_for(model: nn.Module, inputs: Batch, tensors: Mapping[str, Tensor] | None = None) -> Plan:
    """Return the plan for ``model`` on inputs like these, examining the model the first time."""
    key = (
        tuple(module.training for module in model.modules()),
        tuple(p.requires_grad for p in model.parameters()),
        tuple((t.dtype, t.ndim, t.device) for t in tensors_of(inputs)),
        tuple(t.dtype for t in (tensors or {}).values()),
    )
    plans = _PLANS.setdefault(model, {})
    if key not in plans:
        plans[key] = examine(model, inputs, tensors)
    return plans[key]


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
    refuse_mixing_layers(model)
    check_device(model, inputs)
    names = tuple(trainable(model))
    standing = {**dict(model.named_parameters()), **(tensors or {})}
    leaves = {name: t.detach().requires_grad_(name in names) for name, t in standing.items()}
    return Probe(model, leaves, inputs, names).plan()
