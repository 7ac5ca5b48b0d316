"""Models that use their layers in every way that per-sample gradients must be right for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from gradient_cases import Case, N, case, mlp, mse, randn, sequential
from torch import Tensor, nn


class TinyTransformer(nn.Module):
    """nanoGPT in small: position embedding without a batch axis, tied output weights."""

    def __init__(self, tied: bool = True):
        super().__init__()
        self.token, self.position = nn.Embedding(9, 6), nn.Embedding(4, 6)
        self.norm, self.mix, self.head = nn.LayerNorm(6), nn.Linear(6, 18), nn.Linear(6, 9, bias=False)
        if tied:
            self.head.weight = self.token.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        q, k, v = self.mix(self.norm(x)).chunk(3, dim=-1)
        x = x + F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=True)[:, 0]
        return self.head(x)


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())


@case
def tied_transformer() -> Case:
    tokens = torch.randint(0, 9, (N, 4))
    return TinyTransformer().double(), token_loss, tokens, torch.randint(0, 9, (N, 4))


@case
def as_many_samples_as_positions() -> Case:
    tokens = torch.randint(0, 9, (4, 4))
    return TinyTransformer(tied=False).double(), token_loss, tokens, torch.randint(0, 9, (4, 4))


class CalledTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.shared(torch.tanh(self.shared(x))))


@case
def module_called_twice() -> Case:
    return CalledTwice().double(), mse, randn(N, 4), randn(N, 2)


class Functional(nn.Module):
    """Parameters used as tensors: a scale, a class token, an embedding's weight as output weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.start = nn.Parameter(torch.rand(4) + 1), nn.Parameter(torch.randn(1, 1, 4))
        self.embed, self.mix = nn.Embedding(6, 4), nn.Linear(4, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.cat([self.start.expand(len(tokens), -1, -1), self.embed(tokens)], dim=1)
        return F.linear(self.mix(x * self.scale), self.embed.weight)


@case
def functional_parameters() -> Case:
    return Functional().double(), mse, torch.randint(0, 6, (N, 3)), randn(N, 4, 6)


@case
def several_rows_a_sample() -> Case:
    return sequential(randn(N, 3, 4), nn.Linear(4, 2), nn.Flatten(0, 1))


@case
def frozen_parameters() -> Case:
    model, loss, x, y = sequential(
        randn(N, 4), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2)
    )
    model[0].requires_grad_(False)
    model[2].weight.requires_grad_(False)
    return model, loss, x, y


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]):
        super().__init__()
        self.rnn, self.out = kind(3, 4, batch_first=True, num_layers=2), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


@case
def lstm() -> Case:
    return Recurrent(nn.LSTM).double(), mse, randn(N, 6, 3), randn(N, 2)


@case
def gru() -> Case:
    return Recurrent(nn.GRU).double(), mse, randn(N, 6, 3), randn(N, 2)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside, self.attention = nn.Linear(4, 4), nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inside(x)
        return self.attention(x, x, x, need_weights=False)[0]


@case
def multihead_attention() -> Case:
    return Attention().double(), mse, randn(N, 3, 4), randn(N, 3, 4)


@case
def transformer_encoder_layer_with_dropout() -> Case:
    layer = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.2, batch_first=True)
    return layer.double(), mse, randn(N, 3, 4), randn(N, 3, 4)


class CrossAttention(nn.Module):
    """Masked attention to inputs of another width, sequence first inside, with dropout of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.3, kdim=3, vdim=5, bias=False)
        self.packed = nn.MultiheadAttention(4, 2, dropout=0.1)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        q, k, v = (t.transpose(0, 1) for t in (left, right[..., :3], right))
        mask = right[:, :, 0] > 1
        out = self.attention(q, k, v, key_padding_mask=mask)[0]
        out = self.packed(out, q, q)[0]
        return {"sum": out.transpose(0, 1)}


@case
def cross_attention() -> Case:
    inputs = {"left": randn(N, 3, 4), "right": randn(N, 6, 5)}
    return CrossAttention().double(), lambda out, y: F.mse_loss(out["sum"], y), inputs, randn(N, 3, 4)


class StackedRecurrence(nn.Module):
    """Bidirectional layers, sequence first, whose last state is used as well as their output."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True, dropout=0.3)
        self.gru = nn.GRU(8, 3, bias=False)
        self.rnn = nn.RNN(3, 3, nonlinearity="relu", batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out, (h, c) = self.lstm(x.transpose(0, 1))
        out, last = self.gru(out, (h + c)[:1, :, :3].contiguous())
        return self.rnn(out.transpose(0, 1))[0].mean(1) + last[0]


@case
def stacked_recurrence() -> Case:
    return StackedRecurrence().double(), mse, randn(N, 5, 3), randn(N, 3)


class HomeMade(nn.Module):
    """A layer of one's own: no rule knows it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(4) + 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.gain


@case
def home_made_layers() -> Case:
    return sequential(randn(N, 3, 4), nn.Linear(4, 4), HomeMade(), nn.Dropout(0.2), HomeMade())


class FunctionalWithDropout(Functional):
    def forward(self, tokens: Tensor) -> Tensor:
        return F.dropout(super().forward(tokens) * self.scale[0], 0.3)


@case
def functional_parameters_with_dropout() -> Case:
    return FunctionalWithDropout().double(), mse, torch.randint(0, 6, (N, 3)), randn(N, 4, 6)


class SequenceFirstInside(nn.Module):
    """A batch-first model whose inner layers run sequence first, with frames folded into the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.frame, self.mix, self.norm = nn.Conv2d(1, 2, 2), nn.Linear(8, 4), nn.LayerNorm(4)
        self.out = nn.Linear(4, 2)

    def forward(self, video: Tensor) -> Tensor:
        n, t = video.shape[:2]
        frames = self.frame(video.flatten(0, 1)).flatten(1)
        x = frames.unflatten(0, (n, t)).transpose(0, 1)
        x = self.norm(self.mix(x))
        x = self.out(x.flatten(0, 1)).unflatten(0, (t, n))
        return x.mean(0)


@case
def folded_and_sequence_first_axes() -> Case:
    return SequenceFirstInside().double(), mse, randn(N, 3, 1, 3, 3), randn(N, 2)


@case
def dropout() -> Case:
    return sequential(randn(N, 6), nn.Linear(6, 8), nn.Dropout(0.4), nn.Linear(8, 3))


@case
def sum_of_losses() -> Case:
    model, _, x, y = mlp()
    return model, nn.MSELoss(reduction="sum"), x, y


class Dictionary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": torch.tanh(self.left(input=left)) + self.right(right)}


@case
def dictionary_of_inputs() -> Case:
    inputs = {"left": randn(N, 3), "right": randn(N, 2)}
    return Dictionary().double(), lambda out, y: F.mse_loss(out["sum"], y), inputs, randn(N, 4)


@case
def weighted_classes() -> Case:
    model, _, x, _ = mlp()
    return (
        model,
        nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 5.0]).double()),
        x,
        torch.tensor([0, 1, 2, 0, 1]),
    )
