"""Per-sample gradients of RNN, GRU and LSTM layers: linear maps on sequences, once the gates are seen."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisekit.gradients.contributions import Contribution, Explicit
from noisekit.gradients.layer_replay import LayerCall
from noisekit.gradients.outer import OuterSum


def recurrent(call: LayerCall) -> dict[str, Contribution]:
    """The layer is repeated step by step with a zero added to what each linear map gives.

    The gradients of those zeros are the output gradients of the linear maps, whose inputs are known.
    """
    layer: Any = call.layer
    given = dict(zip(("input", "hx"), call.args, strict=False)) | call.kwargs
    x, state = given["input"], given.get("hx")
    if not isinstance(x, Tensor) or x.ndim != 3 or layer.proj_size:
        return {}
    with call.again():
        if layer.batch_first:
            x = x.transpose(0, 1)
        outputs, seen = _run(layer, call.parameters, x, state)
        if layer.batch_first:
            outputs[0] = outputs[0].transpose(0, 1)
        used = [(outputs[k], g.to(outputs[k].dtype)) for k, g in call.gradients.items()]
        zeros = [zero for _, _, *both in seen for zero in both]
        gradients = iter(torch.autograd.grad([o for o, _ in used], zeros, [g for _, g in used]))
    uses: dict[str, Contribution] = {}
    for suffix, (inputs, hidden, _, _) in zip(_suffixes(layer), seen, strict=True):
        for kind, right in (("ih", inputs), ("hh", hidden)):
            left = _samples(next(gradients), call.n)
            uses[f"weight_{kind}_{suffix}"] = OuterSum(left, _samples(right.detach(), call.n))
            uses[f"bias_{kind}_{suffix}"] = Explicit(left.sum(1))
    return uses


Seen = tuple[Tensor, Tensor, Tensor, Tensor]
"""Inputs and hidden states of one layer and direction in time, and the zeros added to their linear maps."""


def _suffixes(layer: Any) -> list[str]:
    ways = ("", "_reverse") if layer.bidirectional else ("",)
    return [f"l{k}{way}" for k in range(layer.num_layers) for way in ways]


def _run(layer: Any, parameters: dict[str, Tensor], x: Tensor, state: Any) -> tuple[list[Tensor], list[Seen]]:
    """Return (output, h_n, for an LSTM c_n) and what each direction saw; x (time, batch, feature)."""
    suffixes, cell = _suffixes(layer), isinstance(layer, nn.LSTM)
    zero = x.new_zeros(len(suffixes), x.shape[1], layer.hidden_size)
    h0, c0 = (state if cell else (state, zero)) if state is not None else (zero, zero)
    seen: list[Seen] = []
    last_h, last_c = [], []
    ways = 2 if layer.bidirectional else 1
    for k in range(layer.num_layers):
        if k and layer.dropout:
            x = F.dropout(x, layer.dropout, layer.training)
        results = []
        for way in range(ways):
            index = k * ways + way
            out, h, c, what = _one_way(
                layer, parameters, suffixes[index], x, h0[index], c0[index], reverse=way == 1
            )
            results.append(out)
            last_h.append(h)
            last_c.append(c)
            seen.append(what)
        x = torch.cat(results, -1)
    final = [torch.stack(last_h), torch.stack(last_c)] if cell else [torch.stack(last_h)]
    return [x, *final], seen


def _one_way(
    layer: Any, parameters: dict[str, Tensor], suffix: str, x: Tensor, h: Tensor, c: Tensor, *, reverse: bool
) -> tuple[Tensor, Tensor, Tensor, Seen]:
    weight = parameters[f"weight_hh_{suffix}"]
    bias = parameters.get(f"bias_hh_{suffix}")
    from_input = F.linear(x, parameters[f"weight_ih_{suffix}"], parameters.get(f"bias_ih_{suffix}"))
    at_input = torch.zeros_like(from_input).requires_grad_(True)
    at_hidden = torch.zeros_like(from_input).requires_grad_(True)
    from_input = from_input + at_input
    outputs: list[Tensor] = [h] * len(x)
    hidden: list[Tensor] = [h] * len(x)
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        hidden[t] = h
        from_hidden = F.linear(h, weight, bias) + at_hidden[t]
        h, c = _step(layer, from_input[t], from_hidden, h, c)
        outputs[t] = h
    return torch.stack(outputs), h, c, (x, torch.stack(hidden), at_input, at_hidden)


def _step(layer: Any, a: Tensor, b: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next (h, c) from the linear maps ``a`` of the input and ``b`` of the hidden state."""
    if isinstance(layer, nn.LSTM):
        i, f, g, o = (a + b).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if isinstance(layer, nn.GRU):
        (ar, az, an), (br, bz, bn) = a.chunk(3, -1), b.chunk(3, -1)
        update = (az + bz).sigmoid()
        new = (an + (ar + br).sigmoid() * bn).tanh()
        return (1 - update) * new + update * h, c
    return ((a + b).tanh() if layer.nonlinearity == "tanh" else (a + b).relu()), c


def _samples(values: Tensor, n: int) -> Tensor:
    """Return ``values`` (time, sample × copies, feature) as (sample, time, feature) in full precision."""
    if values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    return values.transpose(0, 1).reshape(n, -1, values.shape[-1])
