"""Per-sample gradients of multi-head attention, with the dropout masks of the training step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from noisekit.gradients.contributions import Computed, Contribution, Explicit
from noisekit.gradients.layer_replay import LayerCall
from noisekit.gradients.outer import OuterSum

ARGUMENTS = (
    "query",
    "key",
    "value",
    "key_padding_mask",
    "need_weights",
    "attn_mask",
    "average_attn_weights",
    "is_causal",
)


def multihead_attention(call: LayerCall) -> dict[str, Contribution]:
    """Attention on projected inputs is repeated with identity projections around it.

    Its input and output are then those of the layer's four linear maps, whose per-sample gradients are those
    of any linear layer.
    """
    layer: Any = call.layer
    given = dict(zip(ARGUMENTS, call.args, strict=False)) | call.kwargs
    unusual = layer.bias_k is not None or layer.add_zero_attn or given["query"].ndim != 3
    if unusual or set(call.gradients) != {0}:
        return {}
    with call.again():
        tensors = [given[name] for name in ("query", "key", "value")]
        output_gradient = call.gradients[0]
        if layer.batch_first:
            tensors = [t.transpose(0, 1) for t in tensors]
            output_gradient = output_gradient.transpose(0, 1)
        weights, biases = _projections(layer, call.parameters)
        projected = [
            F.linear(x, w, b).detach().requires_grad_(True)
            for x, w, b in zip(tensors, weights, biases, strict=True)
        ]
        attended = _attention(layer, projected, given)
        output_weight = call.parameters["out_proj.weight"]
        inside = output_gradient.to(output_weight.dtype) @ output_weight
        gradients = torch.autograd.grad(attended, projected, inside.to(attended.dtype))
    by_sample = [(_samples(g, call.n), _samples(x, call.n)) for g, x in zip(gradients, tensors, strict=True)]
    uses = _input_uses(layer, by_sample, to_itself=all(_same(tensors[0], t) for t in tensors[1:]))
    left, right = _samples(output_gradient, call.n), _samples(attended.detach(), call.n)
    uses["out_proj.weight"] = OuterSum(left, right)
    uses["out_proj.bias"] = Explicit(left.sum(1))
    return uses


def _projections(layer: Any, parameters: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
    if layer._qkv_same_embed_dim:
        weights = list(parameters["in_proj_weight"].chunk(3))
    else:
        weights = [parameters[f"{name}_proj_weight"] for name in "qkv"]
    bias = parameters.get("in_proj_bias")
    return weights, [None, None, None] if bias is None else list(bias.chunk(3))


def _attention(layer: Any, projected: list[Tensor], given: dict[str, Any]) -> Tensor:
    size = layer.embed_dim
    identity = torch.eye(size, device=projected[0].device, dtype=projected[0].dtype)
    return F.multi_head_attention_forward(
        projected[0],
        projected[1],
        projected[2],
        size,
        layer.num_heads,
        identity.repeat(3, 1),
        None,
        None,
        None,
        False,
        layer.dropout,
        identity,
        None,
        training=layer.training,
        key_padding_mask=given.get("key_padding_mask"),
        need_weights=given.get("need_weights", True),
        attn_mask=given.get("attn_mask"),
        average_attn_weights=given.get("average_attn_weights", True),
        is_causal=given.get("is_causal", False),
    )[0]


def _samples(values: Tensor, n: int) -> Tensor:
    """Return ``values`` (position, sample × copies, feature) as (sample, position, feature)."""
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return values.transpose(0, 1).reshape(n, -1, values.shape[-1])


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether both are the same memory, found out without looking into it."""
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


def _input_uses(
    layer: Any, pairs: list[tuple[Tensor, Tensor]], *, to_itself: bool
) -> dict[str, Contribution]:
    uses: dict[str, Contribution] = {"in_proj_bias": Explicit(torch.cat([g.sum(1) for g, _ in pairs], 1))}
    outer = [OuterSum(g, x) for g, x in pairs]
    if not layer._qkv_same_embed_dim:
        return uses | dict(zip(("q_proj_weight", "k_proj_weight", "v_proj_weight"), outer, strict=True))
    if to_itself:
        uses["in_proj_weight"] = OuterSum(torch.cat([g for g, _ in pairs], -1), pairs[0][1])
        return uses
    first = outer[0]
    shape = torch.Size((3 * first.shape[0], first.shape[1]))
    uses["in_proj_weight"] = Computed(
        first.n_samples,
        shape,
        first.device,
        lambda samples: torch.cat([use.rows(samples) for use in outer], 1),
        max(1, first.cached_samples // 3),
    )
    return uses
