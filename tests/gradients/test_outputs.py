"""Models that return several tensors, one computed from another, or their own loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noisekit.errors import InputError, UnsupportedModelError
from noisekit.gradients import GradientNoiseRecorder, gradient_statistics, noise_directions

N = 5
WEIGHTS = torch.tensor([1.0, 4.0, 2.0]).double()


class Everything(nn.Module):
    """Returns hidden state, logits and, with labels, the loss: an LSTM is replayed, a linear layer is not."""

    def __init__(self, *, recurrent: bool):
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True) if recurrent else nn.Linear(3, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        hidden = self.rnn(x)
        hidden = torch.tanh(hidden[0] if isinstance(hidden, tuple) else hidden)[:, -1]
        outputs = {"hidden": hidden, "logits": self.head(hidden)}
        if labels is not None:
            outputs["loss"] = F.cross_entropy(outputs["logits"], labels, WEIGHTS)
        return outputs


class PenaltyInside(Everything):
    """The loss has a term that no output shows."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        outputs = super().forward(x, labels)
        if "loss" in outputs:
            outputs["loss"] = outputs["loss"] + sum(p.square().sum() for p in self.rnn.parameters())
        return outputs


def outside(outputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs["logits"], labels, WEIGHTS)


def with_hidden(outputs: dict[str, Tensor], labels: Tensor) -> Tensor:
    return outside(outputs, labels) + outputs["hidden"].square().sum(1).mean()


def inside(outputs: dict[str, Tensor], _: Tensor) -> Tensor:
    return outputs["loss"]


def build(kind: type[Everything] = Everything, *, recurrent: bool) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    return kind(recurrent=recurrent).double(), torch.randn(N, 6, 3).double(), torch.randint(0, 3, (N,))


def truth(model: nn.Module, x: Tensor, y: Tensor, *, hidden: bool) -> Tensor:
    """N times the term of each sample, with the class weights of the whole batch in the mean."""
    rows = []
    for i in range(N):
        outputs = model(x[i : i + 1])
        loss = N * WEIGHTS[y[i]] / WEIGHTS[y].sum() * F.cross_entropy(outputs["logits"], y[i : i + 1])
        if hidden:
            loss = loss + outputs["hidden"].square().sum()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("loss_fn", [outside, with_hidden, inside])
def test_no_output_is_counted_twice(recurrent: bool, loss_fn: Any) -> None:
    model, x, y = build(recurrent=recurrent)
    rows = truth(model, x, y, hidden=loss_fn is with_hidden)
    inputs = {"x": x, "labels": y} if loss_fn is inside else {"x": x}
    for engine in ("hooks", "loop"):
        found = gradient_statistics(model, loss_fn, inputs, y, engine=engine)
        assert torch.allclose(found.squared_norms, rows.square().sum(1), rtol=1e-9)
    covariance = torch.cov(rows.T)
    values, directions = noise_directions(model, loss_fn, inputs, y, components=2)
    vectors = torch.cat([d.flatten(1) for d in directions.values()], 1)
    assert torch.allclose(covariance @ vectors.T, vectors.T * values, atol=1e-9 * float(values[0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientNoiseRecorder(model, loss_fn, optimizer) as recorder:
        loss_fn(model(**inputs), y).backward()
        optimizer.step()
    assert torch.allclose(recorder.result().squared_norm[0], rows.square().sum(1), rtol=1e-9)


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("engine", ["hooks", "loop"])
def test_a_loss_with_a_hidden_term_is_refused(recurrent: bool, engine: str) -> None:
    model, x, y = build(PenaltyInside, recurrent=recurrent)
    with pytest.raises(UnsupportedModelError, match="compute the loss outside the model"):
        gradient_statistics(model, inside, {"x": x, "labels": y}, y, engine=engine)


class CastsInside(nn.Module):
    """As accelerate does it: bf16 within the call of the model, float32 at its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layers(x).float()


def test_autocast_inside_the_model() -> None:
    torch.manual_seed(0)
    model, x, y = CastsInside(), torch.randn(16, 8), torch.randint(0, 3, (16,))
    expected = gradient_statistics(model.layers, nn.CrossEntropyLoss(), x, y)
    loss_fn = nn.CrossEntropyLoss()
    found = gradient_statistics(model, loss_fn, x, y)
    assert torch.allclose(found.squared_norms, expected.squared_norms, rtol=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientNoiseRecorder(model, loss_fn, optimizer) as recorder:
        loss_fn(model(x), y).backward()
        optimizer.step()
    assert torch.allclose(recorder.result().squared_norm[0], expected.squared_norms, rtol=0.1)


def penalty(model: nn.Module) -> Tensor:
    return torch.stack([p.square().sum() for p in model.parameters()]).sum()


def test_a_penalty_in_the_loss_function_is_refused() -> None:
    model, x, y = build(recurrent=False)
    with pytest.raises(InputError, match="leave it out of loss_fn"):
        gradient_statistics(model, lambda out, t: outside(out, t) + penalty(model), x, y)
