"""Models of every kind that per-sample gradients must be right for, each with a batch, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

N = 5
Case = tuple[nn.Module, Any, Any, Any]
CASES: dict[str, Callable[[], Case]] = {}


def case(build: Callable[[], Case]) -> Callable[[], Case]:
    CASES[build.__name__] = build
    return build


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(outputs, targets)


def sequential(x: Tensor, *layers: nn.Module) -> Case:
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        shape = model(x).shape
    return model, mse, x, torch.randn(shape, dtype=torch.float64)


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@case
def mlp() -> Case:
    return sequential(randn(N, 4), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


@case
def linear_on_sequences() -> Case:
    return sequential(randn(N, 7, 4), nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3, bias=False))


@case
def linear_on_two_axes() -> Case:
    return sequential(randn(N, 2, 3, 4), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


@case
def conv1d() -> Case:
    return sequential(randn(N, 3, 9), nn.Conv1d(3, 4, 3, stride=2, padding=1), nn.Tanh(), nn.Conv1d(4, 2, 1))


@case
def conv2d_strides_groups_dilation() -> Case:
    return sequential(
        randn(N, 4, 9, 8),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 3, 1, bias=False),
        nn.Flatten(),
        nn.LazyLinear(2),
    )


@case
def conv2d_padding_modes() -> Case:
    return sequential(
        randn(N, 2, 6, 7),
        nn.Conv2d(2, 3, 3, padding="same"),
        nn.Conv2d(3, 3, (3, 1), padding="same", dilation=2),
        nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(2, 2, 3, padding=(1, 2), padding_mode="reflect"),
        nn.Conv2d(2, 2, 3, padding="valid"),
    )


@case
def conv2d_pointwise() -> Case:
    return sequential(
        randn(N, 3, 4, 4),
        nn.Conv2d(3, 5, 1),
        nn.Tanh(),
        nn.Conv2d(5, 2, 1, stride=2),
        nn.Conv2d(2, 2, 1, groups=2),
    )


@case
def conv3d() -> Case:
    return sequential(
        randn(N, 2, 4, 5, 4), nn.Conv3d(2, 3, 2, padding=1), nn.Tanh(), nn.Conv3d(3, 2, 2, stride=2)
    )


@case
def depthwise() -> Case:
    return sequential(randn(N, 4, 5, 5), nn.Conv2d(4, 8, 3, groups=4), nn.Tanh(), nn.Conv2d(8, 2, 3))


@case
def transposed_convolutions() -> Case:
    return sequential(
        randn(N, 4, 5),
        nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.Unflatten(2, (2, 5)),
        nn.ConvTranspose2d(6, 2, 3, stride=2, dilation=2),
        nn.Unflatten(3, (1, 13)),
        nn.ConvTranspose3d(2, 1, 2),
    )


@case
def normalizations() -> Case:
    return sequential(
        randn(N, 6, 4, 3),
        nn.GroupNorm(3, 6),
        nn.Conv2d(6, 4, 2),
        nn.InstanceNorm2d(4, affine=True),
        nn.PReLU(),
        nn.LayerNorm([3, 2]),
        nn.PReLU(4),
        nn.RMSNorm([2]),
        nn.Flatten(),
        nn.Linear(24, 6),
        nn.GroupNorm(2, 6),
    )


@case
def batch_norm_in_eval_mode() -> Case:
    model, loss, x, y = sequential(
        randn(N, 3, 4, 4),
        nn.Conv2d(3, 4, 2),
        nn.BatchNorm2d(4),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Flatten(),
        nn.BatchNorm1d(36),
        nn.Linear(36, 2),
    )
    return model.eval(), loss, x, y


@case
def embedding_with_padding() -> Case:
    model = nn.Sequential(nn.Embedding(7, 4, padding_idx=2), nn.Linear(4, 3)).double()
    return model, mse, torch.randint(0, 7, (N, 6)), randn(N, 6, 3)


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


@pytest.fixture(params=sorted(CASES))
def any_case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    return CASES[request.param]()


@pytest.fixture
def reference() -> Callable[..., dict[str, Tensor]]:
    return reference_gradients


def reference_gradients(model: nn.Module, loss_fn: Any, inputs: Any, targets: Any) -> dict[str, Tensor]:
    """Per-sample gradients by their definition: one backward pass of the whole batch for each sample's term.

    The term is cut out with a mask on the gradient of the outputs, so dropout and weighted means are
    included.
    """
    args = ((), inputs) if isinstance(inputs, dict) else ((inputs,), {})
    outputs = model(*args[0], **args[1])
    out = outputs["sum"] if isinstance(outputs, dict) else outputs
    n = len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
    (cotangent,) = torch.autograd.grad(loss_fn(outputs, targets), out, retain_graph=True)
    scale = 1 if getattr(loss_fn, "reduction", "mean") == "sum" else n
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows: list[tuple[Tensor | None, ...]] = []
    for i in range(n):
        alone = torch.zeros_like(cotangent)
        mine = slice(i * len(out) // n, (i + 1) * len(out) // n)
        alone[mine] = cotangent[mine] * scale
        rows.append(
            torch.autograd.grad(out, list(named.values()), alone, retain_graph=True, allow_unused=True)
        )
    return {
        name: torch.stack([torch.zeros_like(p) if r[k] is None else r[k] for r in rows])  # type: ignore[misc]
        for k, (name, p) in enumerate(named.items())
    }
