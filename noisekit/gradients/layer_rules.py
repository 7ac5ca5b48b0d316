"""Layer rules: from a layer's input and the gradient of its output to the gradient of each sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from noisekit.gradients.contributions import Contribution, Explicit
from noisekit.gradients.convolution import convolution_weight, padded_input
from noisekit.gradients.half_precision import is_half, widened
from noisekit.gradients.lookup import Lookup
from noisekit.gradients.outer import OuterProduct, OuterSum
from noisekit.gradients.squares import Squares

LayerRule: TypeAlias = Callable[[Any, Tensor, Tensor, int], dict[str, Contribution]]
"""Maps (layer, input, gradient of the output, number of samples) to a contribution for each parameter.

Input and gradient lead with samples × copies (sample-major); copies are 1 unless the model folds an axis in.
"""

_RULES: dict[type | str, LayerRule] = {}


def layer_rule(*layers: type | str) -> Callable[[LayerRule], LayerRule]:
    """Register a rule for layer classes, given as a class or as its dotted name.

    A rule that is wrong for some subclass does no harm: attaching compares it with autograd.
    """

    def register(rule: LayerRule) -> LayerRule:
        for layer in layers:
            _RULES[layer] = rule
        return rule

    return register


def find_rule(layer: nn.Module) -> LayerRule | None:
    """Return the rule for ``layer``, looking at its class and then at the classes it derives from."""
    for kind in type(layer).__mro__:
        rule = _RULES.get(kind) or _RULES.get(f"{kind.__module__}.{kind.__qualname__}")
        if rule is not None:
            return rule
    return None


def _per_sample_sum(values: Tensor, n: int, shape: torch.Size) -> Explicit:
    """Return Σ over everything but the sample and the trailing axes ``shape``."""
    values = values.reshape(n, -1, *shape)
    if values.shape[1] == 1:
        return Explicit(widened(values[:, 0]))
    return Explicit(values.sum(1, dtype=torch.float32 if is_half(values) else None))


@layer_rule(nn.Linear)
def linear(layer: nn.Linear, x: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    uses: dict[str, Contribution] = {}
    if grad.ndim == 2 and len(grad) == n:
        grad, x = widened(grad), widened(x)
        squares = Squares(grad)
        uses["weight"] = OuterProduct(grad, x, squares)
        if layer.bias is not None:
            uses["bias"] = Explicit(grad, squares)
        return uses
    left, right = grad.reshape(n, -1, grad.shape[-1]), x.reshape(n, -1, x.shape[-1])
    if left.shape[1] == 1:
        uses["weight"] = OuterProduct(widened(left[:, 0]), widened(right[:, 0]))
    else:
        uses["weight"] = OuterSum(left, right)
    if layer.bias is not None:
        uses["bias"] = _per_sample_sum(grad, n, grad.shape[-1:])
    return uses


@layer_rule("transformers.pytorch_utils.Conv1D")
def transposed_linear(layer: Any, x: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    left, right = x.reshape(n, -1, x.shape[-1]), grad.reshape(n, -1, grad.shape[-1])
    return {"weight": OuterSum(left, right), "bias": _per_sample_sum(grad, n, grad.shape[-1:])}


RULES_FOR_HALVES = (linear, transposed_linear)
"""Rules that take input and gradient in half precision where a device multiplies halves faster."""


@layer_rule(nn.Embedding)
def embedding(layer: nn.Embedding, x: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    size = torch.Size((layer.num_embeddings, layer.embedding_dim))
    return {"weight": Lookup(x.reshape(n, -1), grad.reshape(n, -1, grad.shape[-1]), size, layer.padding_idx)}


def _positions_last(values: Tensor) -> Tensor:
    """Return ``values`` (row, channel, *position) as (row, channel, position)."""
    return values.reshape(values.shape[0], values.shape[1], -1)


def _channel_bias(grad: Tensor, n: int) -> Explicit:
    return _per_sample_sum(_positions_last(grad).sum(2), n, grad.shape[1:2])


@layer_rule(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(layer: nn.Conv2d, x: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    x, padding = padded_input(layer, x)
    geometry = (layer.stride, padding, layer.dilation, layer.groups)
    uses: dict[str, Contribution] = {"weight": convolution_weight(x, grad, layer.weight.shape, geometry, n)}
    if layer.bias is not None:
        uses["bias"] = _channel_bias(grad, n)
    return uses


@layer_rule(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
def transposed_convolution(
    layer: nn.ConvTranspose2d, x: Tensor, grad: Tensor, n: int
) -> dict[str, Contribution]:
    # The adjoint of a convolution: its weight gradient is that of the convolution with x and grad exchanged.
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)
    uses: dict[str, Contribution] = {"weight": convolution_weight(grad, x, layer.weight.shape, geometry, n)}
    if layer.bias is not None:
        uses["bias"] = _channel_bias(grad, n)
    return uses


@layer_rule(nn.LayerNorm)
def layer_norm(layer: nn.LayerNorm, x: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    shape = torch.Size(layer.normalized_shape)
    normalized = nn.functional.layer_norm(x, layer.normalized_shape, eps=layer.eps)
    uses: dict[str, Contribution] = {"weight": _per_sample_sum(normalized.mul_(grad), n, shape)}
    if layer.bias is not None:
        uses["bias"] = _per_sample_sum(grad, n, shape)
    return uses


@layer_rule(nn.RMSNorm)
def rms_norm(layer: nn.RMSNorm, x: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    shape = torch.Size(layer.normalized_shape)
    normalized = nn.functional.rms_norm(x, layer.normalized_shape, eps=layer.eps)
    return {"weight": _per_sample_sum(normalized.mul_(grad), n, shape)}


def _channel_affine(normalized: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    """Return the contributions of a weight and a bias by channel; ``normalized`` is overwritten."""
    weight = _positions_last(normalized.mul_(grad)).sum(2)
    return {"weight": _per_sample_sum(weight, n, weight.shape[1:]), "bias": _channel_bias(grad, n)}


@layer_rule(nn.GroupNorm)
def group_norm(layer: nn.GroupNorm, x: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    return _channel_affine(nn.functional.group_norm(x, layer.num_groups, eps=layer.eps), grad, n)


@layer_rule(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def instance_norm(layer: nn.InstanceNorm2d, x: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    if layer.track_running_stats and not layer.training:
        return batch_norm(layer, x, grad, n)
    return _channel_affine(nn.functional.instance_norm(x, eps=layer.eps), grad, n)


@layer_rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
def batch_norm(layer: Any, x: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    mean, variance = layer.running_mean.to(x.dtype), layer.running_var.to(x.dtype)
    normalized = nn.functional.batch_norm(x, mean, variance, eps=layer.eps)
    return _channel_affine(normalized, grad, n)


@layer_rule(nn.PReLU)
def prelu(layer: nn.PReLU, x: Tensor, grad: Tensor, n: int) -> dict[str, Contribution]:
    slope = grad * x.clamp(max=0)
    if layer.num_parameters == 1:
        return {"weight": _per_sample_sum(slope.reshape(n, -1).sum(1), n, torch.Size((1,)))}
    return {"weight": _channel_bias(slope, n)}
