"""Which layers are replayed, and by which rule."""

from __future__ import annotations

from torch import nn

from noisekit.gradients.attention import multihead_attention
from noisekit.gradients.layer_replay import ReplayRule, simple_layer
from noisekit.gradients.recurrent import recurrent

RULES: dict[type[nn.Module], ReplayRule] = {
    nn.MultiheadAttention: multihead_attention,
    nn.LSTM: recurrent,
    nn.GRU: recurrent,
    nn.RNN: recurrent,
}


def find_replay_rule(layer: nn.Module) -> ReplayRule | None:
    """Return the rule for ``layer``: its own, or the one for any layer without layers inside."""
    for kind in type(layer).__mro__:
        if kind in RULES:
            return RULES[kind]
    return simple_layer if layer._parameters and not layer._modules else None
