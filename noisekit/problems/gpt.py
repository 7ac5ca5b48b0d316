"""A small causal transformer over characters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from noisekit.errors import InputError


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a GPT (Radford et al. 2019)."""

    vocabulary: int
    context: int = 32
    layers: int = 2
    heads: int = 2
    width: int = 32
    tied: bool = True
    """Whether the output layer reuses the token embedding (Press, Wolf 2017, arXiv 1608.05859)."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InputError(f"width is {self.width}; it needs to be a multiple of heads, {self.heads}.")


class CausalSelfAttention(nn.Module):
    """Attention in which a position sees itself and those before it."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.project = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.query_key_value(x).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.movedim(-3, 0).transpose(-3, -2).unbind(0)
        # Written out, because the fused product of torch has no batching rule for vmap on the CPU.
        scores = query @ key.mT / key.shape[-1] ** 0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        weights = scores.masked_fill(future, float("-inf")).softmax(-1)
        return self.project((weights @ value).transpose(-3, -2).flatten(-2))


class Block(nn.Module):
    """Attention and a two-layer network, each after a LayerNorm and beside a shortcut."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = CausalSelfAttention(config)
        self.norm2 = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, 4 * config.width)
        self.shrink = nn.Linear(4 * config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.shrink(functional.gelu(self.expand(self.norm2(x))))


class GPT(nn.Module):
    """A GPT from tokens (sample, position) to logits (sample, position, token).

    Positions are looked up for every sample, so that their embedding has a batch axis and per-sample
    gradients of it are well defined. There is no dropout: the loss is a function of the parameters alone.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.token = nn.Embedding(config.vocabulary, config.width)
        self.position = nn.Embedding(config.context, config.width)
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.layers)))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        self.apply(_initialise)
        for block in self.blocks:
            assert isinstance(block, Block)
            for layer in (block.attention.project, block.shrink):
                nn.init.normal_(layer.weight, std=0.02 / (2 * config.layers) ** 0.5)
        if config.tied:
            self.head.weight = self.token.weight

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[-1], device=tokens.device).expand_as(tokens)
        x = self.token(tokens) + self.position(positions)
        return self.head(self.norm(self.blocks(x)))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of the next tokens, −log p(target), in nats a token."""
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
